//! Frames out of a byte stream, each checked before a byte of it is believed.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{Activity, End};
use crate::TransportStatus;
use crate::frame::{DecodeError, HEADER_BYTES, Header};

/// Bytes that a read asks for when no large frame is under way.
const READ_BYTES: usize = 64 << 10;
/// Bytes of a large frame that are made room for before any of it came. Beyond that there is never
/// more room than as much again as came already: an announced length costs nothing by itself.
const ANNOUNCED_BYTES_MAX: usize = 1 << 20;
/// Free room below which the buffer is renewed instead of being filled up by tiny reads.
const READ_ROOM_MIN: usize = 4 << 10;

/// Reads frames. A payload is handed out as slices of the buffer that the socket was read into.
pub(crate) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    payload_max: usize,
    activity: Arc<Activity>,
    status: Arc<TransportStatus>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(
        stream: R,
        payload_max: usize,
        activity: Arc<Activity>,
        status: Arc<TransportStatus>,
    ) -> Self {
        Self { stream, buffer: BytesMut::new(), payload_max, activity, status }
    }

    /// From now on, accepts frames with at most `payload_max` bytes of payload.
    pub(crate) fn set_payload_max(&mut self, payload_max: usize) {
        self.payload_max = payload_max;
    }

    /// The next frame's header. Its payload must be taken or skipped before the next call.
    pub(crate) async fn header(&mut self) -> Result<Header, End> {
        while self.buffer.len() < HEADER_BYTES {
            let between_frames = self.buffer.is_empty();
            if self.read(HEADER_BYTES).await? == 0 {
                return Err(if between_frames {
                    End::Closed
                } else {
                    DecodeError::Truncated.into()
                });
            }
        }
        let bytes = self.buffer.first_chunk().expect("the loop waited for a whole header");
        let header = Header::decode(bytes, self.payload_max)?;
        self.buffer.advance(HEADER_BYTES);
        self.status.frames_received_total.increment();
        Ok(header)
    }

    /// The head and the body that follow a header.
    pub(crate) async fn payload(&mut self, header: &Header) -> Result<(Bytes, Bytes), End> {
        let length = header.payload_length();
        while self.buffer.len() < length {
            if self.read(length).await? == 0 {
                return Err(DecodeError::Truncated.into());
            }
        }
        let mut body = self.buffer.split_to(length).freeze();
        header.check_payload(&body)?;
        let head = body.split_to(header.head_length());
        Ok((head, body))
    }

    /// Passes over the payload that follows a header without holding it in memory.
    pub(crate) async fn skip(&mut self, header: &Header) -> Result<(), End> {
        let mut left = header.payload_length();
        loop {
            let here = left.min(self.buffer.len());
            self.buffer.advance(here);
            left -= here;
            if left == 0 {
                return Ok(());
            }
            if self.read(1).await? == 0 {
                return Err(DecodeError::Truncated.into());
            }
        }
    }

    /// Reads to the end and keeps nothing.
    pub(crate) async fn drain(&mut self) -> Result<(), End> {
        loop {
            self.buffer.clear();
            if self.read(1).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Reads once, after making sure that the buffer can grow towards `length` bytes.
    async fn read(&mut self, length: usize) -> Result<usize, End> {
        let missing = length.saturating_sub(self.buffer.len());
        let room = self.buffer.capacity() - self.buffer.len();
        if room < missing.max(READ_ROOM_MIN) {
            let believed_bytes = self.buffer.len().max(ANNOUNCED_BYTES_MAX);
            self.buffer.reserve(missing.min(believed_bytes).max(READ_BYTES));
        }
        let count = self.stream.read_buf(&mut self.buffer).await?;
        self.activity.received(count);
        self.status.bytes_received_total.add(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use proptest::prelude::*;

    use super::*;
    use crate::frame::{Frame, Kind, PAYLOAD_BYTES_MAX, empty_head};

    fn reader(bytes: &[u8]) -> FrameReader<&[u8]> {
        FrameReader::new(bytes, PAYLOAD_BYTES_MAX, Arc::default(), Arc::default())
    }

    fn frame(head: &[u8], body: &[u8]) -> Vec<u8> {
        let head = [empty_head(), head.to_vec()].concat();
        let body = Bytes::copy_from_slice(body);
        let frame = Frame::seal(Header::new(Kind::Response), head, body).expect("small enough");
        [frame.prefix.as_ref(), &frame.body].concat()
    }

    #[test]
    fn payloads_and_skipped_payloads_may_alternate() {
        let large = vec![7; 3 * READ_BYTES];
        let bytes = [frame(b"a", b"1"), frame(b"b", &large), frame(b"c", &large)].concat();
        let mut reader = reader(&bytes);
        block_on(async {
            let header = reader.header().await.expect("the first frame");
            reader.skip(&header).await.expect("its payload");
            let header = reader.header().await.expect("the second frame");
            let (head, body) = reader.payload(&header).await.expect("its payload");
            assert_eq!(head, b"b"[..]);
            assert_eq!(body, large);
            let header = reader.header().await.expect("the third frame");
            reader.skip(&header).await.expect("its payload");
            assert!(matches!(reader.header().await, Err(End::Closed)));
        });
    }

    #[test]
    fn a_length_that_is_only_announced_takes_no_memory() {
        let mut bytes = frame(b"", &vec![7; PAYLOAD_BYTES_MAX]);
        bytes.truncate(HEADER_BYTES + 100);
        let mut reader = reader(&bytes);
        block_on(async {
            let header = reader.header().await.expect("the header is whole");
            assert_eq!(header.payload_length(), PAYLOAD_BYTES_MAX);
            let payload = reader.payload(&header).await;
            assert!(matches!(payload, Err(End::Malformed(DecodeError::Truncated))));
        });
        assert!(reader.buffer.capacity() <= 2 * ANNOUNCED_BYTES_MAX);
    }

    #[test]
    fn head_and_body_are_slices_of_one_read() {
        let bytes = frame(b"head", b"body");
        let mut reader = reader(&bytes);
        let (head, body) = block_on(async {
            let header = reader.header().await.expect("a frame");
            reader.payload(&header).await.expect("its payload")
        });
        assert_eq!(head.as_ptr().wrapping_add(head.len()), body.as_ptr(), "not copied apart");
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_error_and_nothing_else(
            prefix in prop::collection::vec((0..40_usize, 0..40_usize), 0..4),
            noise in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let whole = prefix.len();
            let mut bytes = Vec::new();
            for (head, body) in prefix {
                bytes.extend(frame(&vec![1; head], &vec![2; body]));
            }
            bytes.extend(&noise);
            let mut reader = reader(&bytes);
            let (frames, end) = block_on(async {
                let mut frames = 0;
                loop {
                    match reader.header().await {
                        Err(end) => return (frames, end),
                        Ok(header) => match reader.payload(&header).await {
                            Err(end) => return (frames, end),
                            Ok(_) => frames += 1,
                        },
                    }
                }
            });
            prop_assert_eq!(frames, whole);
            prop_assert_eq!(matches!(end, End::Closed), noise.is_empty());
        }
    }
}
