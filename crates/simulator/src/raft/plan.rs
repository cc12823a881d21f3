//! How a seed's world is: drawn once, at its beginning.

use onefold_raft::{Config, Membership};
use onefold_types::{GroupId, NodeId};

use crate::random::Random;

/// Units of virtual time in one tick of a node with a perfect clock.
pub(crate) const TICK: u64 = 100;

/// The knobs of one run. Chances are per mille.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) nodes: u64,
    /// Virtual time until everything is healed.
    pub(crate) duration: u64,
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    pub(crate) delay_max: u64,
    /// Messages that take many times as long, so that they arrive long out of order.
    pub(crate) straggler: u64,
    pub(crate) disk_delay_max: u64,
    pub(crate) apply_delay_max: u64,
    pub(crate) snapshot_delay_max: u64,
    pub(crate) snapshot_failure: u64,
    /// Average time between two faults, and between two acts of clients.
    pub(crate) fault_interval: u64,
    pub(crate) client_interval: u64,
    /// New leaders that crash or are cut off right after their election.
    pub(crate) ambush: u64,
    pub(crate) down_max: u64,
    pub(crate) batch_max: u64,
    pub(crate) command_bytes_max: u64,
    pub(crate) compaction: u64,
    /// The driver steps more inputs before it takes the output.
    pub(crate) deferred: u64,
    election_ticks: u32,
    heartbeat_ticks: u32,
    inflight_messages_max: usize,
    inflight_bytes_max: usize,
    append_bytes_max: usize,
    uncommitted_bytes_max: usize,
    unapplied_bytes_max: usize,
    disk_stall_ticks: u32,
}

impl Plan {
    /// Draws a world. Some seeds are calm in some respect, so that rare faults are also seen alone.
    pub(crate) fn draw(random: &mut Random) -> Self {
        let mut calm_or = |max: u64| if random.chance(300) { 0 } else { random.within(0..=max) };
        let (loss, duplication, straggler) = (calm_or(250), calm_or(150), calm_or(50));
        let (snapshot_failure, deferred, ambush) = (calm_or(500), calm_or(700), calm_or(700));
        Self {
            nodes: random.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5, 5]),
            duration: TICK * random.within(300..=1500),
            loss,
            duplication,
            delay_max: random.pick(&[5, 50, 150, 400]),
            straggler,
            disk_delay_max: random.pick(&[1, 30, 150, 600]),
            apply_delay_max: random.pick(&[1, 50, 500]),
            snapshot_delay_max: random.pick(&[50, 500, 3000]),
            snapshot_failure,
            fault_interval: TICK * random.within(8..=80),
            client_interval: random.within(10..=300),
            ambush,
            down_max: TICK * random.within(5..=120),
            batch_max: random.within(1..=8),
            command_bytes_max: random.pick(&[8, 64, 512]),
            compaction: random.within(20..=300),
            deferred,
            election_ticks: 10,
            heartbeat_ticks: random.within(1..=4) as u32,
            inflight_messages_max: random.pick(&[1, 2, 8, 256]),
            inflight_bytes_max: random.pick(&[1, 500, 5_000, 1 << 20]),
            append_bytes_max: random.pick(&[1, 200, 2_000, 1 << 20]),
            uncommitted_bytes_max: random.pick(&[500, 5_000, 1 << 20]),
            unapplied_bytes_max: random.pick(&[1, 1_000, 1 << 20]),
            disk_stall_ticks: random.pick(&[15, 40, 400]),
        }
    }

    /// The settings of one node's core.
    pub(crate) fn config(&self, id: NodeId, seed: u64) -> Config {
        Config {
            election_ticks: self.election_ticks,
            heartbeat_ticks: self.heartbeat_ticks,
            inflight_messages_max: self.inflight_messages_max,
            inflight_bytes_max: self.inflight_bytes_max,
            append_bytes_max: self.append_bytes_max,
            uncommitted_bytes_max: self.uncommitted_bytes_max,
            unapplied_bytes_max: self.unapplied_bytes_max,
            reads_pending_max: 64,
            disk_stall_ticks: self.disk_stall_ticks,
            ..Config::new(id, GroupId::KV, seed)
        }
    }

    /// All nodes vote.
    pub(crate) fn membership(&self) -> Membership {
        Membership::of_voters((1..=self.nodes).map(NodeId))
    }

    /// Virtual time within which a healed group must elect a leader and commit on every node: a
    /// generous multiple of what one election takes, and a few round trips for each entry that a
    /// node may lack, because some worlds send them one by one.
    pub(crate) fn recovery_time_max(&self, entries: u64) -> u64 {
        TICK * u64::from(self.election_ticks) * 60 + 40 * entries
    }

    /// The world at the end: nothing fails any more, and nothing takes long.
    pub(crate) fn heal(&mut self) {
        self.loss = 0;
        self.duplication = 0;
        self.straggler = 0;
        self.delay_max = 10;
        self.disk_delay_max = 10;
        self.apply_delay_max = 1;
        self.deferred = 0;
        self.snapshot_delay_max = 50;
        self.snapshot_failure = 0;
        self.compaction = 0;
    }
}
