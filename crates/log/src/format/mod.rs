//! The bytes of a log: segment headers, batches, records. `docs/formats/log.md` describes them.

mod batch;
mod record;

use std::path::Path;

#[cfg(test)]
pub(crate) use self::batch::SECTOR_BYTES;
pub(crate) use self::batch::{
    BATCH_ALIGNMENT, BATCH_HEADER_BYTES, BatchHeader, BatchWriter, Origin, Reading, batch_at,
    find_confirmation,
};
pub(crate) use self::record::{EntryRecord, Record, write_bytes};
use crate::LogError;

/// The format of log files that this program reads and writes.
pub const LOG_FORMAT: u32 = 2;

const SEGMENT_MAGIC: &[u8; 8] = b"OFLOGSEG";
/// Magic, format, owner, segment number, first batch, file length, zeros, checksum. Together they
/// are as long as two places of batches.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 8 + 4 + 8 + 8 + 8 + 8 + 16 + 4;
const CHECKSUM_AT: usize = SEGMENT_HEADER_BYTES - 4;

/// CRC32C.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes);
    u32::try_from(checksum).expect("a CRC of 32 bits fits 32 bits")
}

/// What a segment file begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Whose log it is.
    pub(crate) owner: u64,
    /// The segment's number; they are contiguous.
    pub(crate) segment: u64,
    /// The number of the first batch in the segment, which tells whether the one before is whole.
    pub(crate) first_batch: u64,
    /// The length of the file, which never changes: a shorter one was truncated.
    pub(crate) file_bytes: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&LOG_FORMAT.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.owner.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.segment.to_le_bytes());
        bytes[28..36].copy_from_slice(&self.first_batch.to_le_bytes());
        bytes[36..44].copy_from_slice(&self.file_bytes.to_le_bytes());
        let checksum = crc32c(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header of a segment's file, from its first bytes.
    pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<Self, LogError> {
        let corrupt = |reason: &str| Err(LogError::corrupt(path, 0, reason));
        let Some(bytes) = bytes.get(..SEGMENT_HEADER_BYTES) else {
            return corrupt("it is too short for a segment header");
        };
        let mut reader = Reader::new(bytes);
        let fields = (|| {
            let magic = reader.take(8)?;
            let format = reader.u32()?;
            let header = Self {
                owner: reader.u64()?,
                segment: reader.u64()?,
                first_batch: reader.u64()?,
                file_bytes: reader.u64()?,
            };
            reader.take(16)?;
            Some((magic, format, header, reader.u32()?))
        })();
        let (magic, format, header, checksum) = fields.expect("the length was just checked");
        if magic != SEGMENT_MAGIC {
            return corrupt("it does not begin as a segment of a log does");
        }
        if crc32c(&bytes[..CHECKSUM_AT]) != checksum {
            return corrupt("the checksum of its header does not match");
        }
        if format != LOG_FORMAT {
            return Err(LogError::OtherFormat { path: path.to_owned(), found: format });
        }
        Ok(header)
    }
}

/// Takes numbers and pieces off the front of a buffer; nothing once it is too short.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}
