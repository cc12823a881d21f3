//! What the gateway counts, and the page that shows it under etcd's names.
//!
//! Counting is a relaxed addition; nothing on the way of a request locks or allocates for it.

mod calls;
pub(crate) mod page;
mod process;

use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use calls::{CallCounters, CountCalls, CountCallsLayer, Counting};

/// What the gateway of one node counts.
#[derive(Default)]
pub(crate) struct Metrics {
    pub(crate) calls: CallCounters,
    /// Bytes read from the connections of clients.
    pub(crate) received_bytes: Counter,
    /// Bytes written to them.
    pub(crate) sent_bytes: Counter,
    /// Streams of watches that are open.
    pub(crate) watch_streams: Gauge,
    health: [Counter; 2],
    checks: [[[Counter; 2]; Check::ALL.len()]; Probe::ALL.len()],
}

impl Metrics {
    /// Notes an answer of `/health`.
    pub(crate) fn health_asked(&self, is_good: bool) {
        self.health[usize::from(is_good)].add(1);
    }

    /// How often `/health` said no, and how often yes.
    pub(crate) fn health(&self) -> [u64; 2] {
        self.health.each_ref().map(Counter::get)
    }

    /// Notes the outcome of a check.
    pub(crate) fn checked(&self, probe: Probe, check: Check, is_good: bool) {
        self.checks[probe as usize][check as usize][usize::from(is_good)].add(1);
    }

    /// How often a check failed, and how often it succeeded.
    pub(crate) fn checks(&self, probe: Probe, check: Check) -> [u64; 2] {
        self.checks[probe as usize][check as usize].each_ref().map(Counter::get)
    }
}

/// A number that only rises.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many there are now of what takes and returns a [`Counted`].
#[derive(Debug, Default)]
pub(crate) struct Gauge(std::sync::Arc<AtomicU64>);

impl Gauge {
    /// One more, until the guard is dropped.
    pub(crate) fn count(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(std::sync::Arc::clone(&self.0))
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts in a [`Gauge`] as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted(std::sync::Arc<AtomicU64>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A question about the node's health that consists of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    Livez,
    Readyz,
}

impl Probe {
    pub(crate) const ALL: [Self; 2] = [Self::Livez, Self::Readyz];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Livez => "livez",
            Self::Readyz => "readyz",
        }
    }
}

/// A check, under the name that etcd gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    pub(crate) const ALL: [Self; 4] =
        [Self::DataCorruption, Self::SerializableRead, Self::LinearizableRead, Self::NonLearner];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }
}
