//! A check of fjall's journals before fjall opens them.
//!
//! A journal is a row of batches: start (tag 1, item count u32, sequence u64), items (tag 2, value
//! type u8, compression u8, keyspace u64, key length u16, value length u32 twice, key, value), end
//! (tag 3, xxh3 of the items u64, magic). All numbers are little-endian. Zeros follow the last
//! batch of the newest journal, which is laid out in advance.
//!
//! Only the newest journal may end in a torn batch, and only after everything that was synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3Default;

use super::SEQUENCE_KEY;
use super::folder::io_error;
use crate::TableError;

const TAG_START: u8 = 1;
const TAG_ITEM: u8 = 2;
const TAG_END: u8 = 3;
const MAGIC: &[u8; 4] = b"FJL\x03";
const READ_BUFFER_BYTES: usize = 256 << 10;

/// What the journals hold.
#[derive(Debug)]
pub(super) struct Journals {
    /// The number of the newest batch in them.
    pub(super) last_sequence: Option<u64>,
}

/// Checks all journals of a store against the newest batch that was synced, and cuts a torn tail
/// off the newest one.
pub(super) fn check(store: &Path, synced: u64) -> Result<Journals, TableError> {
    let paths = journal_paths(store)?;
    let Some(newest) = paths.last() else {
        return Err(corrupt(store, "all its journals (*.jnl) are missing"));
    };
    let mut last: Option<BatchNumbers> = None;
    for path in &paths {
        let file = File::open(path).map_err(io_error(path))?;
        let file_bytes = file.metadata().map_err(io_error(path))?.len();
        let mut reader = JournalReader::new(file, file_bytes);
        loop {
            match reader.read_batch().map_err(io_error(path))? {
                Next::Batch(batch) => {
                    check_order(path, reader.valid_bytes, last, batch)?;
                    last = Some(batch);
                }
                Next::End => break,
                Next::Invalid => {
                    let valid_bytes = reader.valid_bytes;
                    let reached = last.map_or(0, |batch| batch.table);
                    if path != newest || reached < synced {
                        let reason = format!(
                            "the batch at byte {valid_bytes} is not readable, but it was synced"
                        );
                        return Err(corrupt(path, &reason));
                    }
                    cut(path, valid_bytes)?;
                    break;
                }
            }
        }
    }
    match last {
        Some(last) if last.table < synced => {
            let reason = format!("it ends at batch {}, but batch {synced} was synced", last.table);
            Err(corrupt(newest, &reason))
        }
        _ => Ok(Journals { last_sequence: last.map(|last| last.table) }),
    }
}

/// The numbers that order batches: fjall's and the table's.
#[derive(Clone, Copy, Debug)]
struct BatchNumbers {
    fjall: u64,
    table: u64,
}

fn check_order(
    path: &Path,
    end: u64,
    last: Option<BatchNumbers>,
    batch: BatchNumbers,
) -> Result<(), TableError> {
    let Some(last) = last else {
        return Ok(());
    };
    if batch.table != last.table + 1 || batch.fjall <= last.fjall {
        let reason = format!(
            "the batch before byte {end} has the number {}, but {} comes after {}",
            batch.table,
            last.table + 1,
            last.table
        );
        return Err(corrupt(path, &reason));
    }
    Ok(())
}

/// The journals in the order in which they were written.
fn journal_paths(store: &Path) -> Result<Vec<PathBuf>, TableError> {
    let mut journals = Vec::new();
    for entry in fs::read_dir(store).map_err(io_error(store))? {
        let path = entry.map_err(io_error(store))?.path();
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jnl")) {
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            let number = number.ok_or_else(|| corrupt(&path, "its name is not a number"))?;
            journals.push((number, path));
        }
    }
    journals.sort_unstable();
    Ok(journals.into_iter().map(|(_, path)| path).collect())
}

fn cut(path: &Path, valid_bytes: u64) -> Result<(), TableError> {
    tracing::warn!(
        journal = %path.display(), valid_bytes,
        "cutting a torn, never synced tail off the table's journal; the log will be applied again"
    );
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file| {
            file.set_len(valid_bytes)?;
            file.sync_all()
        })
        .map_err(io_error(path))
}

fn corrupt(path: &Path, reason: &str) -> TableError {
    TableError::Corrupt { file: path.to_owned(), reason: reason.to_owned() }
}

enum Next {
    Batch(BatchNumbers),
    /// Nothing but zeros follows.
    End,
    Invalid,
}

struct JournalReader {
    reader: BufReader<File>,
    file_bytes: u64,
    /// Where the last valid batch ended.
    valid_bytes: u64,
}

impl JournalReader {
    fn new(file: File, file_bytes: u64) -> Self {
        let reader = BufReader::with_capacity(READ_BUFFER_BYTES, file);
        Self { reader, file_bytes, valid_bytes: 0 }
    }

    fn read_batch(&mut self) -> io::Result<Next> {
        match self.parse_batch() {
            Ok(Some(batch)) => {
                self.valid_bytes = self.reader.stream_position()?;
                Ok(Next::Batch(batch))
            }
            Ok(None) => self.end_or_invalid(),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.end_or_invalid(),
            Err(error) => Err(error),
        }
    }

    /// One batch; nothing if the bytes are not one.
    fn parse_batch(&mut self) -> io::Result<Option<BatchNumbers>> {
        if self.u8()? != TAG_START {
            return Ok(None);
        }
        let items = self.u32()?;
        let fjall = self.u64()?;
        let mut hasher = Xxh3Default::new();
        let mut table = None;
        for _ in 0..items {
            let Some(item) = self.item()? else {
                return Ok(None);
            };
            hasher.update(&item.bytes);
            if item.key() == SEQUENCE_KEY {
                table = item.value().try_into().ok().map(u64::from_be_bytes);
            }
        }
        if self.u8()? != TAG_END || self.u64()? != hasher.digest() || &self.array()? != MAGIC {
            return Ok(None);
        }
        Ok(table.map(|table| BatchNumbers { fjall, table }))
    }

    fn item(&mut self) -> io::Result<Option<Item>> {
        let head: [u8; ITEM_HEAD_BYTES] = self.array()?;
        let (tag, compression) = (head[0], head[2]);
        let key_bytes = usize::from(u16::from_le_bytes([head[11], head[12]]));
        let value_bytes = u32::from_le_bytes([head[13], head[14], head[15], head[16]]);
        let position = self.reader.stream_position()?;
        let fits = position + key_bytes as u64 + u64::from(value_bytes) <= self.file_bytes;
        if tag != TAG_ITEM || compression != 0 || head[13..17] != head[17..21] || !fits {
            return Ok(None);
        }
        let bytes = ITEM_HEAD_BYTES + key_bytes + value_bytes as usize;
        let mut item = Item { bytes: vec![0; bytes], key_bytes };
        item.bytes[..ITEM_HEAD_BYTES].copy_from_slice(&head);
        self.reader.read_exact(&mut item.bytes[ITEM_HEAD_BYTES..])?;
        Ok(Some(item))
    }

    /// Whether what follows the last valid batch is the zeros of a file laid out in advance.
    fn end_or_invalid(&mut self) -> io::Result<Next> {
        self.reader.seek(SeekFrom::Start(self.valid_bytes))?;
        let mut buffer = vec![0; READ_BUFFER_BYTES];
        loop {
            match self.reader.read(&mut buffer)? {
                0 => return Ok(Next::End),
                read if buffer[..read].iter().all(|&byte| byte == 0) => {}
                _ => return Ok(Next::Invalid),
            }
        }
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u8(&mut self) -> io::Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> io::Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> io::Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}

/// Tag, value type, compression, keyspace, key length, value length, stored value length.
const ITEM_HEAD_BYTES: usize = 1 + 1 + 1 + 8 + 2 + 4 + 4;

/// One item as it stands in the journal.
struct Item {
    bytes: Vec<u8>,
    key_bytes: usize,
}

impl Item {
    fn key(&self) -> &[u8] {
        &self.bytes[ITEM_HEAD_BYTES..ITEM_HEAD_BYTES + self.key_bytes]
    }

    fn value(&self) -> &[u8] {
        &self.bytes[ITEM_HEAD_BYTES + self.key_bytes..]
    }
}
