//! A run on disk: sorted records of all partitions, and where each partition lies.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{
    BLOCK_BYTES, BlockHeader, ENTRY_BYTES, FOOTER_BYTES, HEADER_BYTES, Segment, decode_entry,
    decode_footer, decode_header, encode_entry, encode_footer, encode_header,
};
use super::varint;
use crate::task::TaskError;

/// Bytes gathered before they are written to the file.
const WRITE_BYTES: usize = 256 << 10;

/// Writes a run: records by ascending (partition, key).
pub(crate) struct RunWriter {
    path: PathBuf,
    file: BufWriter<File>,
    /// Where the next byte goes.
    offset: u64,
    /// Finished partitions, and the one being written as the last.
    segments: Vec<Segment>,
    partitions: u32,
    raw: Vec<u8>,
    compressed: Vec<u8>,
    records: u64,
}

impl RunWriter {
    /// Starts a run; a file in its place is replaced.
    pub(crate) fn create(path: &Path, partitions: u32) -> Result<Self, TaskError> {
        assert!(partitions > 0, "a run has at least one partition");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
        let file = file.map_err(|source| TaskError::disk("create", path, source))?;
        let mut file = BufWriter::with_capacity(WRITE_BYTES, file);
        file.write_all(&encode_header(partitions))
            .map_err(|source| TaskError::disk("write", path, source))?;
        let offset = HEADER_BYTES as u64;
        Ok(Self {
            path: path.to_owned(),
            file,
            offset,
            segments: vec![Segment { offset, length: 0, records: 0 }],
            partitions,
            raw: Vec::with_capacity(BLOCK_BYTES + (4 << 10)),
            compressed: Vec::new(),
            records: 0,
        })
    }

    /// Appends a record.
    pub(crate) fn push(
        &mut self,
        partition: u32,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), TaskError> {
        assert!(partition < self.partitions, "partition {partition} of {}", self.partitions);
        self.open_partition(partition)?;
        varint::put(&mut self.raw, key.len() as u64);
        varint::put(&mut self.raw, value.len() as u64);
        self.raw.extend_from_slice(key);
        self.raw.extend_from_slice(value);
        self.current().records += 1;
        self.records += 1;
        if self.raw.len() >= BLOCK_BYTES {
            self.close_block()?;
        }
        Ok(())
    }

    /// Records so far.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Completes the run. It is not synced: a run does not outlive its worker's process.
    pub(crate) fn finish(mut self) -> Result<Run, TaskError> {
        self.open_partition(self.partitions - 1)?;
        self.close_block()?;
        let index_offset = self.offset;
        for (partition, &segment) in self.segments.iter().enumerate() {
            let partition = u32::try_from(partition).expect("partitions are counted in 32 bits");
            let entry = encode_entry(partition, segment);
            self.file
                .write_all(&entry)
                .map_err(|source| TaskError::disk("write", &self.path, source))?;
        }
        let written = self.file.write_all(&encode_footer(index_offset, self.partitions));
        written.map_err(|source| TaskError::disk("write", &self.path, source))?;
        let file = self
            .file
            .into_inner()
            .map_err(|error| TaskError::disk("write", &self.path, error.into_error()))?;
        Ok(Run { path: self.path, file: Arc::new(file), partitions: self.partitions, index_offset })
    }

    fn current(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("there is always a partition being written")
    }

    fn open_partition(&mut self, partition: u32) -> Result<(), TaskError> {
        let last = self.segments.len() - 1;
        assert!(partition as usize >= last, "records come by ascending partition");
        if partition as usize == last {
            return Ok(());
        }
        self.close_block()?;
        let next = Segment { offset: self.offset, length: 0, records: 0 };
        self.segments.resize(partition as usize + 1, next);
        Ok(())
    }

    fn close_block(&mut self) -> Result<(), TaskError> {
        if self.raw.is_empty() {
            return Ok(());
        }
        self.compressed.resize(lz4_flex::block::get_maximum_output_size(self.raw.len()), 0);
        let bytes = lz4_flex::block::compress_into(&self.raw, &mut self.compressed)
            .expect("the buffer has the size that the worst case needs");
        // Stored bytes as many as raw bytes mean: not compressed.
        let stored =
            if bytes < self.raw.len() { &self.compressed[..bytes] } else { self.raw.as_slice() };
        let header = BlockHeader::of(self.raw.len(), stored).encode();
        self.file
            .write_all(&header)
            .and_then(|()| self.file.write_all(stored))
            .map_err(|source| TaskError::disk("write", &self.path, source))?;
        let bytes = (header.len() + stored.len()) as u64;
        self.offset += bytes;
        self.current().length += bytes;
        self.raw.clear();
        Ok(())
    }
}

/// A complete run.
#[derive(Debug)]
pub(crate) struct Run {
    path: PathBuf,
    file: Arc<File>,
    partitions: u32,
    index_offset: u64,
}

impl Run {
    /// Opens a run and checks that it is one.
    pub(crate) fn open(path: &Path) -> Result<Self, TaskError> {
        let file = File::open(path).map_err(|source| TaskError::disk("open", path, source))?;
        let foreign = |reason: &str| TaskError::Corrupt {
            origin: None,
            reason: format!("{} is not a shuffle run: {reason}", path.display()),
        };
        let metadata = file.metadata().map_err(|source| TaskError::disk("read", path, source))?;
        let read = |bytes: &mut [u8], at: u64| file.read_exact_at(bytes, at);
        let mut header = [0; HEADER_BYTES];
        let mut footer = [0; FOOTER_BYTES];
        let Some(footer_offset) = metadata.len().checked_sub(FOOTER_BYTES as u64) else {
            return Err(foreign("it is too short"));
        };
        read(&mut header, 0)
            .and_then(|()| read(&mut footer, footer_offset))
            .map_err(|source| TaskError::disk("read", path, source))?;
        let partitions = decode_header(&header).map_err(foreign)?;
        let index = decode_footer(&footer).filter(|&(index_offset, in_footer)| {
            let index_bytes = u64::from(partitions) * ENTRY_BYTES as u64;
            in_footer == partitions && index_offset.checked_add(index_bytes) == Some(footer_offset)
        });
        let Some((index_offset, _)) = index else {
            return Err(foreign("its end is missing or damaged"));
        };
        Ok(Self { path: path.to_owned(), file: Arc::new(file), partitions, index_offset })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// How many partitions it has.
    pub(crate) fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Where a partition lies.
    pub(crate) fn segment(&self, partition: u32) -> Result<Segment, TaskError> {
        assert!(partition < self.partitions, "partition {partition} of {}", self.partitions);
        let mut entry = [0; ENTRY_BYTES];
        let offset = self.index_offset + u64::from(partition) * ENTRY_BYTES as u64;
        self.file
            .read_exact_at(&mut entry, offset)
            .map_err(|source| TaskError::disk("read", &self.path, source))?;
        let segment = decode_entry(partition, &entry);
        let within = |segment: &Segment| {
            let end = segment.offset.checked_add(segment.length);
            end.is_some_and(|end| end <= self.index_offset)
        };
        segment.filter(within).ok_or_else(|| TaskError::Corrupt {
            origin: None,
            reason: format!("the index of {} does not match its checksum", self.path.display()),
        })
    }

    /// Bytes of all partitions.
    pub(crate) fn bytes(&self) -> u64 {
        self.index_offset - HEADER_BYTES as u64
    }

    /// Deletes the file. A file that cannot be deleted now goes with its job's folder.
    pub(crate) fn delete(self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "a run was not deleted");
        }
    }
}
