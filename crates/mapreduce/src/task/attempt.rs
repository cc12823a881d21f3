//! What an attempt knows about itself and leaves behind.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::log::Log;
use super::stop::Stop;
use crate::api::limits::{
    COUNT_BYTES_DEFAULT, COUNTER_NAME_BYTES_MAX, FETCH_BYTES_DEFAULT, MERGE_WAYS_MAX,
    SORT_BYTES_DEFAULT, USER_COUNTERS_MAX,
};
use crate::api::{Counters, JobId, JobSpec, TaskName};
use crate::job::AttemptId;
use crate::shuffle::CollectorLimits;

/// Memory that one task may use for its data, and how many runs it reads at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TaskLimits {
    /// Map output that is sorted in memory.
    pub(crate) sort_bytes: usize,
    /// Distinct keys that the built-in jobs count in memory.
    pub(crate) count_bytes: usize,
    /// Fetched map output that a reduce task keeps in memory.
    pub(crate) fetch_bytes: usize,
    /// Runs merged at once.
    pub(crate) merge_ways: usize,
}

impl Default for TaskLimits {
    fn default() -> Self {
        Self {
            sort_bytes: SORT_BYTES_DEFAULT,
            count_bytes: COUNT_BYTES_DEFAULT,
            fetch_bytes: FETCH_BYTES_DEFAULT,
            merge_ways: MERGE_WAYS_MAX,
        }
    }
}

impl TaskLimits {
    pub(crate) fn collector(&self) -> CollectorLimits {
        CollectorLimits { sort_bytes: self.sort_bytes, merge_ways: self.merge_ways }
    }
}

/// One attempt at one task.
pub(crate) struct Attempt {
    /// The job.
    pub(crate) job: JobId,
    /// Its description.
    pub(crate) spec: Arc<JobSpec>,
    /// The task.
    pub(crate) task: TaskName,
    /// The attempt.
    pub(crate) attempt: AttemptId,
    /// Map tasks of the job.
    pub(crate) maps: u32,
    /// Reduce tasks of the job.
    pub(crate) reduces: u32,
    /// An empty folder of the attempt's own.
    pub(crate) scratch: PathBuf,
    /// Its bounds.
    pub(crate) limits: TaskLimits,
    /// How to stop it, and its signs of life.
    pub(crate) stop: Stop,
    /// Share of the input that was read, in thousandths.
    pub(crate) progress: AtomicU64,
    /// What its commands write to standard error.
    pub(crate) log: Mutex<Log>,
    /// Its counters.
    pub(crate) counters: Mutex<Counters>,
}

impl Attempt {
    /// `job-000017-m-00003-5.1`.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}-{}", self.job, self.task, self.attempt)
    }

    /// Adds to one of the counters that every job has.
    pub(crate) fn count(&self, name: &str, amount: u64) {
        if amount > 0 {
            self.lock_counters().add(Counters::TASK, name, amount);
        }
    }

    /// Adds to a counter of the user's; says no when the name is too long or there are too many.
    pub(crate) fn count_for_user(&self, group: &str, name: &str, amount: u64) -> bool {
        if group.len().max(name.len()) > COUNTER_NAME_BYTES_MAX || group == Counters::TASK {
            return false;
        }
        let mut counters = self.lock_counters();
        let known = counters.0.get(group).is_some_and(|names| names.contains_key(name));
        if !known && counters.len() >= USER_COUNTERS_MAX {
            return false;
        }
        counters.add(group, name, amount);
        true
    }

    /// Notes that `done` of `total` bytes of input are read.
    pub(crate) fn note_progress(&self, done: u64, total: u64) {
        self.stop.note_activity();
        let permille = (done.min(total) * 1000).checked_div(total).unwrap_or(1000);
        self.progress.store(permille, Ordering::Relaxed);
    }

    pub(crate) fn lock_log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_counters(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
