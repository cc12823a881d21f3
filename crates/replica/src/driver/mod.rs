//! The consensus thread: steps the Raft cores of all groups, and carries out what they ask for.
//!
//! One round takes everything that waits in the inbox, steps each core with its part, and then
//! sends, persists and hands out once for all groups: one frame for each node, one append to the
//! log. It never waits for the disk (but for room in the log's queue) and never for the network.
//!
//! A round costs what the groups cost in which something happens. Quiet ones get no ticks; when all
//! are quiet, the thread sleeps from beat to beat, see [`crate::liveness`].

mod complaints;
mod divergence;
mod group;
mod lifecycle;
mod neighbours;
mod output;
mod retained;
mod time;
mod unapplied;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use bytes::Bytes;
use onefold_log::{Log, Write};
use onefold_raft::{Input, PersistSequence, Raft, StepError};
use onefold_types::{GroupId, LogIndex, NodeId, share};
use tokio::sync::Semaphore;

use self::complaints::{Complaint, Complaints};
pub(crate) use self::divergence::deliver_checkpoints;
use self::group::{Driven, Received};
use self::neighbours::Neighbours;
use self::time::ticks_due;
use crate::apply::Work;
use crate::core::{Core, GroupCell, lock};
use crate::inbox::{Event, Proposal, Read, Round};
use crate::liveness::{Beat, Liveness};
use crate::state::Checkpoint;
use crate::wire::{Frame, beat, messages};
use crate::{HostError, ProposeError, ReadError, clock};

/// A group before the thread starts.
pub(crate) struct Seat {
    pub(crate) cell: Arc<GroupCell>,
    pub(crate) raft: Raft,
    /// Which apply thread has its state machine.
    pub(crate) applier: usize,
    /// The entries that are in the log already, and their bytes.
    pub(crate) logged: Vec<(LogIndex, usize)>,
    /// The hash of the state where it ends.
    pub(crate) last_checkpoint: Checkpoint,
}

/// The consensus thread's state.
pub(crate) struct Driver {
    core: Arc<Core>,
    log: Log,
    appliers: Vec<Sender<Work>>,
    groups: BTreeMap<GroupId, Driven>,
    /// The groups that need ticks: all that are not quiet.
    active: BTreeSet<GroupId>,
    /// Groups that were stepped since their output was taken.
    stepped: BTreeSet<GroupId>,
    neighbours: Neighbours,
    liveness: Liveness,
    /// Nodes that are not neighbours, and get the next beat all the same.
    greeted: BTreeSet<NodeId>,
    complaints: Complaints,
    frames: BTreeMap<NodeId, Frame>,
    /// What other nodes are to be told of this one's states.
    checkpoints: BTreeMap<NodeId, Vec<(GroupId, Checkpoint)>>,
    writes: Vec<Write>,
    persists: Vec<(GroupId, PersistSequence)>,
    /// Whose writes those are, and their bytes.
    unsynced: Vec<(Arc<GroupCell>, usize)>,
    /// Bytes of applied entries that all groups keep.
    retained_bytes: usize,
    sending: Arc<Semaphore>,
    is_syncing: bool,
    /// How often the table was made durable, or is being.
    syncs: u64,
    ticks: u64,
    /// When the round began, if leases are used.
    now_micros: Option<u64>,
}

impl Driver {
    /// `process` tells this process from those before it on the same node.
    pub(crate) fn new(
        core: Arc<Core>,
        log: Log,
        appliers: Vec<Sender<Work>>,
        seats: Vec<Seat>,
        process: u64,
    ) -> Self {
        let sending = Arc::new(Semaphore::new(core.config.limits.snapshots_sent_max));
        let groups = seats.into_iter().map(|seat| (seat.cell.id, Driven::new(seat)));
        let groups: BTreeMap<_, _> = groups.collect();
        Self {
            active: groups.keys().copied().collect(),
            retained_bytes: groups.values().map(Driven::retained_bytes).sum(),
            liveness: Liveness::new(process, core.config.election_ticks),
            groups,
            core,
            log,
            appliers,
            stepped: BTreeSet::new(),
            neighbours: Neighbours::default(),
            greeted: BTreeSet::new(),
            complaints: Complaints::default(),
            frames: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            writes: Vec::new(),
            persists: Vec::new(),
            unsynced: Vec::new(),
            sending,
            is_syncing: false,
            syncs: 0,
            ticks: 0,
            now_micros: None,
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
            let round = self.core.inbox.take(next_tick + tick * self.idle_ticks());
            if round.is_closed {
                return Ok(());
            }
            if self.core.config.lease_reads {
                self.now_micros = Some(clock::monotonic_micros());
            }
            self.step_round(round)?;
            let (due, next) = ticks_due(next_tick, Instant::now(), tick);
            next_tick = next;
            self.pass_ticks(due)?;
            self.carry_out()?;
            self.count();
        }
    }

    fn start(&mut self) -> Result<(), HostError> {
        let groups: Vec<_> = self.groups.keys().copied().collect();
        for group in groups {
            self.begin(group)?;
        }
        self.carry_out()
    }

    fn step_round(&mut self, round: Round) -> Result<(), HostError> {
        for event in round.events {
            self.step_event(event)?;
        }
        for (from, beat) in round.beats {
            self.step_beat(from, beat)?;
        }
        for (from, made) in round.checkpoints {
            self.step_checkpoints(from, made)?;
        }
        for (from, frame) in round.frames {
            self.step_frame(from, &frame)?;
        }
        self.step_proposals(round.proposals);
        self.step_reads(round.reads);
        Ok(())
    }

    fn step_event(&mut self, event: Event) -> Result<(), HostError> {
        if event.group().is_some_and(|group| !self.groups.contains_key(&group)) {
            // The group was destroyed while this was under way.
            event.refuse();
            return Ok(());
        }
        match event {
            Event::Persisted(persists) => {
                for (group, sequence) in persists {
                    if self.groups.contains_key(&group) {
                        self.at(group).step(Input::Persisted(sequence))?;
                    }
                }
            }
            Event::GroupCreated { restored, taken } => {
                self.take_up(*restored)?;
                // Who asked may have given up.
                let _ = taken.send(());
            }
            Event::GroupDestroyed { group, gone } => {
                self.abandon(group)?;
                let _ = gone.send(());
            }
            Event::Applied { group, bytes, last, checkpoints } => {
                self.retaining(group, |driven| driven.applied(last.index, bytes))?;
                self.note_checkpoints(group, last, checkpoints)?;
                self.sync_table_if_due(group);
            }
            Event::SnapshotInstalled { group, mark, hash } => {
                let syncs = self.syncs;
                self.retaining(group, |driven| driven.snapshot_installed(mark, hash, syncs))?;
            }
            Event::SnapshotMissing { group, mark } => self.snapshot_missing(group, mark)?,
            Event::SnapshotSent { group, to, outcome } => {
                self.at(group).snapshot_sent(to, outcome)?;
            }
            Event::TableSynced(durable) => self.compact(&durable)?,
            Event::ChangeMembership { group, change, reply } => {
                let answer = self.at(group).change_membership(change);
                // Who asked may have given up.
                let _ = reply.send(answer);
            }
            Event::Transfer { group, to, reply } => {
                let answer = self.at(group).transfer(to);
                let _ = reply.send(answer);
            }
        }
        Ok(())
    }

    fn step_beat(&mut self, from: NodeId, beat: Beat) -> Result<(), HostError> {
        self.core.counters.beats_received_total.increment();
        let is_untold = |driven: &Driven| driven.raft.membership().is_empty();
        if !self.liveness.watches(from) && self.groups.values().any(is_untold) {
            // It may count this node among the members of a group that nobody told this one of:
            // once it knows that this node is up, it will.
            self.greeted.insert(from);
        }
        for change in self.liveness.receive(from, beat) {
            self.step_liveness(change)?;
        }
        Ok(())
    }

    fn step_frame(&mut self, from: NodeId, frame: &[u8]) -> Result<(), HostError> {
        self.core.counters.frames_received_total.increment();
        for message in messages(frame) {
            let (group, message) = match message {
                Ok(message) => message,
                Err(reason) => {
                    self.core.counters.frames_malformed_total.increment();
                    if self.complaints.is_first(from, Complaint::Frame) {
                        tracing::warn!(%from, reason, "dropped a frame that does not decode");
                    }
                    break;
                }
            };
            self.core.counters.messages_received_total.increment();
            if !self.groups.contains_key(&group) {
                if self.core.groups.is_destroyed(group) {
                    self.core.counters.messages_destroyed_group_total.increment();
                    continue;
                }
                self.core.counters.messages_unknown_group_total.increment();
                if self.complaints.is_first(from, Complaint::UnknownGroup) {
                    // As it may be where a group was just created elsewhere.
                    tracing::info!(%from, %group, "dropped a message: the group is not here");
                }
                continue;
            }
            let has_room = !self.is_retaining_too_much();
            let backlog_bytes_max = self.core.config.limits.backlog_bytes_max;
            let backlog_bytes_max = if has_room { backlog_bytes_max } else { 0 };
            match self.at(group).receive(from, message, backlog_bytes_max)? {
                Received::Taken => {}
                Received::Malformed(what) => {
                    self.core.counters.messages_malformed_total.increment();
                    if self.complaints.is_first(from, Complaint::Message) {
                        tracing::warn!(%from, %group, what, "refused a message");
                    }
                }
                Received::TwoLeaders(what) => {
                    self.core.counters.messages_malformed_total.increment();
                    if self.complaints.is_first(from, Complaint::TwoLeaders) {
                        tracing::error!(%from, %group, what, "refused a second leader");
                    }
                }
                Received::NotMember => {
                    self.core.counters.messages_not_member_total.increment();
                    if self.complaints.is_first(from, Complaint::NotMember) {
                        tracing::info!(%from, %group, "dropped an answer: its node is no member");
                    }
                }
            }
        }
        Ok(())
    }

    fn step_proposals(&mut self, proposals: Vec<Proposal>) {
        if proposals.is_empty() {
            return;
        }
        let core = self.core.clone();
        let limits = &core.config.limits;
        let unsynced_bytes = core.counters.unsynced_bytes.get() as usize;
        let mut by_group: BTreeMap<GroupId, Vec<Proposal>> = BTreeMap::new();
        for proposal in proposals {
            by_group.entry(proposal.group).or_default().push(proposal);
        }
        for (group, proposals) in by_group {
            if !self.groups.contains_key(&group) {
                refuse(proposals, &ProposeError::NotHosted { group });
                continue;
            }
            let has_room = !self.is_retaining_too_much();
            let driven = self.at(group);
            let own_bytes = driven.cell.unsynced.get() as usize;
            let has_room =
                has_room && share::allows(own_bytes, 0, unsynced_bytes, limits.unsynced_bytes_max);
            if !has_room || driven.backlog_bytes() > limits.backlog_bytes_max {
                driven.cell.counters.proposals_refused_total.add(proposals.len());
                refuse(proposals, &ProposeError::Overloaded { group });
                continue;
            }
            driven.propose(proposals);
        }
    }

    fn step_reads(&mut self, reads: Vec<Read>) {
        let mut by_group: BTreeMap<GroupId, Vec<_>> = BTreeMap::new();
        for read in reads {
            by_group.entry(read.group).or_default().push(read.reply);
        }
        for (group, replies) in by_group {
            if !self.groups.contains_key(&group) {
                for reply in replies {
                    let _ = reply.send(Err(ReadError::NotHosted { group }));
                }
                continue;
            }
            self.at(group).read(replies);
        }
    }

    /// The group, which knows what time it is, and will be asked for its output.
    fn at(&mut self, group: GroupId) -> &mut Driven {
        let now_micros = self.now_micros;
        self.stepped.insert(group);
        let driven = self.groups.get_mut(&group).expect("only groups that are here are stepped");
        driven.set_clock(now_micros);
        driven
    }

    /// Steps a group in a way that changes what it retains.
    fn retaining(
        &mut self,
        group: GroupId,
        step: impl FnOnce(&mut Driven) -> Result<(), HostError>,
    ) -> Result<(), HostError> {
        let driven = self.at(group);
        let before = driven.retained_bytes();
        step(driven)?;
        let after = driven.retained_bytes();
        self.retained_bytes = self.retained_bytes - before + after;
        Ok(())
    }

    /// Whether the table is so slow that what is applied piles up in the logs although it should be
    /// compacted: then nothing more is taken.
    fn is_retaining_too_much(&self) -> bool {
        self.retained_bytes / 2 > self.core.config.limits.retained_bytes_max
    }

    fn sync_table_if_due(&mut self, group: GroupId) {
        if self.is_syncing {
            return;
        }
        let limits = &self.core.config.limits;
        if self.retained_bytes > limits.retained_bytes_max
            || self.groups[&group].is_compaction_due(limits)
        {
            self.sync_table();
        }
    }

    fn sync_table(&mut self) {
        self.is_syncing = true;
        self.syncs += 1;
        self.core.chores.sync();
    }

    /// What each group had applied is durable in the table: drops what need not be kept.
    fn compact(&mut self, durable: &BTreeMap<GroupId, LogIndex>) -> Result<(), HostError> {
        self.is_syncing = false;
        let core = self.core.clone();
        let limits = &core.config.limits;
        for (&group, &index) in durable {
            let Some(driven) = self.groups.get(&group) else { continue };
            if driven.may_compact(self.syncs) && driven.is_compaction_due(limits) {
                self.retaining(group, |driven| driven.compact(index, limits))?;
            }
        }
        if self.retained_bytes <= limits.retained_bytes_max {
            return Ok(());
        }
        // The biggest go first, down to where all others are.
        let sizes = self.groups.values().map(Driven::retained_bytes).collect();
        let level = retained::level(sizes, limits.retained_bytes_max);
        let mut may_sync_again = false;
        for (&group, &index) in durable {
            let Some(driven) = self.groups.get(&group) else { continue };
            if driven.may_compact(self.syncs) && driven.retained_bytes() > level {
                core.counters.compactions_forced_total.increment();
                may_sync_again = true;
                self.retaining(group, |driven| driven.compact_to(index, level))?;
            }
        }
        if may_sync_again && self.retained_bytes > limits.retained_bytes_max {
            // More was applied meanwhile.
            self.sync_table();
        }
        Ok(())
    }

    fn count(&self) {
        let counters = &self.core.counters;
        counters.rounds_total.increment();
        counters.groups_quiet.set(self.groups.len() - self.active.len());
        counters.retained_bytes.set(self.retained_bytes);
    }
}

/// Answers all of them with the same error.
fn refuse(proposals: Vec<Proposal>, error: &ProposeError) {
    for proposal in proposals {
        let _ = proposal.reply.send(Err(error.clone()));
    }
}

/// Takes a frame of another node to the consensus thread.
pub(crate) fn deliver(core: &Core, from: NodeId, frame: Bytes) {
    // Raft tolerates the loss of what does not fit.
    if !core.inbox.deliver(from, frame) {
        core.counters.frames_dropped_full_total.increment();
        tracing::debug!(%from, "dropped a frame: too many wait");
    }
}

/// Takes a beat of another node to the consensus thread.
pub(crate) fn deliver_beat(core: &Core, from: NodeId, payload: &[u8]) {
    match beat(payload) {
        Some((beat, wall_micros)) => {
            lock(&core.clocks).heard(from, wall_micros, clock::monotonic_micros());
            core.inbox.deliver_beat(from, beat);
        }
        None => {
            core.counters.frames_malformed_total.increment();
            tracing::debug!(%from, "dropped a beat that does not decode");
        }
    }
}

/// What a core refuses that only a bug or a broken disk can cause.
fn broken(group: GroupId, error: &StepError) -> HostError {
    HostError::Consensus { group, reason: error.to_string() }
}
