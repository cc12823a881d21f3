//! The manifest: which segments must exist, so that a lost one is noticed.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::LogError;
use crate::format::{LOG_FORMAT, Reader, crc32c};

const MAGIC: &[u8; 8] = b"OFLOGMAN";
const FILE: &str = "manifest";
const FILE_NEW: &str = "manifest.new";
/// Magic, format, oldest, newest, checksum.
const BYTES: usize = 8 + 4 + 8 + 8 + 4;

/// The numbers of the segments that exist; `newest` is one less than `oldest` when none does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) oldest: u64,
    pub(crate) newest: u64,
}

impl Manifest {
    /// That of a log without segments.
    pub(crate) const EMPTY: Self = Self { oldest: 1, newest: 0 };

    pub(crate) fn path(folder: &Path) -> PathBuf {
        folder.join(FILE)
    }

    /// Whether a file is one that a crash while writing a manifest leaves behind.
    pub(crate) fn is_leftover(name: &str) -> bool {
        name == FILE_NEW
    }

    /// The manifest of a log; nothing if the folder has none.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, LogError> {
        let path = Self::path(folder);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LogError::io(&path)(error)),
        };
        let corrupt = |reason: &str| Err(LogError::corrupt(&path, 0, reason));
        if bytes.len() != BYTES {
            return corrupt("it has a wrong length");
        }
        let mut reader = Reader::new(&bytes);
        let fields = (|| {
            let magic = reader.take(8)?;
            Some((magic, reader.u32()?, reader.u64()?, reader.u64()?, reader.u32()?))
        })();
        let Some((magic, format, oldest, newest, checksum)) = fields else {
            return corrupt("it has a wrong length");
        };
        if magic != MAGIC {
            return corrupt("it does not begin as the manifest of a log does");
        }
        if crc32c(&bytes[..BYTES - 4]) != checksum {
            return corrupt("its checksum does not match");
        }
        if format != LOG_FORMAT {
            return Err(LogError::Newer { path, found: format });
        }
        if oldest == 0 || oldest > newest + 1 {
            return corrupt("its numbers contradict each other");
        }
        Ok(Some(Self { oldest, newest }))
    }

    /// Replaces the manifest, durably: a crash leaves the old or the new one. After
    /// [`LogError::DiskFull`] it is the old one.
    pub(crate) fn write(self, folder: &Path) -> Result<(), LogError> {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&LOG_FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.oldest.to_le_bytes());
        bytes.extend_from_slice(&self.newest.to_le_bytes());
        bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
        let new = folder.join(FILE_NEW);
        let replace = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&new, Self::path(folder))
        };
        let path = Self::path(folder);
        replace().map_err(|error| LogError::disk_full_or_io(&path, BYTES as u64, error))?;
        sync_folder(folder)
    }
}

/// Makes what was created, renamed or removed in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), LogError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(LogError::io(folder))
}
