//! From a request's body to a writer: in pieces, verified, with the next piece received while the
//! last one is stored.

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use onefold_files::FileWriter;
use s3s::dto::StreamingBlob;
use s3s::{S3Result, TrailingHeaders};

use crate::checksums::{Algorithm, Announced, Hasher, bad_digest, encode};
use crate::errors;

/// Bytes of one write to storage; two pieces are in memory at a time.
const PIECE_BYTES: usize = 1 << 20;

/// A body and what it is said to be.
pub(crate) struct Ingest {
    pub(crate) body: StreamingBlob,
    /// Bytes, without any framing.
    pub(crate) length: u64,
    pub(crate) checksum: Announced,
    pub(crate) trailers: Option<TrailingHeaders>,
}

impl Ingest {
    /// Writes the body, and answers the writer, still to be finished, with the checksum that the
    /// bytes have. After an error, and when this future is dropped because
    /// the client is gone, the writer is dropped, and nothing will be visible.
    pub(crate) async fn store(
        self,
        mut writer: Box<dyn FileWriter>,
    ) -> S3Result<(Box<dyn FileWriter>, (Algorithm, String))> {
        let mut hasher = Hasher::new(self.checksum.algorithm);
        let mut pieces = Pieces { body: self.body, left: self.length, is_ended: false };
        let mut current = pieces.next().await?;
        while let Some(piece) = current {
            let write = async {
                let written = writer.write(piece.clone()).await;
                written.map_err(|error| errors::from_files(&error))
            };
            let hash = hasher.update_large(piece.clone());
            let (_, next, hashed) = tokio::try_join!(write, pieces.next(), hash)?;
            (current, hasher) = (next, hashed);
        }
        if pieces.left != 0 {
            return Err(errors::incomplete_body());
        }
        let trailers = self.trailers.and_then(|trailers| trailers.take());
        let expected = self.checksum.resolve(trailers.as_ref())?;
        let actual = hasher.finish();
        if expected.is_some_and(|expected| actual != expected) {
            return Err(bad_digest(self.checksum.algorithm));
        }
        Ok((writer, (self.checksum.algorithm, encode(&actual))))
    }
}

/// The body in pieces of [`PIECE_BYTES`], the last one shorter.
struct Pieces {
    body: StreamingBlob,
    /// Announced bytes that did not arrive yet.
    left: u64,
    is_ended: bool,
}

impl Pieces {
    /// The next piece. `None` only after the body's end, which is where its verification ends.
    async fn next(&mut self) -> S3Result<Option<Bytes>> {
        let mut piece = BytesMut::new();
        while !self.is_ended && piece.len() < PIECE_BYTES {
            match self.body.next().await {
                None => self.is_ended = true,
                Some(Err(error)) => return Err(errors::from_body(&error)),
                Some(Ok(bytes)) => {
                    let left = self.left.checked_sub(bytes.len() as u64);
                    self.left = left.ok_or_else(errors::incomplete_body)?;
                    if piece.is_empty() && bytes.len() >= PIECE_BYTES {
                        return Ok(Some(bytes));
                    }
                    let room = (piece.len() + bytes.len()).max(self.first_capacity(&bytes));
                    piece.reserve(room - piece.len());
                    piece.extend_from_slice(&bytes);
                }
            }
        }
        Ok((!piece.is_empty()).then(|| piece.freeze()))
    }

    /// Room for a whole piece at once, or for as much as will come.
    fn first_capacity(&self, bytes: &Bytes) -> usize {
        let coming = self.left.saturating_add(bytes.len() as u64);
        usize::try_from(coming).unwrap_or(PIECE_BYTES).min(PIECE_BYTES)
    }
}
