//! The number of the newest batch that is certainly durable.
//!
//! Two slots of 16 bytes (number, checksum, zero) are written in turn, so a torn write leaves the
//! one before. That one is lower, which only makes the check that it serves weaker.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::folder::io_error;
use crate::TableError;
use crate::checksum::crc32c;

const SLOT_BYTES: usize = 16;
const SLOTS: usize = 2;

pub(super) struct SyncedFile {
    path: PathBuf,
    file: File,
    sequence: u64,
    /// Where the next number goes.
    next_slot: usize,
}

impl SyncedFile {
    /// Creates the file for a table without batches.
    pub(super) fn create(path: &Path) -> Result<(), TableError> {
        let mut bytes = [0; SLOT_BYTES * SLOTS];
        for slot in bytes.chunks_mut(SLOT_BYTES) {
            slot.copy_from_slice(&encode(0));
        }
        std::fs::write(path, bytes)
            .and_then(|()| File::open(path)?.sync_all())
            .map_err(io_error(path))
    }

    pub(super) fn open(path: &Path) -> Result<Self, TableError> {
        let corrupt =
            |reason: &str| TableError::Corrupt { file: path.to_owned(), reason: reason.to_owned() };
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).open(path).map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => corrupt("it is missing"),
                _ => TableError::Io { path: path.to_owned(), source },
            })?;
        if file.metadata().map_err(io_error(path))?.len() != (SLOT_BYTES * SLOTS) as u64 {
            return Err(corrupt("it has a wrong length"));
        }
        let mut bytes = [0; SLOT_BYTES * SLOTS];
        file.read_exact_at(&mut bytes, 0).map_err(io_error(path))?;
        let newest = bytes
            .chunks(SLOT_BYTES)
            .enumerate()
            .filter_map(|(slot, bytes)| Some((decode(bytes)?, slot)))
            .max();
        let (sequence, slot) = newest.ok_or_else(|| corrupt("no slot of it is valid"))?;
        Ok(Self { path: path.to_owned(), file, sequence, next_slot: (slot + 1) % SLOTS })
    }

    /// The newest number that was recorded.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Records a number durably. Its batch must be durable already.
    pub(super) fn record(&mut self, sequence: u64) -> Result<(), TableError> {
        assert!(sequence >= self.sequence, "what was synced stays synced");
        let offset = (self.next_slot * SLOT_BYTES) as u64;
        self.file
            .write_all_at(&encode(sequence), offset)
            .and_then(|()| self.file.sync_data())
            .map_err(io_error(&self.path))?;
        self.sequence = sequence;
        self.next_slot = (self.next_slot + 1) % SLOTS;
        Ok(())
    }
}

fn encode(sequence: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(&sequence.to_le_bytes());
    let checksum = crc32c(&slot[..8]);
    slot[8..12].copy_from_slice(&checksum.to_le_bytes());
    slot
}

fn decode(slot: &[u8]) -> Option<u64> {
    let sequence = u64::from_le_bytes(slot[..8].try_into().ok()?);
    (slot == encode(sequence)).then_some(sequence)
}
