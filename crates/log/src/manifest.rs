//! The manifest: which segments must exist, so that a lost one is noticed.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::LogError;
use crate::format::{LOG_FORMAT, Reader, crc32c};

const MAGIC: &[u8; 8] = b"OFLOGMAN";
const FILE: &str = "manifest";
const FILE_NEW: &str = "manifest.new";
/// Magic, format, owner, oldest, newest, checksum.
const BYTES: usize = 8 + 4 + 8 + 8 + 8 + 4;

/// The numbers of the segments that exist; `newest` is one less than `oldest` when none does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Whose log it is.
    pub(crate) owner: u64,
    pub(crate) oldest: u64,
    pub(crate) newest: u64,
}

impl Manifest {
    /// That of a log without segments.
    pub(crate) const fn empty(owner: u64) -> Self {
        Self { owner, oldest: 1, newest: 0 }
    }

    pub(crate) fn path(folder: &Path) -> PathBuf {
        folder.join(FILE)
    }

    /// Whether a file is one that a crash while writing a manifest leaves behind.
    pub(crate) fn is_leftover(name: &str) -> bool {
        name == FILE_NEW
    }

    /// The manifest of a log; nothing if the folder has none.
    pub(crate) fn read(folder: &Path, owner: u64) -> Result<Option<Self>, LogError> {
        let path = Self::path(folder);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| {
            // One byte more tells a file that is too long, without believing its length.
            file.take(BYTES as u64 + 1).read_to_end(&mut bytes)
        });
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LogError::io(&path)(error)),
        }
        let manifest = Self::decode(&path, &bytes)?;
        if manifest.owner != owner {
            let (found, expected) = (manifest.owner, owner);
            return Err(LogError::OtherOwner { path, found, expected });
        }
        Ok(Some(manifest))
    }

    fn decode(path: &Path, bytes: &[u8]) -> Result<Self, LogError> {
        let corrupt = |reason: &str| Err(LogError::corrupt(path, 0, reason));
        // Magic, format and a checksum at the very end are the same in every format.
        let Some((checked, checksum)) = bytes.split_last_chunk() else {
            return corrupt("it has a wrong length");
        };
        let mut reader = Reader::new(checked);
        if reader.take(MAGIC.len()) != Some(MAGIC) {
            return corrupt("it does not begin as the manifest of a log does");
        }
        if crc32c(checked) != u32::from_le_bytes(*checksum) {
            return corrupt("its checksum does not match");
        }
        match reader.u32() {
            Some(LOG_FORMAT) => {}
            Some(found) => return Err(LogError::OtherFormat { path: path.to_owned(), found }),
            None => return corrupt("it has a wrong length"),
        }
        let fields = (|| {
            let manifest =
                Self { owner: reader.u64()?, oldest: reader.u64()?, newest: reader.u64()? };
            (reader.remaining() == 0).then_some(manifest)
        })();
        let Some(manifest) = fields else {
            return corrupt("it has a wrong length");
        };
        let Self { oldest, newest, .. } = manifest;
        if oldest == 0 || oldest - 1 > newest || newest == u64::MAX {
            return corrupt("its numbers contradict each other");
        }
        Ok(manifest)
    }

    /// Replaces the manifest, durably: a crash leaves the old or the new one. After
    /// [`LogError::DiskFull`] it is the old one. Answers the new one.
    pub(crate) fn write(self, folder: &Path) -> Result<Self, LogError> {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&LOG_FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.owner.to_le_bytes());
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
        sync_folder(folder)?;
        Ok(self)
    }
}

/// Makes what was created, renamed or removed in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), LogError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(LogError::io(folder))
}
