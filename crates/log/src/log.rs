//! The handle of an open log.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use onefold_types::{GroupId, LogIndex, Term};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::format::{BATCH_HEADER_BYTES, write_bytes};
use crate::manifest::Manifest;
use crate::queue::{Pending, Queue};
use crate::recovery::{LOCK_FILE, check_foreign, recover};
use crate::status::Counters;
use crate::writer::Writer;
use crate::{LogError, LogStatus, Recovered, Write};

/// Is called once with the outcome of an append, on the log's thread. It must be quick, and must
/// not append: the thread would wait for itself.
pub type Done = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// Smallest segment that makes sense; tests use it.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 4 << 10;
/// Most bytes of one append.
const APPEND_BYTES_MAX: u64 = 1 << 30;

/// How a log uses disk and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Bytes that a segment file is laid out with. An append that is larger gets a segment of its
    /// own size.
    pub segment_bytes: u64,
    /// Bytes of segments that may exist before entries of slow groups are carried forward so that
    /// old segments can go.
    pub retained_bytes: u64,
    /// Bytes of appends that may wait; beyond it [`Log::append`] waits.
    pub queue_bytes: u64,
    /// Whose log it is: the number of the data folder that it belongs to, written into each of its
    /// files. A log, or a file of it, that was made for another one is refused.
    pub owner: u64,
    /// Whether there must be a log already. One that is gone took promises along, and is not begun
    /// anew.
    pub must_exist: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            retained_bytes: 256 << 20,
            queue_bytes: 32 << 20,
            owner: 0,
            must_exist: false,
        }
    }
}

/// An open log. Clones are handles of the same log; the last one that is dropped closes it.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Log {
    /// Opens the log in a folder, which is created when it does not exist, and reads what it
    /// holds. A torn write that was never acknowledged is cut.
    ///
    /// # Errors
    /// When the log is in use, foreign, of another owner or format, damaged, or not accessible.
    /// Nothing is changed then.
    ///
    /// # Panics
    /// When an option is out of its range: a segment below 4 KiB.
    pub fn open(path: &Path, options: LogOptions) -> Result<(Self, Recovered), LogError> {
        assert!(options.segment_bytes >= SEGMENT_BYTES_MIN, "a segment is at least 4 KiB long");
        fs::create_dir_all(path).map_err(LogError::io(path))?;
        let manifest = Manifest::read(path, options.owner)?;
        if manifest.is_none() {
            check_foreign(path)?;
            if options.must_exist {
                return Err(LogError::Missing(Manifest::path(path)));
            }
        }
        let lock = take_lock(path)?;
        let manifest = match Manifest::read(path, options.owner)? {
            Some(manifest) => manifest,
            None => Manifest::empty(options.owner).write(path)?,
        };
        let mut found = recover(path, manifest)?;
        let recovered = std::mem::take(&mut found.recovered);
        let queue = Arc::new(Queue::new(options.queue_bytes));
        let counters = Arc::new(Counters::of(&found));
        let writer = Writer::new(path.to_owned(), options, found, queue.clone(), counters.clone())?;
        let run = move || {
            // The lock is let go of when everything is written.
            let _lock = lock;
            writer.run();
        };
        let thread = thread::Builder::new().name("onefold-log".to_owned()).spawn(run);
        let thread = Mutex::new(Some(thread.map_err(LogError::io(path))?));
        let inner = Inner { path: path.to_owned(), queue, counters, thread };
        Ok((Self { inner: Arc::new(inner) }, recovered))
    }

    /// The log's folder.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Queues records that become durable together: after a crash all of them are there or none.
    /// Appends are written in the order in which they were queued. Waits while the queue is full.
    /// An empty append is done when everything queued before it is durable.
    ///
    /// `done` hears of the outcome: durable, or an error. After [`LogError::OutOfOrder`] or
    /// [`LogError::DiskFull`] nothing of the append was written and the log goes on; after any
    /// other error it takes no more.
    ///
    /// # Errors
    /// When the append can't be queued since it is too large, or the log is closed or poisoned.
    /// `done` is not called then.
    pub fn append(&self, writes: Vec<Write>, done: Done) -> Result<(), LogError> {
        let mut bytes = 0;
        if !writes.is_empty() {
            let body: usize = writes.iter().map(write_bytes).sum();
            bytes = (BATCH_HEADER_BYTES + body) as u64;
        }
        if bytes > APPEND_BYTES_MAX {
            return Err(LogError::TooLarge { bytes, bytes_max: APPEND_BYTES_MAX });
        }
        self.inner.queue.push(Pending { writes, bytes, done })
    }

    /// Everything of the group up to and including `through` is no longer needed, since its effects
    /// are durable in the table: writes a [`Write::SnapshotMark`] without waiting for it. Segments
    /// that no group needs any more are removed soon after.
    ///
    /// `term` is that of the entry at `through`; `data` is what the reader must know about that
    /// point, such as the membership.
    ///
    /// # Errors
    /// Those of [`Log::append`].
    pub fn compact(
        &self,
        group: GroupId,
        through: LogIndex,
        term: Term,
        data: Bytes,
    ) -> Result<(), LogError> {
        let mark = Write::SnapshotMark { group, index: through, term, data };
        // A failure poisons the log or leaves the entries; either way nothing waits for this.
        self.append(vec![mark], Box::new(|_| {}))
    }

    /// Waits until everything queued before is durable.
    ///
    /// # Errors
    /// When the log failed or is closed.
    pub fn sync_barrier(&self) -> Result<(), LogError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let done = move |outcome| {
            // The receiver waits below.
            let _ = sender.send(outcome);
        };
        self.append(Vec::new(), Box::new(done))?;
        receiver.recv().unwrap_or(Err(LogError::Closed))
    }

    /// Writes what waits, syncs, and lets go of the folder. Later appends fail.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Numbers about the log.
    pub fn status(&self) -> LogStatus {
        let is_poisoned = self.inner.queue.poisoned().is_some();
        self.inner.counters.status(self.inner.queue.bytes(), is_poisoned)
    }
}

impl Inner {
    fn close(&self) {
        self.queue.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The last handle may be dropped by an append's `done`, on the log's own thread.
        if let Some(thread) = thread
            && thread.thread().id() != thread::current().id()
        {
            // A panic on that thread was reported by it.
            let _ = thread.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

fn take_lock(folder: &Path) -> Result<File, LogError> {
    let path = folder.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(LogError::io(&path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(LogError::InUse(folder.to_owned())),
        Err(error) => Err(LogError::io(&path)(error.into())),
    }
}
