//! The world of one seed: its clock, its queue of events, its network.

use std::collections::BTreeMap;

use bytes::Bytes;
use onefold_raft::{Body, Input, Membership, Message, Raft, ReadId, Role, Stepped};
use onefold_types::{LogIndex, NodeId, Term};

use super::{
    checker::{Checked, Checker, Violation, ensure},
    clock::Clock,
    coverage::{Branch, Coverage},
    driver::Node,
    event::Event,
    network::Network,
    plan::Plan,
    sabotage::Sabotage,
};
use crate::{random::Random, trace::Trace};

/// Most virtual time for which clients lose interest.
const PAUSE: u64 = 100 * super::plan::TICK;

/// Everything that exists while a seed runs.
#[derive(Debug)]
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) plan: Plan,
    pub(super) sabotage: Option<Sabotage>,
    pub(super) random: Random,
    pub(super) now: u64,
    /// Ordered by time, then by the order in which they were scheduled.
    queue: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    pub(super) events: u64,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) network: Network,
    pub(super) checker: Checker,
    pub(super) coverage: Coverage,
    pub(super) trace: Trace,
    /// Where proposals were appended, and in which term.
    pub(super) proposed: BTreeMap<LogIndex, Term>,
    commands: u64,
    reads: u64,
    pub(super) is_healed: bool,
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
        let membership = plan.membership();
        let founders = membership.members().into_iter().map(|id| (id, membership.clone()));
        let spares = plan.spares().map(|id| (id, Membership::default()));
        let nodes = founders.chain(spares).map(|(id, membership)| {
            let clock = Clock::start(0, plan.lease, &mut random);
            (id, Node::new(id, membership, clock, sabotage))
        });
        let nodes = nodes.collect();
        let mut world = Self {
            seed,
            nodes,
            plan,
            sabotage,
            random,
            now: 0,
            queue: BTreeMap::new(),
            scheduled: 0,
            events: 0,
            network: Network::default(),
            checker: Checker::new(membership),
            coverage: Coverage::default(),
            trace,
            proposed: BTreeMap::new(),
            commands: 0,
            reads: 0,
            is_healed: false,
        };
        world.trace.show(|| format!("{:#?}", world.plan));
        for id in world.ids() {
            world.start(id)?;
        }
        world.schedule(world.plan.client_interval, Event::Client);
        world.schedule(world.plan.fault_interval, Event::Fault);
        Ok(world)
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// Explains the event that was shown last.
    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        self.trace.show(|| format!("{:>16}{}", "", what()));
    }

    /// Puts an event into the future.
    pub(super) fn schedule(&mut self, delay: u64, event: Event) {
        self.schedule_at(self.now + delay, event);
    }

    /// Puts an event at a time.
    pub(super) fn schedule_at(&mut self, at: u64, event: Event) {
        self.scheduled += 1;
        self.queue.insert((at, self.scheduled), event);
    }

    /// Runs until a time, or until something is violated.
    pub(super) fn run_until(&mut self, end: u64) -> Checked {
        while let Some(entry) = self.queue.first_entry() {
            let (at, _) = *entry.key();
            if at > end {
                break;
            }
            let event = entry.remove();
            self.now = at;
            self.events += 1;
            self.trace.add(&(at, &event));
            self.trace.show(|| format!("{at:>10}  {event}"));
            self.happen(event)?;
        }
        self.now = end;
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Checked {
        let paused_until = event.process().map_or(0, |id| self.nodes[&id].paused_until);
        if paused_until > self.now {
            self.schedule_at(paused_until, event);
            return Ok(());
        }
        match event {
            Event::Tick { node, life } if self.nodes[&node].lives(life) => {
                self.schedule(self.nodes[&node].tick, Event::Tick { node, life });
                self.step(node, Input::Tick)?;
            }
            Event::Deliver { from, to, message } => {
                self.count_stranger(from, to, &message);
                self.step(to, Input::Message { from, message })?;
            }
            Event::Written { node, life, sequence } if self.nodes[&node].lives(life) => {
                self.written(node, sequence)?;
            }
            Event::Applied { node, life, index } if self.nodes[&node].lives(life) => {
                self.applied(node, index)?;
            }
            Event::SnapshotArrives { from, life, to, snapshot } => {
                self.snapshot_arrives(from, life, to, snapshot);
            }
            Event::SnapshotSent { node, life, to, delivered } if self.nodes[&node].lives(life) => {
                self.snapshot_sent(node, to, delivered)?;
            }
            Event::Installed { node, life, snapshot } if self.nodes[&node].lives(life) => {
                self.installed(node, &snapshot)?;
            }
            Event::Restart { node, life } if self.nodes[&node].life == life => {
                self.start(node)?;
            }
            Event::Hint { node, about, life, is_up } if !self.is_healed => {
                self.hint(node, about, life, is_up)?;
            }
            Event::Ambush { node, life } if self.nodes[&node].lives(life) && !self.is_healed => {
                self.ambush(node)?;
            }
            Event::Client if !self.is_healed => {
                self.client_acts()?;
                let pause = if self.random.chance(self.plan.pauses) { PAUSE } else { 0 };
                let delay = self.random.within(1..=2 * self.plan.client_interval + pause);
                self.schedule(delay, Event::Client);
            }
            Event::Fault if !self.is_healed => {
                self.fault()?;
                let delay = self.random.within(1..=2 * self.plan.fault_interval);
                self.schedule(delay, Event::Fault);
            }
            _ => {}
        }
        Ok(())
    }

    /// Switches a node on with what its disk and its state machine have.
    pub(super) fn start(&mut self, id: NodeId) -> Checked {
        let core_seed = self.random.any();
        let first_tick = self.random.within(1..=super::plan::TICK);
        let node = self.nodes.get_mut(&id).expect("a node of this world");
        if node.core.is_some() {
            return Ok(());
        }
        let restored = node.restored();
        if restored.snapshot.index > node.disk.mark.index {
            self.coverage.hit(Branch::StateAheadOfLog);
        }
        let core = Raft::new(self.plan.config(id, core_seed), restored).map_err(|error| {
            Violation { invariant: "what is durable can be restored", detail: error.to_string() }
        })?;
        self.checker.started(id, &core, node.disk.hard_state);
        node.is_state_lost = core.status().is_state_lost;
        node.core = Some(core);
        node.clock = Clock::start(self.now, self.plan.lease, &mut self.random);
        let life = node.life;
        self.know_nothing(id);
        self.spread_up(id);
        self.schedule(first_tick, Event::Tick { node: id, life });
        self.take_output(id)
    }

    /// Hands a message to the network.
    pub(super) fn send(&mut self, from: NodeId, to: NodeId, mut message: Message) {
        if self.sabotage == Some(Sabotage::InflateAcknowledgement)
            && let Body::AppendAccepted { matched } = &mut message.body
        {
            *matched = matched.next();
        }
        let copies = 1 + u64::from(self.random.chance(self.plan.duplication));
        for _ in 0..copies {
            if !self.network.reaches(from, to) || self.random.chance(self.plan.loss) {
                self.tell(|| format!("lost from n{from} to n{to}"));
                continue;
            }
            let slowness = if self.random.chance(self.plan.straggler) { 20 } else { 1 };
            let delay = slowness * self.random.within(1..=self.plan.delay_max);
            self.schedule(delay, Event::Deliver { from, to, message: message.clone() });
        }
    }

    /// The node that leads the latest term, if one does.
    pub(super) fn leader(&self) -> Option<NodeId> {
        let leaders = self.nodes.values().filter_map(|node| {
            let core = node.core.as_ref().filter(|core| core.role() == Role::Leader)?;
            Some((core.term(), node.id))
        });
        leaders.max().map(|(_, id)| id)
    }

    /// A node that believes to lead while another leads a later term: clients may believe it too.
    fn deposed_leader(&self) -> Option<NodeId> {
        let leads =
            |node: &&Node| node.core.as_ref().is_some_and(|core| core.role() == Role::Leader);
        let leader = self.leader();
        self.nodes.values().filter(leads).map(|node| node.id).find(|&id| Some(id) != leader)
    }

    fn count_stranger(&mut self, from: NodeId, to: NodeId, message: &Message) {
        let is_campaign = matches!(message.body, Body::RequestPreVote { .. });
        let core = self.nodes[&to].core.as_ref();
        if is_campaign && core.is_some_and(|core| !core.membership().contains(from)) {
            self.coverage.hit(Branch::StrangerCampaigned);
        }
    }

    fn client_acts(&mut self) -> Checked {
        let ids = self.ids();
        let anyone = self.random.pick(&ids);
        let id = match (self.leader(), self.deposed_leader()) {
            (_, Some(deposed)) if self.random.chance(700) => deposed,
            (Some(leader), _) if self.random.chance(850) => leader,
            _ => anyone,
        };
        if self.random.chance(self.plan.changes) {
            self.change_members(id)?;
        }
        match self.random.within(0..=999) {
            0..650 => self.propose(id).map(|_| ()),
            650..950 => self.read(id),
            950..965 => {
                let to = self.random.pick(&ids);
                self.tell(|| format!("n{id} is to hand leadership to n{to}"));
                self.step(id, Input::TransferLeadership(to)).map(|_| ())
            }
            965..970 => self.step(anyone, Input::Campaign).map(|_| ()),
            _ => Ok(()),
        }?;
        if self.random.chance(self.plan.compaction) { self.compact(anyone) } else { Ok(()) }
    }

    /// Proposes some commands; gives the place of the last one if the node took them.
    pub(super) fn propose(&mut self, id: NodeId) -> Result<Option<(LogIndex, Term)>, Violation> {
        let count = self.random.within(1..=self.plan.batch_max);
        let commands: Vec<Bytes> = (0..count).map(|_| self.command()).collect();
        self.tell(|| format!("{count} commands proposed to n{id}"));
        let Some(Stepped::Proposed { term, indexes }) = self.step(id, Input::Propose(commands))?
        else {
            return Ok(None);
        };
        let last = *indexes.end();
        for index in indexes.start().0..=last.0 {
            self.proposed.insert(LogIndex(index), term);
        }
        Ok(Some((last, term)))
    }

    /// A command that was never proposed before.
    fn command(&mut self) -> Bytes {
        self.commands += 1;
        let length = self.random.within(8..=self.plan.command_bytes_max) as usize;
        let mut command = vec![0; length];
        command[..8].copy_from_slice(&self.commands.to_le_bytes());
        Bytes::from(command)
    }

    fn read(&mut self, id: NodeId) -> Checked {
        self.reads += 1;
        let read = ReadId(self.reads);
        let floor = self.checker.committed_index();
        self.tell(|| format!("read {} asked of n{id}, which must see {floor}", read.0));
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        if self.sabotage == Some(Sabotage::StaleRead) {
            return match node.core.as_ref().filter(|core| core.role() == Role::Leader) {
                Some(core) => self.checker.read(id, floor, core.commit_index()),
                None => Ok(()),
            };
        }
        // The answer may come within the step.
        node.reads.insert(read, floor);
        let messages = node.core.as_ref().and_then(|core| core.status().lease_until);
        match self.step(id, Input::ReadIndex(read))? {
            Some(_) if messages.is_some() => self.coverage.hit(Branch::LeaseRead),
            Some(_) => {}
            None => {
                self.nodes.get_mut(&id).expect("a node of this world").reads.remove(&read);
            }
        }
        Ok(())
    }

    fn compact(&mut self, id: NodeId) -> Checked {
        let node = self.nodes.get_mut(&id).expect("a node of this world");
        let Some(core) = node.core.as_ref() else { return Ok(()) };
        let (first, applied) = (core.first_index().0, core.applied_index().0);
        if applied < first {
            return Ok(());
        }
        node.machine.sync();
        self.coverage.hit(Branch::Compacted);
        let through = LogIndex(self.random.within(first..=applied));
        self.tell(|| format!("n{id} compacts through {through}"));
        self.step(id, Input::Compact(through)).map(|_| ())
    }

    /// Ends all faults, restarts what is down, and lets the group recover. It must elect a leader
    /// and commit a new command on every node in a bounded time, and answer every read.
    pub(super) fn recover(&mut self) -> Checked {
        self.is_healed = true;
        self.plan.heal();
        self.network.heal();
        for id in self.ids() {
            let node = self.nodes.get_mut(&id).expect("a node of this world");
            node.tick = super::plan::TICK;
            node.paused_until = 0;
            self.start(id)?;
        }
        self.tell(|| "everything is healed, and all nodes run".into());
        self.tell_the_truth()?;
        let cores = self.nodes.values().filter_map(|node| node.core.as_ref());
        let longest = cores.map(|core| core.last_index().0).max().unwrap_or(0);
        let limit = self.plan.recovery_time_max(longest);
        let deadline = self.now + limit;
        let mut proposal = None;
        while self.now < deadline {
            self.run_until(self.now + super::plan::TICK)?;
            if let Some((index, term)) = proposal
                && self.is_everywhere(index, term)
            {
                return self.check_durable_everywhere();
            }
            let is_lost = proposal.is_some_and(|(index, term)| {
                self.checker.committed_term(index).is_some_and(|committed| committed != term)
                    || self.leader_term() != Some(term)
            });
            if (proposal.is_none() || is_lost)
                && let Some(leader) = self.leader()
            {
                proposal = self.propose(leader)?;
            }
        }
        ensure(false, "a healed group recovers", || {
            let cores = self.nodes.values().filter_map(|node| node.core.as_ref());
            let status: Vec<_> = cores.map(|core| format!("{:?}", core.status())).collect();
            format!("not within {} ticks:\n{}", limit / super::plan::TICK, status.join("\n"))
        })
    }

    fn leader_term(&self) -> Option<Term> {
        self.leader().and_then(|id| self.nodes[&id].core.as_ref()).map(Raft::term)
    }

    fn is_everywhere(&self, index: LogIndex, term: Term) -> bool {
        let members = self.leader().and_then(|id| self.nodes[&id].core.as_ref());
        let members = members.map(Raft::membership);
        let has_it = |node: &Node| {
            let is_member = members.is_some_and(|members| members.contains(node.id));
            node.reads.is_empty() && (!is_member || node.machine.applied >= index)
        };
        self.checker.committed_term(index) == Some(term) && self.nodes.values().all(has_it)
    }

    fn check_durable_everywhere(&self) -> Checked {
        self.checker.check_durable_on_majority(&self.nodes)
    }
}
