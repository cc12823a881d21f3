//! The body of an answer: a stream of a file's pieces that knows its length.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use onefold_files::{ByteStream, FilesError};
use s3s::StdError;
use s3s::stream::{ByteStream as SizedStream, RemainingLength};

use crate::admission::Place;

/// A range of a file on its way out. It ends with an error, never early: the client sees the
/// connection break instead of taking a part for the whole.
pub(super) struct Download {
    /// Received before the headers were sent, so that both leave together.
    first: Option<Bytes>,
    /// Never contended: the mutex only makes the stream shareable, which the answer's type wants.
    rest: Mutex<ByteStream>,
    left: u64,
    _place: Place,
}

impl Download {
    /// Starts the range of `length` bytes and waits for its first piece.
    pub(super) async fn start(
        mut stream: ByteStream,
        length: u64,
        place: Place,
    ) -> Result<Self, FilesError> {
        let first = stream.next().await.transpose()?;
        Ok(Self { first, rest: Mutex::new(stream), left: length, _place: place })
    }
}

impl Stream for Download {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = match self.first.take() {
            Some(first) => Some(Ok(first)),
            None => {
                let rest = self.rest.get_mut().unwrap_or_else(PoisonError::into_inner);
                std::task::ready!(rest.poll_next_unpin(context))
            }
        };
        Poll::Ready(match piece {
            Some(Ok(bytes)) => {
                self.left = self.left.saturating_sub(bytes.len() as u64);
                Some(Ok(bytes))
            }
            Some(Err(error)) => {
                tracing::warn!(%error, left = self.left, "a download broke off");
                Some(Err(Box::new(error)))
            }
            None if self.left > 0 => {
                self.left = 0;
                Some(Err("the file ended before its length".into()))
            }
            None => None,
        })
    }
}

impl SizedStream for Download {
    fn remaining_length(&self) -> RemainingLength {
        usize::try_from(self.left)
            .map_or_else(|_| RemainingLength::unknown(), RemainingLength::new_exact)
    }
}
