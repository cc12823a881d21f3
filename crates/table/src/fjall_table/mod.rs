//! The table on disk, over fjall, a log-structured merge tree in Rust.
//!
//! fjall keeps whole batches apart by a journal, and checksums its blocks. Two things it does not
//! do are done here. It cuts its journal at the first damaged batch without a word, which could
//! lose writes of which the log was already cleaned: so each batch carries a number, the newest
//! synced number is kept in a file of its own, and the journals are checked against it before fjall
//! may touch them. And damage that it meets may panic: a panic becomes an error that stops the
//! table.

mod folder;
mod guard;
mod journal;
mod synced;
mod values;
mod verify;

use std::fs;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable, Snapshot,
};
use onefold_types::{DurationCounts, DurationHistogram};

use self::folder::Folder;
use self::guard::Guard;
use self::synced::SyncedFile;
use self::values::Values;
use crate::batch::Part;
use crate::range::joined;
use crate::{Batch, KeyRange, Operation, Order, Scan, Table, TableError, View};

/// The newest format of table folders that this program reads and the one that it writes.
pub const TABLE_FORMAT: u32 = 1;

/// fjall's keyspace that holds everything.
const KEYSPACE: &str = "table";
/// The key of the number of the newest batch. It shares the keyspace with the data, so that both
/// reach the disk together.
const SEQUENCE_KEY: &[u8] = b"\0sequence";
/// What stands in front of each key of the caller.
const DATA_PREFIX: &[u8] = b"\x01";
/// Most bytes of all journals together; beyond it fjall writes out buffers to shorten them.
const JOURNAL_BYTES_MAX: u64 = 256 << 20;
/// Threads of a table that write out buffers and compact. One of them leaves compactions to the
/// others, and turns in a circle while it waits for one of them to be free: with one other thread
/// during each compaction, with two hardly ever.
const WORKER_THREADS: usize = 3;

/// How much memory a table may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// Bytes of the cache of blocks.
    pub cache_bytes: u64,
    /// Bytes of the cache of single values that were read from the table itself, not from a
    /// snapshot of it: what state machines change again and again.
    pub values_bytes: u64,
    /// Bytes of writes that are buffered in memory before they are written out; up to a few such
    /// buffers exist at a time. Fixed when the table is created.
    pub memtable_bytes: u64,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self { cache_bytes: 32 << 20, values_bytes: 32 << 20, memtable_bytes: 32 << 20 }
    }
}

/// A table on disk. Only one process can have it open.
pub struct FjallTable {
    store: Arc<Store>,
    values: Values,
    writer: Mutex<Writer>,
    write_durations: DurationHistogram,
}

/// fjall's handles. Snapshots share them, so the folder stays locked while one lives.
struct Store {
    // Dropped first: fjall lets go of its files before the lock is released.
    handles: Option<(Database, Keyspace)>,
    guard: Guard,
    folder: Folder,
}

/// What the one writer at a time needs.
struct Writer {
    /// The number of the newest batch.
    sequence: u64,
    synced: SyncedFile,
}

impl FjallTable {
    /// Opens the table in a folder, which is created when it does not exist.
    ///
    /// # Errors
    /// When the folder is in use, foreign, of a newer format, damaged or not accessible. A damaged
    /// one is left as it is.
    pub fn open(path: &Path, options: TableOptions) -> Result<Self, TableError> {
        let folder = Folder::open(path, |store| create_store(store, options))?;
        let mut synced = SyncedFile::open(&folder.synced_path())?;
        verify::check_manifests(&folder.store_path())?;
        let journals = journal::check(&folder.store_path(), synced.sequence())?;
        let guard = Guard::new(&folder.store_path());
        let (handles, sequence) = guard.run(|| {
            let handles = open_store(&folder.store_path(), options)?;
            let sequence = handles.1.get(SEQUENCE_KEY)?;
            Ok((handles, sequence))
        })?;
        let store = Store { handles: Some(handles), guard, folder };
        let sequence = match sequence {
            Some(bytes) => u64::from_be_bytes(bytes[..].try_into().map_err(|_| {
                store.guard.corrupt(format!("a batch number of {} bytes", bytes.len()))
            })?),
            None => 0,
        };
        if sequence < synced.sequence() {
            return Err(store.guard.corrupt(format!(
                "it ends at batch {sequence}, but batch {} was synced",
                synced.sequence()
            )));
        }
        if journals.last_sequence.is_some_and(|last| last != sequence) {
            return Err(store.guard.corrupt(format!(
                "its journals end at batch {:?}, but its tables at {sequence}",
                journals.last_sequence
            )));
        }
        // What was found is what counts from now on, also after the next crash.
        let store = Arc::new(store);
        store.persist()?;
        synced.record(sequence)?;
        let writer = Mutex::new(Writer { sequence, synced });
        let values = Values::new(options.values_bytes);
        Ok(Self { store, values, writer, write_durations: DurationHistogram::default() })
    }

    /// The folder of the table.
    pub fn path(&self) -> &Path {
        self.store.folder.path()
    }
}

/// Creates an empty store and closes it again.
fn create_store(path: &Path, options: TableOptions) -> Result<(), TableError> {
    fs::create_dir(path).map_err(folder::io_error(path))?;
    let guard = Guard::new(path);
    guard.run(|| {
        let (database, keyspace) = open_store(path, options)?;
        database.persist(PersistMode::SyncAll)?;
        drop(keyspace);
        drop(database);
        Ok(())
    })
}

fn open_store(path: &Path, options: TableOptions) -> fjall::Result<(Database, Keyspace)> {
    let database = Database::builder(path)
        .cache_size(options.cache_bytes)
        .max_journaling_size(JOURNAL_BYTES_MAX)
        .worker_threads(WORKER_THREADS)
        .open()?;
    let keyspace = database.keyspace(KEYSPACE, || {
        KeyspaceCreateOptions::default().max_memtable_size(options.memtable_bytes)
    })?;
    Ok((database, keyspace))
}

impl Store {
    fn database(&self) -> &Database {
        &self.handles.as_ref().expect("the handles are there until the store is dropped").0
    }

    fn keyspace(&self) -> &Keyspace {
        &self.handles.as_ref().expect("the handles are there until the store is dropped").1
    }

    fn persist(&self) -> Result<(), TableError> {
        self.guard.run_write(|| self.database().persist(PersistMode::SyncAll))
    }

    fn scan(&self, snapshot: &Snapshot, range: &KeyRange, order: Order) -> Scan<'static> {
        if range.is_empty() {
            return Box::new(std::iter::empty());
        }
        let KeyRange { start, end } = range.under(DATA_PREFIX);
        let bounds: (Bound<Bytes>, Bound<Bytes>) = (start, end);
        match self.guard.run(|| Ok(snapshot.range(self.keyspace(), bounds))) {
            Ok(pairs) => {
                Box::new(FjallScan { pairs: Some(pairs), order, guard: self.guard.clone() })
            }
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let handles = self.handles.take();
        // fjall's own drop may stumble over what a panic left behind.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(handles)));
    }
}

impl View for FjallTable {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TableError> {
        let key = joined(DATA_PREFIX, key);
        self.values.get(&key, || {
            let value = self.store.guard.run(|| self.store.keyspace().get(&key))?;
            Ok(value.map(Bytes::from))
        })
    }

    fn scan(&self, range: KeyRange, order: Order) -> Scan<'_> {
        self.store.scan(&self.store.database().snapshot(), &range, order)
    }
}

impl Table for FjallTable {
    fn snapshot(&self) -> Arc<dyn View> {
        let snapshot = self.store.database().snapshot();
        Arc::new(FjallSnapshot { snapshot, store: self.store.clone() })
    }

    fn write(&self, batch: Batch) -> Result<(), TableError> {
        batch.check_sizes()?;
        if batch.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        // One writer at a time: the numbers in the journal have no gaps.
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let sequence = writer.sequence + 1;
        let mut change = self.values.change();
        self.store.guard.run_write(|| {
            let keyspace = self.store.keyspace();
            let database = self.store.database().clone();
            let mut fjall_batch = OwnedWriteBatch::with_capacity(database, batch.len() + 1)
                .durability(Some(PersistMode::Buffer));
            for Part { prefix, operations } in batch.into_parts() {
                let prefix = joined(DATA_PREFIX, &prefix);
                for operation in operations {
                    let key = joined(&prefix, operation.key());
                    match operation {
                        Operation::Put { value, .. } => {
                            change.note(&key, Some(&value));
                            fjall_batch.insert(keyspace, key, value);
                        }
                        Operation::Delete { .. } => {
                            change.note(&key, None);
                            fjall_batch.remove(keyspace, key);
                        }
                    }
                }
            }
            fjall_batch.insert(keyspace, SEQUENCE_KEY, &sequence.to_be_bytes()[..]);
            fjall_batch.commit()
        })?;
        change.done();
        writer.sequence = sequence;
        self.write_durations.add(began.elapsed());
        Ok(())
    }

    fn sync(&self) -> Result<(), TableError> {
        let sequence = self.writer.lock().unwrap_or_else(PoisonError::into_inner).sequence;
        self.store.persist()?;
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if sequence > writer.synced.sequence() {
            let recorded = writer.synced.record(sequence);
            recorded.inspect_err(|error| self.store.guard.stop(error.to_string()))?;
        }
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.store.keyspace().disk_space() + self.store.database().write_buffer_size()
    }

    fn write_durations(&self) -> DurationCounts {
        self.write_durations.counts()
    }
}

struct FjallSnapshot {
    snapshot: Snapshot,
    store: Arc<Store>,
}

impl View for FjallSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TableError> {
        let key = joined(DATA_PREFIX, key);
        let value = self.store.guard.run(|| self.snapshot.get(self.store.keyspace(), &key))?;
        Ok(value.map(Bytes::from))
    }

    fn scan(&self, range: KeyRange, order: Order) -> Scan<'_> {
        self.store.scan(&self.snapshot, &range, order)
    }
}

struct FjallScan {
    /// `None` after an error.
    pairs: Option<fjall::Iter>,
    order: Order,
    guard: Guard,
}

impl Iterator for FjallScan {
    type Item = Result<(Bytes, Bytes), TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        let pairs = self.pairs.as_mut()?;
        let pair = self.guard.run(|| {
            let pair = match self.order {
                Order::Ascending => pairs.next(),
                Order::Descending => pairs.next_back(),
            };
            pair.map(fjall::Guard::into_inner).transpose()
        });
        match pair.transpose()? {
            Ok((key, value)) => {
                let key = Bytes::from(key).slice(DATA_PREFIX.len()..);
                Some(Ok((key, value.into())))
            }
            Err(error) => {
                self.pairs = None;
                Some(Err(error))
            }
        }
    }
}
