//! How a seed's world is: drawn once, at its beginning.

use onefold_raft::{Config, Lease, Membership};
use onefold_types::{GroupId, NodeId};

use crate::random::Random;

/// Units of virtual time in one tick of a node with a perfect clock.
pub(crate) const TICK: u64 = 100;

/// What a perfect clock shows after one unit of virtual time, and after a tick.
pub(crate) const MICROS_PER_UNIT: u64 = 100;
const MICROS_PER_TICK: u64 = MICROS_PER_UNIT * TICK;

/// The knobs of one run. Chances are per mille.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Nodes that found the group, and nodes that wait to be told who is in it.
    pub(crate) founders: u64,
    pub(crate) spares: u64,
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
    /// Clients that change the members, and that lose interest for a while.
    pub(crate) changes: u64,
    pub(crate) pauses: u64,
    /// Hints about nodes that are down or up again that get lost; and wrong ones among the faults.
    pub(crate) hint_loss: u64,
    pub(crate) wrong_hints: u64,
    /// State machines that are lost, among the faults. In such a world nobody leaves the group: the
    /// last node that has a state must not.
    pub(crate) state_losses: u64,
    pub(crate) lease: Option<Lease>,
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
    rank_max: u64,
    quiesce_after_ticks: Option<u32>,
    promotion_lag_max: u64,
    patience_doublings_max: u32,
}

impl Plan {
    /// Draws a world. Some seeds are calm in some respect, so that rare faults are also seen alone.
    pub(crate) fn draw(random: &mut Random) -> Self {
        let mut calm_or = |max: u64| if random.chance(300) { 0 } else { random.within(0..=max) };
        let (loss, duplication, straggler) = (calm_or(250), calm_or(150), calm_or(50));
        let (snapshot_failure, deferred, ambush) = (calm_or(500), calm_or(700), calm_or(700));
        let (hint_loss, wrong_hints) = (calm_or(500), calm_or(200));
        let (changes, pauses) = (calm_or(150), calm_or(100));
        let state_losses = if random.chance(700) { 0 } else { random.within(0..=150) };
        let has_lease = random.chance(450);
        let lease = has_lease.then(|| Lease {
            micros: random.pick(&[30_000, 80_000, 150_000, 300_000]),
            drift_ppm: random.pick(&[0, 1_000, 100_000, 400_000]),
        });
        Self {
            founders: random.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5, 5]),
            spares: random.pick(&[0, 0, 1, 2, 3]),
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
            changes,
            pauses,
            hint_loss,
            wrong_hints,
            state_losses,
            lease,
            deferred,
            election_ticks: 10,
            heartbeat_ticks: random.within(1..=4) as u32,
            inflight_messages_max: random.pick(&[1, 2, 8, 256]),
            inflight_bytes_max: random.pick(&[1, 500, 5_000, 1 << 20]),
            append_bytes_max: random.pick(&[1, 200, 2_000, 1 << 20]),
            uncommitted_bytes_max: random.pick(&[500, 5_000, 1 << 20]),
            unapplied_bytes_max: random.pick(&[1, 1_000, 1 << 20]),
            disk_stall_ticks: random.pick(&[15, 40, 400]),
            rank_max: random.pick(&[0, 0, 1, 3]),
            quiesce_after_ticks: random.pick(&[None, Some(2), Some(6), Some(25)]),
            promotion_lag_max: random.pick(&[0, 3, 1024]),
            patience_doublings_max: random.pick(&[0, 1, 4]),
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
            election_rank: (id.0 % (self.rank_max + 1)) as u32,
            quiesce_after_ticks: self.quiesce_after_ticks,
            promotion_lag_max: self.promotion_lag_max,
            patience_doublings_max: self.patience_doublings_max,
            lease: self.lease,
            ..Config::new(id, GroupId::KV, seed)
        }
    }

    /// All founders vote.
    pub(crate) fn membership(&self) -> Membership {
        Membership::of_voters((1..=self.founders).map(NodeId))
    }

    /// The spare nodes, which know of nobody.
    pub(crate) fn spares(&self) -> impl Iterator<Item = NodeId> + use<> {
        (self.founders + 1..=self.founders + self.spares).map(NodeId)
    }

    /// Whether hints about nodes matter to anybody.
    pub(crate) fn is_quiescent(&self) -> bool {
        self.quiesce_after_ticks.is_some()
    }

    /// Virtual time within which a healed group must elect a leader and commit on every node: a
    /// generous multiple of what one election takes, and a few round trips for each entry that a
    /// node may lack, because some worlds send them one by one.
    pub(crate) fn recovery_time_max(&self, entries: u64) -> u64 {
        let lease_ticks = self.lease.map_or(0, |lease| lease.micros / MICROS_PER_TICK);
        let patience =
            u64::from(self.election_ticks) * (60 + 20 * self.rank_max) + 10 * lease_ticks;
        TICK * (patience << self.patience_doublings_max) + 40 * entries
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
        self.hint_loss = 0;
    }
}
