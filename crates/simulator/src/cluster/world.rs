//! The world of one seed: its clock, its events, its nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use onefold_checker::Looked;
use onefold_raft::{Input, Membership, Raft, Role};
use onefold_replica::{
    liveness::Liveness,
    state::{Generations, GroupState},
};
use onefold_table::{Space, Table};
use onefold_types::{GroupId, NodeId};

use super::{
    checker::{Checked, Checker, Violation},
    client::Client,
    clock::{Clock, Micros},
    coverage::{Branch, Coverage, FaultKind, Faults},
    divergence::{Flipping, Hashes},
    event::{Event, Packet},
    history::History,
    network::Network,
    node::{Hosted, Node, Process, Reply, Standing},
    operator::Operator,
    plan::{Plan, TICK},
    queue::Queue,
    sabotage::Sabotage,
    store::{desk::Desk, record::Account, watch::Watcher},
};
use crate::{random::Random, trace::Trace};

/// Everything that exists while a seed runs.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) sabotage: Option<Sabotage>,
    pub(super) random: Random,
    pub(super) now: Micros,
    queue: Queue,
    pub(super) events: u64,
    /// The node with number i + 1 is at position i.
    pub(super) nodes: Vec<Node>,
    pub(super) network: Network,
    pub(super) clients: Vec<Client>,
    pub(super) watchers: Vec<Watcher>,
    /// What is known of each group with a whole store.
    pub(super) accounts: Vec<Account>,
    /// What the checkers of whole stores looked at.
    pub(super) looked: Looked,
    pub(super) operator: Operator,
    pub(super) checkers: Vec<Checker>,
    pub(super) history: History,
    pub(super) hashes: Vec<Hashes>,
    /// Snapshots of replicas whose state was changed.
    pub(super) changed_transfers: BTreeSet<u64>,
    pub(super) coverage: Coverage,
    pub(super) faults: Faults,
    pub(super) trace: Trace,
    pub(super) is_healed: bool,
}

/// The group with a number of the world.
pub(super) fn group_id(group: usize) -> GroupId {
    GroupId(group as u64 + 1)
}

impl World {
    /// A cluster that has just been switched on.
    pub(super) fn new(
        seed: u64,
        sabotage: Option<Sabotage>,
        trace: Trace,
    ) -> Result<Self, Violation> {
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random);
        let founders = Membership::of_voters((1..=plan.founders).map(NodeId));
        let checkers = (0..plan.groups).map(|group| Checker::new(group, founders.clone()));
        let mut world = Self {
            checkers: checkers.collect(),
            history: History::new(plan.groups),
            hashes: (0..plan.groups).map(|_| Hashes::default()).collect(),
            changed_transfers: BTreeSet::new(),
            clients: (0..plan.clients).map(|_| Client::new(random.any())).collect(),
            watchers: Watcher::of_plan(&plan, &mut random),
            accounts: (0..plan.groups).map(|_| Account::default()).collect(),
            looked: Looked::default(),
            operator: Operator::default(),
            plan,
            sabotage,
            random,
            now: 0,
            queue: Queue::default(),
            events: 0,
            nodes: Vec::new(),
            network: Network::default(),
            coverage: Coverage::default(),
            faults: Faults::default(),
            trace,
            is_healed: false,
        };
        world.trace.show(|| format!("{:#?}", world.plan));
        for _ in 0..world.plan.founders {
            let id = world.add_node(founders.clone());
            world.start(id)?;
        }
        world.wake_clients();
        world.wake_watchers();
        world.schedule(world.plan.change_interval, Event::Operator);
        world.schedule(world.plan.fault_interval, Event::Fault);
        Ok(world)
    }

    /// Puts up a machine that never ran before.
    pub(super) fn add_node(&mut self, formed: Membership) -> NodeId {
        let id = NodeId(self.nodes.len() as u64 + 1);
        let drift = self.drift();
        let offset = self.wall_offset();
        let clock = Clock::new(self.now, drift, offset);
        self.nodes.push(Node::new(id, self.plan.groups, clock, formed, self.sabotage));
        id
    }

    pub(super) fn drift(&mut self) -> i64 {
        let max = self.plan.drift_ppm_max;
        self.random.within(0..=2 * max) as i64 - max as i64
    }

    /// Wall clocks are up to some minutes wrong.
    pub(super) fn wall_offset(&mut self) -> i64 {
        self.random.within(0..=600_000) as i64 - 300_000
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize - 1]
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize - 1]
    }

    /// A group on a node that runs.
    pub(super) fn hosted(&mut self, id: NodeId, group: usize) -> Option<&mut Hosted> {
        let process = self.nodes[id.0 as usize - 1].process.as_mut()?;
        Some(&mut process.groups[group])
    }

    /// The nodes that should run.
    pub(super) fn serving(&self) -> Vec<NodeId> {
        let serving = self.nodes.iter().filter(|node| node.standing == Standing::Serving);
        serving.map(|node| node.id).collect()
    }

    /// Explains the event that was shown last.
    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        self.trace.show(|| format!("{:>16}{}", "", what()));
    }

    /// Puts an event into the future.
    pub(super) fn schedule(&mut self, delay: Micros, event: Event) {
        self.queue.schedule(self.now + delay, event);
    }

    /// Puts an event at a time.
    pub(super) fn schedule_at(&mut self, at: Micros, event: Event) {
        self.queue.schedule(at, event);
    }

    /// Runs until a time, or until something is violated.
    pub(super) fn run_until(&mut self, end: Micros) -> Checked {
        while let Some((at, event)) = self.queue.next(end) {
            self.now = at;
            if let Some(until) = self.paused_until(&event) {
                self.queue.schedule(until, event);
                continue;
            }
            self.events += 1;
            self.trace.add(&(at, event.fingerprint()));
            self.trace.show(|| format!("{:>14.6}  {event}", at as f64 / 1e6));
            self.happen(event)?;
        }
        self.now = end;
        Ok(())
    }

    /// A process that is paused does nothing; what it should do waits.
    fn paused_until(&self, event: &Event) -> Option<Micros> {
        let node = match event {
            Event::Tick { node, .. }
            | Event::Deliver { to: node, .. }
            | Event::Synced { node, .. }
            | Event::Apply { node, .. }
            | Event::TableSynced { node, .. }
            | Event::Transfer { node, .. }
            | Event::Attend { node, .. }
            | Event::Own { node, .. }
            | Event::WatchAsked { node, .. }
            | Event::AskedForProgress { node, .. }
            | Event::Tell { node, .. }
            | Event::Request { node, .. } => *node,
            _ => return None,
        };
        Some(self.node(node).paused_until).filter(|until| *until > self.now)
    }

    fn happen(&mut self, event: Event) -> Checked {
        match event {
            Event::Tick { node, life, turn } if self.node(node).lives(life) => {
                self.tick(node, turn)
            }
            Event::Deliver { from, to, packet } if self.node(to).process.is_some() => {
                self.receive(to, from, *packet)?;
                self.settle(to)
            }
            Event::Synced { node, life, appends } if self.node(node).lives(life) => {
                self.synced(node, appends)?;
                self.settle(node)
            }
            Event::Apply { node, life, group } if self.node(node).lives(life) => {
                self.apply_turn(node, group)?;
                self.settle(node)
            }
            Event::TableSynced { node, life, applied } if self.node(node).lives(life) => {
                self.table_synced(node, &applied)?;
                self.settle(node)
            }
            Event::Transfer { node, life, group, transfer, attempt }
                if self.node(node).lives(life) =>
            {
                self.transfer_overdue(node, group, transfer, attempt)?;
                self.settle(node)
            }
            Event::Start { node, life } if self.node(node).life == life => self.start(node),
            Event::DiskFreed { node, life } if self.node(node).life == life => {
                self.node_mut(node).disk.is_full = false;
                self.start(node)
            }
            Event::Ambush { node, life } if self.node(node).lives(life) && !self.is_healed => {
                self.ambush(node)
            }
            Event::Request { node, request } => {
                self.requested(node, *request)?;
                self.settle(node)
            }
            Event::Answer { op, node, outcome } => self.answered(op, node, *outcome),
            Event::Attend { node, life, group, term } if self.node(node).lives(life) => {
                self.attend(node, group, term)?;
                self.settle(node)
            }
            Event::Own { node, life, group, own, command } if self.node(node).lives(life) => {
                self.propose(node, group, None, &command, Reply::Own(group, own))?;
                self.settle(node)
            }
            Event::Watcher { watcher, turn } => {
                self.watcher_turn(watcher, turn);
                Ok(())
            }
            Event::WatchAsked { node, watcher, stream, start } => {
                self.watch_asked(node, watcher, stream, start)
            }
            Event::AskedForProgress { node, watcher, stream } => {
                self.asked_for_progress(node, watcher, stream);
                Ok(())
            }
            Event::Tell { node, life, group } if self.node(node).lives(life) => {
                self.tell_now(node, group);
                Ok(())
            }
            Event::Told { watcher, stream, told } => {
                self.told(watcher, stream, *told);
                Ok(())
            }
            Event::Client { client, turn } => self.client_turn(client, turn),
            Event::Flap { from, to, left } if !self.is_healed => {
                self.flap(from, to, left);
                Ok(())
            }
            Event::Mend if !self.is_healed => {
                self.network.heal();
                Ok(())
            }
            Event::Operator => self.operate(),
            Event::Fault if !self.is_healed => {
                self.fault()?;
                let delay = self.random.within(1..=2 * self.plan.fault_interval);
                self.schedule(delay, Event::Fault);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Ticks of a node: its driver looks at who is alive, and the groups that are awake count.
    fn tick(&mut self, id: NodeId, turn: u64) -> Checked {
        let process = self.node(id).process.as_ref().expect("it lives");
        if process.turn != turn {
            return Ok(());
        }
        let due = self.pass_ticks(id)?;
        let heartbeat_ticks = u64::from(self.plan.heartbeat_ticks);
        let process = self.node(id).process.as_ref().expect("it lives");
        let (before, after) = (process.ticks - due, process.ticks);
        self.correct_misled(id)?;
        for group in 0..self.plan.groups {
            let is_quiet = self.hosted(id, group).is_some_and(|hosted| hosted.raft.is_quiet());
            if !is_quiet {
                self.step(id, group, Input::Tick)?;
            }
        }
        if before / heartbeat_ticks != after / heartbeat_ticks {
            self.beat(id);
        }
        self.settle(id)?;
        self.plan_tick(id);
        Ok(())
    }

    /// The ticks since the last one pass, as many as the node's clock says.
    fn pass_ticks(&mut self, id: NodeId) -> Result<u64, Violation> {
        let now = self.now;
        let node = self.node_mut(id);
        let period = node.clock.truly(TICK);
        let process = node.process.as_mut().expect("it lives");
        let due = ((now - process.ticked_at + period / 2) / period).max(1);
        process.ticked_at = now;
        process.ticks += due;
        // What a pause missed is not made up for.
        let due_max = u64::from(self.plan.heartbeat_ticks);
        let process = self.node_mut(id).process.as_mut().expect("it lives");
        let changes = process.liveness.tick(due.min(due_max) as u32);
        self.liveness_changed(id, &changes)?;
        Ok(due)
    }

    /// The next tick; the one of the next beat if all groups are quiet.
    fn plan_tick(&mut self, id: NodeId) {
        let heartbeat_ticks = u64::from(self.plan.heartbeat_ticks);
        let node = self.node_mut(id);
        let period = node.clock.truly(TICK);
        let life = node.life;
        let Some(process) = node.process.as_mut() else { return };
        process.is_asleep = process.groups.iter().all(|hosted| hosted.raft.is_quiet());
        let ticks = match process.is_asleep {
            true => heartbeat_ticks - process.ticks % heartbeat_ticks,
            false => 1,
        };
        process.turn += 1;
        let (at, turn) = (process.ticked_at + ticks * period, process.turn);
        let at = at.max(self.now + 1);
        self.schedule_at(at, Event::Tick { node: id, life, turn });
    }

    /// A group may have woken: then the node ticks again.
    pub(super) fn wake_if_due(&mut self, id: NodeId) -> Checked {
        let now = self.now;
        let node = self.node_mut(id);
        let period = node.clock.truly(TICK);
        let Some(process) = node.process.as_mut() else { return Ok(()) };
        if !process.is_asleep || process.groups.iter().all(|hosted| hosted.raft.is_quiet()) {
            return Ok(());
        }
        // Those that passed in its sleep count for nobody but the liveness of others.
        let slept = (now - process.ticked_at) / period;
        process.ticked_at += slept * period;
        process.ticks += slept;
        let changes = process.liveness.tick(slept as u32);
        self.plan_tick(id);
        self.liveness_changed(id, &changes)
    }

    fn beat(&mut self, id: NodeId) {
        let Some(process) = self.node_mut(id).process.as_mut() else { return };
        let watched: Vec<NodeId> = process.liveness.watched().collect();
        if watched.is_empty() {
            return;
        }
        let beat = process.liveness.beat();
        for to in watched {
            self.send(id, to, Packet::Beat(beat));
        }
    }

    /// Switches a node on with what its disk and its table have.
    pub(super) fn start(&mut self, id: NodeId) -> Checked {
        let node = self.node(id);
        if node.process.is_some() || node.standing != Standing::Serving {
            return Ok(());
        }
        if node.disk.is_damaged {
            self.tell(|| format!("n{id} finds its log damaged and does not start"));
            return self.lose_node(id);
        }
        let (process_number, first_tick) = (self.random.any(), self.random.within(1..=TICK));
        let mut groups = Vec::new();
        for group in 0..self.plan.groups {
            groups.push(self.open(id, group)?);
        }
        let (now, silence) = (self.now, self.plan.silence_ticks());
        let node = self.node_mut(id);
        node.process = Some(Process {
            liveness: Liveness::new(process_number, silence),
            ticks: 0,
            ticked_at: now + first_tick,
            turn: 0,
            is_asleep: false,
            touched: (1 << groups.len()) - 1,
            groups,
            is_syncing_table: false,
            forwarded: BTreeMap::new(),
            own_sent: 0,
            transfers: process_number,
        });
        node.end_pause(now);
        let life = node.life;
        self.schedule(first_tick, Event::Tick { node: id, life, turn: 0 });
        for group in 0..self.plan.groups {
            let membership = self.hosted(id, group).expect("it runs").raft.membership();
            if membership.voters.len() == 1 && membership.voters.contains(&id) {
                self.step(id, group, Input::Campaign)?;
            }
        }
        self.carry_out(id)?;
        self.beat(id);
        Ok(())
    }

    fn open(&mut self, id: NodeId, group: usize) -> Result<Hosted, Violation> {
        let failed = |what: String| Violation {
            invariant: "what is durable can be restored",
            detail: format!("g{group} n{id}: {what}"),
        };
        let seed = self.random.any();
        let node = self.node(id);
        let table: Arc<dyn Table> = node.table.clone();
        let space = Space::new(table.clone(), group_id(group));
        let generations = Generations::open(group_id(group), space, &node.formed);
        let generations = Arc::new(generations.map_err(|error| failed(error.to_string()))?);
        let desk = self.plan.is_store(group).then(|| Desk::new(self.plan.store.ring_revisions_max));
        let state = GroupState::open(generations.clone(), self.store(id, group, desk.as_ref()));
        let state = state.map_err(|error| failed(error.to_string()))?;
        let logged = node.disk.recovered(group);
        let log_mark = logged.as_ref().and_then(|logged| logged.snapshot.clone());
        let mut restored = state.restored(logged).map_err(|error| failed(error.to_string()))?;
        table.sync().map_err(|error| failed(error.to_string()))?;
        let hard_state = node.disk.groups[group].hard_state;
        self.count_entries_applied_again(&restored, log_mark.map(|mark| mark.index));
        self.sabotage_restored(&mut restored);
        let config = self.plan.config(id, group_id(group), seed);
        let raft = Raft::new(config, restored).map_err(|error| failed(error.to_string()))?;
        self.checkers[group].started(id, &raft, hard_state);
        let staging = self.interrupted_staging(&generations, state.applied());
        let staging = staging.map_err(|error| failed(error.to_string()))?;
        Ok(Hosted::new(id, raft, state, desk, staging))
    }

    fn store(
        &self,
        id: NodeId,
        group: usize,
        desk: Option<&Desk>,
    ) -> Box<dyn onefold_replica::StateMachine> {
        let store = desk.map_or_else(onefold_kv::core::store, |desk| desk.attendant.store());
        Box::new(Flipping::new(store, self.node(id).flips[group].clone()))
    }

    /// Hands a packet to the network.
    pub(super) fn send(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        if self.nodes.len() < to.0 as usize {
            return;
        }
        // A connection never doubles a call, and the answer to a proposal is for one call.
        let may_double = self.plan.duplication > 0 && !matches!(packet, Packet::Propose { .. });
        let copies = if may_double && self.random.chance(self.plan.duplication) {
            self.faults.hit(FaultKind::PacketDuplicated);
            2
        } else {
            1
        };
        let mut packet = Some(packet);
        for copy in (0..copies).rev() {
            if !self.network.reaches(from, to) {
                self.tell(|| format!("cut off from n{from} to n{to}"));
                continue;
            }
            if self.plan.loss > 0 && self.random.chance(self.plan.loss) {
                self.faults.hit(FaultKind::PacketLost);
                self.tell(|| format!("lost from n{from} to n{to}"));
                continue;
            }
            let mut delay = self.random.within(1..=self.plan.delay_max);
            if self.plan.straggler > 0 && self.random.chance(self.plan.straggler) {
                self.faults.hit(FaultKind::PacketDelayed);
                delay *= 20;
            }
            let arrival = self.network.arrival(from, to, self.now + delay);
            let packet = if copy == 0 { packet.take() } else { packet.clone() };
            let packet = Box::new(packet.expect("the last copy takes it"));
            self.schedule_at(arrival, Event::Deliver { from, to, packet });
        }
    }

    /// The node that leads the latest term of a group, if one does.
    pub(super) fn leader(&self, group: usize) -> Option<NodeId> {
        let leaders = self.nodes.iter().filter_map(|node| {
            let core = node.raft(group).filter(|core| core.role() == Role::Leader)?;
            Some((core.term(), node.id))
        });
        leaders.max().map(|(_, id)| id)
    }

    /// Takes what the cores of a node want to be done, at once or with a later event, as a driver
    /// does that batches.
    pub(super) fn settle(&mut self, id: NodeId) -> Checked {
        if self.plan.deferred > 0 && self.random.chance(self.plan.deferred) {
            self.coverage.hit(Branch::Batched);
            return Ok(());
        }
        self.carry_out(id)
    }
}
