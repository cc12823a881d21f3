//! One node: what lasts (its disk, its table, its clock) and what lives in its process.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::AtomicBool},
};

use onefold_kv::core::Watching;
use onefold_raft::{Entry, Membership, Raft, ReadId, SnapshotMark};
use onefold_replica::{
    divergence::Judge,
    liveness::Liveness,
    state::{Checkpoint, Export, GroupState, Position, Staging},
};
use onefold_types::{LogIndex, NodeId, Term};

use super::{
    checker::Durable,
    clock::{Clock, Micros},
    disk::Disk,
    event::{Freshness, Life, Query},
    history::OpId,
    sabotage::Sabotage,
    store::desk::{Desk, Own, PAUSE_UNNOTICED_MAX},
    table::CrashTable,
};

/// Whether a node is part of the cluster, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its operator wants it to run.
    Serving,
    /// It was removed, and does not run any more.
    Retired,
    /// Its disk is lost. It never comes back under this identity.
    Lost,
}

/// One node; without a process while it is down.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) standing: Standing,
    pub(super) life: Life,
    pub(super) clock: Clock,
    pub(super) disk: Disk,
    pub(super) table: Arc<CrashTable>,
    /// With which members its groups are formed if its table knows none: nobody, if it joins.
    pub(super) formed: Membership,
    /// The index of the last snapshot that was installed in each group; durable.
    pub(super) installed: Vec<LogIndex>,
    /// For each group, whether a bit of its state will flip with the next command, and whether its
    /// state is another than that of the others.
    pub(super) flips: Vec<Arc<AtomicBool>>,
    pub(super) is_changed: Vec<bool>,
    /// Nodes of which its groups were told wrongly, until a time.
    pub(super) misled: Vec<(NodeId, Micros)>,
    /// It does nothing before this time.
    pub(super) paused_until: Micros,
    /// For how long it stood still so far, in pauses that it must have noticed.
    paused: Micros,
    /// What its clock showed when the present pause began.
    paused_since: Option<Micros>,
    pub(super) process: Option<Process>,
}

/// What a node's process has in memory.
pub(super) struct Process {
    pub(super) liveness: Liveness,
    pub(super) ticks: u64,
    /// When the last tick was, in truth, and how many were scheduled.
    pub(super) ticked_at: Micros,
    pub(super) turn: u64,
    /// It sleeps from beat to beat, because all groups are quiet.
    pub(super) is_asleep: bool,
    pub(super) groups: Vec<Hosted>,
    /// Groups that were stepped since their output was taken, as bits.
    pub(super) touched: u32,
    /// A sync of the table is under way.
    pub(super) is_syncing_table: bool,
    /// Commands that were sent on to a leader, and who waits for them.
    pub(super) forwarded: BTreeMap<OpId, Reply>,
    /// Commands of this node's own that were sent on.
    pub(super) own_sent: u64,
    pub(super) transfers: u64,
}

/// Who waits for the answer of a command.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reply {
    /// A client that asked here.
    Client(OpId),
    /// A node that sent a client's command on.
    Node(NodeId, OpId),
    /// This node itself, of a group.
    Own(usize, Own),
}

/// Who waits to know what is committed.
#[derive(Clone, Debug)]
pub(super) enum Asker {
    /// A client's read here, and when it began by this node's clock.
    Read(Reading, Micros),
    /// A node that asks for the reads that wait there.
    Node(NodeId, u64),
}

/// A client's read.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) op: OpId,
    pub(super) query: Query,
    pub(super) freshness: Freshness,
}

/// One group on a node.
pub(super) struct Hosted {
    pub(super) raft: Raft,
    pub(super) state: GroupState,
    /// Proposals in the log of which it is not known yet whether they are committed.
    pub(super) waiters: BTreeMap<(LogIndex, Term), Reply>,
    /// Proposals that are committed and not yet applied.
    pub(super) answers: BTreeMap<LogIndex, Reply>,
    pub(super) applying: VecDeque<Entry>,
    /// A turn of the apply thread is scheduled.
    pub(super) is_applying: bool,
    pub(super) installing: Option<SnapshotMark>,
    pub(super) reads: BTreeMap<ReadId, Asker>,
    pub(super) reads_asked: u64,
    /// Reads that wait for an answer of the leader.
    pub(super) questions: BTreeMap<u64, (Reading, Micros)>,
    /// Reads that wait until an index is applied.
    pub(super) behind: Vec<(LogIndex, Reading, Micros)>,
    /// By this node's clock: what was committed at a time.
    pub(super) confirmed: Option<(Micros, LogIndex)>,
    pub(super) staging: Option<Staging>,
    /// The staging was found by this start.
    pub(super) is_staging_inherited: bool,
    /// By what names the export; one for each follower.
    pub(super) sending: BTreeMap<u64, Sending>,
    /// The members that its driver watches.
    pub(super) membership: Membership,
    pub(super) judge: Judge,
    /// The last checkpoint that others were told.
    pub(super) noted: Checkpoint,
    /// What is kept beside the state, where the state is a whole store.
    pub(super) desk: Option<Desk>,
    /// The streams of watchers, by the watcher and the stream's number.
    pub(super) watches: BTreeMap<(usize, u64), Watching>,
    /// The watchers will be told the news soon.
    pub(super) is_telling: bool,
    /// A bug put in on purpose: the next committed entry is dropped.
    pub(super) skips_next: bool,
}

/// One state on its way to one follower.
pub(super) struct Sending {
    pub(super) to: NodeId,
    pub(super) export: Export,
    pub(super) position: Position,
    /// Calls that were begun; the answer of an earlier one does not count as progress.
    pub(super) attempt: u64,
    /// Calls in a row that were not answered.
    pub(super) failures: u32,
    /// It was delivered or given up: the core is told when this pause ends.
    pub(super) is_given_up: bool,
}

impl Node {
    pub(super) fn new(
        id: NodeId,
        groups: usize,
        clock: Clock,
        formed: Membership,
        sabotage: Option<Sabotage>,
    ) -> Self {
        Self {
            id,
            standing: Standing::Serving,
            life: 0,
            clock,
            disk: Disk::new(groups, sabotage),
            table: Arc::new(CrashTable::default()),
            formed,
            installed: vec![LogIndex::ZERO; groups],
            flips: (0..groups).map(|_| Arc::default()).collect(),
            is_changed: vec![false; groups],
            misled: Vec::new(),
            paused_until: 0,
            paused: 0,
            paused_since: None,
            process: None,
        }
    }

    /// It stands still until a time.
    pub(super) fn pause(&mut self, now: Micros, until: Micros) {
        if now >= self.paused_until {
            self.note_pause(self.paused_until);
            self.paused_since = Some(self.clock.monotonic(now));
        }
        self.paused_until = until.max(self.paused_until);
    }

    /// It goes on at once.
    pub(super) fn end_pause(&mut self, now: Micros) {
        self.note_pause(now.min(self.paused_until));
        self.paused_until = now;
    }

    /// For how long its process ran, by its clock and without the pauses that it must notice.
    pub(super) fn ran(&mut self, now: Micros) -> Micros {
        if now >= self.paused_until {
            self.note_pause(self.paused_until);
        }
        self.clock.monotonic(now).saturating_sub(self.paused)
    }

    fn note_pause(&mut self, until: Micros) {
        let Some(since) = self.paused_since.take() else { return };
        let lasted = self.clock.shown_at(until).saturating_sub(since);
        if lasted > PAUSE_UNNOTICED_MAX {
            self.paused += lasted;
        }
    }

    /// Whether something done in this life of the node still matters.
    pub(super) fn lives(&self, life: Life) -> bool {
        self.life == life && self.process.is_some()
    }

    pub(super) fn raft(&self, group: usize) -> Option<&Raft> {
        self.process.as_ref().map(|process| &process.groups[group].raft)
    }

    /// What is durable here of a group.
    pub(super) fn durable(&self, group: usize) -> Durable<'_> {
        Durable { id: self.id, stored: &self.disk.groups[group], installed: self.installed[group] }
    }
}

impl Hosted {
    pub(super) fn new(
        id: NodeId,
        raft: Raft,
        state: GroupState,
        desk: Option<Desk>,
        staging: Option<Staging>,
    ) -> Self {
        Self {
            membership: Membership::default(),
            judge: Judge::new(id),
            noted: Checkpoint::default(),
            raft,
            state,
            waiters: BTreeMap::new(),
            answers: BTreeMap::new(),
            applying: VecDeque::new(),
            is_applying: false,
            installing: None,
            reads: BTreeMap::new(),
            reads_asked: 0,
            questions: BTreeMap::new(),
            behind: Vec::new(),
            confirmed: None,
            is_staging_inherited: staging.is_some(),
            staging,
            sending: BTreeMap::new(),
            desk,
            watches: BTreeMap::new(),
            is_telling: false,
            skips_next: false,
        }
    }

    /// What is kept beside a whole store.
    pub(super) fn desk(&mut self) -> &mut Desk {
        self.desk.as_mut().expect("the group is a whole store")
    }
}
