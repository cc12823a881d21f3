//! The consensus thread: steps the Raft cores of all groups, and carries out what they ask for.
//!
//! One round takes everything that waits in the inbox, steps each core with its part, and then
//! sends, persists and hands out once for all groups: one frame for each node, one append to the
//! log. It never waits for the disk (but for room in the log's queue) and never for the network.

mod group;
mod retained;
mod unapplied;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use bytes::Bytes;
use onefold_log::{Log, Write};
use onefold_raft::{Input, Output, PersistSequence, Raft, StepError};
use onefold_types::{GroupId, LogIndex, NodeId};
use tokio::sync::Semaphore;

use self::group::Driven;
use crate::HostError;
use crate::apply::Work;
use crate::core::{Core, GroupCell};
use crate::inbox::{Event, Proposal, Read, Round};
use crate::wire::{Frame, MESSAGES, messages};
use crate::{ProposeError, ReadError, persist, snapshot};

/// Ticks between two looks for proposers that gave up waiting.
const PRUNE_TICKS: u64 = 64;

/// A group before the thread starts.
pub(crate) struct Seat {
    pub(crate) cell: Arc<GroupCell>,
    pub(crate) raft: Raft,
    /// Which apply thread has its state machine.
    pub(crate) applier: usize,
    /// The entries that are in the log already, and their bytes.
    pub(crate) logged: Vec<(LogIndex, usize)>,
}

/// The consensus thread's state.
pub(crate) struct Driver {
    core: Arc<Core>,
    log: Log,
    appliers: Vec<Sender<Work>>,
    groups: BTreeMap<GroupId, Driven>,
    /// Groups that were stepped since their output was taken.
    stepped: BTreeSet<GroupId>,
    frames: BTreeMap<NodeId, Frame>,
    writes: Vec<Write>,
    persists: Vec<(GroupId, PersistSequence)>,
    /// Bytes that are on their way to the log.
    unsynced_bytes: Arc<AtomicUsize>,
    sending: Arc<Semaphore>,
    is_syncing: bool,
    ticks: u64,
}

impl Driver {
    pub(crate) fn new(
        core: Arc<Core>,
        log: Log,
        appliers: Vec<Sender<Work>>,
        seats: Vec<Seat>,
    ) -> Self {
        let sending = Arc::new(Semaphore::new(core.config.limits.snapshots_sent_max));
        let groups = seats.into_iter().map(|seat| (seat.cell.id, Driven::new(seat)));
        Self {
            groups: groups.collect(),
            core,
            log,
            appliers,
            stepped: BTreeSet::new(),
            frames: BTreeMap::new(),
            writes: Vec::new(),
            persists: Vec::new(),
            unsynced_bytes: Arc::default(),
            sending,
            is_syncing: false,
            ticks: 0,
        }
    }

    /// Runs until the inbox is closed.
    ///
    /// # Errors
    /// What stops the host.
    pub(crate) fn run(mut self) -> Result<(), HostError> {
        self.start()?;
        let tick = self.core.config.tick;
        let mut next_tick = Instant::now() + tick;
        loop {
            let round = self.core.inbox.take(next_tick);
            if round.is_closed {
                return Ok(());
            }
            self.step_round(round)?;
            let (due, next) = ticks_due(next_tick, Instant::now(), tick);
            next_tick = next;
            // Missed ticks are made up for as far as heartbeats need it. More would make elections
            // that nobody needs, since what others said meanwhile may still be under way.
            for _ in 0..due.min(self.core.config.heartbeat_ticks) {
                self.tick()?;
            }
            self.carry_out()?;
        }
    }

    /// A group with one voter needs no timeout to elect it.
    fn start(&mut self) -> Result<(), HostError> {
        for driven in self.groups.values_mut() {
            self.stepped.insert(driven.cell.id);
            driven.publish();
            driven.publish_membership();
            let voters = &driven.raft.membership().voters;
            if voters.len() == 1 && voters.contains(&self.core.config.node) {
                driven.step(Input::Campaign)?;
            }
        }
        self.carry_out()
    }

    fn step_round(&mut self, round: Round) -> Result<(), HostError> {
        for event in round.events {
            self.step_event(event)?;
        }
        for (from, frame) in round.frames {
            self.step_frame(from, &frame)?;
        }
        self.step_proposals(round.proposals);
        self.step_reads(round.reads);
        Ok(())
    }

    fn step_event(&mut self, event: Event) -> Result<(), HostError> {
        match event {
            Event::Persisted(persists) => {
                for (group, sequence) in persists {
                    self.at(group).step(Input::Persisted(sequence))?;
                }
            }
            Event::Applied { group, index, bytes } => {
                self.at(group).applied(index, bytes)?;
                self.sync_table_if_due(group);
            }
            Event::SnapshotInstalled { group, mark } => self.at(group).snapshot_installed(mark)?,
            Event::SnapshotMissing { group, mark } => {
                self.at(group).step(Input::SnapshotMissing(mark))?;
            }
            Event::SnapshotSent { group, to, outcome } => {
                self.at(group).snapshot_sent(to, outcome)?;
            }
            Event::TableSynced(applied) => {
                self.is_syncing = false;
                let limits = self.core.config.limits.clone();
                for (group, index) in applied {
                    self.at(group).compact(index, &limits)?;
                }
            }
            Event::ChangeMembership { group, change, reply } => {
                let answer = self.at(group).change_membership(change);
                let _ = reply.send(answer);
            }
            Event::Transfer { group, to, reply } => {
                let answer = self.at(group).transfer(to);
                // Who asked may have given up.
                let _ = reply.send(answer);
            }
        }
        Ok(())
    }

    fn step_frame(&mut self, from: NodeId, frame: &[u8]) -> Result<(), HostError> {
        let backlog_max = self.core.config.limits.backlog_bytes_max;
        for message in messages(frame) {
            let (group, message) = match message {
                Ok(message) => message,
                Err(reason) => {
                    tracing::warn!(%from, reason, "dropped a frame that does not decode");
                    break;
                }
            };
            let Some(driven) = self.groups.get_mut(&group) else {
                tracing::debug!(%from, %group, "dropped a message of a group that is not here");
                continue;
            };
            self.stepped.insert(group);
            driven.receive(from, message, backlog_max)?;
        }
        Ok(())
    }

    fn step_proposals(&mut self, proposals: Vec<Proposal>) {
        let limits = &self.core.config.limits;
        let is_disk_behind =
            self.unsynced_bytes.load(Ordering::Relaxed) > limits.unsynced_bytes_max;
        let mut by_group: BTreeMap<GroupId, Vec<Proposal>> = BTreeMap::new();
        for proposal in proposals {
            by_group.entry(proposal.group).or_default().push(proposal);
        }
        for (group, proposals) in by_group {
            let Some(driven) = self.groups.get_mut(&group) else {
                refuse(proposals, &ProposeError::NotHosted { group });
                continue;
            };
            if is_disk_behind || driven.backlog_bytes() > limits.backlog_bytes_max {
                refuse(proposals, &ProposeError::Overloaded { group });
                continue;
            }
            driven.propose(proposals);
            self.stepped.insert(group);
        }
    }

    fn step_reads(&mut self, reads: Vec<Read>) {
        let mut by_group: BTreeMap<GroupId, Vec<_>> = BTreeMap::new();
        for read in reads {
            by_group.entry(read.group).or_default().push(read.reply);
        }
        for (group, replies) in by_group {
            let Some(driven) = self.groups.get_mut(&group) else {
                for reply in replies {
                    let _ = reply.send(Err(ReadError::NotHosted { group }));
                }
                continue;
            };
            driven.read(replies);
            self.stepped.insert(group);
        }
    }

    fn tick(&mut self) -> Result<(), HostError> {
        self.ticks += 1;
        let is_pruning = self.ticks.is_multiple_of(PRUNE_TICKS);
        let is_publishing = self.ticks.is_multiple_of(u64::from(self.core.config.heartbeat_ticks));
        for (&group, driven) in &mut self.groups {
            driven.step(Input::Tick)?;
            if is_publishing {
                driven.publish_progress();
            }
            if is_pruning {
                driven.forget_waiters_that_gave_up();
            }
            self.stepped.insert(group);
        }
        Ok(())
    }

    /// The group, which will be asked for its output.
    fn at(&mut self, group: GroupId) -> &mut Driven {
        self.stepped.insert(group);
        self.groups.get_mut(&group).expect("the host's own threads speak of its groups only")
    }

    fn sync_table_if_due(&mut self, group: GroupId) {
        if self.is_syncing {
            return;
        }
        if self.groups[&group].is_compaction_due(&self.core.config.limits) {
            self.is_syncing = true;
            self.core.chores.sync();
        }
    }

    /// Does what the cores ask for, for all groups at once.
    fn carry_out(&mut self) -> Result<(), HostError> {
        for group in std::mem::take(&mut self.stepped) {
            let driven = self.groups.get_mut(&group).expect("it was stepped");
            let output = driven.raft.take_output();
            if !output.is_empty() {
                self.dispatch(group, output);
            }
        }
        // Messages that depend on the writes are still inside the cores; these may go first.
        for (&to, frame) in &mut self.frames {
            let bytes = frame.take();
            if !bytes.is_empty() {
                self.core.peers.send(to, MESSAGES, bytes);
            }
        }
        self.append()
    }

    fn dispatch(&mut self, group: GroupId, output: Output) {
        for (to, message) in &output.messages {
            if let Some(full) = self.frames.entry(*to).or_default().push(group, message) {
                self.core.peers.send(*to, MESSAGES, full);
            }
        }
        let driven = self.groups.get_mut(&group).expect("its output was taken");
        if let Some(persist) = output.persist {
            driven.logged(&persist);
            self.persists.push((group, persist.sequence));
            persist::writes(group, persist, &mut self.writes);
        }
        if let Some(change) = output.role_change {
            driven.role_changed(&change);
        }
        driven.publish();
        driven.answer_reads(output.read_states);
        let applier = &self.appliers[driven.applier];
        if !output.committed.is_empty() {
            let waiters = driven.take_waiters(&output.committed);
            let entries = output.committed;
            // An apply thread that is gone has reported why.
            let _ = applier.send(Work::Apply { group, entries, waiters });
        }
        if let Some(mark) = output.install_snapshot {
            let _ = applier.send(Work::Install { group, mark });
        }
        for to in output.send_snapshot {
            driven.sending(to);
            let (core, cell) = (self.core.clone(), driven.cell.clone());
            let sent = snapshot::send(core, cell, to, self.sending.clone());
            self.core.runtime.spawn(sent);
        }
    }

    /// Writes what all groups have to persist, as one append.
    fn append(&mut self) -> Result<(), HostError> {
        if self.persists.is_empty() {
            return Ok(());
        }
        let writes = std::mem::take(&mut self.writes);
        let persists = std::mem::take(&mut self.persists);
        let bytes = persist::bytes(&writes);
        self.unsynced_bytes.fetch_add(bytes, Ordering::Relaxed);
        let (core, unsynced_bytes) = (self.core.clone(), self.unsynced_bytes.clone());
        let done = move |outcome| {
            unsynced_bytes.fetch_sub(bytes, Ordering::Relaxed);
            match outcome {
                Ok(()) => core.inbox.report(Event::Persisted(persists)),
                // Whatever the log can still do: the cores count on this write.
                Err(error) => core.fail(HostError::Log(error)),
            }
        };
        Ok(self.log.append(writes, Box::new(done))?)
    }
}

/// Answers all of them with the same error.
fn refuse(proposals: Vec<Proposal>, error: &ProposeError) {
    for proposal in proposals {
        let _ = proposal.reply.send(Err(error.clone()));
    }
}

/// How many ticks are due, and when the next one is.
fn ticks_due(next: Instant, now: Instant, tick: Duration) -> (u32, Instant) {
    let Some(late) = now.checked_duration_since(next) else { return (0, next) };
    let due = late.as_nanos() / tick.as_nanos() + 1;
    match u32::try_from(due).ok().and_then(|due| Some((due, next.checked_add(tick * due)?))) {
        Some(due_and_next) => due_and_next,
        // The machine slept for months.
        None => (u32::MAX, now + tick),
    }
}

/// Takes a frame of another node to the consensus thread.
pub(crate) fn deliver(core: &Core, from: NodeId, frame: Bytes) {
    // Raft tolerates the loss of what does not fit.
    if !core.inbox.deliver(from, frame) {
        tracing::debug!(%from, "dropped a frame: too many wait");
    }
}

/// What a core refuses that only a bug or a broken disk can cause.
fn broken(group: GroupId, error: &StepError) -> HostError {
    HostError::Consensus { group, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_keep_their_rhythm_and_none_is_counted_twice() {
        let tick = Duration::from_millis(20);
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(ticks_due(at(20), at(19), tick), (0, at(20)));
        assert_eq!(ticks_due(at(20), at(20), tick), (1, at(40)));
        assert_eq!(ticks_due(at(20), at(39), tick), (1, at(40)));
        assert_eq!(ticks_due(at(20), at(85), tick), (4, at(100)));
    }
}
