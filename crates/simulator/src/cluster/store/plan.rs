//! How the groups of a seed are used, and how their stores are kept.

use std::time::Duration;

use onefold_kv::{AutoCompaction, KvOptions};

use super::super::clock::{MILLISECOND, Micros};
use crate::random::Random;

/// What the clients of a group do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Workload {
    /// One key at a time, each of which is a register.
    Registers,
    /// Everything that the store can do.
    Store,
}

/// The knobs of the groups with [`Workload::Store`].
#[derive(Clone, Debug)]
pub(in super::super) struct StorePlan {
    /// What is chosen for the stores.
    pub(in super::super) options: KvOptions,
    /// Watchers of each group.
    pub(in super::super) watchers: usize,
    /// Revisions that a replica keeps in memory for them.
    pub(in super::super) ring_revisions_max: usize,
    /// Bytes of events after which a message to them begins no further revision.
    pub(in super::super) batch_bytes: usize,
    /// How long news may wait before they are sent; zero: not at all.
    pub(in super::super) watch_delay_max: Micros,
    /// How long a watcher stays with a replica at most.
    pub(in super::super) stay_max: Micros,
    /// Events that a step of compaction looks at.
    pub(in super::super) sweep_events: u32,
    /// Times to live that are asked for, in seconds.
    pub(in super::super) ttl_seconds_max: u64,
    /// What clients do that is to keep a lease alive.
    pub(in super::super) keep_alives: u64,
    /// Commands that carry a session.
    pub(in super::super) tagged: u64,
}

impl StorePlan {
    pub(in super::super) fn draw(random: &mut Random) -> Self {
        let auto_compaction = match random.within(0..=3) {
            0 => AutoCompaction::Revision { retention: random.within(5..=200) },
            1 => {
                AutoCompaction::Periodic { retention: Duration::from_secs(random.within(10..=600)) }
            }
            _ => AutoCompaction::Off,
        };
        Self {
            options: KvOptions {
                quota_bytes: random.pick(&[0, 0, 0, 3_000]),
                auto_compaction,
                lease_checkpoint_interval: Duration::from_secs(random.pick(&[2, 5, 60])),
            },
            watchers: random.within(1..=3) as usize,
            ring_revisions_max: random.pick(&[1, 4, 8192]),
            batch_bytes: random.pick(&[1, 400, 64 << 10]),
            watch_delay_max: MILLISECOND * random.pick(&[0, 0, 30, 2_000]),
            stay_max: MILLISECOND * random.within(2_000..=60_000),
            sweep_events: random.pick(&[1, 7, 512]),
            ttl_seconds_max: random.pick(&[3, 10, 40]),
            keep_alives: random.pick(&[100, 100, 500]),
            tagged: random.pick(&[0, 500, 1000]),
        }
    }

    /// At the end nothing takes long.
    pub(in super::super) fn heal(&mut self) {
        self.watch_delay_max = 0;
    }
}
