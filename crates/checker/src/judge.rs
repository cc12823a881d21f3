//! All checks of a history, one after the other.

use serde::Serialize;

use crate::chronicle::Chronicle;
use crate::findings::Findings;
use crate::history::{History, News, Operation, Outcome, Record};
use crate::order::{self, Compactions, Sightings};
use crate::replay::replay;
use crate::violation::{Unjudged, Violation};
use crate::{copies, leases, registers, watches};

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Looked {
    /// Operations that were answered.
    pub answered: usize,
    /// Operations that were refused without effect.
    pub refused: usize,
    /// Operations whose outcome nobody knew.
    pub unknown: usize,
    /// Those of them that history shows to have been executed.
    pub unknown_executed: usize,
    /// Revisions replayed.
    pub revisions: u64,
    /// Registers whose histories were searched for linearizability.
    pub registers: usize,
    /// Operations in those searches.
    pub register_operations: usize,
    /// Watches.
    pub watches: usize,
    /// Their streams: all but the first of a watch resumed it.
    pub watch_streams: usize,
    /// Events that watches told.
    pub watch_events: usize,
    /// Bookmarks that watches told.
    pub watch_bookmarks: usize,
    /// Messages that were fragments of an answer.
    pub watch_fragments: usize,
    /// Watches that were told that what they asked for is compacted.
    pub watch_compacted: usize,
    /// Leases that ended and took keys along.
    pub lease_ends: usize,
    /// Nodes whose final copies were compared.
    pub copies: usize,
    /// Nodes whose hashes of history were compared.
    pub hashes: usize,
}

impl Looked {
    /// Adds what was looked at in another history.
    pub fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.unknown_executed += other.unknown_executed;
        self.revisions += other.revisions;
        self.registers += other.registers;
        self.register_operations += other.register_operations;
        self.watches += other.watches;
        self.watch_streams += other.watch_streams;
        self.watch_events += other.watch_events;
        self.watch_bookmarks += other.watch_bookmarks;
        self.watch_fragments += other.watch_fragments;
        self.watch_compacted += other.watch_compacted;
        self.lease_ends += other.lease_ends;
        self.copies += other.copies;
        self.hashes += other.hashes;
    }
}

/// What came out.
#[derive(Debug)]
pub struct Verdict {
    /// What was looked at.
    pub looked: Looked,
    /// What is wrong; empty if nothing is.
    pub violations: Vec<Violation>,
    /// What the store holds at the end, by the history.
    pub state: Vec<Record>,
    /// Operations with unknown outcomes that history does not show: they may still happen.
    pub open: Vec<Operation>,
}

/// Judges a history by every promise.
///
/// # Errors
/// When a part of it could not be judged; that says nothing about the store.
pub fn judge(history: &History) -> Result<Verdict, Unjudged> {
    let mut found = Findings::default();
    let chronicle = Chronicle::compile(history, &mut found)?;
    let sightings = Sightings::of(history);
    let compactions = Compactions::of(history);
    order::check(history, &chronicle, &sightings, &compactions, &mut found);
    let replayed = replay(history, &chronicle, &sightings, &mut found)?;
    leases::check(history, &replayed, &sightings, &mut found);
    watches::check(history, &chronicle, &compactions, &mut found)?;
    copies::check(history, &replayed, &mut found)?;
    let searched = registers::check(history, registers::CONFIGURATIONS_MAX, &mut found)?;
    let mut looked = counted(history);
    looked.unknown_executed = replayed.unknown_executed;
    looked.lease_ends = replayed.lease_ends.len();
    looked.revisions = history.end.get().saturating_sub(history.begin.get());
    looked.registers = searched.keys;
    looked.register_operations = searched.operations;
    let state = replayed.state.all().cloned().collect();
    Ok(Verdict { looked, violations: found.violations, state, open: replayed.open })
}

fn counted(history: &History) -> Looked {
    let mut looked = Looked { watches: history.watches.len(), ..Looked::default() };
    for operation in &history.operations {
        match operation.outcome {
            Outcome::Answered { .. } => looked.answered += 1,
            Outcome::Refused(_) => looked.refused += 1,
            Outcome::Unknown(_) => looked.unknown += 1,
        }
    }
    for stream in history.watches.iter().flat_map(|watch| &watch.streams) {
        looked.watch_streams += 1;
        for message in &stream.messages {
            match &message.news {
                News::Events { events, is_fragment } => {
                    looked.watch_events += events.len();
                    looked.watch_fragments += usize::from(*is_fragment);
                }
                News::Progress => looked.watch_bookmarks += 1,
                News::Compacted { .. } => looked.watch_compacted += 1,
                News::Created | News::Ended(_) => {}
            }
        }
    }
    looked.copies = history.copies.len();
    looked.hashes = history.copies.iter().filter(|copy| copy.hash.is_some()).count();
    looked
}
