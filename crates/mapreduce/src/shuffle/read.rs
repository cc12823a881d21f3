//! Reading one partition of one run, record by record.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::format::{BLOCK_HEADER_BYTES, BlockHeader};
use super::varint;
use crate::api::limits::RECORD_BYTES_MAX;
use crate::task::TaskError;

/// Where the bytes of a segment are.
#[derive(Clone, Debug)]
pub(crate) enum SourceBytes {
    /// In memory.
    Memory(Bytes),
    /// In a file.
    File {
        /// The open file.
        file: Arc<File>,
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// In a file that is opened when its turn comes.
    Path {
        /// Where the file is.
        path: PathBuf,
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
}

impl SourceBytes {
    fn length(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { length, .. } | Self::Path { length, .. } => *length,
        }
    }
}

/// A segment to read, and whose fault it is when it turns out to be damaged.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Its bytes.
    pub(crate) bytes: SourceBytes,
    /// The number of the map task that made it; none for what this task wrote itself.
    pub(crate) origin: Option<u32>,
}

/// A cursor over the records of a segment. It holds one block in memory.
pub(super) struct Cursor {
    source: Source,
    position: u64,
    stored: Vec<u8>,
    block: Vec<u8>,
    /// Where the record after the current one starts in the block.
    next: usize,
    key: (usize, usize),
    value: (usize, usize),
    prefix: u64,
    ended: bool,
}

impl Cursor {
    /// A cursor on the first record.
    pub(super) fn open(source: Source) -> Result<Self, TaskError> {
        let mut cursor = Self {
            source,
            position: 0,
            stored: Vec::new(),
            block: Vec::new(),
            next: 0,
            key: (0, 0),
            value: (0, 0),
            prefix: 0,
            ended: false,
        };
        if let SourceBytes::Path { path, offset, length } = &cursor.source.bytes {
            let file = File::open(path).map_err(|error| cursor.corrupt(&error.to_string()))?;
            let file = Arc::new(file);
            cursor.source.bytes = SourceBytes::File { file, offset: *offset, length: *length };
        }
        cursor.advance()?;
        Ok(cursor)
    }

    /// Whether there is no record any more.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// The current record's key.
    pub(super) fn key(&self) -> &[u8] {
        &self.block[self.key.0..self.key.1]
    }

    /// The current record's value.
    pub(super) fn value(&self) -> &[u8] {
        &self.block[self.value.0..self.value.1]
    }

    /// The first eight bytes of the key as a number that sorts like them.
    pub(super) fn prefix(&self) -> u64 {
        self.prefix
    }

    /// Goes to the next record.
    pub(super) fn advance(&mut self) -> Result<(), TaskError> {
        if self.next == self.block.len() && !self.load_block()? {
            self.ended = true;
            return Ok(());
        }
        let Some((key, value)) = record_at(&self.block, self.next) else {
            return Err(self.corrupt("a block contains no whole records"));
        };
        (self.key, self.value, self.next) = (key, value, value.1);
        self.prefix = key_prefix(self.key());
        Ok(())
    }

    /// False at the end of the segment.
    fn load_block(&mut self) -> Result<bool, TaskError> {
        let length = self.source.bytes.length();
        let left = length - self.position;
        if left == 0 {
            return Ok(false);
        }
        let mut header = [0; BLOCK_HEADER_BYTES];
        if left < BLOCK_HEADER_BYTES as u64 {
            return Err(self.corrupt("it ends within a block's header"));
        }
        self.read(&mut header)?;
        let Some(header) = BlockHeader::decode(&header) else {
            return Err(self.corrupt("a block has impossible lengths"));
        };
        if length - self.position < u64::from(header.stored_bytes) {
            return Err(self.corrupt("it ends within a block"));
        }
        let mut stored = std::mem::take(&mut self.stored);
        stored.resize(header.stored_bytes as usize, 0);
        self.read(&mut stored)?;
        if !header.matches(&stored) {
            return Err(self.corrupt("a block does not match its checksum"));
        }
        self.next = 0;
        if header.stored_bytes == header.raw_bytes {
            self.stored = std::mem::replace(&mut self.block, stored);
            return Ok(true);
        }
        self.block.resize(header.raw_bytes as usize, 0);
        let bytes = lz4_flex::block::decompress_into(&stored, &mut self.block);
        self.stored = stored;
        match bytes {
            Ok(bytes) if bytes == self.block.len() => Ok(true),
            _ => Err(self.corrupt("a block does not decompress")),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> Result<(), TaskError> {
        match &self.source.bytes {
            SourceBytes::Memory(bytes) => {
                let start = usize::try_from(self.position).expect("it lies in memory");
                into.copy_from_slice(&bytes[start..start + into.len()]);
            }
            SourceBytes::File { file, offset, .. } => {
                file.read_exact_at(into, offset + self.position)
                    .map_err(|error| self.corrupt(&error.to_string()))?;
            }
            SourceBytes::Path { .. } => unreachable!("a cursor opens its file at once"),
        }
        self.position += into.len() as u64;
        Ok(())
    }

    fn corrupt(&self, reason: &str) -> TaskError {
        TaskError::Corrupt {
            origin: self.source.origin,
            reason: format!("a shuffle run cannot be read: {reason}"),
        }
    }
}

/// The first eight bytes of a key as a number that sorts like them; shorter keys are padded with
/// zeros, so equal prefixes decide nothing.
pub(super) fn key_prefix(key: &[u8]) -> u64 {
    if let Some(first) = key.first_chunk::<8>() {
        return u64::from_be_bytes(*first);
    }
    let mut bytes = [0; 8];
    bytes[..key.len()].copy_from_slice(key);
    u64::from_be_bytes(bytes)
}

type Span = (usize, usize);

/// The spans of key and value of the record at `at`; `None` when the block does not hold it whole.
fn record_at(block: &[u8], at: usize) -> Option<(Span, Span)> {
    let (key_bytes, taken) = varint::get(&block[at..])?;
    let at = at + taken;
    let (value_bytes, taken) = varint::get(&block[at..])?;
    let key_start = at + taken;
    let bounded =
        |bytes: u64| usize::try_from(bytes).ok().filter(|&bytes| bytes <= RECORD_BYTES_MAX);
    let key_end = key_start + bounded(key_bytes)?;
    let value_end = key_end + bounded(value_bytes)?;
    (value_end <= block.len()).then_some(((key_start, key_end), (key_end, value_end)))
}
