//! What a host does for its cores: the same as the real consensus and apply threads, in the same
//! order.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::atomic::Ordering,
};

use onefold_raft::{
    Body, Entry, Input, Message, Output, Payload, Raft, ReadId, ReadState, Role, StepError, Stepped,
};
use onefold_replica::liveness::LivenessChange;
use onefold_types::{LogIndex, NodeId};

use super::{
    checker::{Checked, Violation, ensure},
    coverage::{Branch, FaultKind},
    event::{Event, Outcome, Packet},
    node::{Asker, Hosted, Reply},
    sabotage::Sabotage,
    world::World,
};

/// While a snapshot is sent, so many times more entries are kept after it.
const KEPT_WHILE_SENDING: u64 = 8;

/// The messages of one round to one node.
type Frame = (NodeId, Vec<(u8, Message)>);

impl World {
    /// Steps a group's core on a node and checks what it did. The output is taken later.
    pub(super) fn step(
        &mut self,
        id: NodeId,
        group: usize,
        input: Input,
    ) -> Result<Option<Stepped>, Violation> {
        let now = self.now;
        let is_lease_clock_frozen = self.sabotage == Some(Sabotage::FrozenLeaseClock);
        let node = &mut self.nodes[id.0 as usize - 1];
        let Some(process) = node.process.as_mut() else { return Ok(None) };
        process.touched |= 1 << group;
        let core = &mut process.groups[group].raft;
        let before = Before::of(core);
        if self.plan.lease.is_some() && !(is_lease_clock_frozen && before.role == Role::Leader) {
            let time = node.clock.monotonic(now);
            core.step(Input::Now(time)).expect("clocks are always told");
        }
        let stepped = core.step(input);
        let durable = self.nodes.iter().map(|node| node.durable(group));
        let core = self.nodes[id.0 as usize - 1].raft(group).expect("it was just stepped");
        self.checkers[group].stepped(id, core, durable)?;
        let after = Before::of(core);
        self.trace.add(&(
            id.0 << 8 | group as u64,
            after.role as u64 | u64::from(after.is_quiet) << 3,
            core.term().0,
            core.commit_index().0,
            core.last_index().0,
        ));
        if before != after {
            self.count_change(id, group, &before, &after);
        }
        if after.is_leading_jointly() && !before.is_leading_jointly() {
            self.ambush_change(id, group);
        }
        self.judge(id, group, stepped)
    }

    fn count_change(&mut self, id: NodeId, group: usize, before: &Before, after: &Before) {
        if !before.is_quiet && after.is_quiet {
            self.coverage.hit(Branch::FellQuiet);
        }
        match (before.role, after.role) {
            (Role::Leader, Role::Follower) => {
                if before.term == after.term {
                    self.coverage.hit(Branch::SteppedDown);
                }
                let core = self.node(id).raft(group).expect("it was just stepped");
                if !core.membership().is_voter(id) {
                    self.coverage.hit(Branch::RemovedLeader);
                }
            }
            (Role::Candidate, Role::Leader) => {
                self.coverage.hit(Branch::Elected);
                let cores = self.nodes.iter().filter_map(|node| node.raft(group));
                if cores.filter(|core| core.role() == Role::Leader).count() > 1 {
                    self.coverage.hit(Branch::TwoLeaders);
                }
                let core = self.node(id).raft(group).expect("it was just stepped");
                if core.membership().is_joint() {
                    self.coverage.hit(Branch::JointInherited);
                }
                self.plan_ambush(id);
            }
            (Role::Candidate, Role::PreCandidate) => self.coverage.hit(Branch::SplitVote),
            _ => {}
        }
    }

    /// Which refusals are part of life, and which are violations.
    fn judge(
        &mut self,
        id: NodeId,
        group: usize,
        stepped: Result<Stepped, StepError>,
    ) -> Result<Option<Stepped>, Violation> {
        match stepped {
            Ok(stepped) => return Ok(Some(stepped)),
            Err(
                StepError::NotLeader { .. } | StepError::NotAVoter { .. } | StepError::NoVotersLeft,
            ) => {}
            Err(StepError::Overloaded) => self.coverage.hit(Branch::Overloaded),
            Err(StepError::Transferring { .. }) => self.coverage.hit(Branch::Transferring),
            Err(StepError::ChangeInProgress) => self.coverage.hit(Branch::ChangeRefused),
            Err(error) => {
                let detail = format!("g{group} n{id}: {error}");
                return Err(Violation { invariant: "inputs are well-formed", detail });
            }
        }
        Ok(None)
    }

    /// A packet of another node.
    pub(super) fn receive(&mut self, id: NodeId, from: NodeId, packet: Packet) -> Checked {
        match packet {
            Packet::Messages(messages) => {
                for (group, message) in messages {
                    self.step(id, group as usize, Input::Message { from, message })?;
                }
                Ok(())
            }
            Packet::Beat(beat) => {
                let Some(process) = self.node_mut(id).process.as_mut() else { return Ok(()) };
                let changes = process.liveness.receive(from, beat);
                self.liveness_changed(id, &changes)
            }
            Packet::Propose { group, op, tag, command } => {
                self.propose(id, group, tag, &command, Reply::Node(from, op))
            }
            Packet::Proposed { op, outcome } => {
                let Some(process) = self.node_mut(id).process.as_mut() else { return Ok(()) };
                if let Some(reply) = process.forwarded.remove(&op) {
                    self.reply(id, reply, outcome);
                }
                Ok(())
            }
            Packet::AskIndex { group, question } => self.asked_index(id, group, from, question),
            Packet::Index { group, question, index } => {
                self.index_answered(id, group, question, index)
            }
            Packet::Checkpoint { group, checkpoint } => {
                self.heard_checkpoint(id, group, from, checkpoint)
            }
            packet => self.receive_transfer(id, from, packet),
        }
    }

    /// Tells all groups which nodes went down or came up.
    pub(super) fn liveness_changed(&mut self, id: NodeId, changes: &[LivenessChange]) -> Checked {
        if self.sabotage == Some(Sabotage::QuietIgnoresDown) {
            return Ok(());
        }
        for change in changes {
            self.tell(|| format!("n{id} believes {change:?}"));
            let (who, input) = match *change {
                LivenessChange::Down(node) => (node, Input::NodeDown(node)),
                LivenessChange::Up(node) => (node, Input::NodeUp(node)),
            };
            for group in 0..self.plan.groups {
                let Some(hosted) = self.hosted(id, group) else { return Ok(()) };
                if !hosted.raft.membership().contains(who) {
                    continue;
                }
                let was_quiet = hosted.raft.is_quiet();
                self.step(id, group, input.clone())?;
                let hosted = self.hosted(id, group).expect("it was just stepped");
                if was_quiet && !hosted.raft.is_quiet() && matches!(input, Input::NodeDown(_)) {
                    self.coverage.hit(Branch::WokeByDown);
                }
            }
        }
        Ok(())
    }

    /// If the members of a group became others: beats with those, and the group learns which of
    /// them are down and which are not.
    fn note_members(&mut self, id: NodeId, group: usize) -> Checked {
        let Some(process) = self.node_mut(id).process.as_mut() else { return Ok(()) };
        let hosted = &mut process.groups[group];
        if hosted.membership == *hosted.raft.membership() {
            return Ok(());
        }
        let now = hosted.raft.membership().clone();
        let before = std::mem::replace(&mut hosted.membership, now.clone());
        self.trace.show(|| format!("{:>16}n{id} g{group} has the members {now:?}", ""));
        let process = self.node_mut(id).process.as_mut().expect("it has members");
        let members = process.groups.iter().flat_map(|hosted| hosted.membership.members());
        let watched: BTreeSet<NodeId> = members.filter(|member| *member != id).collect();
        process.liveness.watch(&watched);
        let new = now.members().into_iter().filter(|node| *node != id && !before.contains(*node));
        // What the core was told of a member that left and came back is long out of date.
        let told = |node| match process.liveness.is_down(node) {
            true => Input::NodeDown(node),
            false => Input::NodeUp(node),
        };
        let inputs: Vec<Input> = new.map(told).collect();
        for input in inputs {
            self.step(id, group, input)?;
        }
        Ok(())
    }

    /// Nodes of which a node was told wrongly for long enough: it learns the truth.
    pub(super) fn correct_misled(&mut self, id: NodeId) -> Checked {
        let now = self.now;
        let node = self.node_mut(id);
        let Some(place) = node.misled.iter().position(|(_, until)| *until <= now) else {
            return Ok(());
        };
        let (other, _) = node.misled.swap_remove(place);
        let process = node.process.as_ref().expect("it ticks");
        let change = if process.liveness.is_down(other) {
            LivenessChange::Down(other)
        } else {
            LivenessChange::Up(other)
        };
        self.liveness_changed(id, &[change])
    }

    /// Does what the cores of a node ask for, for all groups at once, until they ask for nothing.
    pub(super) fn carry_out(&mut self, id: NodeId) -> Checked {
        loop {
            let Some(process) = self.node_mut(id).process.as_mut() else { return Ok(()) };
            let touched = std::mem::take(&mut process.touched);
            if touched == 0 {
                self.wake_if_due(id)?;
                let process = self.node(id).process.as_ref();
                if process.is_none_or(|process| process.touched == 0) {
                    return Ok(());
                }
                continue;
            }
            let mut frames: Vec<Frame> = Vec::new();
            for group in 0..self.plan.groups {
                if touched & (1 << group) == 0 {
                    continue;
                }
                let Some(hosted) = self.hosted(id, group) else { return Ok(()) };
                let output = hosted.raft.take_output();
                if !output.is_empty() {
                    self.dispatch(id, group, output, &mut frames)?;
                }
            }
            for (to, messages) in frames {
                self.send(id, to, Packet::Messages(messages));
            }
            self.sync_log(id);
            for group in 0..self.plan.groups {
                if touched & (1 << group) != 0 {
                    self.note_leadership(id, group);
                    self.note_members(id, group)?;
                    self.note_checkpoint_if_quiet(id, group)?;
                }
            }
        }
    }

    /// Replicas that fall quiet compare where they ended.
    fn note_checkpoint_if_quiet(&mut self, id: NodeId, group: usize) -> Checked {
        let Some(hosted) = self.hosted(id, group) else { return Ok(()) };
        if hosted.raft.is_quiet() && hosted.state.applied() == hosted.raft.last_index() {
            self.note_checkpoint(id, group)?;
        }
        Ok(())
    }

    /// Does what one core asks for, as its documentation demands.
    fn dispatch(
        &mut self,
        id: NodeId,
        group: usize,
        mut output: Output,
        frames: &mut Vec<Frame>,
    ) -> Checked {
        self.sabotage_output(id, group, &mut output);
        if let Some(change) = output.role_change {
            self.tell(|| {
                let (role, term) = (change.role, change.term);
                match change.leader {
                    Some(leader) => {
                        format!("n{id} g{group} is {role:?} in {term}, led by n{leader}")
                    }
                    None => format!("n{id} g{group} is {role:?} in {term}"),
                }
            });
        }
        for (to, message) in output.messages {
            self.count_message(id, group, &message);
            let node = &self.nodes[id.0 as usize - 1];
            let core = node.raft(group).expect("its output was taken");
            self.checkers[group].sending(core, &node.durable(group), to, &message)?;
            match frames.iter_mut().find(|(other, _)| *other == to) {
                Some((_, messages)) => messages.push((group as u8, message)),
                None => frames.push((to, vec![(group as u8, message)])),
            }
        }
        if let Some(persist) = output.persist {
            let node = &mut self.nodes[id.0 as usize - 1];
            if node.disk.is_full {
                self.tell(|| format!("n{id} cannot append to its log and stops"));
                return self.stop_on_full_disk(id);
            }
            let core = node.raft(group).expect("its output was taken");
            self.checkers[group].persisting(id, core, &persist)?;
            if persist.truncate_from.is_some() {
                self.coverage.hit(Branch::LogTruncated);
            }
            let sequence = persist.sequence;
            self.node_mut(id).disk.append(group, persist);
            if self.sabotage == Some(Sabotage::AckBeforeSync) {
                self.step(id, group, Input::Persisted(sequence))?;
            }
        }
        self.hand_out(id, group, output.committed)?;
        for state in output.read_states {
            self.read_state(id, group, state)?;
        }
        for to in output.send_snapshot {
            self.begin_transfer(id, group, to)?;
        }
        if let Some(mark) = output.install_snapshot {
            let hosted = self.hosted(id, group).expect("its output was taken");
            hosted.installing = Some(mark);
            self.plan_apply(id, group);
        }
        if self.plan.apply_delay_max == 0 {
            self.apply_turn(id, group)?;
        }
        Ok(())
    }

    fn count_message(&mut self, id: NodeId, group: usize, message: &Message) {
        let last_index = self.node(id).raft(group).map_or(LogIndex::ZERO, Raft::last_index);
        let branch = match message.body {
            Body::TimeoutNow => Branch::TimeoutNow,
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

    /// Starts a sync of all appends that wait, unless one is under way.
    fn sync_log(&mut self, id: NodeId) {
        let delay = self.random.within(1..=self.plan.disk_delay_max);
        let now = self.now;
        let node = self.node_mut(id);
        let appends = node.disk.unsynced();
        if appends == 0 || node.disk.is_syncing || node.process.is_none() {
            return;
        }
        node.disk.is_syncing = true;
        let (life, at) = (node.life, node.disk.stalled_until.max(now) + delay);
        self.schedule_at(at, Event::Synced { node: id, life, appends });
    }

    /// The log has synced its first appends.
    pub(super) fn synced(&mut self, id: NodeId, appends: usize) -> Checked {
        if self.node(id).disk.is_failing {
            self.tell(|| format!("a sync of the log of n{id} fails, and it stops"));
            self.faults.hit(FaultKind::SyncFailed);
            return self.crash(id);
        }
        let disk = &mut self.node_mut(id).disk;
        disk.is_syncing = false;
        let synced = disk.synced(appends);
        for (group, sequence) in synced.into_iter().enumerate() {
            if let Some(sequence) = sequence
                && self.sabotage != Some(Sabotage::AckBeforeSync)
            {
                self.step(id, group, Input::Persisted(sequence))?;
            }
        }
        self.sync_log(id);
        Ok(())
    }

    /// Committed entries go to the apply thread, and whoever waits for them learns more.
    fn hand_out(&mut self, id: NodeId, group: usize, committed: Vec<Entry>) -> Checked {
        let Some(first) = committed.first().map(|entry| entry.index) else { return Ok(()) };
        for entry in &committed {
            self.checkers[group].handed_out(id, entry)?;
            self.count_entry(id, group, entry);
        }
        let skips = self.sabotage == Some(Sabotage::SnapshotSkipsEntry);
        let hosted = self.hosted(id, group).expect("its output was taken");
        let expected = hosted.applying.back().map_or(hosted.state.applied(), |entry| entry.index);
        ensure(
            first == expected.next() || skips,
            "entries are handed out once and in order",
            || format!("g{group} n{id}: {first} after {expected}"),
        )?;
        let mut lost = Vec::new();
        for entry in &committed {
            while let Some(waiter) = hosted.waiters.first_entry() {
                let (index, term) = *waiter.key();
                if index > entry.index {
                    break;
                }
                let reply = waiter.remove();
                if (index, term) == (entry.index, entry.term) {
                    hosted.answers.insert(index, reply);
                } else {
                    lost.push(reply);
                }
            }
        }
        hosted.applying.extend(committed);
        for reply in lost {
            self.coverage.hit(Branch::ProposalLost);
            self.reply(id, reply, Outcome::Refused);
        }
        self.plan_apply(id, group);
        Ok(())
    }

    fn count_entry(&mut self, id: NodeId, group: usize, entry: &Entry) {
        let Payload::Membership(membership) = &entry.payload else { return };
        let core = self.node(id).raft(group);
        if core.is_none_or(|core| core.role() != Role::Leader) {
            return;
        }
        let branch = if membership.is_joint() { Branch::JointEntered } else { Branch::JointLeft };
        self.coverage.hit(branch);
    }

    /// Gives the apply thread a turn, unless it has one.
    fn plan_apply(&mut self, id: NodeId, group: usize) {
        if self.plan.apply_delay_max == 0 {
            return;
        }
        let delay = self.random.within(1..=self.plan.apply_delay_max);
        let node = self.node_mut(id);
        let life = node.life;
        let Some(process) = node.process.as_mut() else { return };
        let hosted = &mut process.groups[group];
        let has_work = !hosted.applying.is_empty() || hosted.installing.is_some();
        if has_work && !std::mem::replace(&mut hosted.is_applying, true) {
            self.schedule(delay, Event::Apply { node: id, life, group });
        }
    }

    /// Applies all that waits, then installs a snapshot if one waits.
    pub(super) fn apply_turn(&mut self, id: NodeId, group: usize) -> Checked {
        loop {
            let Some(hosted) = self.hosted(id, group) else { return Ok(()) };
            hosted.is_applying = false;
            if hosted.applying.is_empty() {
                break;
            }
            self.apply_round(id, group)?;
        }
        self.install(id, group)
    }

    fn apply_round(&mut self, id: NodeId, group: usize) -> Checked {
        let (bytes_max, every) = (self.plan.apply_bytes_max, self.plan.checkpoint_every);
        self.show_time(id, group);
        let will_flip = self.node(id).flips[group].load(Ordering::Relaxed);
        let hosted = self.hosted(id, group).expect("it has entries to apply");
        // A round ends where a checkpoint is due.
        let due = (hosted.state.applied().0 / every + 1) * every;
        let mut round = VecDeque::new();
        while let Some(entry) = hosted.applying.pop_front_if(|entry| entry.index.0 <= due) {
            round.push_back(entry);
        }
        let commands: Vec<_> = round
            .iter()
            .filter_map(|entry| match &entry.payload {
                Payload::Command(sealed) => Some((entry.index, sealed.clone())),
                _ => None,
            })
            .collect();
        let applied = hosted.state.apply(&mut round, bytes_max);
        while let Some(entry) = round.pop_back() {
            hosted.applying.push_front(entry);
        }
        let applied = applied.map_err(|error| Violation {
            invariant: "committed entries can be applied",
            detail: format!("g{group} n{id}: {error}"),
        })?;
        self.note_committed(id, group)?;
        let mut replies = Vec::new();
        for ((index, sealed), (answered, answer)) in commands.iter().zip(&applied.answers) {
            assert_eq!(index, answered, "each command is answered in its turn");
            let coverage = &mut self.coverage;
            if self.plan.is_store(group) {
                self.history.applied_somewhere(group, *index, answer)?;
            } else {
                self.history.applied(group, *index, sealed, answer, coverage)?;
            }
        }
        let hosted = self.hosted(id, group).expect("it has applied");
        for (index, answer) in applied.answers {
            if let Some(reply) = hosted.answers.remove(&index) {
                replies.push((reply, answer));
            }
        }
        for (reply, answer) in replies {
            let outcome = match answer {
                Ok(answer) => Outcome::Written(answer),
                Err(_) => Outcome::Trimmed,
            };
            self.reply(id, reply, outcome);
        }
        self.check_hash(id, group, will_flip)?;
        self.step(id, group, Input::Applied(applied.index))?;
        self.caught_up(id, group)?;
        self.compact_if_due(id, group)?;
        if applied.index.0 == due {
            self.note_checkpoint(id, group)?;
        }
        Ok(())
    }

    /// Reads that waited for what was applied go on.
    pub(super) fn caught_up(&mut self, id: NodeId, group: usize) -> Checked {
        let Some(hosted) = self.hosted(id, group) else { return Ok(()) };
        if hosted.behind.is_empty() {
            return Ok(());
        }
        let applied = hosted.state.applied();
        let behind = std::mem::take(&mut hosted.behind);
        for (index, reading, began) in behind {
            if index <= applied {
                self.answer_read(id, group, reading, Some((began, index)))?;
            } else {
                let hosted = self.hosted(id, group).expect("it has applied");
                hosted.behind.push((index, reading, began));
            }
        }
        Ok(())
    }

    fn compact_if_due(&mut self, id: NodeId, group: usize) -> Checked {
        let limit = self.plan.compact_after_entries;
        let is_sync_skipped = self.sabotage == Some(Sabotage::CompactBeforeSync);
        let hosted = self.hosted(id, group).expect("it has applied");
        let times = if hosted.sending.is_empty() { 1 } else { KEPT_WHILE_SENDING };
        let applied = hosted.raft.applied_index();
        let retained = (applied.0 + 1).saturating_sub(hosted.raft.first_index().0);
        if retained <= limit * times {
            return Ok(());
        }
        if is_sync_skipped {
            return self.compact(id, group, applied);
        }
        let delay = self.random.within(1..=self.plan.table_sync_delay_max);
        let node = self.node_mut(id);
        let life = node.life;
        let process = node.process.as_mut().expect("it has applied");
        if !std::mem::replace(&mut process.is_syncing_table, true) {
            // Read first: what is applied after this moment may not be in the sync.
            let applied = process.groups.iter().map(|hosted| hosted.raft.applied_index()).collect();
            self.schedule(delay, Event::TableSynced { node: id, life, applied });
        }
        Ok(())
    }

    /// What was applied then is durable in the table.
    pub(super) fn table_synced(&mut self, id: NodeId, applied: &[LogIndex]) -> Checked {
        let node = self.node_mut(id);
        onefold_table::Table::sync(&*node.table).expect("memory does not fail");
        let process = node.process.as_mut().expect("its event is of this life");
        process.is_syncing_table = false;
        for (group, &through) in applied.iter().enumerate() {
            self.compact(id, group, through)?;
        }
        Ok(())
    }

    fn compact(&mut self, id: NodeId, group: usize, durable: LogIndex) -> Checked {
        let (limit, keep) = (self.plan.compact_after_entries, self.plan.keep_entries);
        let Some(hosted) = self.hosted(id, group) else { return Ok(()) };
        let (first, applied) = (hosted.raft.first_index(), hosted.raft.applied_index());
        let through = LogIndex(applied.0.saturating_sub(keep)).min(durable);
        if through < first || (applied.0 + 1).saturating_sub(first.0) <= limit {
            return Ok(());
        }
        self.coverage.hit(Branch::Compacted);
        self.tell(|| format!("n{id} g{group} compacts through {through}"));
        self.step(id, group, Input::Compact(through)).map(|_| ())
    }

    /// Answers whoever waits for a command.
    pub(super) fn reply(&mut self, id: NodeId, reply: Reply, outcome: Outcome) {
        match reply {
            Reply::Client(op) => self.answer_client(op, outcome),
            Reply::Node(to, op) => self.send(id, to, Packet::Proposed { op, outcome }),
            Reply::Own(group, own) => self.own_done(id, group, own, &outcome),
        }
    }

    fn read_state(&mut self, id: NodeId, group: usize, state: ReadState) -> Checked {
        let monotonic = self.node(id).clock.monotonic(self.now);
        let has_lease = self.plan.lease.is_some();
        let hosted = self.hosted(id, group).expect("its output was taken");
        let has_others = hosted.raft.membership().voters.len() > 1;
        let (read, index) = match state {
            ReadState::Ready { id, index } => (id, Some(index)),
            ReadState::Failed { id } => (id, None),
        };
        let Some(asker) = hosted.reads.remove(&read) else { return Ok(()) };
        self.coverage.hit(match index {
            Some(_) => Branch::ReadConfirmed,
            None => Branch::ReadFailed,
        });
        match asker {
            Asker::Node(to, question) => {
                self.send(id, to, Packet::Index { group, question, index });
                Ok(())
            }
            Asker::Read(reading, began) => match index {
                Some(index) => {
                    if has_lease && has_others && began == monotonic {
                        self.coverage.hit(Branch::LeaseRead);
                    }
                    self.wait_until_applied(id, group, reading, began, index)
                }
                None => {
                    self.answer_client(reading.op, Outcome::Refused);
                    Ok(())
                }
            },
        }
    }

    /// Asks the core of a leader what is committed.
    pub(super) fn ask_core(&mut self, id: NodeId, group: usize, asker: Asker) -> Checked {
        let is_unasked = self.sabotage == Some(Sabotage::StaleRead);
        let hosted = self.hosted(id, group).expect("it runs");
        if is_unasked && hosted.raft.role() == Role::Leader {
            let index = hosted.raft.commit_index();
            return match asker {
                Asker::Read(reading, began) => {
                    self.wait_until_applied(id, group, reading, began, index)
                }
                Asker::Node(to, question) => {
                    let index = Some(index);
                    self.send(id, to, Packet::Index { group, question, index });
                    Ok(())
                }
            };
        }
        hosted.reads_asked += 1;
        let read = ReadId(hosted.reads_asked);
        // The answer may come within the step.
        hosted.reads.insert(read, asker);
        if self.step(id, group, Input::ReadIndex(read))?.is_some() {
            return Ok(());
        }
        let hosted = self.hosted(id, group).expect("it was just stepped");
        match hosted.reads.remove(&read) {
            Some(Asker::Read(reading, _)) => self.answer_client(reading.op, Outcome::Refused),
            Some(Asker::Node(to, question)) => {
                self.send(id, to, Packet::Index { group, question, index: None });
            }
            None => {}
        }
        Ok(())
    }
}

/// What changes of a core are counted by.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Before {
    role: Role,
    term: onefold_types::Term,
    is_quiet: bool,
    is_joint: bool,
}

impl Before {
    fn of(core: &Raft) -> Self {
        Self {
            role: core.role(),
            term: core.term(),
            is_quiet: core.is_quiet(),
            is_joint: core.membership().is_joint(),
        }
    }

    /// Whether it leads, and the voters are just being changed.
    fn is_leading_jointly(&self) -> bool {
        self.role == Role::Leader && self.is_joint
    }
}

impl Hosted {
    /// Forgets whom to answer up to an index: a snapshot hides what became of them.
    pub(super) fn forget_waiters(&mut self, through: LogIndex) -> Vec<Reply> {
        let later = self.waiters.split_off(&(through.next(), onefold_types::Term::ZERO));
        let waiters = std::mem::replace(&mut self.waiters, later);
        let answers = self.answers.split_off(&through.next());
        let answered = std::mem::replace(&mut self.answers, answers);
        waiters.into_values().chain(answered.into_values()).collect()
    }
}
