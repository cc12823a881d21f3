//! What must be durable, what is, and the messages that wait for it.
//!
//! The core never trusts its driver with the rule "persist before you answer" (§5.1): a message
//! that promises something is held here together with the number of the write it depends on, and
//! leaves only when that write was reported durable.

use std::collections::VecDeque;

use onefold_types::{LogIndex, NodeId};

use crate::{
    entry::{Entry, HardState, SnapshotMark},
    fingerprint::Fingerprint,
    log::Log,
    message::{Body, Message},
};

/// Most messages that wait for the disk. One more is dropped, as a network would.
const HELD_MESSAGES_MAX: usize = 4096;

/// Numbers the writes of a run from 1. A number says: this write and all before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistSequence(pub u64);

/// One write to stable storage. Atomic: after a crash all of it is there or none of it, and no
/// later write is there without it. Its parts are to be understood in the order of the fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persist {
    /// To be given back in [`crate::Input::Persisted`].
    pub sequence: PersistSequence,
    /// Replaces the stored hard state.
    pub hard_state: Option<HardState>,
    /// Entries at this index and after it are gone.
    pub truncate_from: Option<LogIndex>,
    /// Entries up to this mark are gone; the log goes on from it.
    pub snapshot: Option<SnapshotMark>,
    /// To be added, contiguous, the first one right after what is stored.
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Write {
    sequence: PersistSequence,
    /// The last index that is durable once this write is; lowered when the log is truncated.
    last: LogIndex,
    issued_at_tick: u64,
}

#[derive(Clone, Debug)]
struct Held {
    sequence: PersistSequence,
    to: NodeId,
    message: Message,
}

/// Tracks writes from the moment they are needed until they are durable.
#[derive(Clone, Debug)]
pub(crate) struct Persistence {
    /// The last write handed to the driver, and the last one known to be durable.
    issued: PersistSequence,
    durable: PersistSequence,
    writes: VecDeque<Write>,
    held: VecDeque<Held>,
    /// What the handed writes leave on disk.
    hard_state: HardState,
    last_issued: LogIndex,
    /// What the next write has to do beside adding entries.
    truncate_from: Option<LogIndex>,
    snapshot: Option<SnapshotMark>,
    /// The last index up to which disk and memory are known to be equal.
    durable_index: LogIndex,
}

impl Persistence {
    /// Right after a start: everything restored is durable.
    pub(crate) fn new(hard_state: HardState, last: LogIndex) -> Self {
        Self {
            issued: PersistSequence(0),
            durable: PersistSequence(0),
            writes: VecDeque::new(),
            held: VecDeque::new(),
            hard_state,
            last_issued: last,
            truncate_from: None,
            snapshot: None,
            durable_index: last,
        }
    }

    /// Writes are told by their distance from the last durable one, not by their numbers.
    pub(crate) fn fingerprint(&self, to: &mut Fingerprint<'_>) {
        let Self {
            issued,
            durable,
            writes,
            held,
            hard_state,
            last_issued,
            truncate_from,
            snapshot,
            durable_index,
        } = self;
        to.add((issued.0 - durable.0, last_issued, truncate_from, durable_index));
        to.each(writes.iter(), |to, write| to.add((write.sequence.0 - durable.0, write.last)));
        to.each(held.iter(), |to, held| {
            to.add(held.sequence.0 - durable.0);
            to.server(held.to);
            to.message(&held.message);
        });
        to.hard_state(hard_state);
        to.mark_if_any(snapshot.as_ref());
    }

    /// The last index that is durable on this server.
    pub(crate) fn durable_index(&self) -> LogIndex {
        self.durable_index
    }

    /// When the oldest write that is not yet durable was handed out.
    pub(crate) fn oldest_tick(&self) -> Option<u64> {
        self.writes.front().map(|write| write.issued_at_tick)
    }

    /// Whether nothing is being written.
    pub(crate) fn is_idle(&self) -> bool {
        self.writes.is_empty()
    }

    /// A new commit index alone does not make a write: it is only a hint (see [`HardState`]).
    fn is_write_needed(&self, hard_state: &HardState, last: LogIndex) -> bool {
        (hard_state.term, hard_state.vote) != (self.hard_state.term, self.hard_state.vote)
            || last > self.last_issued
            || self.truncate_from.is_some()
            || self.snapshot.is_some()
    }

    /// The write after which everything that is now in memory is durable.
    fn covering(&self, hard_state: &HardState, last: LogIndex) -> PersistSequence {
        PersistSequence(self.issued.0 + u64::from(self.is_write_needed(hard_state, last)))
    }

    /// Gives the message back if all that is in memory is durable, else keeps it until it is.
    pub(crate) fn hold(
        &mut self,
        to: NodeId,
        message: Message,
        hard_state: &HardState,
        last: LogIndex,
    ) -> Option<(NodeId, Message)> {
        let sequence = self.covering(hard_state, last);
        if sequence <= self.durable {
            return Some((to, message));
        }
        let superseded = self.held.iter_mut().rev().find(|held| {
            held.sequence == sequence && held.to == to && is_superseded(&held.message, &message)
        });
        if let Some(held) = superseded {
            held.message = message;
        } else if self.held.len() < HELD_MESSAGES_MAX {
            self.held.push_back(Held { sequence, to, message });
        }
        None
    }

    /// The log was cut before `index`.
    pub(crate) fn truncated(&mut self, index: LogIndex) {
        let before = LogIndex(index.0 - 1);
        if before < self.last_issued {
            self.last_issued = before;
            self.truncate_from = Some(self.truncate_from.map_or(index, |from| from.min(index)));
        }
        for write in &mut self.writes {
            write.last = write.last.min(before);
        }
        self.durable_index = self.durable_index.min(before);
    }

    /// The log now starts after this mark; what the mark covers is durable in the state machine.
    pub(crate) fn compacted(&mut self, mark: SnapshotMark) {
        self.last_issued = self.last_issued.max(mark.index);
        self.durable_index = self.durable_index.max(mark.index);
        self.snapshot = Some(mark);
    }

    /// The log was replaced by an installed snapshot.
    pub(crate) fn reset(&mut self, mark: SnapshotMark) {
        self.truncated(mark.index.next());
        self.compacted(mark);
    }

    /// The next write, if anything has to be written.
    pub(crate) fn take(
        &mut self,
        hard_state: HardState,
        log: &Log,
        now_tick: u64,
    ) -> Option<Persist> {
        if !self.is_write_needed(&hard_state, log.last_index()) {
            return None;
        }
        self.issued.0 += 1;
        let last = log.last_index();
        let persist = Persist {
            sequence: self.issued,
            hard_state: (hard_state != self.hard_state).then_some(hard_state),
            truncate_from: self.truncate_from.take(),
            snapshot: self.snapshot.take(),
            entries: log.slice(self.last_issued.next(), last, usize::MAX),
        };
        assert_eq!(
            self.last_issued.0 + persist.entries.len() as u64,
            last.0,
            "every entry is written once"
        );
        self.hard_state = hard_state;
        self.last_issued = last;
        self.writes.push_back(Write { sequence: self.issued, last, issued_at_tick: now_tick });
        Some(persist)
    }

    /// Everything through `sequence` is durable. Gives the messages that waited for it, or `None`
    /// if no such write was handed out.
    pub(crate) fn persisted(
        &mut self,
        sequence: PersistSequence,
    ) -> Option<Vec<(NodeId, Message)>> {
        if sequence > self.issued {
            return None;
        }
        self.durable = self.durable.max(sequence);
        while let Some(write) = self.writes.pop_front_if(|write| write.sequence <= sequence) {
            self.durable_index = self.durable_index.max(write.last);
        }
        // Sequences in the queue never go back, so the released ones are its front.
        let mut released = Vec::new();
        while let Some(held) = self.held.pop_front_if(|held| held.sequence <= sequence) {
            released.push((held.to, held.message));
        }
        Some(released)
    }
}

/// Whether `new` says everything that `old` said, so that `old` need not be sent.
fn is_superseded(old: &Message, new: &Message) -> bool {
    match (&old.body, &new.body) {
        (Body::AppendAccepted { matched: old_matched }, Body::AppendAccepted { matched }) => {
            old.term == new.term && old_matched <= matched
        }
        _ => old == new,
    }
}

#[cfg(test)]
mod tests {
    use onefold_types::Term;

    use super::*;
    use crate::entry::Payload;

    fn entry(term: u64, index: u64) -> Entry {
        Entry { term: Term(term), index: LogIndex(index), payload: Payload::Empty }
    }

    fn accepted(matched: u64) -> Message {
        Message { term: Term(1), body: Body::AppendAccepted { matched: LogIndex(matched) } }
    }

    const HARD: HardState = HardState { term: Term(1), vote: None, commit: LogIndex::ZERO };
    const PEER: NodeId = NodeId(2);

    fn start() -> (Persistence, Log) {
        (Persistence::new(HARD, LogIndex::ZERO), Log::new(SnapshotMark::default()))
    }

    #[test]
    fn a_message_leaves_at_once_when_nothing_is_unwritten() {
        let (mut persistence, log) = start();
        let sent = persistence.hold(PEER, accepted(0), &HARD, log.last_index());
        assert_eq!(sent, Some((PEER, accepted(0))));
    }

    #[test]
    fn a_message_waits_for_the_write_that_covers_it() {
        let (mut persistence, mut log) = start();
        log.append(entry(1, 1));
        assert_eq!(persistence.hold(PEER, accepted(1), &HARD, log.last_index()), None);
        let first = persistence.take(HARD, &log, 0).expect("an entry to write");
        log.append(entry(1, 2));
        assert_eq!(persistence.hold(PEER, accepted(2), &HARD, log.last_index()), None);
        let second = persistence.take(HARD, &log, 0).expect("an entry to write");
        assert_eq!(persistence.persisted(first.sequence), Some(vec![(PEER, accepted(1))]));
        assert_eq!(persistence.durable_index(), LogIndex(1));
        assert_eq!(persistence.persisted(second.sequence), Some(vec![(PEER, accepted(2))]));
        assert_eq!(persistence.durable_index(), LogIndex(2));
    }

    #[test]
    fn a_later_acknowledgement_replaces_an_earlier_one_of_the_same_write() {
        let (mut persistence, mut log) = start();
        log.append(entry(1, 1));
        log.append(entry(1, 2));
        assert_eq!(persistence.hold(PEER, accepted(1), &HARD, log.last_index()), None);
        assert_eq!(persistence.hold(PEER, accepted(2), &HARD, log.last_index()), None);
        let write = persistence.take(HARD, &log, 0).expect("entries to write");
        assert_eq!(persistence.persisted(write.sequence), Some(vec![(PEER, accepted(2))]));
    }

    #[test]
    fn a_finished_write_of_truncated_entries_makes_nothing_durable() {
        let (mut persistence, mut log) = start();
        log.append(entry(1, 1));
        log.append(entry(1, 2));
        let first = persistence.take(HARD, &log, 0).expect("entries to write");
        log.truncate_from(LogIndex(2));
        persistence.truncated(LogIndex(2));
        log.append(entry(2, 2));
        let second = persistence.take(HARD, &log, 0).expect("an entry to write");
        assert_eq!(second.truncate_from, Some(LogIndex(2)));
        assert_eq!(second.entries, [entry(2, 2)]);
        persistence.persisted(first.sequence).expect("a known write");
        assert_eq!(persistence.durable_index(), LogIndex(1), "index 2 was the old entry");
        persistence.persisted(second.sequence).expect("a known write");
        assert_eq!(persistence.durable_index(), LogIndex(2));
    }

    #[test]
    fn entries_cut_before_they_were_handed_out_leave_no_trace() {
        let (mut persistence, mut log) = start();
        log.append(entry(1, 1));
        log.truncate_from(LogIndex(1));
        persistence.truncated(LogIndex(1));
        assert_eq!(persistence.take(HARD, &log, 0), None);
    }

    #[test]
    fn commit_alone_is_not_written_but_rides_along() {
        let (mut persistence, mut log) = start();
        let committed = HardState { commit: LogIndex(1), ..HARD };
        assert_eq!(persistence.take(committed, &log, 0), None);
        log.append(entry(1, 1));
        let write = persistence.take(committed, &log, 0).expect("an entry to write");
        assert_eq!(write.hard_state, Some(committed));
    }

    #[test]
    fn an_unknown_sequence_is_refused() {
        let (mut persistence, _) = start();
        assert_eq!(persistence.persisted(PersistSequence(1)), None);
    }

    #[test]
    fn held_messages_are_bounded() {
        let (mut persistence, mut log) = start();
        log.append(entry(1, 1));
        for peer in 0..2 * HELD_MESSAGES_MAX as u64 {
            persistence.hold(NodeId(peer), accepted(1), &HARD, log.last_index());
        }
        let write = persistence.take(HARD, &log, 0).expect("an entry to write");
        let released = persistence.persisted(write.sequence).expect("a known write");
        assert_eq!(released.len(), HELD_MESSAGES_MAX);
    }
}
