//! One node: a core, its disk, its state machine, and the driver between them.

use std::collections::{BTreeMap, VecDeque};

use onefold_raft::{
    Body, Entry, Input, Membership, Message, Output, Payload, Persist, PersistSequence, Raft,
    ReadId, ReadState, Restored, Role, SnapshotMark, SnapshotOutcome, StepError, Stepped,
};
use onefold_types::{LogIndex, NodeId, Term};

use super::{
    checker::{Checked, Violation},
    clock::Clock,
    coverage::Branch,
    disk::Disk,
    event::{Event, Life},
    machine::{Machine, Snapshot},
    sabotage::Sabotage,
    world::World,
};

/// One node; without a core while it is down.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) life: Life,
    pub(super) core: Option<Raft>,
    pub(super) disk: Disk,
    pub(super) machine: Machine,
    /// Virtual time between two ticks of its clock.
    pub(super) tick: u64,
    pub(super) clock: Clock,
    /// Until when its process does nothing, as if the machine under it were suspended.
    pub(super) paused_until: u64,
    /// In which life the others are, and whether they are up, as far as it was told.
    pub(super) told: BTreeMap<NodeId, (Life, bool)>,
    /// Whether its state machine was lost and is not rebuilt.
    pub(super) is_state_lost: bool,
    /// Whether the disk is at work; what is asked meanwhile waits and then goes in one batch. Until
    /// a time it may be stalled.
    pub(super) is_writing: bool,
    pub(super) disk_stalled_until: u64,
    /// Whether the state machine is at work, and on what; the same holds.
    pub(super) is_applying: bool,
    pub(super) applying: VecDeque<Entry>,
    pub(super) installing: Option<Snapshot>,
    /// Reads that wait, and what they have to see.
    pub(super) reads: BTreeMap<ReadId, LogIndex>,
}

impl Node {
    pub(super) fn new(
        id: NodeId,
        membership: Membership,
        clock: Clock,
        sabotage: Option<Sabotage>,
    ) -> Self {
        Self {
            id,
            life: 0,
            core: None,
            disk: Disk::new(SnapshotMark::initial(membership), sabotage),
            machine: Machine::default(),
            tick: super::plan::TICK,
            clock,
            paused_until: 0,
            told: BTreeMap::new(),
            is_state_lost: false,
            is_writing: false,
            disk_stalled_until: 0,
            is_applying: false,
            applying: VecDeque::new(),
            installing: None,
            reads: BTreeMap::new(),
        }
    }

    /// What its driver loads when it starts: the further one of the log's mark and the state
    /// machine's.
    pub(super) fn restored(&self) -> Restored {
        let log_mark = &self.disk.mark;
        let installed = self.machine.installed.as_ref();
        let snapshot = installed.filter(|mark| mark.index > log_mark.index).unwrap_or(log_mark);
        Restored {
            hard_state: self.disk.hard_state,
            snapshot: snapshot.clone(),
            entries: self.disk.entries.iter().cloned().collect(),
            applied: self.machine.applied,
        }
    }

    /// Whether something done in this life of the node still matters.
    pub(super) fn lives(&self, life: Life) -> bool {
        self.life == life && self.core.is_some()
    }
}

impl World {
    /// Steps a node's core and checks what it did. The output is taken at once or, as by a driver
    /// that batches, with a later step.
    pub(super) fn step(&mut self, id: NodeId, input: Input) -> Result<Option<Stepped>, Violation> {
        let node = self.nodes.get_mut(&id).expect("a node of this world");
        let Some(core) = node.core.as_mut().filter(|_| node.paused_until <= self.now) else {
            return Ok(None);
        };
        let role_before = (core.role(), core.term());
        let was_quiet = core.is_quiet();
        let is_told_time =
            self.sabotage != Some(Sabotage::StopLeaderClock) || role_before.0 != Role::Leader;
        if is_told_time {
            core.step(Input::Now(node.clock.micros(self.now))).map_err(|error| Violation {
                invariant: "inputs are well-formed",
                detail: error.to_string(),
            })?;
        }
        let is_applied = matches!(input, Input::Applied(_));
        let stepped = core.step(input);
        let role = (core.role(), core.term());
        let is_quiet = core.is_quiet();
        self.trace.add(&(id, role, core.commit_index(), core.last_index()));
        self.count_role(id, role_before, role);
        if is_quiet && !was_quiet {
            let is_leader = role.0 == Role::Leader;
            self.coverage.hit(if is_leader { Branch::LeaderQuiet } else { Branch::FollowerQuiet });
        }
        if role_before.0 == Role::Candidate && role.0 == Role::Leader {
            self.plan_ambush(id);
        }
        self.checker.stepped(id, &self.nodes)?;
        if is_applied {
            self.checker.uses(id, self.nodes[&id].core.as_ref().expect("it was just stepped"))?;
        }
        let answer = self.judge(id, stepped)?;
        if self.random.chance(self.plan.deferred) {
            self.coverage.hit(Branch::Batched);
        } else {
            self.take_output(id)?;
        }
        Ok(answer)
    }

    fn count_role(&mut self, id: NodeId, before: (Role, Term), now: (Role, Term)) {
        match (before, now) {
            ((Role::Leader, old), (Role::Follower, new)) if old == new => {
                self.coverage.hit(Branch::CheckQuorum);
            }
            ((Role::Candidate, _), (Role::Leader, _)) => {
                self.coverage.hit(Branch::Elected);
                if self.nodes[&id].is_state_lost {
                    self.coverage.hit(Branch::LedWithoutState);
                }
                let others = self.nodes.values().filter_map(|node| node.core.as_ref());
                if others.filter(|core| core.role() == Role::Leader).count() > 1 {
                    self.coverage.hit(Branch::TwoLeaders);
                }
            }
            ((Role::Candidate, _), (Role::PreCandidate, _)) => {
                self.coverage.hit(Branch::SplitVote);
            }
            _ => {}
        }
    }

    /// Which refusals are part of life, and which are violations.
    fn judge(
        &mut self,
        id: NodeId,
        stepped: Result<Stepped, StepError>,
    ) -> Result<Option<Stepped>, Violation> {
        match stepped {
            Ok(stepped) => return Ok(Some(stepped)),
            Err(StepError::NotLeader { .. } | StepError::NotAVoter { .. }) => {}
            Err(StepError::NoVotersLeft) => {}
            Err(StepError::ChangeInProgress) => self.coverage.hit(Branch::ChangeInProgress),
            Err(StepError::Overloaded) => self.coverage.hit(Branch::Overloaded),
            Err(StepError::Transferring { .. }) => self.coverage.hit(Branch::Transferring),
            Err(error) => {
                let detail = format!("n{id}: {error}");
                return Err(Violation { invariant: "inputs are well-formed", detail });
            }
        }
        Ok(None)
    }

    /// Does what the core asks for, as its documentation demands.
    pub(super) fn take_output(&mut self, id: NodeId) -> Checked {
        let node = self.nodes.get_mut(&id).expect("a node of this world");
        let Some(core) = node.core.as_mut() else { return Ok(()) };
        let Output {
            messages,
            persist,
            committed,
            read_states,
            send_snapshot,
            install_snapshot,
            role_change,
        } = core.take_output();
        if let Some(change) = role_change {
            let (role, term, leader) = (change.role, change.term, change.leader);
            self.tell(|| match leader {
                Some(leader) => format!("n{id} is {role:?} in term {term}, led by n{leader}"),
                None => format!("n{id} is {role:?} in term {term}"),
            });
        }
        let begun = persist.as_ref().map(|persist| persist.sequence);
        if let Some(persist) = persist {
            self.persist(id, persist)?;
        }
        for (to, message) in messages {
            self.count_message(id, &message);
            self.checker.sending(&self.nodes[&id], to, &message)?;
            self.send(id, to, message);
        }
        self.apply_later(id, committed)?;
        for state in read_states {
            self.answer_read(id, state)?;
        }
        for to in send_snapshot {
            self.send_snapshot(id, to);
        }
        if let Some(mark) = install_snapshot {
            self.install_later(id, mark)?;
        }
        if let Some(sequence) = begun.filter(|_| self.sabotage == Some(Sabotage::AckBeforeDurable))
        {
            self.step(id, Input::Persisted(sequence))?;
        }
        Ok(())
    }

    fn persist(&mut self, id: NodeId, persist: Persist) -> Checked {
        let node = self.nodes.get_mut(&id).expect("a node of this world");
        let Some(core) = node.core.as_ref() else { return Ok(()) };
        self.checker.persisting(id, core, &persist)?;
        if let Some(from) = persist.truncate_from {
            self.coverage.hit(Branch::LogTruncated);
            let mut cut = node.disk.entries.iter().filter(|entry| entry.index >= from);
            if cut.any(|entry| matches!(entry.payload, Payload::Membership(_))) {
                self.coverage.hit(Branch::MembershipReverted);
            }
        }
        node.disk.begin(persist);
        self.write_next(id);
        Ok(())
    }

    /// Starts a batch of all writes that wait, unless one is under way.
    fn write_next(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node of this world");
        let Some(sequence) = node.disk.last_unfinished().filter(|_| !node.is_writing) else {
            return;
        };
        node.is_writing = true;
        let delay = self.random.within(1..=self.plan.disk_delay_max);
        let (life, at) = (node.life, node.disk_stalled_until.max(self.now) + delay);
        self.schedule_at(at, Event::Written { node: id, life, sequence });
    }

    /// The disk has written through `sequence`.
    pub(super) fn written(&mut self, id: NodeId, sequence: PersistSequence) -> Checked {
        let node = self.nodes.get_mut(&id).expect("a node of this world");
        node.disk.finish(sequence);
        node.is_writing = false;
        self.write_next(id);
        self.step(id, Input::Persisted(sequence)).map(|_| ())
    }

    fn apply_later(&mut self, id: NodeId, committed: Vec<Entry>) -> Checked {
        let Some(first) = committed.first().map(|entry| entry.index) else { return Ok(()) };
        for entry in &committed {
            self.checker.handed_out(id, entry)?;
            self.count_lost_proposal(entry);
            self.count_membership(id, entry);
        }
        let node = self.nodes.get_mut(&id).expect("a node of this world");
        let expected = node.applying.back().map_or(node.machine.applied, |entry| entry.index);
        super::checker::ensure(
            first == expected.next(),
            "entries are handed out once and in order",
            || format!("n{id}: {first} after {expected}"),
        )?;
        node.applying.extend(committed);
        self.apply_next(id);
        Ok(())
    }

    /// Starts to apply everything that waits, unless that is under way.
    fn apply_next(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node of this world");
        let last = node.applying.back().map(|entry| entry.index);
        let Some(index) = last.filter(|_| !node.is_applying) else { return };
        node.is_applying = true;
        let life = node.life;
        let delay = self.random.within(1..=self.plan.apply_delay_max);
        self.schedule(delay, Event::Applied { node: id, life, index });
    }

    /// The state machine has applied what it was given through `index`.
    pub(super) fn applied(&mut self, id: NodeId, index: LogIndex) -> Checked {
        let node = self.nodes.get_mut(&id).expect("a node of this world");
        while let Some(entry) = node.applying.pop_front_if(|entry| entry.index <= index) {
            node.machine.apply(&entry);
            self.checker.applied(id, &node.machine)?;
        }
        // What was begun before the state was lost is not done.
        let done = index.min(node.machine.applied);
        node.is_applying = false;
        self.apply_next(id);
        self.step(id, Input::Applied(done)).map(|_| ())
    }

    fn answer_read(&mut self, id: NodeId, state: ReadState) -> Checked {
        let node = self.nodes.get_mut(&id).expect("a node of this world");
        match state {
            ReadState::Ready { id: read, index } => {
                self.coverage.hit(Branch::ReadConfirmed);
                let floor = node.reads.remove(&read).unwrap_or(LogIndex(u64::MAX));
                self.checker.read(id, floor, index)
            }
            ReadState::Failed { id: read } => {
                self.coverage.hit(Branch::ReadFailed);
                node.reads.remove(&read);
                Ok(())
            }
        }
    }

    fn send_snapshot(&mut self, id: NodeId, to: NodeId) {
        self.coverage.hit(Branch::SnapshotRequested);
        let delay = self.random.within(1..=self.plan.snapshot_delay_max);
        let node = &self.nodes[&id];
        let Some(core) = node.core.as_ref() else { return };
        let (life, state) = (node.life, node.machine.state);
        let Some(mut mark) = core.snapshot_mark_at(node.machine.applied) else {
            // The state was lost after the core asked.
            let sent = Event::SnapshotSent { node: id, life, to, delivered: None };
            return self.schedule(delay, sent);
        };
        if self.sabotage == Some(Sabotage::MislabelSnapshot) {
            mark.index = mark.index.next();
        }
        let snapshot = Snapshot { mark, state };
        self.schedule(delay, Event::SnapshotArrives { from: id, life, to, snapshot });
    }

    /// The stream of a snapshot ends: staged on the receiver, or lost; the sender may believe it
    /// lost in both cases.
    pub(super) fn snapshot_arrives(&mut self, from: NodeId, life: Life, to: NodeId, it: Snapshot) {
        let is_through = self.nodes[&from].lives(life)
            && self.nodes[&to].core.is_some()
            && self.network.reaches(from, to)
            && !self.random.chance(self.plan.snapshot_failure);
        let is_reported = is_through && !self.random.chance(self.plan.snapshot_failure / 2);
        if !is_reported {
            self.coverage.hit(Branch::SnapshotFailed);
        }
        let delivered = is_reported.then(|| it.mark.clone());
        if is_through {
            self.nodes.get_mut(&to).expect("a node of this world").machine.staged = Some(it);
        }
        let delay = self.random.within(1..=self.plan.delay_max);
        self.schedule(delay, Event::SnapshotSent { node: from, life, to, delivered });
    }

    /// The sender learns how it went.
    pub(super) fn snapshot_sent(
        &mut self,
        id: NodeId,
        to: NodeId,
        delivered: Option<SnapshotMark>,
    ) -> Checked {
        let outcome = delivered.map_or(SnapshotOutcome::Failed, SnapshotOutcome::Delivered);
        self.step(id, Input::SnapshotSent { to, outcome }).map(|_| ())
    }

    fn install_later(&mut self, id: NodeId, mark: SnapshotMark) -> Checked {
        let delay = self.random.within(1..=self.plan.snapshot_delay_max);
        let is_swept = self.random.chance(self.plan.snapshot_failure / 4);
        let node = self.nodes.get_mut(&id).expect("a node of this world");
        let staged = node.machine.staged.clone().filter(|it| it.mark == mark && !is_swept);
        let Some(snapshot) = staged else {
            self.coverage.hit(Branch::SnapshotMissing);
            return self.step(id, Input::SnapshotMissing(mark)).map(|_| ());
        };
        node.installing = Some(snapshot.clone());
        let life = node.life;
        self.schedule(delay, Event::Installed { node: id, life, snapshot });
        Ok(())
    }

    /// A staged snapshot has become the state.
    pub(super) fn installed(&mut self, id: NodeId, snapshot: &Snapshot) -> Checked {
        self.coverage.hit(Branch::SnapshotInstalled);
        self.checker.installed(id, snapshot)?;
        let is_forgotten = self.sabotage == Some(Sabotage::ForgetInstalled);
        let node = self.nodes.get_mut(&id).expect("a node of this world");
        let synced = node.machine.synced;
        node.applying.clear();
        node.installing = None;
        node.machine.install(snapshot);
        if std::mem::take(&mut node.is_state_lost) {
            self.coverage.hit(Branch::StateRebuilt);
        }
        let node = self.nodes.get_mut(&id).expect("a node of this world");
        if is_forgotten {
            node.machine.synced = synced;
            node.machine.installed = None;
        }
        self.step(id, Input::SnapshotInstalled(snapshot.mark.clone())).map(|_| ())
    }

    fn count_message(&mut self, id: NodeId, message: &Message) {
        let core = self.nodes[&id].core.as_ref();
        let last_index = core.map_or(LogIndex::ZERO, Raft::last_index);
        let branch = match message.body {
            Body::PreVoteResponse { granted: false } => Branch::PreVoteRejected,
            Body::VoteResponse { granted: false } => Branch::VoteRejected,
            Body::TermOver => Branch::TermOver,
            Body::TimeoutNow => Branch::TimeoutNow,
            Body::Awake => Branch::Awake,
            Body::SnapshotWanted { .. } => Branch::SnapshotWanted,
            Body::AppendRejected { prev_index, hint_index, .. }
                if hint_index.0 + 1 < prev_index.min(last_index).0 =>
            {
                Branch::FastBacktrack
            }
            _ => return,
        };
        self.coverage.hit(branch);
    }

    fn count_membership(&mut self, id: NodeId, entry: &Entry) {
        let Payload::Membership(membership) = &entry.payload else { return };
        let leader = self.leader() == Some(id);
        if membership.is_joint() {
            self.coverage.hit(Branch::Joint);
            if membership.voters.is_superset(&membership.outgoing) {
                self.coverage.hit(Branch::Promoted);
            }
        } else if leader && !membership.is_voter(id) {
            self.coverage.hit(Branch::LeaderLeft);
        }
    }

    fn count_lost_proposal(&mut self, entry: &Entry) {
        let lost = self.proposed.remove(&entry.index).is_some_and(|term| term != entry.term);
        if lost {
            self.coverage.hit(Branch::ProposalLost);
        }
    }
}
