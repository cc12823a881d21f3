//! One group on the consensus thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use onefold_raft::{
    Body, Entry, Input, MembershipChange, Message, Payload, Persist, Raft, ReadId, ReadState, Role,
    RoleChange, SnapshotMark, SnapshotOutcome, Status, StepError, Stepped,
};
use onefold_types::{GroupId, LogIndex, NodeId, Term};
use tokio::sync::oneshot;

use super::retained::Retained;
use super::time::aligned;
use super::unapplied::Unapplied;
use super::{Seat, broken, refuse};
use crate::apply::Waiter;
use crate::change::ChangeStep;
use crate::core::GroupCell;
use crate::divergence::Judge;
use crate::inbox::Proposal;
use crate::state::{Checkpoint, StateHash};
use crate::{
    ChangeError, HostError, Limits, MemberProgress, ProposeError, ReadError, TransferError,
};

type ProposeReply = oneshot::Sender<Result<Bytes, ProposeError>>;
type ReadReply = oneshot::Sender<Result<LogIndex, ReadError>>;

/// While a snapshot is sent, entries after it are kept, up to this many times what starts a
/// compaction: else the follower would need the next snapshot at once.
const KEPT_WHILE_SENDING: usize = 8;

/// One group: its core, and who waits for what.
pub(super) struct Driven {
    pub(super) cell: Arc<GroupCell>,
    pub(super) raft: Raft,
    pub(super) applier: usize,
    /// Proposals in the log of which it is not known yet whether they are committed.
    waiters: BTreeMap<(LogIndex, Term), ProposeReply>,
    reads: BTreeMap<ReadId, Vec<ReadReply>>,
    last_read: ReadId,
    unapplied: Unapplied,
    retained: Retained,
    /// Followers that a snapshot is sent to, and what was applied when that began.
    sending: BTreeMap<NodeId, LogIndex>,
    /// The members as the driver knows them, and whether they may have changed since.
    pub(super) members: BTreeSet<NodeId>,
    may_have_new_members: bool,
    pub(super) is_leading: bool,
    is_standing: bool,
    last_leader: Option<NodeId>,
    /// Ticks up to this one are withheld, see [`aligned`].
    withheld_until: u64,
    clock_micros: Option<u64>,
    /// Compares the states of the replicas.
    pub(super) judge: Judge,
    /// Where the state ends.
    pub(super) last_checkpoint: Checkpoint,
    /// Syncs of the table up to this one began with another state than the present one.
    syncs_ignored: u64,
    /// An apply thread was told to install a staged snapshot.
    pub(super) is_installing: bool,
}

/// What became of a message.
pub(super) enum Received {
    /// The core has it, or dropped it for lack of room.
    Taken,
    /// It breaks a rule that every correct sender keeps.
    Malformed(String),
    /// Its sender claims to lead in a term that another node leads.
    TwoLeaders(String),
    /// It answers a question that only members are asked.
    NotMember,
}

impl Driven {
    pub(super) fn new(seat: Seat) -> Self {
        let Seat { cell, raft, applier, logged, last_checkpoint } = seat;
        let mut retained = Retained::after(LogIndex(raft.first_index().get() - 1));
        let mut unapplied = Unapplied::default();
        for (index, bytes) in logged {
            if index <= raft.applied_index() {
                retained.applied(index, bytes);
            } else {
                unapplied.logged(index, bytes);
            }
        }
        Self {
            judge: Judge::new(cell.node),
            last_checkpoint,
            syncs_ignored: 0,
            is_installing: false,
            cell,
            raft,
            applier,
            waiters: BTreeMap::new(),
            reads: BTreeMap::new(),
            last_read: ReadId(0),
            unapplied,
            retained,
            sending: BTreeMap::new(),
            members: BTreeSet::new(),
            may_have_new_members: true,
            is_leading: false,
            is_standing: false,
            last_leader: None,
            withheld_until: 0,
            clock_micros: None,
        }
    }

    fn id(&self) -> GroupId {
        self.cell.id
    }

    /// Steps the core with something that it must accept.
    pub(super) fn step(&mut self, input: Input) -> Result<(), HostError> {
        match self.raft.step(input) {
            Ok(_) => Ok(()),
            Err(error) => Err(broken(self.id(), &error)),
        }
    }

    /// Tells the core what time it is, once in a round.
    pub(super) fn set_clock(&mut self, now_micros: Option<u64>) {
        if let Some(now) = now_micros
            && self.clock_micros != now_micros
        {
            self.clock_micros = now_micros;
            self.raft.step(Input::Now(now)).expect("the time is never refused");
        }
    }

    /// One tick passed.
    pub(super) fn tick(&mut self, tick: u64) -> Result<(), HostError> {
        if tick <= self.withheld_until {
            return Ok(());
        }
        self.step(Input::Tick)
    }

    /// Steps the core with a message of another node.
    pub(super) fn receive(
        &mut self,
        from: NodeId,
        message: Message,
        backlog_bytes_max: usize,
    ) -> Result<Received, HostError> {
        // Requests are taken from anybody: this replica may not know yet who became a member.
        if is_answer(&message.body) && !self.raft.membership().contains(from) {
            return Ok(Received::NotMember);
        }
        // A replica that applies too slowly takes no more entries; its leader will send them again.
        let is_append =
            matches!(&message.body, Body::Append { entries, .. } if !entries.is_empty());
        if is_append && self.unapplied.bytes() > backlog_bytes_max {
            return Ok(Received::Taken);
        }
        match self.raft.step(Input::Message { from, message }) {
            Ok(_) => Ok(Received::Taken),
            Err(
                error @ (StepError::AcknowledgedEntriesLost { .. }
                | StepError::CommittedEntryReplaced { .. }),
            ) => Err(broken(self.id(), &error)),
            Err(error @ StepError::TwoLeaders { .. }) => {
                Ok(Received::TwoLeaders(error.to_string()))
            }
            Err(error) => Ok(Received::Malformed(error.to_string())),
        }
    }

    /// Bytes of entries in the log that are not applied yet.
    pub(super) fn backlog_bytes(&self) -> usize {
        self.unapplied.bytes()
    }

    /// Appends the commands of one round.
    pub(super) fn propose(&mut self, mut proposals: Vec<Proposal>) {
        // Who gave up already need not wait, and its command need not be executed.
        proposals.retain(|proposal| !proposal.reply.is_closed());
        if proposals.is_empty() {
            return;
        }
        let count = proposals.len();
        let commands = proposals.iter().map(|proposal| proposal.command.clone()).collect();
        match self.raft.step(Input::Propose(commands)) {
            Ok(Stepped::Proposed { term, indexes }) => {
                self.cell.counters.proposals_accepted_total.add(count);
                let mut index = *indexes.start();
                for proposal in proposals {
                    self.waiters.insert((index, term), proposal.reply);
                    index = index.next();
                }
            }
            Ok(Stepped::Done) => unreachable!("proposals are answered with their indexes"),
            Err(error) => {
                self.cell.counters.proposals_refused_total.add(count);
                refuse(proposals, &self.propose_error(&error));
            }
        }
    }

    fn propose_error(&self, error: &StepError) -> ProposeError {
        let group = self.id();
        match error {
            StepError::NotLeader { leader } => ProposeError::NotLeader { group, leader: *leader },
            StepError::Transferring { to } => ProposeError::NotLeader { group, leader: Some(*to) },
            _ => ProposeError::Overloaded { group },
        }
    }

    /// Who waits for these committed entries. Who waits for another entry at one of their indexes
    /// learns that its command never comes: the log holds one entry at an index (Raft paper,
    /// section 5.3).
    pub(super) fn take_waiters(&mut self, committed: &[Entry]) -> Vec<Waiter> {
        if self.waiters.is_empty() {
            return Vec::new();
        }
        let mut waiters = Vec::new();
        for entry in committed {
            while let Some(first) = self.waiters.first_entry() {
                let (index, term) = *first.key();
                if index > entry.index {
                    break;
                }
                let reply = first.remove();
                if (index, term) == (entry.index, entry.term) {
                    waiters.push(Waiter { index, reply });
                } else {
                    let (group, leader) = (self.cell.id, self.raft.leader());
                    let _ = reply.send(Err(ProposeError::NotLeader { group, leader }));
                }
            }
        }
        waiters
    }

    /// A node that was removed while it led hears of the group no more: what became of commands that
    /// were not committed by then, others know.
    pub(super) fn give_up_waiters_if_removed(&mut self) {
        if self.waiters.is_empty()
            || self.is_leading
            || self.raft.membership().contains(self.cell.node)
        {
            return;
        }
        let uncommitted = (self.raft.commit_index().next(), Term::ZERO);
        let lost = self.waiters.split_off(&uncommitted);
        self.give_up(lost, "this node was removed from the group before it was committed");
    }

    pub(super) fn give_up_all_waiters(&mut self, reason: &str) {
        let waiters = std::mem::take(&mut self.waiters);
        self.give_up(waiters, reason);
    }

    /// The group is on this node no more: whoever waits for it learns that.
    pub(super) fn end(&mut self) {
        let group = self.id();
        self.give_up_all_waiters("the group was destroyed on this node");
        for replies in std::mem::take(&mut self.reads).into_values() {
            answer(replies, &Err(ReadError::NotHosted { group }));
        }
        self.is_leading = false;
        self.cell.set_progress(None);
        self.cell.set_leadership(Role::Follower, self.raft.term(), None);
    }

    fn give_up(&self, waiters: BTreeMap<(LogIndex, Term), ProposeReply>, reason: &str) {
        let group = self.id();
        self.cell.counters.proposals_unknown_total.add(waiters.len());
        for reply in waiters.into_values() {
            let _ = reply.send(Err(ProposeError::Unknown { group, reason: reason.to_owned() }));
        }
    }

    pub(super) fn forget_waiters_that_gave_up(&mut self) {
        self.waiters.retain(|_, reply| !reply.is_closed());
    }

    /// Asks once what is committed, for all the reads of a round.
    pub(super) fn read(&mut self, replies: Vec<ReadReply>) {
        self.last_read.0 += 1;
        self.cell.counters.reads_total.add(replies.len());
        match self.raft.step(Input::ReadIndex(self.last_read)) {
            Ok(_) => {
                self.reads.insert(self.last_read, replies);
            }
            Err(error) => {
                let group = self.id();
                let error = match error {
                    StepError::NotLeader { leader } => ReadError::NotLeader { group, leader },
                    _ => ReadError::Overloaded { group },
                };
                answer(replies, &Err(error));
            }
        }
    }

    pub(super) fn answer_reads(&mut self, states: Vec<ReadState>) {
        for state in states {
            let (id, outcome) = match state {
                ReadState::Ready { id, index } => (id, Ok(index)),
                ReadState::Failed { id } => {
                    let (group, leader) = (self.id(), self.raft.leader());
                    (id, Err(ReadError::NotLeader { group, leader }))
                }
            };
            let replies = self.reads.remove(&id).unwrap_or_default();
            answer(replies, &outcome);
        }
    }

    /// The core asked for this to be written.
    pub(super) fn logged(&mut self, persist: &Persist) {
        let mut may_differ = persist.truncate_from.is_some();
        for entry in &persist.entries {
            self.unapplied.logged(entry.index, entry.bytes());
            if matches!(entry.payload, Payload::Membership(_)) {
                self.cell.counters.membership_changes_total.increment();
                may_differ = true;
            }
        }
        if may_differ {
            self.publish_membership();
        }
    }

    /// An apply round is done.
    pub(super) fn applied(&mut self, index: LogIndex, bytes: usize) -> Result<(), HostError> {
        self.step(Input::Applied(index))?;
        let counters = &self.cell.counters;
        counters.entries_applied_total.add(self.retained.applied(index, bytes));
        counters.bytes_applied_total.add(bytes);
        self.unapplied.applied(index);
        Ok(())
    }

    pub(super) fn snapshot_installed(
        &mut self,
        mark: SnapshotMark,
        hash: StateHash,
        syncs: u64,
    ) -> Result<(), HostError> {
        let index = mark.index;
        self.step(Input::SnapshotInstalled(mark))?;
        self.retained = Retained::after(index);
        self.unapplied.applied(index);
        self.publish_membership();
        self.cell.counters.snapshots_installed_total.increment();
        self.is_installing = false;
        self.cell.set_whole();
        // What syncs that began before say of the state is of another one.
        self.syncs_ignored = syncs;
        self.judge.rebuilt();
        self.last_checkpoint = Checkpoint { index, hash };
        // Whether they were executed is hidden in the snapshot.
        let later = self.waiters.split_off(&(index.next(), Term::ZERO));
        let hidden = std::mem::replace(&mut self.waiters, later);
        self.give_up(hidden, "this replica lost leadership and caught up by a snapshot");
        Ok(())
    }

    /// A snapshot is wanted for a follower; false if one is being sent to it already. Then this
    /// leader was deposed meanwhile and leads again, and the end of that one answers for both: two
    /// would displace each other on the follower, piece by piece.
    pub(super) fn begin_sending(&mut self, to: NodeId) -> bool {
        self.sending.insert(to, self.raft.applied_index()).is_none()
    }

    pub(super) fn snapshot_sent(
        &mut self,
        to: NodeId,
        outcome: SnapshotOutcome,
    ) -> Result<(), HostError> {
        self.sending.remove(&to);
        match outcome {
            SnapshotOutcome::Delivered(_) => self.cell.counters.snapshots_sent_total.increment(),
            SnapshotOutcome::Failed => self.cell.counters.snapshots_failed_total.increment(),
        }
        self.step(Input::SnapshotSent { to, outcome })
    }

    /// Whether the sync with this number tells what of the present state is durable.
    pub(super) fn may_compact(&self, sync: u64) -> bool {
        !self.raft.is_state_lost() && sync > self.syncs_ignored
    }

    pub(super) fn is_compaction_due(&self, limits: &Limits) -> bool {
        let times = if self.sending.is_empty() { 1 } else { KEPT_WHILE_SENDING };
        self.retained.bytes() > limits.compact_after_bytes.saturating_mul(times)
            || self.retained.entries() > limits.compact_after_entries.saturating_mul(times) as u64
    }

    /// Everything up to `durable` is durable in the table: drops what need not be kept.
    pub(super) fn compact(&mut self, durable: LogIndex, limits: &Limits) -> Result<(), HostError> {
        let keep_entries = limits.keep_entries as u64;
        self.compact_through(self.retained.surplus(limits.keep_bytes, keep_entries, durable))
    }

    /// Everything up to `durable` is durable in the table: keeps at most so much.
    pub(super) fn compact_to(
        &mut self,
        durable: LogIndex,
        keep_bytes_max: usize,
    ) -> Result<(), HostError> {
        self.compact_through(self.retained.excess(keep_bytes_max, durable))
    }

    fn compact_through(&mut self, through: Option<LogIndex>) -> Result<(), HostError> {
        let Some(through) = through else { return Ok(()) };
        self.step(Input::Compact(through))?;
        self.retained.compacted(through);
        self.cell.counters.compactions_total.increment();
        tracing::debug!(group = %self.id(), %through, "compacted the log");
        Ok(())
    }

    /// Bytes of applied entries that are kept.
    pub(super) fn retained_bytes(&self) -> usize {
        self.retained.bytes()
    }

    pub(super) fn change_membership(
        &mut self,
        change: MembershipChange,
    ) -> Result<ChangeStep, ChangeError> {
        let group = self.id();
        match self.raft.step(Input::ChangeMembership(change)) {
            Ok(Stepped::Done) => Ok(ChangeStep::Done),
            Ok(Stepped::Proposed { indexes, .. }) => Ok(ChangeStep::Begun(*indexes.start())),
            Err(StepError::NotLeader { leader }) => Err(ChangeError::NotLeader { group, leader }),
            Err(StepError::Transferring { to }) => {
                Err(ChangeError::NotLeader { group, leader: Some(to) })
            }
            Err(StepError::ChangeInProgress | StepError::Overloaded) => Ok(ChangeStep::Busy),
            Err(error) => Err(ChangeError::Refused { group, reason: error.to_string() }),
        }
    }

    pub(super) fn transfer(&mut self, to: NodeId) -> Result<(), TransferError> {
        let group = self.id();
        match self.raft.step(Input::TransferLeadership(to)) {
            Ok(_) => Ok(()),
            Err(StepError::NotLeader { leader }) => Err(TransferError::NotLeader { group, leader }),
            Err(error) => Err(TransferError::Refused { group, to, reason: error.to_string() }),
        }
    }

    /// Publishes where the group is.
    pub(super) fn publish(&self) {
        let GroupCell { progress, counters, .. } = &*self.cell;
        counters.commit_index.set_index(self.raft.commit_index());
        counters.retained_bytes.set(self.retained.bytes());
        counters.retained_entries.set(self.retained.entries() as usize);
        counters.unapplied_bytes.set(self.unapplied.bytes());
        progress.last.store(self.raft.last_index().get(), Ordering::Release);
    }

    /// Publishes who belongs to the group.
    pub(super) fn publish_membership(&mut self) {
        self.cell.set_membership(self.raft.membership());
        self.may_have_new_members = true;
    }

    /// The members before, if they are others now.
    pub(super) fn take_new_members(&mut self) -> Option<BTreeSet<NodeId>> {
        if !std::mem::take(&mut self.may_have_new_members) {
            return None;
        }
        let now = self.raft.membership().members();
        (now != self.members).then(|| std::mem::replace(&mut self.members, now))
    }

    /// The group needs no ticks until something happens.
    pub(super) fn fell_quiet(&mut self) {
        self.publish_progress();
        self.cell.progress.is_quiet.store(true, Ordering::Release);
        // The logs of leader and follower are equal and committed: what is not in them never will
        // be. What is in them may still wait for its turn to be applied here.
        let (group, leader) = (self.id(), self.raft.leader());
        let never = self.waiters.split_off(&(self.raft.commit_index().next(), Term::ZERO));
        for reply in never.into_values() {
            let _ = reply.send(Err(ProposeError::NotLeader { group, leader }));
        }
    }

    /// Something happens again.
    pub(super) fn woke(&mut self, tick: u64, heartbeat_ticks: u32) {
        self.cell.progress.is_quiet.store(false, Ordering::Release);
        if self.is_leading {
            // The next tick brings a heartbeat.
            self.withheld_until = aligned(tick + 1, heartbeat_ticks) - 1;
        }
    }

    /// Publishes how far the members are, if this replica leads.
    pub(super) fn publish_progress(&self) {
        if self.raft.role() == Role::Leader {
            let Status { followers, last_index, .. } = self.raft.status();
            let progress = followers.iter();
            let progress = progress.map(|(id, it)| (*id, MemberProgress::new(it, last_index)));
            self.cell.set_progress(Some(progress.collect()));
        }
    }

    pub(super) fn role_changed(&mut self, change: &RoleChange, tick: u64, heartbeat_ticks: u32) {
        let RoleChange { role, term, leader } = *change;
        let counters = &self.cell.counters;
        let was_standing = std::mem::replace(&mut self.is_standing, is_standing(role));
        if self.is_standing && !was_standing {
            counters.elections_total.increment();
        }
        if leader.is_some() && leader != self.last_leader {
            counters.leader_changes_total.increment();
            self.last_leader = leader;
        }
        self.is_leading = role == Role::Leader;
        if self.is_leading {
            counters.elections_won_total.increment();
            self.withheld_until = aligned(tick, heartbeat_ticks);
        }
        let group = self.id();
        match role {
            Role::Leader => tracing::info!(%group, %term, "leads"),
            Role::Follower => tracing::info!(%group, %term, ?leader, "follows"),
            Role::PreCandidate | Role::Candidate => tracing::debug!(%group, %term, "stands"),
        }
        if role != Role::Leader {
            self.cell.set_progress(None);
        }
        self.cell.set_leadership(role, term, leader);
    }
}

/// Whether a message is one that only those send who were asked: members.
fn is_answer(body: &Body) -> bool {
    matches!(
        body,
        Body::PreVoteResponse { .. }
            | Body::VoteResponse { .. }
            | Body::AppendAccepted { .. }
            | Body::AppendRejected { .. }
            | Body::HeartbeatResponse { .. }
            | Body::SnapshotInstalled { .. }
            | Body::SnapshotMissing { .. }
            | Body::SnapshotWanted { .. }
            | Body::TermOver
    )
}

fn is_standing(role: Role) -> bool {
    matches!(role, Role::PreCandidate | Role::Candidate)
}

fn answer(replies: Vec<ReadReply>, outcome: &Result<LogIndex, ReadError>) {
    for reply in replies {
        let _ = reply.send(outcome.clone());
    }
}
