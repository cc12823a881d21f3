//! Where everything that clients see is written down.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use onefold_checker::history::{Nanos, Operation, Reading, Watch};
use onefold_types::Revision;

/// What one round of clients records.
pub struct Recorder {
    epoch: Instant,
    operations: Mutex<Vec<Operation>>,
    watches: Mutex<Vec<Watch>>,
    readings: Mutex<Vec<Reading>>,
    /// Drawn by every write, so that each value tells who wrote it.
    values: AtomicU64,
    /// The highest revision that any client saw.
    latest: AtomicU64,
    /// The highest revision to which history may have been compacted.
    compacted: AtomicU64,
}

impl Recorder {
    /// Records what happens from a revision on; all recorders of a run share one epoch.
    pub fn new(epoch: Instant, begin: Revision) -> Self {
        Self {
            epoch,
            operations: Mutex::default(),
            watches: Mutex::default(),
            readings: Mutex::default(),
            values: AtomicU64::new(0),
            latest: AtomicU64::new(begin.get()),
            compacted: AtomicU64::new(begin.get()),
        }
    }

    /// The time now.
    pub fn now(&self) -> Nanos {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(Nanos::MAX)
    }

    /// A number that nobody else gets in this round.
    pub fn unique(&self) -> u64 {
        self.values.fetch_add(1, Ordering::Relaxed)
    }

    /// Writes an operation down.
    pub fn operation(&self, operation: Operation) {
        if let Some((revision, _)) = operation.answered() {
            self.latest.fetch_max(revision.get(), Ordering::Relaxed);
        }
        lock(&self.operations).push(operation);
    }

    /// Writes down what a watcher was told in its life.
    pub fn watch(&self, watch: Watch) {
        lock(&self.watches).push(watch);
    }

    /// Writes down a stretch of history that was read back.
    pub fn reading(&self, reading: Reading) {
        lock(&self.readings).push(reading);
    }

    /// The highest revision that any client saw.
    pub fn latest(&self) -> Revision {
        Revision(self.latest.load(Ordering::Relaxed))
    }

    /// The highest revision to which anybody asked to compact, or the first one of the round.
    pub fn compacted(&self) -> Revision {
        Revision(self.compacted.load(Ordering::Relaxed))
    }

    /// Notes, before it is asked, that history may be compacted.
    pub fn compacts(&self, at: Revision) {
        self.compacted.fetch_max(at.get(), Ordering::Relaxed);
    }

    /// All that was written down.
    pub fn take(&self) -> (Vec<Operation>, Vec<Watch>, Vec<Reading>) {
        let take = (&self.operations, &self.watches, &self.readings);
        (
            std::mem::take(&mut *lock(take.0)),
            std::mem::take(&mut *lock(take.1)),
            std::mem::take(&mut *lock(take.2)),
        )
    }
}

/// A panic of one client leaves whole records behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
