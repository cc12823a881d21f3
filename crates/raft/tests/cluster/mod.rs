//! A few cores with perfect disks and a network that does what the test says.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use onefold_raft::{
    Body, Config, Entry, HardState, Input, Membership, MembershipChange, Message, Payload, Persist,
    Raft, ReadId, ReadState, Restored, Role, SnapshotMark, SnapshotOutcome, StepError, Stepped,
};
use onefold_types::{GroupId, LogIndex, NodeId, Term};

pub const ELECTION_TICKS: u32 = 10;

/// What the clocks of all nodes advance by with every tick.
pub const TICK_MICROS: u64 = 10_000;

pub fn node(id: u64) -> NodeId {
    NodeId(id)
}

/// What one node has on disk, and what was applied there.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    pub restored: Restored,
    pub applied: Vec<Entry>,
    pub reads: Vec<ReadState>,
    pub unfinished: Vec<Persist>,
    pub is_disk_stalled: bool,
}

impl Stored {
    fn store(&mut self, persist: Persist) {
        let restored = &mut self.restored;
        if let Some(hard_state) = persist.hard_state {
            restored.hard_state = hard_state;
        }
        if let Some(from) = persist.truncate_from {
            restored.entries.retain(|entry| entry.index < from);
        }
        if let Some(mark) = persist.snapshot {
            restored.entries.retain(|entry| entry.index > mark.index);
            restored.snapshot = mark;
        }
        restored.entries.extend(persist.entries);
    }
}

/// Messages wait until a test delivers them; writes are durable at once unless a disk is stalled.
pub struct Cluster {
    pub cores: BTreeMap<NodeId, Raft>,
    pub stored: BTreeMap<NodeId, Stored>,
    pub network: VecDeque<(NodeId, NodeId, Message)>,
    cut: BTreeSet<NodeId>,
    /// Every message that was delivered.
    pub delivered: Vec<(NodeId, NodeId, Message)>,
    configure: fn(&mut Config),
    /// What all clocks show.
    pub micros: u64,
}

impl Cluster {
    /// Voters 1 to `count` with empty logs.
    pub fn new(count: u64) -> Self {
        Self::configured(count, |_| {})
    }

    /// Voters 1 to `count` with empty logs and other settings.
    pub fn configured(count: u64, configure: fn(&mut Config)) -> Self {
        let count = count as usize;
        Self::with_terms_and_logs(&vec![0; count], &vec![&[][..]; count], configure)
    }

    /// Voters with logs of entries of these terms, as if every node knew the last term.
    pub fn with_logs(logs: &[&[u64]]) -> Self {
        let term = logs.iter().filter_map(|log| log.last()).max().copied().unwrap_or(0);
        Self::with_terms_and_logs(&vec![term; logs.len()], logs, |_| {})
    }

    /// Voters with these current terms and logs.
    pub fn with_terms_and_logs(terms: &[u64], logs: &[&[u64]], configure: fn(&mut Config)) -> Self {
        let membership = Membership::of_voters((1..=logs.len() as u64).map(NodeId));
        let mut cluster = Self {
            cores: BTreeMap::new(),
            stored: BTreeMap::new(),
            network: VecDeque::new(),
            cut: BTreeSet::new(),
            delivered: Vec::new(),
            configure,
            micros: 0,
        };
        for ((id, log), term) in (1..).map(NodeId).zip(logs).zip(terms) {
            let entry = |(index, term): (u64, &u64)| Entry {
                term: Term(*term),
                index: LogIndex(index),
                payload: Payload::Command(Bytes::from(format!("{index}/{term}"))),
            };
            let restored = Restored {
                hard_state: HardState { term: Term(*term), vote: None, commit: LogIndex::ZERO },
                snapshot: SnapshotMark::initial(membership.clone()),
                entries: (1..).zip(*log).map(entry).collect(),
                applied: LogIndex::ZERO,
            };
            cluster.stored.insert(id, Stored { restored, ..Stored::default() });
            cluster.start(id);
        }
        cluster
    }

    /// Starts a node from what it has stored.
    pub fn start(&mut self, id: NodeId) {
        self.reconfigure(id, self.configure);
    }

    /// Starts a node from what it has stored, with settings of its own.
    pub fn reconfigure(&mut self, id: NodeId, configure: fn(&mut Config)) {
        let mut config = Config::new(id, GroupId::KV, 7);
        config.election_ticks = ELECTION_TICKS;
        config.heartbeat_ticks = 2;
        configure(&mut config);
        let restored = self.stored[&id].restored.clone();
        let mut core = Raft::new(config, restored).expect("a valid start");
        core.step(Input::Now(self.micros)).expect("a time");
        self.cores.insert(id, core);
    }

    /// Starts a node that was not told yet who is in the group.
    pub fn start_empty(&mut self, id: NodeId) {
        self.stored.insert(id, Stored::default());
        self.start(id);
    }

    /// Loses a node's memory and its unfinished writes.
    pub fn crash(&mut self, id: NodeId) {
        self.cores.remove(&id);
        let stored = self.stored.get_mut(&id).expect("a node");
        stored.unfinished.clear();
        stored.applied.truncate(stored.restored.applied.0 as usize);
    }

    /// Cuts a node off, both ways.
    pub fn isolate(&mut self, id: NodeId) {
        self.cut.insert(id);
    }

    /// Mends all cuts.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// Steps a core and carries out its output.
    pub fn step(&mut self, id: NodeId, input: Input) -> Result<Stepped, StepError> {
        let core = self.cores.get_mut(&id).expect("a running node");
        core.step(Input::Now(self.micros)).expect("a time");
        let stepped = core.step(input);
        self.carry_out(id);
        stepped
    }

    fn carry_out(&mut self, id: NodeId) {
        loop {
            let output = self.cores.get_mut(&id).expect("a running node").take_output();
            if output.is_empty() {
                return;
            }
            let stored = self.stored.get_mut(&id).expect("a node");
            self.network.extend(output.messages.into_iter().map(|(to, m)| (id, to, m)));
            stored.unfinished.extend(output.persist);
            stored.reads.extend(output.read_states);
            let applied = output.committed.last().map(|entry| entry.index);
            stored.applied.extend(output.committed);
            if let Some(index) = applied {
                stored.restored.applied = index;
                self.core_step(id, Input::Applied(index));
            }
            if !self.stored[&id].is_disk_stalled {
                self.finish_writes(id);
            }
            for to in output.send_snapshot {
                let applied = self.stored[&id].restored.applied;
                let mark = self.cores[&id].snapshot_mark_at(applied).expect("a known index");
                let outcome = SnapshotOutcome::Delivered(mark);
                self.core_step(id, Input::SnapshotSent { to, outcome });
            }
            if let Some(mark) = output.install_snapshot {
                self.install(id, mark);
            }
        }
    }

    fn install(&mut self, id: NodeId, mark: SnapshotMark) {
        let source = self.stored.values().find(|other| other.restored.applied >= mark.index);
        let state = source.expect("someone applied it").applied[..mark.index.0 as usize].to_vec();
        let stored = self.stored.get_mut(&id).expect("a node");
        stored.applied = state;
        stored.restored.applied = mark.index;
        self.core_step(id, Input::SnapshotInstalled(mark));
    }

    fn core_step(&mut self, id: NodeId, input: Input) {
        let core = self.cores.get_mut(&id).expect("a running node");
        core.step(input).expect("the test's driver keeps the contract");
    }

    /// Makes all unfinished writes durable.
    pub fn finish_writes(&mut self, id: NodeId) {
        let stored = self.stored.get_mut(&id).expect("a node");
        for persist in std::mem::take(&mut stored.unfinished) {
            let sequence = persist.sequence;
            self.stored.get_mut(&id).expect("a node").store(persist);
            self.core_step(id, Input::Persisted(sequence));
        }
    }

    /// Ends the stall of a disk.
    pub fn resume_disk(&mut self, id: NodeId) {
        self.stored.get_mut(&id).expect("a node").is_disk_stalled = false;
        self.finish_writes(id);
        self.carry_out(id);
    }

    /// From now on, writes of this node stay unfinished.
    pub fn stall_disk(&mut self, id: NodeId) {
        self.stored.get_mut(&id).expect("a node").is_disk_stalled = true;
    }

    /// Delivers the messages that wait and those that follow from them, if `passes`; drops others.
    pub fn deliver_if(&mut self, passes: impl Fn(NodeId, NodeId, &Message) -> bool) {
        while let Some((from, to, message)) = self.network.pop_front() {
            let is_cut = self.cut.contains(&from) || self.cut.contains(&to);
            if is_cut || !self.cores.contains_key(&to) || !passes(from, to, &message) {
                continue;
            }
            self.delivered.push((from, to, message.clone()));
            self.step(to, Input::Message { from, message }).expect("a well-formed message");
        }
    }

    /// Delivers everything until nothing is left.
    pub fn settle(&mut self) {
        self.deliver_if(|_, _, _| true);
    }

    /// Delivers everything but what one node is told; that waits.
    pub fn deliver_except_to(&mut self, held: NodeId) {
        let mut waiting = VecDeque::new();
        while let Some((from, to, message)) = self.network.pop_front() {
            if to == held {
                waiting.push_back((from, to, message));
            } else {
                self.step(to, Input::Message { from, message }).expect("a well-formed message");
            }
        }
        self.network = waiting;
    }

    /// One tick of every running node, then everything is delivered.
    pub fn tick(&mut self) {
        self.micros += TICK_MICROS;
        for id in self.cores.keys().copied().collect::<Vec<_>>() {
            self.step(id, Input::Tick).expect("a tick");
        }
        self.settle();
    }

    /// Many ticks.
    pub fn ticks(&mut self, count: u32) {
        for _ in 0..count {
            self.tick();
        }
    }

    /// Makes a node stand for election and delivers everything.
    pub fn campaign(&mut self, id: NodeId) {
        self.step(id, Input::Campaign).expect("a campaign");
        self.settle();
    }

    /// Makes a node stand for election in a cluster that has just started, and win it.
    pub fn elect(&mut self, id: NodeId) {
        self.campaign(id);
        assert_eq!(self.cores[&id].role(), Role::Leader, "elected");
    }

    /// Hands leadership from one node to another.
    pub fn transfer(&mut self, from: NodeId, to: NodeId) {
        self.step(from, Input::TransferLeadership(to)).expect("a transfer");
        self.settle();
        assert_eq!(self.cores[&to].role(), Role::Leader, "took over");
    }

    /// Proposes one command.
    pub fn propose(&mut self, id: NodeId, command: &'static str) -> Result<Stepped, StepError> {
        self.step(id, Input::Propose(vec![Bytes::from_static(command.as_bytes())]))
    }

    /// Asks for another membership.
    pub fn change(&mut self, id: NodeId, change: MembershipChange) -> Result<Stepped, StepError> {
        self.step(id, Input::ChangeMembership(change))
    }

    /// The members as a node sees them.
    pub fn membership(&self, id: NodeId) -> &Membership {
        self.cores[&id].membership()
    }

    /// Asks for a linearizable read.
    pub fn read(&mut self, id: NodeId, read: u64) -> Result<Stepped, StepError> {
        self.step(id, Input::ReadIndex(ReadId(read)))
    }

    /// The terms of a node's log, from its first index.
    pub fn log_of(&self, id: NodeId) -> Vec<u64> {
        let core = &self.cores[&id];
        let indexes = core.first_index().0..=core.last_index().0;
        indexes.filter_map(|index| core.term_at(LogIndex(index))).map(|term| term.0).collect()
    }

    /// The commands that a node applied.
    pub fn applied_by(&self, id: NodeId) -> Vec<String> {
        let commands = self.stored[&id].applied.iter().filter_map(|entry| match &entry.payload {
            Payload::Command(command) => Some(String::from_utf8_lossy(command).into_owned()),
            Payload::Empty | Payload::Membership(_) => None,
        });
        commands.collect()
    }

    /// How often a node refused an append.
    pub fn rejections_by(&self, id: NodeId) -> usize {
        let rejected = |(from, _, message): &&(NodeId, NodeId, Message)| {
            *from == id && matches!(message.body, Body::AppendRejected { .. })
        };
        self.delivered.iter().filter(rejected).count()
    }

    pub fn role(&self, id: NodeId) -> Role {
        self.cores[&id].role()
    }

    pub fn term(&self, id: NodeId) -> u64 {
        self.cores[&id].term().0
    }

    pub fn commit(&self, id: NodeId) -> u64 {
        self.cores[&id].commit_index().0
    }
}

/// A set of nodes.
pub fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// A change that adds voters.
pub fn join(ids: &[u64]) -> MembershipChange {
    MembershipChange { join: nodes(ids), ..MembershipChange::default() }
}

/// A change that adds or demotes to learners.
pub fn learn(ids: &[u64]) -> MembershipChange {
    MembershipChange { learn: nodes(ids), ..MembershipChange::default() }
}

/// A change that removes members.
pub fn remove(ids: &[u64]) -> MembershipChange {
    MembershipChange { remove: nodes(ids), ..MembershipChange::default() }
}
