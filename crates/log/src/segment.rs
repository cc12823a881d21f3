//! Segment files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::LogError;
use crate::format::{BATCH_HEADER_BYTES, BatchHeader, Origin, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::manifest::sync_folder;
use crate::recovery::Tail;

const SUFFIX: &str = ".log";
const SUFFIX_NEW: &str = ".log.new";
/// Digits of a segment's number in its file's name, so that names sort as numbers do.
const NUMBER_DIGITS: usize = 20;

/// Bytes that are made zero at a time.
const ZERO_BYTES: usize = 1 << 20;

/// What a file in a log's folder is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Segment(u64),
    /// A segment whose creation was not finished: it never held anything.
    Unfinished,
    Other,
}

pub(crate) fn file_kind(name: &str) -> FileKind {
    if name.ends_with(SUFFIX_NEW) {
        return FileKind::Unfinished;
    }
    let digits = name.strip_suffix(SUFFIX).filter(|digits| digits.len() == NUMBER_DIGITS);
    let number = digits.and_then(|digits| digits.parse().ok());
    number.map_or(FileKind::Other, FileKind::Segment)
}

pub(crate) fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:0NUMBER_DIGITS$}{SUFFIX}"))
}

/// Reads a segment's file, as long as its header says and not a byte more.
pub(crate) fn read(path: &Path) -> Result<(SegmentHeader, Vec<u8>), LogError> {
    let mut file = File::open(path).map_err(LogError::io(path))?;
    let length = file.metadata().map_err(LogError::io(path))?.len();
    let mut bytes = Vec::new();
    let header_bytes = (&mut file).take(SEGMENT_HEADER_BYTES as u64).read_to_end(&mut bytes);
    header_bytes.map_err(LogError::io(path))?;
    let header = SegmentHeader::decode(path, &bytes)?;
    if header.file_bytes != length {
        let reason = format!("it was {} bytes long when it was made", header.file_bytes);
        return Err(LogError::corrupt(path, length, reason));
    }
    bytes.reserve_exact(usize::try_from(length).map_or(0, |length| length - bytes.len()));
    file.take(length - bytes.len() as u64).read_to_end(&mut bytes).map_err(LogError::io(path))?;
    if bytes.len() as u64 != length {
        return Err(LogError::corrupt(path, bytes.len() as u64, "it ends before its length"));
    }
    Ok((header, bytes))
}

/// Whether a segment's file holds nothing behind its header.
pub(crate) fn is_empty(path: &Path) -> Result<bool, LogError> {
    let look = || -> io::Result<bool> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(SEGMENT_HEADER_BYTES as u64))?;
        let mut piece = vec![0; ZERO_BYTES];
        loop {
            let count = file.read(&mut piece)?;
            if count == 0 {
                return Ok(true);
            }
            if piece[..count].iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
        }
    };
    look().map_err(LogError::io(path))
}

/// Creates a segment whose space is laid out in advance. It has its name only once it is complete
/// and durable.
pub(crate) fn create(folder: &Path, header: SegmentHeader) -> Result<File, LogError> {
    let path = segment_path(folder, header.segment);
    let new = path.with_extension("log.new");
    let created = create_at(&new, header).and_then(|file| {
        fs::rename(&new, &path)?;
        Ok(file)
    });
    match created {
        Ok(file) => {
            sync_folder(folder)?;
            Ok(file)
        }
        Err(error) => {
            // Best effort: what is left is removed when the log is opened.
            let _ = fs::remove_file(&new);
            Err(LogError::disk_full_or_io(&path, header.file_bytes, error))
        }
    }
}

fn create_at(path: &Path, header: SegmentHeader) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).open(path)?;
    allocate(&file, header.file_bytes)?;
    file.write_all_at(&header.encode(), 0)?;
    file.sync_all()?;
    Ok(file)
}

/// Lays a file out to a length, so that writing into it does not change its length.
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    // A file system would hand out all that it has before it says that it is not enough, and
    // everyone else on the disk would meet a full one meanwhile.
    let disk = rustix::fs::fstatvfs(file)?;
    if bytes > disk.f_bavail.saturating_mul(disk.f_frsize) {
        return Err(io::ErrorKind::StorageFull.into());
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        // The file system can't; then writes allocate.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(bytes),
        Err(error) => Err(error.into()),
    }
}

/// Opens the newest segment for writing behind its last valid batch.
pub(crate) fn open_to_append(tail: &Tail) -> Result<File, LogError> {
    let open = || -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).open(&tail.path)?;
        // What is only in the system's memory is written once more, so that the sync reaches it.
        let valid_bytes = tail.torn.start;
        file.write_all_at(&tail.unconfirmed, valid_bytes - tail.unconfirmed.len() as u64)?;
        // What a torn write left must never be taken for a batch.
        write_zeros(&file, tail.torn.clone())?;
        file.sync_all()?;
        Ok(file)
    };
    open().map_err(LogError::io(&tail.path))
}

fn write_zeros(file: &File, range: Range<u64>) -> io::Result<()> {
    let zeros = vec![0; ZERO_BYTES];
    let mut offset = range.start;
    while offset < range.end {
        let bytes = (range.end - offset).min(ZERO_BYTES as u64);
        let piece = usize::try_from(bytes).expect("a piece is at most ZERO_BYTES long");
        file.write_all_at(&zeros[..piece], offset)?;
        offset += bytes;
    }
    Ok(())
}

/// Reads the batches of a sealed segment in order, a piece at a time.
pub(crate) struct SegmentScan {
    path: PathBuf,
    origin: Origin,
    file: File,
    offset: u64,
    file_bytes: u64,
}

impl SegmentScan {
    pub(crate) fn open(path: PathBuf, origin: Origin) -> Result<Self, LogError> {
        let open = || -> io::Result<(File, u64)> {
            let file = File::open(&path)?;
            let bytes = file.metadata()?.len();
            Ok((file, bytes))
        };
        let (file, file_bytes) = open().map_err(LogError::io(&path))?;
        Ok(Self { path, origin, file, offset: SEGMENT_HEADER_BYTES as u64, file_bytes })
    }

    /// The next batch: the offset of its body, and its body in `buffer`. Nothing at the end.
    pub(crate) fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Option<u64>, LogError> {
        let header_bytes = BATCH_HEADER_BYTES as u64;
        if self.offset + header_bytes > self.file_bytes {
            return Ok(None);
        }
        self.read(buffer, self.offset, BATCH_HEADER_BYTES)?;
        if buffer.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let corrupt =
            || LogError::corrupt(&self.path, self.offset, "a batch that was valid is not any more");
        let header = BatchHeader::decode(buffer, self.origin, self.offset);
        let body = self.offset + header_bytes;
        let header = header.filter(|header| body + u64::from(header.body_bytes) <= self.file_bytes);
        let header = header.ok_or_else(corrupt)?;
        self.read(buffer, body, header.body_bytes as usize)?;
        if !header.fits(buffer) {
            return Err(corrupt());
        }
        self.offset += header.padded_bytes() as u64;
        Ok(Some(body))
    }

    fn read(&self, buffer: &mut Vec<u8>, offset: u64, bytes: usize) -> Result<(), LogError> {
        buffer.clear();
        buffer.resize(bytes, 0);
        self.file.read_exact_at(buffer, offset).map_err(LogError::io(&self.path))
    }
}
