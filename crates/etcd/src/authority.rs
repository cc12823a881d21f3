//! Clients that send a whole URL as the `:authority` of their calls.
//!
//! The Go client of etcd up to 3.4 names `http://host:port` there for an endpoint that it was given
//! as a URL. That is no authority ([RFC 9113, section 8.3.1](https://www.rfc-editor.org/rfc/rfc9113#section-8.3.1)),
//! and HTTP/2 libraries reset the stream for it; etcd's own does not look. Nothing here uses the
//! authority, so the connection's reader makes it well-formed before the library sees it: in the
//! header blocks of HEADERS frames, `http://` at the beginning of the field becomes `httpB44`, which
//! in HPACK's Huffman code ([RFC 7541, appendix B](https://www.rfc-editor.org/rfc/rfc7541#appendix-B))
//! differs in three bits and has the same length. So no length and no table of either side changes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

/// What an HTTP/2 client sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const FRAME_HEADER_BYTES: usize = 9;
const HEADERS: u8 = 1;

/// The field's name as HPACK writes it before a literal value: indexed incrementally, not, or never.
const AUTHORITY: [u8; 3] = [0x41, 0x01, 0x11];
/// The bit of a string's first length byte that says that it is Huffman-coded.
const HUFFMAN: u8 = 0x80;
/// The whole bytes of `http://` in that code; the 41st bit is 0 in both.
const URL: [u8; 5] = [0x9d, 0x29, 0xae, 0xe3, 0x0c];
/// Those of `httpB44`.
const HOST: [u8; 5] = [0x9d, 0x29, 0xae, 0xeb, 0x4d];
/// Name, length and value's beginning.
const PATTERN_BYTES: usize = 2 + URL.len();

/// Follows the frames that a client sends, and repairs the authority in them.
#[derive(Debug)]
pub(crate) struct AuthorityRepair {
    place: Place,
    /// Bytes at the end of what was read that may be the beginning of an authority.
    held: Vec<u8>,
}

#[derive(Debug)]
enum Place {
    /// So many bytes of the preface were seen.
    Preface(usize),
    FrameHeader([u8; FRAME_HEADER_BYTES], usize),
    Payload {
        left: usize,
        is_headers: bool,
    },
    /// It does not speak HTTP/2.
    Foreign,
}

/// Reads from a connection what the client should have sent.
pub(crate) fn poll_read<S: AsyncRead + Unpin>(
    stream: &mut S,
    repair: &mut AuthorityRepair,
    context: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let begin = buffer.filled().len();
    loop {
        if repair.is_over() {
            return Pin::new(&mut *stream).poll_read(context, buffer);
        }
        if buffer.remaining() <= repair.held().len() {
            // A reader that takes so little at a time gets it as it is.
            buffer.put_slice(&repair.release(buffer.remaining()));
            return Poll::Ready(Ok(()));
        }
        let may_hold = buffer.remaining() > PATTERN_BYTES;
        buffer.put_slice(repair.held());
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut *stream).poll_read(context, buffer);
        if !matches!(outcome, Poll::Ready(Ok(()))) {
            buffer.set_filled(begin);
            return outcome;
        }
        if buffer.filled().len() == before {
            // The end: what was held is all there is.
            repair.release(usize::MAX);
            return Poll::Ready(Ok(()));
        }
        let held = repair.repair(&mut buffer.filled_mut()[begin..], may_hold);
        buffer.set_filled(buffer.filled().len() - held);
        if buffer.filled().len() > begin {
            return Poll::Ready(Ok(()));
        }
    }
}

enum Match {
    No,
    Partly,
    Whole,
}

impl AuthorityRepair {
    /// At the beginning of a connection.
    pub(crate) fn new() -> Self {
        Self { place: Place::Preface(0), held: Vec::new() }
    }

    /// Whether the rest of the connection is none of its business.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.place, Place::Foreign) && self.held.is_empty()
    }

    /// What must come before the bytes that are read next, as [`repair`](Self::repair) asked.
    pub(crate) fn held(&self) -> &[u8] {
        &self.held
    }

    /// Takes as many of the held bytes as fit into `room`, when nothing follows them.
    pub(crate) fn release(&mut self, room: usize) -> Vec<u8> {
        // Whatever they were the beginning of, its end is not repaired.
        self.place = Place::Foreign;
        let rest = self.held.split_off(room.min(self.held.len()));
        std::mem::replace(&mut self.held, rest)
    }

    /// Repairs what was read, the held bytes included. Answers how many bytes at the end must be
    /// held back and come again in front of the next ones; with `may_hold` unset that is none.
    pub(crate) fn repair(&mut self, bytes: &mut [u8], may_hold: bool) -> usize {
        self.held.clear();
        let mut at = 0;
        while at < bytes.len() {
            let rest = &mut bytes[at..];
            match &mut self.place {
                Place::Foreign => return 0,
                Place::Preface(seen) => {
                    let count = rest.len().min(PREFACE.len() - *seen);
                    if rest[..count] != PREFACE[*seen..*seen + count] {
                        self.place = Place::Foreign;
                        return 0;
                    }
                    *seen += count;
                    at += count;
                    if *seen == PREFACE.len() {
                        self.place = Place::FrameHeader([0; FRAME_HEADER_BYTES], 0);
                    }
                }
                Place::FrameHeader(header, seen) => {
                    let count = rest.len().min(FRAME_HEADER_BYTES - *seen);
                    header[*seen..*seen + count].copy_from_slice(&rest[..count]);
                    *seen += count;
                    at += count;
                    if *seen == FRAME_HEADER_BYTES {
                        let left = u32::from_be_bytes([0, header[0], header[1], header[2]]);
                        let is_headers = header[3] == HEADERS;
                        self.place = Place::Payload { left: left as usize, is_headers };
                    }
                    self.end_payload();
                }
                Place::Payload { left, is_headers } => {
                    let count = rest.len().min(*left);
                    let is_cut = count < *left;
                    let payload = &mut rest[..count];
                    let held =
                        if *is_headers { repair_block(payload, is_cut && may_hold) } else { 0 };
                    *left -= count - held;
                    if held > 0 {
                        self.held.extend_from_slice(&payload[count - held..]);
                        return held;
                    }
                    at += count;
                    self.end_payload();
                }
            }
        }
        0
    }

    fn end_payload(&mut self) {
        if matches!(self.place, Place::Payload { left: 0, .. }) {
            self.place = Place::FrameHeader([0; FRAME_HEADER_BYTES], 0);
        }
    }
}

/// Repairs a part of a header block; answers how many bytes at its end could be the beginning of
/// what must be repaired, if it goes on.
fn repair_block(block: &mut [u8], goes_on: bool) -> usize {
    for at in 0..block.len() {
        match look(&block[at..]) {
            Match::No => {}
            Match::Partly if goes_on => return block.len() - at,
            Match::Partly => {}
            Match::Whole => block[at + 2..at + PATTERN_BYTES].copy_from_slice(&HOST),
        }
    }
    0
}

fn look(bytes: &[u8]) -> Match {
    let fits = bytes.iter().take(PATTERN_BYTES).enumerate().all(|(place, byte)| match place {
        0 => AUTHORITY.contains(byte),
        1 => byte & HUFFMAN != 0,
        _ => *byte == URL[place - 2],
    });
    match fits {
        false => Match::No,
        true if bytes.len() < PATTERN_BYTES => Match::Partly,
        true => Match::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `:authority: http://1`, then something else: what Go's client sends, in short.
    const BLOCK: [u8; 10] = [0x83, 0x41, 0x86, 0x9d, 0x29, 0xae, 0xe3, 0x0c, 0x07, 0x86];
    const REPAIRED: [u8; 10] = [0x83, 0x41, 0x86, 0x9d, 0x29, 0xae, 0xeb, 0x4d, 0x07, 0x86];

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, 0, payload.len() as u8, kind, 4, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    fn stream(headers: &[u8]) -> Vec<u8> {
        // The same bytes as data are nobody's header.
        [
            PREFACE,
            &frame(4, &[]),
            &frame(HEADERS, headers),
            &frame(0, &BLOCK),
            &frame(HEADERS, headers),
        ]
        .concat()
    }

    /// What comes out when the bytes arrive in pieces of this size.
    fn repaired(bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut repair = AuthorityRepair::new();
        let mut out = Vec::new();
        for piece in bytes.chunks(piece) {
            let mut read = [repair.held(), piece].concat();
            let held = repair.repair(&mut read, true);
            out.extend_from_slice(&read[..read.len() - held]);
        }
        let room = repair.held().len();
        out.extend(repair.release(room));
        out
    }

    #[test]
    fn a_url_becomes_a_host_in_headers_and_nowhere_else_however_it_arrives() {
        let bytes = stream(&BLOCK);
        for piece in 1..=bytes.len() {
            assert_eq!(repaired(&bytes, piece), stream(&REPAIRED), "in pieces of {piece}");
        }
    }

    #[test]
    fn other_authorities_and_other_protocols_pass_as_they_are() {
        let host = [0x41, 0x86, 0x9d, 0x29, 0xae, 0xe2, 0x0c, 0x07];
        let half = [0x82, 0x41, 0x86, 0x9d, 0x29];
        let http1 = [b"GET /health HTTP/1.1\r\n\r\n".as_slice(), &stream(&BLOCK)].concat();
        for bytes in [stream(&host), stream(&half), http1] {
            for piece in [1, 3, 7, bytes.len()] {
                assert_eq!(repaired(&bytes, piece), bytes);
            }
        }
    }

    #[tokio::test]
    async fn a_reader_sees_the_repaired_bytes_and_the_end() {
        struct Reader<S>(S, AuthorityRepair);
        impl<S: AsyncRead + Unpin> AsyncRead for Reader<S> {
            fn poll_read(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                let Self(stream, repair) = &mut *self;
                poll_read(stream, repair, context, buffer)
            }
        }
        let bytes = stream(&BLOCK);
        let cut = &bytes[..bytes.len() - 6];
        for end in [&bytes[..], cut] {
            for piece in 1..20 {
                let mut script = pieces(piece, end);
                let mut reader = Reader(&mut script, AuthorityRepair::new());
                let mut read = Vec::new();
                tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut read).await.expect("memory");
                assert_eq!(read.len(), end.len());
                assert_eq!(read[..cut.len() - 1], stream(&REPAIRED)[..cut.len() - 1]);
            }
        }
    }

    /// A stream of pieces of this size.
    fn pieces(piece: usize, bytes: &[u8]) -> impl AsyncRead + Unpin {
        let pieces: Vec<_> = bytes
            .chunks(piece)
            .map(|it| io::Result::Ok(bytes::Bytes::copy_from_slice(it)))
            .collect();
        tokio_util::io::StreamReader::new(futures::stream::iter(pieces))
    }

    #[test]
    fn what_cannot_be_held_passes_as_it_is() {
        let bytes = [PREFACE, &frame(HEADERS, &BLOCK)].concat();
        let mut repair = AuthorityRepair::new();
        let mut first = bytes[..bytes.len() - 5].to_vec();
        assert_eq!(repair.repair(&mut first, false), 0);
        assert!(repair.held().is_empty() && !repair.is_over());
    }
}
