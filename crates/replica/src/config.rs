//! What a host can be told, and every bound that it keeps.

use std::time::Duration;

use onefold_raft::Lease;
use onefold_types::{GroupId, NodeId};

use crate::HostError;

/// How a host behaves. The defaults are made for nodes in one place: the loss of a leader is
/// noticed after 300 to 600 ms.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// This node.
    pub node: NodeId,
    /// Unit of the two times below.
    pub tick: Duration,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: u32,
    /// A follower that heard nothing for this many ticks, or up to twice as many (drawn at random),
    /// stands for election; a leader without a majority for this long steps down.
    pub election_ticks: u32,
    /// Groups in which nothing happens fall silent: no ticks, no heartbeats. One beat between two
    /// nodes stands for all of them.
    pub quiesce: bool,
    /// The leader answers reads without asking a majority, for as long as its lease lasts (Raft
    /// dissertation, section 6.4.1). It relies on clocks: while one node measures
    /// [`LEASE_DRIFT_PPM`](Self::LEASE_DRIFT_PPM) millionths more than another for the same time, or
    /// while a virtual machine is paused without its clock noticing, a read may miss a write that was
    /// acknowledged elsewhere. All nodes must agree on it.
    pub lease_reads: bool,
    /// The bounds.
    pub limits: Limits,
}

impl HostConfig {
    /// Default of [`tick`](Self::tick).
    pub const TICK: Duration = Duration::from_millis(20);
    /// Default of [`heartbeat_ticks`](Self::heartbeat_ticks): 60 ms.
    pub const HEARTBEAT_TICKS: u32 = 3;
    /// Default of [`election_ticks`](Self::election_ticks): 300 ms.
    pub const ELECTION_TICKS: u32 = 15;

    /// Ticks without anything to do after which a group falls silent: 1 s.
    pub const QUIESCE_AFTER_TICKS: u32 = 50;
    /// By how many millionths the rates of two nodes' clocks may differ where leases are used: 1%.
    /// Clocks that are disciplined over a network differ by 0.1% at the very worst.
    pub const LEASE_DRIFT_PPM: u32 = 10_000;

    /// The defaults for a node.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            tick: Self::TICK,
            heartbeat_ticks: Self::HEARTBEAT_TICKS,
            election_ticks: Self::ELECTION_TICKS,
            quiesce: true,
            lease_reads: false,
            limits: Limits::default(),
        }
    }

    /// Refuses values that cannot work.
    pub(crate) fn check(&self) -> Result<(), HostError> {
        let wrong = |what: &str| Err(HostError::Config(what.to_owned()));
        if self.tick.is_zero() {
            return wrong("the tick must be longer than zero");
        }
        if self.heartbeat_ticks == 0 || self.election_ticks <= 2 * self.heartbeat_ticks {
            return wrong("an election must take more than two heartbeats, and those at least one");
        }
        let limits = &self.limits;
        let none = [
            limits.proposals_waiting_max,
            limits.proposals_waiting_bytes_max,
            limits.reads_waiting_max,
            limits.messages_waiting_max,
            limits.messages_waiting_bytes_max,
            limits.unsynced_bytes_max,
            limits.uncommitted_bytes_max,
            limits.backlog_bytes_max,
            limits.applying_bytes_max,
            limits.inflight_bytes_max,
            limits.apply_threads,
            limits.groups_max,
            limits.apply_round_bytes_max,
            limits.retained_bytes_max,
            limits.snapshot_chunk_bytes,
            limits.snapshots_sent_max,
            limits.snapshots_received_max,
        ]
        .contains(&0);
        if none {
            return wrong("no limit may be zero");
        }
        if limits.keep_bytes >= limits.compact_after_bytes
            || limits.keep_entries >= limits.compact_after_entries
        {
            return wrong("a compaction must keep less than what starts it");
        }
        Ok(())
    }

    /// Ticks between two beats of this node: a node that is down missed three of them.
    pub(crate) fn beat_ticks(&self) -> u32 {
        self.heartbeat_ticks.max(self.election_ticks / 3)
    }

    /// No longer than the shortest election timeout, so that a dead leader is replaced as soon as
    /// without leases.
    fn lease(&self) -> Lease {
        let length = self.tick.saturating_mul(self.election_ticks);
        let micros = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
        Lease { micros, drift_ppm: Self::LEASE_DRIFT_PPM }
    }

    /// The settings of one group's core.
    pub(crate) fn raft(
        &self,
        group: GroupId,
        election_rank: u32,
        seed: u64,
    ) -> onefold_raft::Config {
        onefold_raft::Config {
            election_ticks: self.election_ticks,
            heartbeat_ticks: self.heartbeat_ticks,
            election_rank,
            quiesce_after_ticks: self.quiesce.then_some(Self::QUIESCE_AFTER_TICKS),
            lease: self.lease_reads.then(|| self.lease()),
            inflight_bytes_max: self.limits.inflight_bytes_max,
            uncommitted_bytes_max: self.limits.uncommitted_bytes_max,
            unapplied_bytes_max: self.limits.applying_bytes_max,
            ..onefold_raft::Config::new(self.node, group, seed)
        }
    }
}

/// Every bound of a host.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Proposals that wait for the consensus thread, over all groups; one group has at most as many
    /// as there is room left for others.
    pub proposals_waiting_max: usize,
    /// Bytes of those proposals, shared in the same way.
    pub proposals_waiting_bytes_max: usize,
    /// Reads that wait for the consensus thread, over all groups and shared in the same way; and on a
    /// follower, reads of one
    /// group that wait for the leader's answer.
    pub reads_waiting_max: usize,
    /// Frames of other nodes that wait for the consensus thread; further ones are dropped.
    pub messages_waiting_max: usize,
    /// Bytes of those frames.
    pub messages_waiting_bytes_max: usize,
    /// Bytes of all groups on their way to the disk. A group's proposals are refused while it has
    /// more of them than there is room left for others.
    pub unsynced_bytes_max: usize,
    /// Bytes of a group's proposals that are not committed yet.
    pub uncommitted_bytes_max: usize,
    /// Bytes of a group's entries that are not applied yet, beyond which it takes no more.
    pub backlog_bytes_max: usize,
    /// Bytes of a group's entries that an apply thread has at once.
    pub applying_bytes_max: usize,
    /// Bytes of entries sent to one follower of a group and not yet answered.
    pub inflight_bytes_max: usize,
    /// Groups on the node; no more are created then.
    pub groups_max: usize,
    /// Threads that apply; each group is pinned to one.
    pub apply_threads: usize,
    /// Bytes written to the table by one apply round, after which it ends; one command may exceed
    /// it.
    pub apply_round_bytes_max: usize,
    /// Bytes of applied entries of a group after which its log is compacted.
    pub compact_after_bytes: usize,
    /// Applied entries of a group after which its log is compacted.
    pub compact_after_entries: usize,
    /// Bytes of applied entries that a compaction keeps for slow followers.
    pub keep_bytes: usize,
    /// Applied entries that a compaction keeps for slow followers.
    pub keep_entries: usize,
    /// Bytes of applied entries that all groups together keep. Beyond it the biggest are compacted,
    /// whatever slow followers still need; beyond twice as much, while the table is too slow to be
    /// made durable, nothing more is taken.
    pub retained_bytes_max: usize,
    /// Bytes of one piece of a snapshot; one pair may exceed it.
    pub snapshot_chunk_bytes: usize,
    /// Snapshots that the node sends at once.
    pub snapshots_sent_max: usize,
    /// Snapshots that the node receives at once.
    pub snapshots_received_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            proposals_waiting_max: 16 << 10,
            proposals_waiting_bytes_max: 64 << 20,
            reads_waiting_max: 64 << 10,
            messages_waiting_max: 4 << 10,
            messages_waiting_bytes_max: 128 << 20,
            // Less than the log queues, so that proposals are refused before an append waits.
            unsynced_bytes_max: 24 << 20,
            uncommitted_bytes_max: 64 << 20,
            backlog_bytes_max: 128 << 20,
            applying_bytes_max: 32 << 20,
            inflight_bytes_max: 8 << 20,
            groups_max: 2048,
            apply_threads: 2,
            apply_round_bytes_max: 4 << 20,
            compact_after_bytes: 32 << 20,
            compact_after_entries: 50_000,
            keep_bytes: 16 << 20,
            keep_entries: 10_000,
            retained_bytes_max: 256 << 20,
            snapshot_chunk_bytes: 1 << 20,
            snapshots_sent_max: 2,
            snapshots_received_max: 4,
        }
    }
}
