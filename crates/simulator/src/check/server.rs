//! One server: a real core, its disk, its driver; and everything that can happen to it alone.

use std::{
    collections::{BTreeSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::Bytes;
use onefold_raft::{
    Body, Config, ConfigError, Entry, Fingerprint, HardState, Input, Membership, MembershipChange,
    Message, Output, Payload, Persist, Raft, ReadId, ReadState, Restored, Role, SnapshotMark,
    SnapshotOutcome, StepError,
};
use onefold_types::{GroupId, LogIndex, NodeId, Term};

use super::{bug::Bug, scope::Scope};
use crate::raft::Violation;

/// A voter stops to believe in a leader after so many ticks, and a leader without a majority steps
/// down after so many.
const ELECTION_TICKS: u32 = 2;

/// Makes every drawn timeout longer than the ticks that a follower ever gets here; that timeouts
/// pass is an event of its own.
const ELECTION_RANK: u32 = 8;

/// What happens to one server.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// A message arrives.
    Receives { from: NodeId, message: Message },
    /// Its election timeout passes.
    TimesOut,
    /// It has heard nothing of a leader for so long that it may vote for another.
    Lapses,
    /// One tick of a leader.
    Beats,
    /// A client proposes a command.
    Proposes,
    /// The operator asks for the next change of the members.
    Changes(usize),
    /// A client asks for a linearizable read; everything up to here was committed by then.
    Reads { floor: u64 },
    /// The operator has leadership handed over.
    HandsOver(NodeId),
    /// The oldest write becomes durable.
    Writes,
    /// Memory and unfinished writes are lost; it starts again.
    Crashes,
    /// The log gives up everything that is applied.
    Compacts,
    /// A snapshot arrived whole and is durable.
    Stages(SnapshotMark),
    /// The transfer of a snapshot to another server ends.
    SentSnapshot { to: NodeId, is_delivered: bool },
    /// The snapshot that the core wants installed is, or turns out to be missing.
    Installs,
}

/// What the log keeps beyond a crash.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) hard_state: HardState,
    pub(super) mark: SnapshotMark,
    pub(super) entries: Vec<Entry>,
    /// What the state machine holds for certain; later entries are applied anew after a crash.
    pub(super) machine: SnapshotMark,
}

impl Disk {
    fn store(&mut self, persist: &Persist, bug: Option<Bug>) {
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(from) = persist.truncate_from
            && bug != Some(Bug::TruncationForgotten)
        {
            self.entries.retain(|entry| entry.index < from);
        }
        if let Some(mark) = &persist.snapshot {
            self.entries.retain(|entry| entry.index > mark.index);
            self.mark = mark.clone();
        }
        for entry in &persist.entries {
            match self.entries.iter_mut().find(|old| old.index == entry.index) {
                Some(old) => *old = entry.clone(),
                None => self.entries.push(entry.clone()),
            }
        }
    }
}

/// One server with everything that it remembers.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) core: Raft,
    pub(super) disk: Disk,
    pub(super) unfinished: VecDeque<Persist>,
    /// A durable snapshot that waits to be installed.
    pub(super) staged: Option<SnapshotMark>,
    /// The snapshot that the core wants installed.
    pub(super) installing: Option<SnapshotMark>,
    /// Servers to which it sends its snapshot.
    pub(super) transfers: BTreeSet<NodeId>,
}

/// Messages with their receivers.
pub(super) type Sent = Vec<(NodeId, Message)>;

impl Server {
    /// The server as it first starts.
    pub(super) fn first(scope: &Scope, id: NodeId) -> Result<Self, ConfigError> {
        let log = scope.logs.get(id.0 as usize - 1).map_or(&[][..], Vec::as_slice);
        let entry = |(index, &term): (u64, &u64)| Entry {
            term: Term(term),
            index: LogIndex(index),
            payload: Payload::Command(command(index, term)),
        };
        let mut mark = SnapshotMark::default();
        // Any other server waits to be told who is in the group.
        if scope.voters.contains(&id) {
            mark.membership = Membership::of_voters(scope.voters.iter().copied());
        }
        let disk = Disk {
            hard_state: HardState { term: Term(scope.term_first), ..HardState::default() },
            mark: mark.clone(),
            entries: (1..).zip(log).map(entry).collect(),
            machine: mark,
        };
        Self::started(id, disk, scope)
    }

    fn started(id: NodeId, disk: Disk, scope: &Scope) -> Result<Self, ConfigError> {
        let mut config = Config::new(id, GroupId::KV, 1);
        config.election_ticks = ELECTION_TICKS;
        config.heartbeat_ticks = 1;
        config.election_rank = ELECTION_RANK;
        config.disk_stall_ticks = u32::MAX;
        config.quiesce_after_ticks = scope.has_silence.then_some(1);
        if scope.has_small_appends {
            config.append_bytes_max = 1;
        }
        // The state machine may be ahead of the log's mark: it installed a snapshot.
        let snapshot = std::cmp::max_by_key(&disk.mark, &disk.machine, |mark| mark.index).clone();
        let restored = Restored {
            hard_state: disk.hard_state,
            applied: snapshot.index,
            snapshot,
            entries: disk.entries.clone(),
        };
        Ok(Self {
            core: Raft::new(config, restored)?,
            disk,
            unfinished: VecDeque::new(),
            staged: None,
            installing: None,
            transfers: BTreeSet::new(),
        })
    }

    /// The log in memory, with what its entries carry.
    pub(super) fn log(&self) -> (SnapshotMark, Vec<Entry>) {
        let mut disk = self.disk.clone();
        self.unfinished.iter().for_each(|persist| disk.store(persist, None));
        (disk.mark, disk.entries)
    }

    pub(super) fn fingerprint(&self, to: &mut Fingerprint<'_>) {
        let Self { core, disk, unfinished, staged, installing, transfers } = self;
        to.raft(core);
        to.hard_state(&disk.hard_state);
        to.mark(&disk.mark);
        to.mark(&disk.machine);
        to.add(disk.entries.len());
        disk.entries.iter().for_each(|entry| to.entry(entry));
        to.add(unfinished.len());
        unfinished.iter().for_each(|persist| to.persist(persist));
        to.mark_if_any(staged.as_ref());
        to.mark_if_any(installing.as_ref());
        to.servers(transfers);
    }

    /// Lets the event happen to a copy of this server; `None` if it cannot happen now.
    ///
    /// # Errors
    /// An invariant that one server alone can break, or an assertion of the core.
    pub(super) fn after(
        &self,
        event: &Event,
        scope: &Scope,
        bug: Option<Bug>,
    ) -> Result<Option<(Self, Sent)>, Violation> {
        let happens = || {
            let mut step = Step { server: self.clone(), sent: Sent::new(), scope, bug };
            let is_possible = step.happen(event)?;
            if !is_possible {
                return Ok(None);
            }
            if !matches!(event, Event::Crashes) {
                self.check_progress(&step.server)?;
            }
            step.server.check_log()?;
            Ok(Some((step.server, step.sent)))
        };
        match catch_unwind(AssertUnwindSafe(happens)) {
            Ok(after) => after,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                let detail = text.unwrap_or("a panic without words").to_owned();
                Err(Violation { invariant: "the core's own assertions", detail })
            }
        }
    }

    /// What never goes back as long as a server runs.
    fn check_progress(&self, after: &Self) -> Result<(), Violation> {
        let (old, new) = (&self.core, &after.core);
        ensure(new.term() >= old.term(), "the term never goes back", || {
            format!("from {} to {}", old.term(), new.term())
        })?;
        ensure(
            new.commit_index() >= old.commit_index(),
            "the commit index never goes back",
            || format!("from {} to {}", old.commit_index(), new.commit_index()),
        )?;
        let leads = |core: &Raft| core.role() == Role::Leader;
        if leads(old) && leads(new) && old.term() == new.term() {
            let first = old.first_index().max(new.first_index());
            let mut kept = (first.0..=old.last_index().0).map(LogIndex);
            let is_kept = kept.all(|index| old.term_at(index) == new.term_at(index));
            ensure(is_kept, "leader append-only", || "a leader changed its log".into())?;
        }
        Ok(())
    }

    /// What was given to the disk is what the core has.
    fn check_log(&self) -> Result<(), Violation> {
        let (mark, entries) = self.log();
        let last = entries.last().map_or(mark.index, |entry| entry.index);
        let is_equal = last == self.core.last_index()
            && entries.iter().all(|entry| self.core.term_at(entry.index) == Some(entry.term));
        ensure(is_equal, "what is written is what the core has", || {
            let written: Vec<String> =
                entries.iter().map(|entry| format!("{}/{}", entry.index, entry.term)).collect();
            format!("{} is written, the core ends at {}", written.join(" "), self.core.last_index())
        })
    }
}

/// The command that is proposed for an index in a term.
fn command(index: u64, term: u64) -> Bytes {
    Bytes::from(format!("{index}/{term}"))
}

/// A violation unless the condition holds.
pub(super) fn ensure(
    holds: bool,
    invariant: &'static str,
    detail: impl FnOnce() -> String,
) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation { invariant, detail: detail() }) }
}

/// An event on its way through a server.
struct Step<'a> {
    server: Server,
    sent: Sent,
    scope: &'a Scope,
    bug: Option<Bug>,
}

impl Step<'_> {
    /// True if it can happen.
    fn happen(&mut self, event: &Event) -> Result<bool, Violation> {
        let core = &self.server.core;
        let leads = core.role() == Role::Leader;
        match event {
            Event::Receives { from, message } => {
                // Being asked to stand for election is a way to a later term.
                let is_beyond = core.term().0 >= self.scope.term_max;
                if matches!(message.body, Body::TimeoutNow) && is_beyond {
                    return Ok(false);
                }
                self.step(Input::Message { from: *from, message: message.clone() })?;
            }
            Event::TimesOut
                if leads
                    || core.term().0 >= self.scope.term_max
                    || !self.scope.candidates.contains(&core.status().id) =>
            {
                return Ok(false);
            }
            Event::TimesOut => self.step(Input::Campaign)?,
            Event::Lapses if leads || core.leader().is_none() => return Ok(false),
            Event::Lapses => {
                for _ in 0..ELECTION_TICKS {
                    self.step(Input::Tick)?;
                }
            }
            Event::Beats if !leads => return Ok(false),
            Event::Beats => self.step(Input::Tick)?,
            Event::Proposes if !leads || core.last_index().0 >= self.scope.index_max => {
                return Ok(false);
            }
            Event::Proposes => {
                let command = command(core.last_index().0 + 1, core.term().0);
                self.step(Input::Propose(vec![command]))?;
            }
            Event::Changes(which) => {
                let change = self.scope.changes[*which].clone();
                return self.try_change(change);
            }
            Event::Reads { .. } if !leads => return Ok(false),
            Event::Reads { floor } if self.bug == Some(Bug::StaleRead) => {
                check_read(*floor, core.commit_index())?;
            }
            // The read goes by the number of what it must see.
            Event::Reads { floor } => self.step(Input::ReadIndex(ReadId(*floor)))?,
            Event::HandsOver(to) => match self.server.core.step(Input::TransferLeadership(*to)) {
                Ok(_) => self.carry_out()?,
                Err(StepError::NotLeader { .. } | StepError::NotAVoter { .. }) => return Ok(false),
                Err(error) => return Err(refused(&error)),
            },
            Event::Writes => {
                let Some(persist) = self.server.unfinished.pop_front() else { return Ok(false) };
                self.finish(&persist)?;
            }
            Event::Crashes => self.crash()?,
            Event::Compacts => {
                let applied = core.applied_index();
                if applied < core.first_index() {
                    return Ok(false);
                }
                let mark = core.snapshot_mark_at(applied).expect("the log covers what is applied");
                self.server.disk.machine = mark;
                self.step(Input::Compact(applied))?;
            }
            Event::Stages(mark) => {
                self.server.staged = Some(mark.clone());
            }
            Event::SentSnapshot { to, is_delivered } => {
                if !self.server.transfers.remove(to) {
                    return Ok(false);
                }
                let mark = self.server.snapshot(self.bug);
                let outcome = match is_delivered {
                    true => SnapshotOutcome::Delivered(mark),
                    false => SnapshotOutcome::Failed,
                };
                self.step(Input::SnapshotSent { to: *to, outcome })?;
            }
            Event::Installs => {
                let Some(mark) = self.server.installing.take() else { return Ok(false) };
                if self.server.staged.take_if(|staged| *staged == mark).is_some() {
                    self.server.disk.machine = mark.clone();
                    self.step(Input::SnapshotInstalled(mark))?;
                } else {
                    self.step(Input::SnapshotMissing(mark))?;
                }
            }
        }
        Ok(true)
    }

    fn try_change(&mut self, change: MembershipChange) -> Result<bool, Violation> {
        if self.server.core.role() != Role::Leader {
            return Ok(false);
        }
        match self.server.core.step(Input::ChangeMembership(change)) {
            Ok(_) => self.carry_out().map(|()| true),
            Err(StepError::ChangeInProgress | StepError::Transferring { .. }) => Ok(false),
            Err(error) => Err(refused(&error)),
        }
    }

    fn crash(&mut self) -> Result<(), Violation> {
        let id = self.server.core.status().id;
        let mut disk = self.server.disk.clone();
        if self.bug == Some(Bug::VoteNotPersisted) {
            disk.hard_state.vote = None;
        }
        let staged = self.server.staged.take();
        self.server = Server::started(id, disk, self.scope).map_err(|error| Violation {
            invariant: "a server starts with what is durable",
            detail: error.to_string(),
        })?;
        self.server.staged = staged;
        self.carry_out()
    }

    fn step(&mut self, input: Input) -> Result<(), Violation> {
        self.server.core.step(input).map_err(|error| refused(&error))?;
        self.carry_out()
    }

    /// Does what the core asks for, as its documentation demands.
    fn carry_out(&mut self) -> Result<(), Violation> {
        loop {
            let mut output = self.server.core.take_output();
            if output.is_empty() {
                return Ok(());
            }
            if self.bug == Some(Bug::SingleStepMembership) {
                forget_outgoing_voters(&mut output);
            }
            let Output {
                messages,
                persist,
                committed,
                read_states,
                send_snapshot,
                install_snapshot,
                role_change: _,
            } = output;
            for (to, message) in messages {
                self.send(to, message)?;
            }
            if let Some(persist) = persist {
                self.begin(persist)?;
            }
            self.apply(&committed)?;
            for state in read_states {
                if let ReadState::Ready { id, index } = state {
                    check_read(id.0, index)?;
                }
            }
            self.server.transfers.extend(send_snapshot);
            if install_snapshot.is_some() {
                self.server.installing = install_snapshot;
            }
        }
    }

    fn begin(&mut self, persist: Persist) -> Result<(), Violation> {
        if !self.scope.has_slow_disks {
            return self.finish(&persist);
        }
        let sequence = persist.sequence;
        self.server.unfinished.push_back(persist);
        let mut unfinished = self.server.unfinished.iter();
        let is_entries_only = unfinished.all(|persist| persist.hard_state.is_none());
        let is_claimed = match self.bug {
            Some(Bug::AckBeforeDurable) => true,
            Some(Bug::EntriesNotSynced) => is_entries_only,
            _ => false,
        };
        if is_claimed {
            let step = self.server.core.step(Input::Persisted(sequence));
            step.map_err(|error| refused(&error))?;
        }
        Ok(())
    }

    fn finish(&mut self, persist: &Persist) -> Result<(), Violation> {
        self.server.disk.store(persist, self.bug);
        let step = self.server.core.step(Input::Persisted(persist.sequence));
        step.map_err(|error| refused(&error))?;
        if self.scope.has_slow_disks { self.carry_out() } else { Ok(()) }
    }

    fn apply(&mut self, committed: &[Entry]) -> Result<(), Violation> {
        let Some(last) = committed.last() else { return Ok(()) };
        let (_, entries) = self.server.log();
        let is_in_log = committed.iter().all(|entry| entries.contains(entry));
        ensure(is_in_log, "what is handed out is in the log", || format!("{committed:?}"))?;
        let step = self.server.core.step(Input::Applied(last.index));
        step.map(|_| ()).map_err(|error| refused(&error))
    }

    /// What a message promises must be durable before it leaves.
    fn send(&mut self, to: NodeId, mut message: Message) -> Result<(), Violation> {
        let is_unlooked = self.bug == Some(Bug::EntriesNotSynced);
        let stored = &self.server.disk.hard_state;
        let core = &self.server.core;
        let vote = match message.body {
            Body::VoteResponse { granted: true } => Some(to),
            Body::RequestVote { .. } => Some(core.status().id),
            _ => None,
        };
        if let Some(vote) = vote {
            let term = message.term;
            let is_durable = stored.term > term || (stored.term, stored.vote) == (term, Some(vote));
            ensure(is_durable, "a vote is durable before it is given", || {
                format!("a vote for n{vote} in term {term}, but {stored:?} is durable")
            })?;
        }
        if let Body::AppendAccepted { matched } = &mut message.body {
            let is_durable =
                self.server.is_durable(*matched, message.term) && stored.term >= message.term;
            ensure(
                is_durable || is_unlooked,
                "an entry is durable before it is acknowledged",
                || format!("entry {matched} in term {}", message.term),
            )?;
            if self.bug == Some(Bug::InflatedAcknowledgement) {
                *matched = matched.next();
            }
        }
        if self.bug == Some(Bug::CommitByCounting) {
            self.count_older_terms(to, &mut message);
        }
        self.sent.push((to, message));
        Ok(())
    }

    /// What a leader would say that ignores §5.4.2.
    fn count_older_terms(&self, to: NodeId, message: &mut Message) {
        let status = self.server.core.status();
        let mut matched: Vec<LogIndex> = status.followers.values().map(|it| it.matched).collect();
        matched.push(status.durable_index);
        matched.sort_unstable();
        let counted = matched[(matched.len() - 1) / 2];
        match &mut message.body {
            Body::Append { commit, .. } => *commit = counted.max(*commit),
            Body::Heartbeat { commit, .. } => {
                let known = status.followers.get(&to).map_or(*commit, |it| it.matched);
                *commit = counted.min(known).max(*commit);
            }
            _ => {}
        }
    }
}

impl Server {
    /// The mark of the snapshot that it can send now.
    pub(super) fn snapshot(&self, bug: Option<Bug>) -> SnapshotMark {
        let mark = self.core.snapshot_mark_at(self.core.applied_index());
        let mut mark = mark.expect("the log covers what is applied");
        if bug == Some(Bug::MislabelledSnapshot) {
            mark.index = mark.index.next();
        }
        mark
    }

    /// Whether the entry that was acknowledged in a term would be there after a crash. An
    /// acknowledgement that waited for its write may be of an earlier term, and the core may have
    /// given up the entry since: then the disk has it until the next write.
    fn is_durable(&self, index: LogIndex, in_term: Term) -> bool {
        let covered = self.disk.mark.index.max(self.disk.machine.index);
        let known = self.core.term_at(index);
        let is_right = |term: Term| {
            if in_term == self.core.term() { Some(term) == known } else { term <= in_term }
        };
        let mut stored = self.disk.entries.iter();
        index <= covered || stored.any(|entry| entry.index == index && is_right(entry.term))
    }
}

/// Makes every joint configuration that leaves the core the one that is to follow it.
fn forget_outgoing_voters(output: &mut Output) {
    let sent = output.messages.iter_mut().filter_map(|(_, message)| match &mut message.body {
        Body::Append { entries, .. } => Some(entries),
        _ => None,
    });
    let persisted = output.persist.iter_mut().map(|persist| &mut persist.entries);
    for entry in sent.chain(persisted).flatten().chain(&mut output.committed) {
        if let Payload::Membership(membership) = &mut entry.payload {
            membership.outgoing.clear();
        }
    }
}

/// A read sees everything that was committed anywhere when it was asked (§8).
fn check_read(floor: u64, index: LogIndex) -> Result<(), Violation> {
    ensure(index.0 >= floor, "linearizable reads", || {
        format!("a read goes on at {index}, but {floor} was committed when it was asked")
    })
}

fn refused(error: &StepError) -> Violation {
    Violation { invariant: "inputs are well-formed", detail: error.to_string() }
}
