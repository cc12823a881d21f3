//! Numbers about a running log.

use std::sync::atomic::{AtomicU64, Ordering};

use onefold_types::{DurationCounts, DurationHistogram};

use crate::recovery::Found;

/// Numbers about a log since it was opened, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// Segment files that exist.
    pub segments: u64,
    /// Bytes of all segment files, with what is laid out in advance.
    pub bytes: u64,
    /// Appends that became durable.
    pub appends: u64,
    /// Syncs that those took together; fewer than appends when many waited.
    pub fsyncs: u64,
    /// How long each of the syncs took.
    pub fsync_durations: DurationCounts,
    /// Bytes written, with headers and what was carried forward.
    pub written_bytes: u64,
    /// Entries of slow or idle groups that were carried forward.
    pub carried_entries: u64,
    /// Segments that were removed.
    pub removed_segments: u64,
    /// Bytes of torn writes, which were never acknowledged, that were cut when the log was opened.
    pub torn_bytes: u64,
    /// Bytes of appends that wait in the queue.
    pub queued_bytes: u64,
    /// Whether the log takes no more writes because one failed.
    pub is_poisoned: bool,
}

/// The counters behind [`LogStatus`]; the log's thread is the only one that writes them.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) segments: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) appends: AtomicU64,
    pub(crate) fsyncs: AtomicU64,
    pub(crate) fsync_durations: DurationHistogram,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) carried_entries: AtomicU64,
    pub(crate) removed_segments: AtomicU64,
    pub(crate) torn_bytes: AtomicU64,
}

impl Counters {
    /// Those of a log that was just read.
    pub(crate) fn of(found: &Found) -> Self {
        let torn = found.tail.as_ref().map_or(0, |tail| tail.torn.end - tail.torn.start);
        Self { torn_bytes: AtomicU64::new(torn), ..Self::default() }
    }

    pub(crate) fn status(&self, queued_bytes: u64, is_poisoned: bool) -> LogStatus {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogStatus {
            segments: read(&self.segments),
            bytes: read(&self.bytes),
            appends: read(&self.appends),
            fsyncs: read(&self.fsyncs),
            fsync_durations: self.fsync_durations.counts(),
            written_bytes: read(&self.written_bytes),
            carried_entries: read(&self.carried_entries),
            removed_segments: read(&self.removed_segments),
            torn_bytes: read(&self.torn_bytes),
            queued_bytes,
            is_poisoned,
        }
    }
}

pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
