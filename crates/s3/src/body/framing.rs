//! The framing of `aws-chunked` bodies, kept within bounds of memory.
//!
//! The library beneath decodes chunks and verifies their signatures, and holds each chunk as a whole
//! meanwhile; clients may send a body of 5 GiB as one. So unsigned chunks are cut into smaller ones
//! here, which changes nothing about the bytes, and oversized signed ones are refused.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use s3s::S3ErrorCode;

use super::Fault;

/// Most bytes in a signed chunk. Clients use 64 KiB to 1 MiB.
pub(crate) const SIGNED_CHUNK_BYTES_MAX: u64 = 8 << 20;

/// Longest chunk header line.
const HEADER_BYTES_MAX: usize = 256;

/// Where in the framing the stream is.
#[derive(Debug)]
enum State {
    /// In a chunk's header line.
    Header,
    /// In a chunk's data; `is_cut` when each piece becomes a chunk of its own.
    Data { left: u64, is_cut: bool },
    /// In the line end behind the data.
    DataEnd { left: u8, is_cut: bool },
    /// Behind the last chunk: trailers.
    Trailers,
}

/// Follows the framing of one body.
#[derive(Debug)]
pub(crate) struct Framing {
    state: State,
    header: Vec<u8>,
}

impl Framing {
    pub(crate) fn new() -> Self {
        Self { state: State::Header, header: Vec::new() }
    }

    /// Takes received bytes and puts out what to pass on.
    pub(crate) fn push(
        &mut self,
        mut bytes: Bytes,
        output: &mut VecDeque<Bytes>,
    ) -> Result<(), Fault> {
        while !bytes.is_empty() {
            match self.state {
                State::Header => self.header(&mut bytes, output)?,
                State::Data { left, is_cut } => {
                    let taken = left.min(bytes.len() as u64);
                    let data = bytes.split_to(taken as usize);
                    if is_cut {
                        output.push_back(Bytes::from(format!("{taken:x}\r\n")));
                        output.push_back(data);
                        output.push_back(Bytes::from_static(b"\r\n"));
                    } else {
                        output.push_back(data);
                    }
                    self.state = if taken == left {
                        State::DataEnd { left: 2, is_cut }
                    } else {
                        State::Data { left: left - taken, is_cut }
                    };
                }
                State::DataEnd { left, is_cut } => {
                    let expected = if left == 2 { b'\r' } else { b'\n' };
                    if bytes[0] != expected {
                        return Err(malformed("a chunk is not followed by a line end"));
                    }
                    bytes.advance(1);
                    if !is_cut && left == 1 {
                        output.push_back(Bytes::from_static(b"\r\n"));
                    }
                    self.state = match left {
                        1 => State::Header,
                        _ => State::DataEnd { left: left - 1, is_cut },
                    };
                }
                State::Trailers => output.push_back(bytes.split_off(0)),
            }
            if matches!(self.state, State::Trailers) && !bytes.is_empty() {
                output.push_back(std::mem::take(&mut bytes));
            }
        }
        Ok(())
    }

    fn header(&mut self, bytes: &mut Bytes, output: &mut VecDeque<Bytes>) -> Result<(), Fault> {
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let taken = bytes.split_to(end.map_or(bytes.len(), |end| end + 1));
        if self.header.len() + taken.len() > HEADER_BYTES_MAX {
            return Err(malformed("a chunk header is too long"));
        }
        self.header.extend_from_slice(&taken);
        if end.is_none() {
            return Ok(());
        }
        let header = Bytes::from(std::mem::take(&mut self.header));
        let size = chunk_size(&header).ok_or_else(|| malformed("a chunk header has no size"))?;
        let is_cut = size > 0 && !header.contains(&b';');
        if !is_cut && size > SIGNED_CHUNK_BYTES_MAX {
            return Err(Fault::new(
                S3ErrorCode::InvalidRequest,
                format!(
                    "a signed chunk has {size} bytes; at most {SIGNED_CHUNK_BYTES_MAX} are allowed"
                ),
            ));
        }
        if !is_cut {
            output.push_back(header);
        }
        self.state = if size == 0 { State::Trailers } else { State::Data { left: size, is_cut } };
        Ok(())
    }
}

fn chunk_size(header: &[u8]) -> Option<u64> {
    let digits = header.split(|&byte| byte == b';' || byte == b'\r').next()?;
    let digits = std::str::from_utf8(digits).ok()?;
    u32::from_str_radix(digits, 16).ok().map(u64::from)
}

fn malformed(reason: &str) -> Fault {
    Fault::new(S3ErrorCode::InvalidRequest, format!("malformed aws-chunked body: {reason}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn run(input: &[u8], step: usize) -> Result<Vec<u8>, Fault> {
        let mut framing = Framing::new();
        let mut output = VecDeque::new();
        for piece in input.chunks(step) {
            framing.push(Bytes::copy_from_slice(piece), &mut output)?;
        }
        Ok(output.iter().flatten().copied().collect())
    }

    /// The data of unsigned chunks.
    fn decode(mut framed: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut data = Vec::new();
        loop {
            let end = framed.iter().position(|&byte| byte == b'\n').unwrap();
            let size = chunk_size(&framed[..end]).unwrap() as usize;
            framed = &framed[end + 1..];
            if size == 0 {
                return (data, framed.to_vec());
            }
            data.extend_from_slice(&framed[..size]);
            assert_eq!(&framed[size..size + 2], b"\r\n");
            framed = &framed[size + 2..];
        }
    }

    #[test]
    fn unsigned_chunks_are_cut_and_keep_their_bytes() {
        let input = b"a\r\n0123456789\r\n3\r\nabc\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n";
        for step in 1..input.len() {
            let (data, trailers) = decode(&run(input, step).unwrap());
            assert_eq!(data, b"0123456789abc");
            assert_eq!(trailers, b"x-amz-checksum-crc32:AAAA\r\n\r\n");
        }
    }

    #[test]
    fn signed_chunks_pass_unchanged() {
        let input = b"3;chunk-signature=ff\r\nabc\r\n0;chunk-signature=ee\r\n\r\n";
        for step in 1..input.len() {
            assert_eq!(run(input, step).unwrap(), input);
        }
    }

    #[test]
    fn broken_or_oversized_framing_is_refused() {
        assert!(run(b"zz\r\nabc", 3).is_err());
        assert!(run(b"3\r\nabcX\r\n", 3).is_err());
        assert!(run(b"fffffff;chunk-signature=ff\r\n", 3).is_err());
        assert!(run(&[b'0'; 1000], 3).is_err());
        assert!(run(b"-1\r\n", 3).is_err());
    }
}
