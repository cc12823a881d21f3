//! How a seed's world is: drawn once, at its beginning.

use onefold_raft::{Config, Lease};
use onefold_types::{GroupId, NodeId};

use super::{
    clock::{MILLISECOND, Micros, SECOND},
    store::plan::{StorePlan, Workload},
};
use crate::random::Random;

/// Time between two ticks of a node with a perfect clock.
pub(super) const TICK: Micros = 100 * MILLISECOND;

/// Most nodes that run at once.
pub(super) const NODES_MAX: usize = 7;

/// By how much the rates of two clocks may differ where leases rely on it.
const LEASE_DRIFT_PPM: u32 = 50_000;

/// What kind of time the cluster has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weather {
    /// Something breaks every few seconds.
    Storm,
    /// Something breaks every minute or so.
    Changeable,
    /// Long silence, in which groups fall quiet, and short troubles between.
    Calm,
}

/// The knobs of one run. Chances are per mille.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Nodes that form the cluster.
    pub(super) founders: u64,
    pub(super) groups: usize,
    /// Time until everything is healed.
    pub(super) duration: Micros,
    pub(super) loss: u64,
    pub(super) duplication: u64,
    pub(super) delay_max: Micros,
    /// Packets that take many times as long, so that they arrive long out of order.
    pub(super) straggler: u64,
    pub(super) disk_delay_max: Micros,
    /// Zero: applied at once.
    pub(super) apply_delay_max: Micros,
    pub(super) table_sync_delay_max: Micros,
    pub(super) piece_bytes: usize,
    pub(super) piece_damage: u64,
    pub(super) transfer_cut: u64,
    /// Average times between two faults, two acts of one client, two membership changes.
    pub(super) fault_interval: Micros,
    pub(super) think_time: Micros,
    /// Between two bursts of clients.
    pub(super) lull: Micros,
    pub(super) change_interval: Micros,
    /// New leaders that crash or are cut off right after their election.
    pub(super) ambush: u64,
    pub(super) down_max: Micros,
    pub(super) clients: usize,
    pub(super) keys: u64,
    pub(super) value_bytes_max: u64,
    /// Operations that read.
    pub(super) reads: u64,
    /// How long a client tries before it gives an operation up.
    pub(super) patience: Micros,
    /// Applied entries that start a compaction, and those that it keeps.
    pub(super) compact_after_entries: u64,
    pub(super) keep_entries: u64,
    /// The driver steps more inputs before it takes the output.
    pub(super) deferred: u64,
    pub(super) drift_ppm_max: u64,
    /// Entries between two comparisons of hashes.
    pub(super) checkpoint_every: u64,
    /// What the clients of each group do.
    pub(super) workloads: Vec<Workload>,
    /// Where they use a whole store.
    pub(super) store: StorePlan,
    /// Replicas whose state changes by itself.
    pub(super) divergence: bool,
    /// The minority that stays down for the first part of the recovery.
    pub(super) is_minority_lost: bool,
    election_ticks: u32,
    patience_doublings_max: u32,
    pub(super) heartbeat_ticks: u32,
    inflight_messages_max: usize,
    inflight_bytes_max: usize,
    append_bytes_max: usize,
    uncommitted_bytes_max: usize,
    unapplied_bytes_max: usize,
    pub(super) apply_bytes_max: usize,
    disk_stall_ticks: u32,
    promotion_lag_max: u64,
    pub(super) quiesce_after_ticks: Option<u32>,
    pub(super) lease: Option<Lease>,
    has_ranks: bool,
}

impl Plan {
    /// Draws a world. Some seeds are calm in some respect, so that rare faults are also seen alone.
    pub(super) fn draw(random: &mut Random) -> Self {
        let weather = random.pick(&[Weather::Storm, Weather::Changeable, Weather::Calm]);
        let mut calm_or = |max: u64| if random.chance(400) { 0 } else { random.within(0..=max) };
        let (loss, duplication, straggler) = (calm_or(150), calm_or(100), calm_or(30));
        let (deferred, ambush) = (calm_or(500), calm_or(600));
        let (piece_damage, transfer_cut) = (calm_or(200), calm_or(200));
        let (duration, fault_interval, lull, change_interval) = match weather {
            Weather::Storm => (
                random.within(60..=240) * SECOND,
                random.within(1_000..=8_000) * MILLISECOND,
                0,
                random.within(3..=25) * SECOND,
            ),
            Weather::Changeable => (
                random.within(400..=1_200) * SECOND,
                random.within(10..=60) * SECOND,
                random.pick(&[0, 0, 30 * SECOND]),
                random.within(30..=300) * SECOND,
            ),
            Weather::Calm => (
                random.within(3_000..=12_000) * SECOND,
                random.within(100..=600) * SECOND,
                random.within(60..=600) * SECOND,
                random.within(200..=2_000) * SECOND,
            ),
        };
        let (is_busy, is_calm) = (weather == Weather::Storm, weather == Weather::Calm);
        let lease = random.chance(250).then_some(Lease {
            micros: random.within(300..=900) * MILLISECOND,
            drift_ppm: LEASE_DRIFT_PPM,
        });
        let groups: usize = random.pick(&[1, 1, 2, 2, 3]);
        let workload = |_| random.pick(&[Workload::Registers, Workload::Store]);
        let workloads = (0..groups).map(workload).collect();
        Self {
            workloads,
            store: StorePlan::draw(random),
            founders: random.pick(&[1, 2, 3, 3, 3, 3, 3, 4, 5, 5]),
            groups,
            duration,
            loss,
            duplication,
            delay_max: MILLISECOND * random.pick(&[1, 5, 20, 60, 150]),
            straggler,
            disk_delay_max: MILLISECOND * random.pick(&[1, 10, 50, 300]),
            apply_delay_max: MILLISECOND * random.pick(&[0, 0, 20, 300]),
            table_sync_delay_max: MILLISECOND * random.pick(&[1, 500]),
            piece_bytes: random.pick(&[100, 600, 4_000, 1 << 20]),
            piece_damage,
            transfer_cut,
            fault_interval,
            think_time: MILLISECOND
                * if is_busy { random.within(50..=600) } else { random.within(500..=5_000) },
            lull,
            change_interval,
            ambush,
            down_max: SECOND * random.within(1..=30),
            clients: random.within(2..=5) as usize,
            keys: random.within(1..=4),
            value_bytes_max: random.pick(&[8, 64, 300]),
            reads: random.within(200..=700),
            patience: SECOND * random.within(2..=15),
            compact_after_entries: random.pick(&[8, 30, 100, 1_000]),
            keep_entries: random.pick(&[1, 5, 50]),
            deferred,
            drift_ppm_max: if lease.is_some() { u64::from(LEASE_DRIFT_PPM) / 3 } else { 150_000 },
            checkpoint_every: random.pick(&[8, 64, 1024]),
            divergence: random.chance(250),
            is_minority_lost: random.chance(500),
            election_ticks: 10,
            patience_doublings_max: random.pick(&[0, 1, 4]),
            heartbeat_ticks: if is_calm {
                random.pick(&[2, 3, 3])
            } else {
                random.pick(&[1, 1, 2, 3])
            },
            inflight_messages_max: random.pick(&[1, 2, 8, 256]),
            inflight_bytes_max: random.pick(&[1, 500, 5_000, 1 << 20]),
            append_bytes_max: random.pick(&[1, 200, 2_000, 1 << 20]),
            uncommitted_bytes_max: random.pick(&[500, 5_000, 1 << 20]),
            unapplied_bytes_max: random.pick(&[1, 1_000, 1 << 20]),
            apply_bytes_max: random.pick(&[1, 500, 1 << 20]),
            disk_stall_ticks: random.pick(&[15, 40, 400]),
            promotion_lag_max: random.pick(&[1, 10, 1_000]),
            quiesce_after_ticks: if random.chance(if is_calm { 950 } else { 750 }) {
                Some(random.pick(&[10, 20, 50]))
            } else {
                None
            },
            lease,
            has_ranks: random.chance(300),
        }
    }

    /// Whether the clients of a group use a whole store.
    pub(super) fn is_store(&self, group: usize) -> bool {
        self.workloads[group] == Workload::Store
    }

    /// The settings of one node's core.
    pub(super) fn config(&self, id: NodeId, group: GroupId, seed: u64) -> Config {
        Config {
            election_ticks: self.election_ticks,
            patience_doublings_max: self.patience_doublings_max,
            heartbeat_ticks: self.heartbeat_ticks,
            inflight_messages_max: self.inflight_messages_max,
            inflight_bytes_max: self.inflight_bytes_max,
            append_bytes_max: self.append_bytes_max,
            uncommitted_bytes_max: self.uncommitted_bytes_max,
            unapplied_bytes_max: self.unapplied_bytes_max,
            reads_pending_max: 64,
            disk_stall_ticks: self.disk_stall_ticks,
            election_rank: if self.has_ranks { ((id.0 + group.0) % 3) as u32 } else { 0 },
            promotion_lag_max: self.promotion_lag_max,
            quiesce_after_ticks: self.quiesce_after_ticks,
            lease: self.lease,
            ..Config::new(id, group, seed)
        }
    }

    /// After how many ticks without a beat a node is down.
    pub(super) fn silence_ticks(&self) -> u32 {
        self.election_ticks
    }

    /// Time within which a healed cluster must be whole again: a generous multiple of what one
    /// election takes, and a few round trips for each entry and piece that a node may lack, because
    /// some worlds send them one by one.
    pub(super) fn recovery_time_max(&self, entries: u64) -> Micros {
        let election = TICK * u64::from(self.election_ticks << self.patience_doublings_max);
        election * 100 + entries * 400 * MILLISECOND
    }

    /// The world at the end: nothing fails any more, and nothing takes long.
    pub(super) fn heal(&mut self) {
        self.loss = 0;
        self.duplication = 0;
        self.straggler = 0;
        self.delay_max = 5 * MILLISECOND;
        self.disk_delay_max = 5 * MILLISECOND;
        self.apply_delay_max = 0;
        self.table_sync_delay_max = MILLISECOND;
        self.deferred = 0;
        self.ambush = 0;
        self.piece_damage = 0;
        self.transfer_cut = 0;
        self.store.heal();
    }
}
