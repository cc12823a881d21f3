//! Settings, and what a driver loads from disk.

use onefold_types::{GroupId, LogIndex, NodeId, Term};
use thiserror::Error;

use crate::entry::{Entry, HardState, SnapshotMark};

/// The least drift that a lease cannot allow for, in millionths.
const DRIFT_PPM_END: u32 = 500_000;

/// Settings of one group on one node. Time is counted in ticks; the driver says how long one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node.
    pub id: NodeId,
    /// The group.
    pub group: GroupId,
    /// A follower that hears nothing stands for election after a random time in
    /// `[election_ticks, 2 * election_ticks)` (§5.2); a leader that does not hear from a majority
    /// for `election_ticks` steps down. Must be more than `heartbeat_ticks`.
    pub election_ticks: u32,
    /// How often these timeouts may be doubled where delays, and not failures, cause elections.
    pub patience_doublings_max: u32,
    /// Ticks between heartbeats, at least 1.
    pub heartbeat_ticks: u32,
    /// Seeds the random election timeouts, together with `id` and `group`.
    pub seed: u64,
    /// Most appends that are sent to one follower and not yet answered.
    pub inflight_messages_max: usize,
    /// Most bytes of entries that are sent to one follower and not yet answered; one append may
    /// go over it.
    pub inflight_bytes_max: usize,
    /// Most bytes of entries in one append; one entry alone may go over it.
    pub append_bytes_max: usize,
    /// Most bytes of entries that a leader holds uncommitted before it refuses proposals as
    /// overloaded; one batch on an idle leader may go over it.
    pub uncommitted_bytes_max: usize,
    /// Most bytes of entries handed out and not yet applied; one entry may go over it.
    pub unapplied_bytes_max: usize,
    /// Most reads that wait for confirmation. Each [`crate::Input::ReadIndex`] is one, however many
    /// of its callers the driver asks for with it: if it asks once for all that came in a round,
    /// rounds are counted.
    pub reads_pending_max: usize,
    /// A leader of more than one voter whose oldest unfinished write is older than this steps down.
    pub disk_stall_ticks: u32,
    /// The place of this node in the order of those that should lead; 0 is preferred. Each rank
    /// adds `election_ticks` to the election timeout. It orders who stands first, never who may.
    pub election_rank: u32,
    /// A learner that joins becomes a voter once it is at most this many entries behind.
    pub promotion_lag_max: u64,
    /// The group falls silent when nothing happened for this long; never if `None`.
    pub quiesce_after_ticks: Option<u32>,
    /// Reads without a round of confirmations; off if `None`. A voter that promises less than the
    /// leader's lease, or nothing, does not count for it, so members may be switched on one after
    /// another. A member that starts with less than before forgets what it promised: leave at least
    /// the old lease between one and the next.
    pub lease: Option<Lease>,
}

/// How long a leader may serve reads after a majority heard of it, and what that relies on.
///
/// The bound is on the *rate* of clocks alone: while any member's process measures some time, no
/// other's measures less than it by more than `drift_ppm` millionths. What the clocks show, and
/// whether they are set, does not matter. If a clock breaks the bound, a deposed leader may serve a
/// stale read; nothing else of the group's safety depends on clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// In microseconds, at least 1. For so long after a voter heard the leader, or started, it
    /// neither votes nor stands; so this should be less than the shortest election timeout.
    pub micros: u64,
    /// By how many millionths the rates of two clocks may differ; less than 500,000.
    pub drift_ppm: u32,
}

impl Lease {
    /// For how long, by its own clock, a leader may count on the voters' promises.
    pub(crate) fn usable_micros(&self) -> u64 {
        let drift = u128::from(self.micros) * u128::from(self.drift_ppm);
        self.micros - drift.div_ceil(1_000_000) as u64
    }
}

impl Config {
    /// Settings that suit a tick of some ten milliseconds and commands of up to a few megabytes.
    pub fn new(id: NodeId, group: GroupId, seed: u64) -> Self {
        Self {
            id,
            group,
            election_ticks: 15,
            patience_doublings_max: 4,
            heartbeat_ticks: 3,
            seed,
            inflight_messages_max: 256,
            inflight_bytes_max: 32 << 20,
            append_bytes_max: 1 << 20,
            uncommitted_bytes_max: 64 << 20,
            unapplied_bytes_max: 32 << 20,
            reads_pending_max: 65_536,
            disk_stall_ticks: 150,
            election_rank: 0,
            promotion_lag_max: 1024,
            quiesce_after_ticks: None,
            lease: None,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if self.heartbeat_ticks == 0 {
            return Err(ConfigError::Zero { setting: "heartbeat_ticks" });
        }
        if self.election_ticks <= self.heartbeat_ticks {
            return Err(ConfigError::ElectionTooShort {
                election_ticks: self.election_ticks,
                heartbeat_ticks: self.heartbeat_ticks,
            });
        }
        let positive = [
            ("inflight_messages_max", self.inflight_messages_max),
            ("inflight_bytes_max", self.inflight_bytes_max),
            ("append_bytes_max", self.append_bytes_max),
            ("uncommitted_bytes_max", self.uncommitted_bytes_max),
            ("unapplied_bytes_max", self.unapplied_bytes_max),
            ("reads_pending_max", self.reads_pending_max),
            ("disk_stall_ticks", self.disk_stall_ticks as usize),
        ];
        if let Some(lease) = self.lease {
            if lease.micros == 0 {
                return Err(ConfigError::Zero { setting: "lease.micros" });
            }
            if lease.drift_ppm >= DRIFT_PPM_END {
                return Err(ConfigError::DriftTooLarge { drift_ppm: lease.drift_ppm });
            }
        }
        match positive.into_iter().find(|(_, value)| *value == 0) {
            Some((setting, _)) => Err(ConfigError::Zero { setting }),
            None => Ok(()),
        }
    }
}

/// What was durable when the node started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The last hard state that was persisted; the default for a new group.
    pub hard_state: HardState,
    /// The mark from which the log goes on: that of the log, or that of the state machine's
    /// installed snapshot if it is further. [`SnapshotMark::initial`] for a new group.
    pub snapshot: SnapshotMark,
    /// The log's entries, contiguous. They may start before `snapshot.index`: what the snapshot
    /// covers is dropped, and if they do not contain its last entry, so is what follows (§7).
    pub entries: Vec<Entry>,
    /// The last index that the state machine has applied. If it is before `snapshot.index` the state
    /// is lost: the core goes on as a voter and asks the leader for a snapshot.
    pub applied: LogIndex,
}

/// Why a core cannot start.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A limit of zero would stop everything.
    #[error("the setting {setting} is 0, which would stop the group; give it at least 1")]
    Zero {
        /// Its name.
        setting: &'static str,
    },
    /// Followers would stand for election between two heartbeats.
    #[error(
        "election_ticks ({election_ticks}) must be more than heartbeat_ticks ({heartbeat_ticks}), \
         better ten times as much"
    )]
    ElectionTooShort {
        /// As configured.
        election_ticks: u32,
        /// As configured.
        heartbeat_ticks: u32,
    },
    /// Clocks that differ so much leave nothing of a lease.
    #[error("a lease allows for a drift of less than 500000 ppm, not of {drift_ppm}")]
    DriftTooLarge {
        /// As configured.
        drift_ppm: u32,
    },
    /// The entries have a hole or go backwards.
    #[error(
        "the restored log is not contiguous at index {index}: its file is damaged; rebuild this \
         replica from its peers"
    )]
    LogNotContiguous {
        /// The first entry out of place.
        index: LogIndex,
    },
    /// The hard state is older than the log.
    #[error(
        "the restored term {term} is before the log's last term {last_term}: the hard state was \
         lost; rebuild this replica from its peers"
    )]
    TermLost {
        /// Of the hard state.
        term: Term,
        /// Of the last entry.
        last_term: Term,
    },
    /// The log ends before what it acknowledged.
    #[error(
        "the restored log ends at {last_index}, before {what} {index}: its end was lost; rebuild \
         this replica from its peers"
    )]
    LogEndLost {
        /// The log's last index.
        last_index: LogIndex,
        /// What lies after it.
        what: &'static str,
        /// Where that is.
        index: LogIndex,
    },
}
