//! gRPC messages as they stand in the body of a call.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use tonic::Status;
use tonic::body::Body;

/// Bytes in front of each message: whether it is compressed, and its length.
const HEADER_BYTES: usize = 5;

/// A message behind its header.
pub(crate) fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("messages are bounded far below 4 GiB"));
    frame.put_slice(message);
    frame.freeze()
}

/// The messages of an answer, one after the other.
pub(crate) struct Messages {
    body: Body,
    read: BytesMut,
    status: Option<Status>,
}

impl Messages {
    /// The messages in `body`; `status` is what the headers of the answer said already.
    pub(crate) fn new(body: Body, status: Option<Status>) -> Self {
        Self { body, read: BytesMut::new(), status }
    }

    /// Why the call was refused before any message, if it was.
    pub(crate) fn refusal(&mut self) -> Option<Status> {
        self.status.take_if(|status| status.code() != tonic::Code::Ok)
    }

    /// The next message, or nothing after the last one.
    ///
    /// # Errors
    /// The status with which the call ended, unless it is `Ok`.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.take() {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.read.extend_from_slice(&data),
                    Err(frame) => {
                        if let Some(trailers) = frame.trailers_ref() {
                            self.status = Status::from_header_map(trailers);
                        }
                    }
                },
                Some(Err(status)) => return Err(status),
                None => {
                    return match self.status.take() {
                        Some(status) if status.code() != tonic::Code::Ok => Err(status),
                        _ => Ok(None),
                    };
                }
            }
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        let header = self.read.get(1..HEADER_BYTES)?;
        let length = u32::from_be_bytes(header.try_into().ok()?) as usize;
        if self.read.len() < HEADER_BYTES + length {
            return None;
        }
        self.read.advance(HEADER_BYTES);
        Some(self.read.split_to(length).freeze())
    }
}
