//! One replica on disk: appending, reading, recovering. Blocks the calling thread.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use crc_fast::Digest;
use onefold_types::limits::{CHUNK_BLOCK_BYTES, CHUNK_BYTES_MAX};
use onefold_types::{ChunkId, ChunkVersion, ClusterId, NodeId};

use super::error::ChunkError;
use super::format::{
    self, BLOCK, CHUNK_FORMAT, DATA_AT, Mismatch, SLOT_AT, Slot, TABLE_AT, crc32c, digest, value,
};

/// Whose replica of which chunk a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) chunk: ChunkId,
    pub(super) cluster: ClusterId,
    pub(super) node: NodeId,
}

/// What a replica has, for reports and decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) version: ChunkVersion,
    /// Durable bytes of data.
    pub(super) length: u64,
    pub(super) sealed: bool,
    pub(super) damaged: bool,
}

/// An open chunk file.
pub(super) struct ChunkFile {
    identity: Identity,
    path: PathBuf,
    file: File,
    /// Held by whoever changes the file, across its I/O.
    writer: Mutex<()>,
    /// What is durable; never locked across I/O.
    durable: Mutex<Durable>,
}

#[derive(Clone)]
struct Durable {
    slot: Slot,
    /// Checksums of the full blocks.
    table: Vec<u32>,
    /// Of the bytes after the last full block.
    tail: Digest,
    /// A write or sync failed: what is on disk beyond the durable state is unknown, so nothing is
    /// written any more.
    failed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ChunkFile {
    /// Creates an empty replica under a temporary name and moves it to `path` once it is durable.
    pub(super) fn create(
        identity: Identity,
        path: &Path,
        version: ChunkVersion,
    ) -> Result<Self, ChunkError> {
        let temporary = path.with_extension("new");
        let file = Self::start(identity, &temporary, version)?;
        file.move_to(path)
    }

    /// An empty replica that is not in its place yet.
    pub(super) fn start(
        identity: Identity,
        path: &Path,
        version: ChunkVersion,
    ) -> Result<Self, ChunkError> {
        let failed = |error: io::Error| ChunkError::io(identity.chunk, identity.node, path, &error);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(path);
        let file = file.map_err(failed)?;
        let (length, tail_crc, sealed, damaged) = (0, value(&digest()), false, false);
        let slot = Slot { sequence: 1, version, length, tail_crc, sealed, damaged };
        let mut header = vec![0; DATA_AT as usize];
        let name = format::encode_identity(identity.chunk, identity.cluster);
        header[..name.len()].copy_from_slice(&name);
        let encoded = slot.encode();
        let at = slot.at() as usize;
        header[at..at + encoded.len()].copy_from_slice(&encoded);
        file.write_all_at(&header, 0).and_then(|()| file.sync_all()).map_err(failed)?;
        let durable = Durable { slot, table: Vec::new(), tail: digest(), failed: false };
        let (writer, durable) = (Mutex::new(()), Mutex::new(durable));
        Ok(Self { identity, path: path.to_owned(), file, writer, durable })
    }

    /// Gives the file its final name, durably.
    pub(super) fn move_to(mut self, path: &Path) -> Result<Self, ChunkError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let moved = std::fs::rename(&self.path, path)
            .and_then(|()| File::open(folder))
            .and_then(|folder| folder.sync_all());
        moved.map_err(|error| self.io(&error))?;
        path.clone_into(&mut self.path);
        Ok(self)
    }

    /// Opens a replica as the last process left it.
    ///
    /// The newest slot counts if the bytes that were written with it are there: slot and data went
    /// to disk in one sync, and a crash may have kept the slot alone. The older slot's bytes were
    /// durable before the newer one was written.
    pub(super) fn open(identity: Identity, path: &Path) -> Result<Self, ChunkError> {
        let failed = |error: io::Error| ChunkError::io(identity.chunk, identity.node, path, &error);
        let corrupt = |reason: String| {
            let (chunk, node) = (identity.chunk, identity.node);
            ChunkError::Corrupt { chunk, node, reason: format!("{}: {reason}", path.display()) }
        };
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
        let mut header = vec![0; DATA_AT as usize];
        file.read_exact_at(&mut header, 0).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => corrupt("the header is cut off".to_owned()),
            _ => failed(error),
        })?;
        let checked = format::check_identity(&header, identity.chunk, identity.cluster);
        let foreign = |reason: String| {
            let (chunk, node) = (identity.chunk, identity.node);
            ChunkError::Foreign { chunk, node, reason: format!("{}: {reason}", path.display()) }
        };
        checked.map_err(|mismatch| match mismatch {
            Mismatch::Damaged(reason) => corrupt(reason),
            Mismatch::Foreign(reason) => foreign(reason),
            Mismatch::Newer(found) => foreign(format!(
                "it has format {found}, and this version reads formats up to {CHUNK_FORMAT}; \
                 start the newer version again"
            )),
        })?;
        let slots = format::slots(&header);
        let mut reason = "neither of its two slots matches its checksum".to_owned();
        for (place, slot) in slots.iter().enumerate() {
            let older = slots.get(place + 1).map_or(slot.length, |older| older.length);
            let table = format::table(&header, slot.length);
            let durable = Durable { slot: *slot, table, tail: digest(), failed: false };
            let (writer, durable) = (Mutex::new(()), Mutex::new(durable));
            let opened = file.try_clone().map_err(failed)?;
            let opened = Self { identity, path: path.to_owned(), file: opened, writer, durable };
            // A sealed replica's bytes were durable before they were sealed.
            if slot.sealed {
                return Ok(opened);
            }
            match opened.verify(older.min(slot.length)).and_then(|()| opened.load_tail()) {
                Ok(()) => return Ok(opened),
                Err(ChunkError::Corrupt { reason: why, .. }) => reason = why,
                Err(other) => return Err(other),
            }
        }
        Err(corrupt(reason))
    }

    /// Verifies the blocks from the one that holds `from` to the end.
    fn verify(&self, from: u64) -> Result<(), ChunkError> {
        let length = self.summary().length;
        let mut at = from.min(length) / CHUNK_BLOCK_BYTES * CHUNK_BLOCK_BYTES;
        while at < length {
            let step = (length - at).min(super::PIECE_BYTES_MAX as u64);
            self.read(at, step as usize)?;
            at += step;
        }
        Ok(())
    }

    /// Takes up the running checksum where the last process had it.
    fn load_tail(&self) -> Result<(), ChunkError> {
        let length = self.summary().length;
        let partial = length % CHUNK_BLOCK_BYTES;
        let tail = self.read(length - partial, partial as usize)?;
        lock(&self.durable).tail.update(&tail);
        Ok(())
    }

    pub(super) fn summary(&self) -> Summary {
        let Slot { version, length, sealed, damaged, .. } = lock(&self.durable).slot;
        Summary { version, length, sealed, damaged }
    }

    /// Writes the pieces behind each other at the end of the data, and makes all of it durable with
    /// one sync. Either all of it counts afterwards or nothing.
    ///
    /// The version is compared here, under the same lock as a fence: what a fence reported as
    /// durable is all that ever counts under an older version.
    pub(super) fn append(
        &self,
        version: ChunkVersion,
        pieces: &[Bytes],
    ) -> Result<Summary, ChunkError> {
        let _writer = lock(&self.writer);
        let mut next = lock(&self.durable).clone();
        self.check_writable(&next)?;
        let found = next.slot.version;
        if version != found {
            let Identity { chunk, node, .. } = self.identity;
            return Err(ChunkError::Stale { chunk, node, found, asked: version });
        }
        if next.slot.sealed {
            return Err(self.not_writable("it is sealed"));
        }
        let bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        let at = next.slot.length;
        if at + bytes > CHUNK_BYTES_MAX {
            return Err(ChunkError::Full { chunk: self.identity.chunk });
        }
        let full_before = next.table.len();
        for piece in pieces {
            next.extend(piece);
        }
        next.slot.sequence += 1;
        let write = || {
            let mut at = DATA_AT + at;
            for piece in pieces {
                self.file.write_all_at(piece, at)?;
                at += piece.len() as u64;
            }
            self.write_state(&next, full_before)
        };
        self.finish(write(), next)
    }

    fn write_state(&self, next: &Durable, full_before: usize) -> io::Result<()> {
        if next.table.len() > full_before {
            let entries: Vec<u8> =
                next.table[full_before..].iter().flat_map(|crc| crc.to_le_bytes()).collect();
            self.file.write_all_at(&entries, TABLE_AT + 4 * full_before as u64)?;
        }
        self.file.write_all_at(&next.slot.encode(), next.slot.at())?;
        self.file.sync_data()
    }

    /// Takes over the new state if it is durable. A failed sync is never retried: the kernel may
    /// have dropped the pages and would report success.
    fn finish(&self, written: io::Result<()>, next: Durable) -> Result<Summary, ChunkError> {
        match written {
            Ok(()) => *lock(&self.durable) = next,
            Err(error) => {
                lock(&self.durable).failed = true;
                return Err(self.io(&error));
            }
        }
        Ok(self.summary())
    }

    fn check_writable(&self, state: &Durable) -> Result<(), ChunkError> {
        if state.failed {
            return Err(self.not_writable("an earlier write to it failed"));
        }
        Ok(())
    }

    /// Records a newer version: whoever appends under an older one is refused from now on.
    pub(super) fn fence(&self, version: ChunkVersion) -> Result<Summary, ChunkError> {
        let _writer = lock(&self.writer);
        let mut next = lock(&self.durable).clone();
        if version <= next.slot.version {
            return Ok(self.summary());
        }
        self.check_writable(&next)?;
        next.slot.version = version;
        next.slot.sequence += 1;
        let full = next.table.len();
        let written = self.write_state(&next, full);
        self.finish(written, next)
    }

    /// Ends the chunk at `length`, which is not beyond what is durable; bytes after it go.
    pub(super) fn seal(&self, version: ChunkVersion, length: u64) -> Result<Summary, ChunkError> {
        let _writer = lock(&self.writer);
        let mut next = lock(&self.durable).clone();
        if next.slot.sealed && next.slot.length == length && next.slot.version >= version {
            return Ok(self.summary());
        }
        self.check_writable(&next)?;
        if length > next.slot.length {
            return Err(self.out_of_range(next.slot.length, length));
        }
        let full = (length / CHUNK_BLOCK_BYTES) as usize;
        let partial = (length % CHUNK_BLOCK_BYTES) as usize;
        let tail = self.read(length - partial as u64, partial)?;
        next.table.truncate(full);
        next.tail = digest();
        next.tail.update(&tail);
        next.slot.tail_crc = value(&next.tail);
        next.slot.length = length;
        next.slot.version = next.slot.version.max(version);
        next.slot.sealed = true;
        next.slot.sequence += 1;
        let written = self.write_state(&next, full);
        let summary = self.finish(written, next)?;
        // What lies behind the end is only space: losing this truncation loses nothing.
        let cut = self.file.set_len(DATA_AT + length);
        cut.map_err(|error| self.io(&error))?;
        Ok(summary)
    }

    /// Remembers that a checksum did not match, so that the replica is replaced even if the block
    /// is not read again. Best effort: the next read finds it again.
    pub(super) fn mark_damaged(&self) -> Result<Summary, ChunkError> {
        let _writer = lock(&self.writer);
        let mut next = lock(&self.durable).clone();
        if next.slot.damaged || next.failed {
            return Ok(self.summary());
        }
        next.slot.damaged = true;
        next.slot.sequence += 1;
        let full = next.table.len();
        let written = self.write_state(&next, full);
        self.finish(written, next)
    }

    /// Reads durable bytes and verifies every block that they touch.
    pub(super) fn read(&self, offset: u64, length: usize) -> Result<Bytes, ChunkError> {
        let end = offset + length as u64;
        let first = offset / CHUNK_BLOCK_BYTES;
        let after = end.div_ceil(CHUNK_BLOCK_BYTES);
        let (from, to, expected) = {
            let state = lock(&self.durable);
            if end > state.slot.length {
                return Err(self.out_of_range(state.slot.length, end));
            }
            if length == 0 {
                return Ok(Bytes::new());
            }
            let to = (after * CHUNK_BLOCK_BYTES).min(state.slot.length);
            let crc = |block: u64| {
                let full = state.table.get(block as usize);
                full.copied().unwrap_or(state.slot.tail_crc)
            };
            let expected: Vec<u32> = (first..after).map(crc).collect();
            (first * CHUNK_BLOCK_BYTES, to, expected)
        };
        let mut bytes = vec![0; (to - from) as usize];
        self.file.read_exact_at(&mut bytes, DATA_AT + from).map_err(|error| {
            match error.kind() {
                io::ErrorKind::UnexpectedEof => self.corrupt("the file is shorter than its data"),
                _ => self.io(&error),
            }
        })?;
        for (place, (block, expected)) in bytes.chunks(BLOCK).zip(expected).enumerate() {
            let found = crc32c(block);
            if found != expected {
                let block = first + place as u64;
                return Err(self.corrupt(&format!(
                    "block {block} has CRC32C {found:08x} instead of {expected:08x}"
                )));
            }
        }
        let start = (offset - from) as usize;
        Ok(Bytes::from(bytes).slice(start..start + length))
    }

    fn io(&self, error: &io::Error) -> ChunkError {
        ChunkError::io(self.identity.chunk, self.identity.node, &self.path, error)
    }

    fn corrupt(&self, reason: &str) -> ChunkError {
        let Identity { chunk, node, .. } = self.identity;
        ChunkError::Corrupt { chunk, node, reason: format!("{}: {reason}", self.path.display()) }
    }

    fn not_writable(&self, reason: &str) -> ChunkError {
        let Identity { chunk, node, .. } = self.identity;
        ChunkError::NotWritable { chunk, node, reason: reason.to_owned() }
    }

    fn out_of_range(&self, length: u64, asked: u64) -> ChunkError {
        let Identity { chunk, node, .. } = self.identity;
        ChunkError::OutOfRange { chunk, node, length, asked }
    }
}

impl Durable {
    /// Takes bytes into length and checksums.
    fn extend(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let in_block = (self.slot.length % CHUNK_BLOCK_BYTES) as usize;
            let (now, rest) = bytes.split_at(bytes.len().min(BLOCK - in_block));
            self.tail.update(now);
            self.slot.length += now.len() as u64;
            if in_block + now.len() == BLOCK {
                self.table.push(value(&self.tail));
                self.tail = digest();
            }
            bytes = rest;
        }
        self.slot.tail_crc = value(&self.tail);
    }
}

const _: () = assert!(SLOT_AT[0] != SLOT_AT[1]);
