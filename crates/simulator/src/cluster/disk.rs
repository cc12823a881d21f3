//! A node's log: one for all its groups.
//!
//! Writes become durable in order, each whole or not at all, because every batch carries a
//! checksum. One sync serves everything that was appended before it began.
//!
//! | fault | what the node sees |
//! | --- | --- |
//! | power lost | appends that were not synced are gone from some point on; one cut within is torn, and cut off when the log is opened |
//! | stalled | syncs do not end for a while |
//! | full | the append is refused, and the host stops |
//! | failing sync | the host stops; what was not synced may be there or not |
//! | flipped bit, misdirected write | the log is refused when it is opened; the node is replaced |

use std::collections::VecDeque;

use onefold_raft::{Entry, HardState, Persist, PersistSequence, SnapshotMark};
use onefold_replica::state::Logged;
use onefold_types::{LogIndex, Term};

use super::{clock::Micros, sabotage::Sabotage};
use crate::random::Random;

/// What a crash did to the appends that were under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct CrashOutcome {
    pub(super) kept: usize,
    pub(super) lost: usize,
    /// One of the lost ones was half written.
    pub(super) is_torn: bool,
}

/// What is durable of one group.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    pub(super) hard_state: HardState,
    pub(super) mark: Option<SnapshotMark>,
    pub(super) entries: VecDeque<Entry>,
    /// Anything was ever written.
    is_known: bool,
    /// Before the last write that had one.
    previous_hard_state: HardState,
}

/// The log of one node.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) groups: Vec<Stored>,
    pending: VecDeque<(usize, Persist)>,
    /// A sync is under way.
    pub(super) is_syncing: bool,
    pub(super) stalled_until: Micros,
    /// No append is taken until it has room again.
    pub(super) is_full: bool,
    /// The next sync fails.
    pub(super) is_failing: bool,
    /// A bit of what is durable is flipped, or a write went to the wrong place.
    pub(super) is_damaged: bool,
    sabotage: Option<Sabotage>,
}

impl Disk {
    pub(super) fn new(groups: usize, sabotage: Option<Sabotage>) -> Self {
        Self {
            groups: vec![Stored::default(); groups],
            pending: VecDeque::new(),
            is_syncing: false,
            stalled_until: 0,
            is_full: false,
            is_failing: false,
            is_damaged: false,
            sabotage,
        }
    }

    /// An append begins.
    pub(super) fn append(&mut self, group: usize, persist: Persist) {
        self.pending.push_back((group, persist));
    }

    /// How many appends are not synced.
    pub(super) fn unsynced(&self) -> usize {
        self.pending.len()
    }

    /// The first `count` appends are durable. Gives the last one of each group.
    pub(super) fn synced(&mut self, count: usize) -> Vec<Option<PersistSequence>> {
        let mut last = vec![None; self.groups.len()];
        for (group, persist) in self.pending.drain(..count).collect::<Vec<_>>() {
            last[group] = Some(persist.sequence);
            self.groups[group].store(persist, self.sabotage);
        }
        last
    }

    /// The process ends, and perhaps the power with it: some prefix of the unsynced appends made it.
    pub(super) fn crash(&mut self, random: &mut Random) -> CrashOutcome {
        let unsynced = self.pending.len();
        let kept = random.within(0..=unsynced as u64) as usize;
        self.synced(kept);
        self.pending.clear();
        self.is_syncing = false;
        self.is_failing = false;
        self.stalled_until = 0;
        for stored in &mut self.groups {
            match self.sabotage {
                Some(Sabotage::ForgetVote) => stored.hard_state.vote = None,
                Some(Sabotage::ForgetHardState) => stored.hard_state = stored.previous_hard_state,
                _ => {}
            }
        }
        let lost = unsynced - kept;
        CrashOutcome { kept, lost, is_torn: lost > 0 && random.chance(500) }
    }

    /// What a start finds of a group.
    pub(super) fn recovered(&self, group: usize) -> Option<Logged> {
        let stored = &self.groups[group];
        stored.is_known.then(|| Logged {
            hard_state: stored.hard_state,
            snapshot: stored.mark.clone(),
            entries: stored.entries.iter().cloned().collect(),
        })
    }
}

impl Stored {
    fn store(&mut self, persist: Persist, sabotage: Option<Sabotage>) {
        self.is_known = true;
        let is_snapshot = persist.snapshot.is_some();
        if let Some(hard_state) = persist.hard_state {
            self.previous_hard_state = self.hard_state;
            self.hard_state = hard_state;
        }
        if let Some(from) = persist.truncate_from
            && sabotage != Some(Sabotage::IgnoreTruncation)
        {
            self.entries.retain(|entry| entry.index < from);
        }
        if let Some(mark) = persist.snapshot {
            while self.entries.pop_front_if(|entry| entry.index <= mark.index).is_some() {}
            self.mark = Some(mark);
        }
        if is_snapshot && sabotage == Some(Sabotage::HardStateLostWithCompaction) {
            // The segments with the only copy of the hard state went away.
            self.hard_state = HardState { vote: None, ..self.previous_hard_state };
        }
        for entry in persist.entries {
            match self.position(entry.index) {
                Some(position) => self.entries[position] = entry,
                None => self.entries.push_back(entry),
            }
        }
    }

    /// Whether an entry would be there after a crash, in the log or as part of what it goes on from.
    pub(super) fn holds(&self, index: LogIndex, term: Term, installed: LogIndex) -> bool {
        let mark = self.mark.as_ref().map_or(LogIndex::ZERO, |mark| mark.index);
        if index <= mark.max(installed) {
            return true;
        }
        let stored = self.position(index).map(|position| &self.entries[position]);
        stored.is_some_and(|entry| (entry.index, entry.term) == (index, term))
    }

    fn position(&self, index: LogIndex) -> Option<usize> {
        let position = index.0.checked_sub(self.entries.front()?.index.0)? as usize;
        (position < self.entries.len()).then_some(position)
    }
}
