//! The frame: what travels on a connection. The format is `docs/formats/transport.md`.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest, checksum};
use onefold_types::limits::FRAME_BYTES_MAX;
use serde::Serialize;
use thiserror::Error;

use crate::MethodId;

/// The first bytes of every frame.
const MAGIC: [u8; 4] = *b"1FLD";
/// The version of the protocol that this build speaks.
pub(crate) const VERSION: u16 = 1;
/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 40;
/// Bytes of a header that its own checksum covers: all before it.
const HEADER_CHECKED_BYTES: usize = HEADER_BYTES - 4;
/// Most bytes of head and body together.
pub(crate) const PAYLOAD_BYTES_MAX: usize = FRAME_BYTES_MAX - HEADER_BYTES;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The first frame of each direction: who speaks.
    Hello = 1,
    /// In place of the listener's hello: why it will not talk.
    Refusal = 2,
    /// A message without an answer.
    OneWay = 3,
    /// A call.
    Request = 4,
    /// The answer of a handler.
    Response = 5,
    /// The error of a handler.
    Error = 6,
    /// The server did not start on the request.
    Overloaded = 7,
    /// Are you there?
    Ping = 8,
    /// Yes.
    Pong = 9,
    /// The caller of a request went away.
    Cancel = 10,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Hello,
        Self::Refusal,
        Self::OneWay,
        Self::Request,
        Self::Response,
        Self::Error,
        Self::Overloaded,
        Self::Ping,
        Self::Pong,
        Self::Cancel,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum DecodeError {
    #[error(
        "the bytes do not start a frame: the other side does not speak Onefold's peer protocol"
    )]
    Magic,
    #[error("the frame is of protocol version {0}, this build speaks version {VERSION}")]
    Version(u16),
    #[error("the header's checksum does not match: the bytes were damaged on the way")]
    HeaderChecksum,
    #[error("the payload's checksum does not match: the bytes were damaged on the way")]
    PayloadChecksum,
    #[error("frames of kind {0} do not exist")]
    Kind(u8),
    #[error("the frame announces {announced} bytes of payload, at most {max} are allowed here")]
    TooLarge { announced: u64, max: usize },
    #[error("the connection ended in the middle of a frame")]
    Truncated,
    #[error("a frame of kind {0:?} has no place here")]
    Unexpected(Kind),
    #[error("request {0} is still under way and cannot start again")]
    DuplicateRequest(u64),
    #[error("the hello does not decode")]
    Hello,
}

impl DecodeError {
    /// Every [`kind`](Self::kind).
    pub(crate) const KINDS: [&'static str; 8] = [
        "magic",
        "version",
        "header_checksum",
        "payload_checksum",
        "length",
        "truncated",
        "protocol",
        "hello",
    ];

    /// A short name of what is wrong, for metrics.
    pub(crate) const fn kind(&self) -> &'static str {
        Self::KINDS[match self {
            Self::Magic => 0,
            Self::Version(_) => 1,
            Self::HeaderChecksum => 2,
            Self::PayloadChecksum => 3,
            Self::TooLarge { .. } => 4,
            Self::Truncated => 5,
            Self::Kind(_) | Self::Unexpected(_) | Self::DuplicateRequest(_) => 6,
            Self::Hello => 7,
        }]
    }
}

/// A frame's head and body are together larger than [`PAYLOAD_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{bytes} bytes do not fit into one frame of at most {PAYLOAD_BYTES_MAX} bytes of payload")]
pub(crate) struct TooLarge {
    pub(crate) bytes: usize,
}

/// The fields of a header that its reader needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Which method a request, or which message a one-way is for; 0 in other kinds.
    pub(crate) method: MethodId,
    /// Which request of the connection this is or belongs to; 0 in other kinds.
    pub(crate) request: u64,
    /// How long the caller of a request still waits, in milliseconds; 0 in other kinds.
    pub(crate) timeout_ms: u32,
    head_length: u32,
    body_length: u32,
    payload_checksum: u32,
}

impl Header {
    pub(crate) const fn new(kind: Kind) -> Self {
        Self {
            kind,
            method: MethodId(0),
            request: 0,
            timeout_ms: 0,
            head_length: 0,
            body_length: 0,
            payload_checksum: 0,
        }
    }

    pub(crate) const fn method(mut self, method: MethodId) -> Self {
        self.method = method;
        self
    }

    pub(crate) const fn request(mut self, request: u64) -> Self {
        self.request = request;
        self
    }

    pub(crate) const fn timeout_ms(mut self, timeout_ms: u32) -> Self {
        self.timeout_ms = timeout_ms;
        self
    }

    /// Bytes of head and body that follow the header.
    pub(crate) fn payload_length(&self) -> usize {
        self.head_length as usize + self.body_length as usize
    }

    /// Bytes of the head, which comes before the body.
    pub(crate) fn head_length(&self) -> usize {
        self.head_length as usize
    }

    /// Parses a header, trusting nothing. At most `payload_max` bytes may follow it.
    pub(crate) fn decode(
        bytes: &[u8; HEADER_BYTES],
        payload_max: usize,
    ) -> Result<Self, DecodeError> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if bytes[..4] != MAGIC {
            return Err(DecodeError::Magic);
        }
        // Before the checksum: another version may keep its checksum elsewhere.
        let version = u16_at(4);
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        if u32_at(HEADER_CHECKED_BYTES) != crc32c(&bytes[..HEADER_CHECKED_BYTES]) {
            return Err(DecodeError::HeaderChecksum);
        }
        let header = Self {
            kind: Kind::from_byte(bytes[6]).ok_or(DecodeError::Kind(bytes[6]))?,
            method: MethodId(u16_at(8)),
            timeout_ms: u32_at(12),
            request: u64::from(u32_at(16)) | u64::from(u32_at(20)) << 32,
            head_length: u32_at(24),
            body_length: u32_at(28),
            payload_checksum: u32_at(32),
        };
        let announced = u64::from(header.head_length) + u64::from(header.body_length);
        if announced > payload_max as u64 {
            return Err(DecodeError::TooLarge { announced, max: payload_max });
        }
        Ok(header)
    }

    /// Checks the payload (head, then body) that came after the header.
    pub(crate) fn check_payload(&self, payload: &[u8]) -> Result<(), DecodeError> {
        assert_eq!(payload.len(), self.payload_length(), "the reader cut the payload wrongly");
        if self.payload_checksum == crc32c(payload) {
            Ok(())
        } else {
            Err(DecodeError::PayloadChecksum)
        }
    }

    fn encode(&self, into: &mut [u8]) {
        assert!(into.len() >= HEADER_BYTES, "room for the header was left in front of the head");
        into[..4].copy_from_slice(&MAGIC);
        into[4..6].copy_from_slice(&VERSION.to_le_bytes());
        into[6] = self.kind as u8;
        into[7] = 0;
        into[8..10].copy_from_slice(&self.method.0.to_le_bytes());
        into[10..12].fill(0);
        into[12..16].copy_from_slice(&self.timeout_ms.to_le_bytes());
        into[16..24].copy_from_slice(&self.request.to_le_bytes());
        into[24..28].copy_from_slice(&self.head_length.to_le_bytes());
        into[28..32].copy_from_slice(&self.body_length.to_le_bytes());
        into[32..36].copy_from_slice(&self.payload_checksum.to_le_bytes());
        let checksum = crc32c(&into[..HEADER_CHECKED_BYTES]);
        into[HEADER_CHECKED_BYTES..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// A frame ready to be written: the header with the head behind it, and the body as it was given.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) prefix: Bytes,
    pub(crate) body: Bytes,
}

impl Frame {
    /// A frame from a head that [`head_after_header`] made.
    pub(crate) fn seal(
        mut header: Header,
        mut head: Vec<u8>,
        body: Bytes,
    ) -> Result<Self, TooLarge> {
        let head_length = head.len() - HEADER_BYTES;
        let bytes = head_length + body.len();
        if bytes > PAYLOAD_BYTES_MAX {
            return Err(TooLarge { bytes });
        }
        // Neither cast can cut: both are below the bound just checked.
        header.head_length = head_length as u32;
        header.body_length = body.len() as u32;
        header.payload_checksum = crc32c_pair(&head[HEADER_BYTES..], &body);
        header.encode(&mut head);
        Ok(Self { prefix: head.into(), body })
    }

    /// A frame without a payload.
    pub(crate) fn bare(header: Header) -> Self {
        let mut prefix = vec![0; HEADER_BYTES];
        header.encode(&mut prefix);
        Self { prefix: prefix.into(), body: Bytes::new() }
    }

    /// Bytes on the wire.
    pub(crate) fn len(&self) -> usize {
        self.prefix.len() + self.body.len()
    }
}

/// Serializes a head behind the room that the header will take, so that both leave in one slice.
pub(crate) fn head_after_header<T: Serialize>(head: &T) -> Result<Vec<u8>, postcard::Error> {
    let mut bytes = Vec::with_capacity(128);
    bytes.resize(HEADER_BYTES, 0);
    postcard::to_extend(head, bytes)
}

/// An empty head behind the room that the header will take.
pub(crate) fn empty_head() -> Vec<u8> {
    vec![0; HEADER_BYTES]
}

fn crc32c(bytes: &[u8]) -> u32 {
    // The algorithm is 32 bits wide; the crate returns all widths as u64.
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

fn crc32c_pair(first: &[u8], second: &[u8]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(first);
    digest.update(second);
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(bytes: &[u8]) -> Result<Header, DecodeError> {
        let header = bytes.first_chunk().ok_or(DecodeError::Truncated)?;
        Header::decode(header, PAYLOAD_BYTES_MAX)
    }

    /// A frame's bytes, as the socket carries them.
    fn wire(frame: &Frame) -> Vec<u8> {
        [frame.prefix.as_ref(), &frame.body].concat()
    }

    fn any_kind() -> impl Strategy<Value = Kind> {
        prop::sample::select(Kind::ALL.as_slice())
    }

    fn any_frame() -> impl Strategy<Value = (Header, Frame)> {
        let payload = || prop::collection::vec(any::<u8>(), 0..200);
        let numbers = (any::<u16>(), any::<u64>(), any::<u32>());
        (any_kind(), numbers, payload(), payload()).prop_map(|(kind, numbers, head, body)| {
            let (method, request, timeout_ms) = numbers;
            let header =
                Header::new(kind).method(MethodId(method)).request(request).timeout_ms(timeout_ms);
            let head = [empty_head(), head].concat();
            let frame = Frame::seal(header, head, body.into()).expect("small enough");
            (header, frame)
        })
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let header = Header::new(Kind::Request)
            .method(MethodId(0x0807))
            .request(0x1817_1615_1413_1211)
            .timeout_ms(0x0F0E_0D0C);
        let head = [empty_head(), b"head".to_vec()].concat();
        let frame = Frame::seal(header, head, Bytes::from_static(b"12345")).expect("small enough");
        let bytes = wire(&frame);
        assert_eq!(bytes.len(), frame.len());
        assert_eq!(bytes[..4], *b"1FLD");
        assert_eq!(bytes[4..8], [1, 0, 4, 0], "version, kind, reserved");
        assert_eq!(bytes[8..12], [0x07, 0x08, 0, 0], "method, reserved");
        assert_eq!(bytes[12..16], [0x0C, 0x0D, 0x0E, 0x0F], "milliseconds left");
        assert_eq!(bytes[16..24], [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18], "request");
        assert_eq!(bytes[24..32], [4, 0, 0, 0, 5, 0, 0, 0], "lengths");
        assert_eq!(bytes[32..36], crc32c(b"head12345").to_le_bytes());
        assert_eq!(bytes[36..40], crc32c(&bytes[..36]).to_le_bytes());
        assert_eq!(bytes[40..], *b"head12345");
    }

    #[test]
    fn the_checksum_is_crc32c() {
        // The check value of CRC-32/ISCSI in the catalogue of parametrised CRC algorithms.
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c_pair(b"1234", b"56789"), 0xE306_9283);
    }

    #[test]
    fn a_payload_may_fill_a_frame_but_not_more() {
        let header = Header::new(Kind::Response);
        let full = Frame::seal(header, empty_head(), vec![0; PAYLOAD_BYTES_MAX].into());
        assert_eq!(full.map(|frame| frame.len()), Ok(FRAME_BYTES_MAX));
        let bytes = PAYLOAD_BYTES_MAX + 1;
        let over = Frame::seal(header, empty_head(), vec![0; bytes].into());
        assert_eq!(over.err(), Some(TooLarge { bytes }));
    }

    #[test]
    fn the_version_is_told_whatever_the_rest_says() {
        let mut bytes = wire(&Frame::bare(Header::new(Kind::Hello)));
        bytes[4] = 2;
        assert_eq!(decode(&bytes), Err(DecodeError::Version(2)));
    }

    proptest! {
        #[test]
        fn what_was_sealed_decodes((header, frame) in any_frame()) {
            let bytes = wire(&frame);
            let decoded = decode(&bytes).expect("it was just sealed");
            prop_assert_eq!(decoded.kind, header.kind);
            prop_assert_eq!(decoded.method, header.method);
            prop_assert_eq!(decoded.request, header.request);
            prop_assert_eq!(decoded.timeout_ms, header.timeout_ms);
            prop_assert_eq!(decoded.payload_length(), bytes.len() - HEADER_BYTES);
            prop_assert_eq!(decoded.head_length(), frame.prefix.len() - HEADER_BYTES);
            prop_assert_eq!(decoded.check_payload(&bytes[HEADER_BYTES..]), Ok(()));
        }

        #[test]
        fn a_flipped_bit_anywhere_is_noticed(
            (_, frame) in any_frame(),
            at in any::<prop::sample::Index>(),
            bit in 0..8,
        ) {
            let mut bytes = wire(&frame);
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            match decode(&bytes) {
                Err(_) => prop_assert!(at < HEADER_BYTES),
                Ok(header) => prop_assert_eq!(
                    header.check_payload(&bytes[HEADER_BYTES..]),
                    Err(DecodeError::PayloadChecksum)
                ),
            }
        }

        #[test]
        fn random_bytes_are_no_header(bytes in prop::array::uniform32(any::<u8>())) {
            let mut header = [0; HEADER_BYTES];
            header[..32].copy_from_slice(&bytes);
            prop_assert!(Header::decode(&header, PAYLOAD_BYTES_MAX).is_err());
            // Nor with the beginning of one.
            header[..4].copy_from_slice(&MAGIC);
            header[4..6].copy_from_slice(&VERSION.to_le_bytes());
            prop_assert!(Header::decode(&header, PAYLOAD_BYTES_MAX).is_err());
        }
    }
}
