//! The folder of a table: whose it is, which format it has, and that one process uses it.
//!
//! ```text
//!   lock            held (flock) while the table is open
//!   data/format     magic, format version, checksum
//!   data/synced     the newest batch that is certainly durable
//!   data/store/     fjall's files
//! ```
//!
//! A table is created as `new` and renamed to `data` when it is complete, so a crash leaves a whole
//! table or none.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::synced::SyncedFile;
use crate::TableError;
use crate::checksum::crc32c;
use crate::fjall_table::TABLE_FORMAT;

const MAGIC: &[u8; 8] = b"OFTABLE\0";
const FORMAT_FILE_BYTES: usize = 16;

const LOCK: &str = "lock";
const NEW: &str = "new";
const DATA: &str = "data";
const FORMAT: &str = "format";
const SYNCED: &str = "synced";
const STORE: &str = "store";

/// An opened and locked table folder.
pub(super) struct Folder {
    path: PathBuf,
    // Held for its lock, which the system drops with the process.
    _lock: File,
}

impl Folder {
    /// Locks the folder and makes sure that it holds a table of a format that is known; `create`
    /// makes the store of a new one.
    pub(super) fn open(
        path: &Path,
        create: impl FnOnce(&Path) -> Result<(), TableError>,
    ) -> Result<Self, TableError> {
        fs::create_dir_all(path).map_err(io_error(path))?;
        let is_new = !path.join(DATA).exists();
        if is_new && holds_other_files(path)? {
            return Err(TableError::Foreign(path.to_owned()));
        }
        let folder = Self { path: path.to_owned(), _lock: take_lock(path)? };
        if is_new {
            folder.create(create)?;
        }
        check_format(path, &path.join(DATA).join(FORMAT))?;
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn synced_path(&self) -> PathBuf {
        self.path.join(DATA).join(SYNCED)
    }

    pub(super) fn store_path(&self) -> PathBuf {
        self.path.join(DATA).join(STORE)
    }

    fn create(
        &self,
        create: impl FnOnce(&Path) -> Result<(), TableError>,
    ) -> Result<(), TableError> {
        let new = self.path.join(NEW);
        if new.exists() {
            fs::remove_dir_all(&new).map_err(io_error(&new))?;
        }
        fs::create_dir(&new).map_err(io_error(&new))?;
        create(&new.join(STORE))?;
        SyncedFile::create(&new.join(SYNCED))?;
        let format = new.join(FORMAT);
        write_format(&format).map_err(io_error(&format))?;
        sync_folder(&new)?;
        fs::rename(&new, self.path.join(DATA)).map_err(io_error(&new))?;
        sync_folder(&self.path)
    }
}

/// Whether the folder holds anything but what an unfinished creation leaves behind.
fn holds_other_files(path: &Path) -> Result<bool, TableError> {
    for entry in fs::read_dir(path).map_err(io_error(path))? {
        let name = entry.map_err(io_error(path))?.file_name();
        if name != LOCK && name != NEW && name != "lost+found" {
            return Ok(true);
        }
    }
    Ok(false)
}

fn take_lock(folder: &Path) -> Result<File, TableError> {
    let path = folder.join(LOCK);
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(io_error(&path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(TableError::InUse(folder.to_owned())),
        Err(error) => Err(TableError::Io { path, source: error.into() }),
    }
}

fn write_format(path: &Path) -> io::Result<()> {
    let mut bytes = [0; FORMAT_FILE_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&TABLE_FORMAT.to_le_bytes());
    let checksum = crc32c(&bytes[..12]);
    bytes[12..].copy_from_slice(&checksum.to_le_bytes());
    fs::write(path, bytes)?;
    File::open(path)?.sync_all()
}

fn check_format(folder: &Path, path: &Path) -> Result<(), TableError> {
    let corrupt =
        |reason: &str| TableError::Corrupt { file: path.to_owned(), reason: reason.to_owned() };
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(TableError::Foreign(folder.to_owned()));
        }
        Err(error) => return Err(io_error(path)(error)),
    };
    let Ok(bytes) = <[u8; FORMAT_FILE_BYTES]>::try_from(bytes) else {
        return Err(corrupt("it has a wrong length"));
    };
    let [magic @ .., _, _, _, _, _, _, _, _] = &bytes;
    if magic != MAGIC {
        return Err(corrupt("it does not begin as the format file of a table does"));
    }
    let number =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if crc32c(&bytes[..12]) != number(12) {
        return Err(corrupt("its checksum does not match"));
    }
    match number(8) {
        TABLE_FORMAT => Ok(()),
        found => Err(TableError::Newer { path: folder.to_owned(), found }),
    }
}

pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> TableError + '_ {
    move |source| TableError::Io { path: path.to_owned(), source }
}

/// Makes what was created, renamed or removed in a folder durable.
fn sync_folder(path: &Path) -> Result<(), TableError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(io_error(path))
}
