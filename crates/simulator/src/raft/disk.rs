//! A node's log on disk: what is durable, and what is still on its way.

use std::collections::VecDeque;

use onefold_raft::{Entry, HardState, Persist, PersistSequence, SnapshotMark};
use onefold_types::{LogIndex, Term};

use super::{machine::Machine, sabotage::Sabotage};
use crate::random::Random;

/// What a crash did to the writes that were under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CrashOutcome {
    pub(crate) kept: usize,
    pub(crate) lost: usize,
}

/// Writes become durable in order and atomically; a crash keeps a prefix of the unfinished ones.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) mark: SnapshotMark,
    pub(crate) entries: VecDeque<Entry>,
    pending: VecDeque<Persist>,
    previous_hard_state: HardState,
    /// The mark that the node was given when it was new.
    founded: SnapshotMark,
    sabotage: Option<Sabotage>,
}

impl Disk {
    pub(crate) fn new(mark: SnapshotMark, sabotage: Option<Sabotage>) -> Self {
        Self {
            hard_state: HardState::default(),
            founded: mark.clone(),
            mark,
            entries: VecDeque::new(),
            pending: VecDeque::new(),
            previous_hard_state: HardState::default(),
            sabotage,
        }
    }

    /// A write begins.
    pub(crate) fn begin(&mut self, persist: Persist) {
        self.pending.push_back(persist);
    }

    /// The last write that began and is not durable.
    pub(crate) fn last_unfinished(&self) -> Option<PersistSequence> {
        self.pending.back().map(|persist| persist.sequence)
    }

    /// Writes through this one are durable.
    pub(crate) fn finish(&mut self, sequence: PersistSequence) {
        while let Some(persist) = self.pending.pop_front_if(|p| p.sequence <= sequence) {
            self.store(persist);
        }
    }

    /// Power goes: some prefix of the unfinished writes made it.
    pub(crate) fn crash(&mut self, random: &mut Random) -> CrashOutcome {
        let unfinished = self.pending.len();
        if self.sabotage == Some(Sabotage::ReorderWrites) {
            self.pending.retain(|_| random.chance(500));
        }
        let kept = random.within(0..=self.pending.len() as u64) as usize;
        for persist in self.pending.drain(..).take(kept).collect::<Vec<_>>() {
            self.store(persist);
        }
        match self.sabotage {
            Some(Sabotage::LoseHardState) => self.hard_state = self.previous_hard_state,
            Some(Sabotage::LoseVote) => self.hard_state.vote = None,
            Some(Sabotage::LoseTail) => {
                self.entries.pop_back();
            }
            Some(Sabotage::WipeMember) => *self = Self::new(self.founded.clone(), self.sabotage),
            _ => {}
        }
        CrashOutcome { kept, lost: unfinished - kept }
    }

    fn store(&mut self, persist: Persist) {
        if let Some(hard_state) = persist.hard_state {
            self.previous_hard_state = self.hard_state;
            self.hard_state = hard_state;
        }
        if let Some(from) = persist.truncate_from
            && self.sabotage != Some(Sabotage::IgnoreTruncation)
        {
            self.entries.retain(|entry| entry.index < from);
        }
        if let Some(mark) = persist.snapshot {
            self.entries.retain(|entry| entry.index > mark.index);
            self.mark = mark;
        }
        for entry in persist.entries {
            match self.position(entry.index) {
                Some(position) => self.entries[position] = entry,
                None => self.entries.push_back(entry),
            }
        }
    }

    /// Whether this entry would be there after a crash, in the log or as part of a snapshot.
    pub(crate) fn holds(&self, machine: &Machine, index: LogIndex, term: Term) -> bool {
        let installed = machine.installed.as_ref().map_or(LogIndex::ZERO, |mark| mark.index);
        if index <= self.mark.index.max(installed) {
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
