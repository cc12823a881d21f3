//! The retained log: the entries after the snapshot mark, in memory.

use std::collections::VecDeque;

use onefold_types::{LogIndex, Term};

use crate::{
    entry::{Entry, Payload, SnapshotMark},
    fingerprint::Fingerprint,
    membership::Membership,
};

/// Compaction gives memory back when the log has room for this many times what it still holds. Less
/// would free and ask for the same memory again with every compaction of a busy group.
const SPARE_FACTOR: usize = 16;
const SPARE_LEN_MIN: usize = 64;

/// Entries `snapshot.index + 1 ..= last_index()`, contiguous, with terms that never go back.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    snapshot: SnapshotMark,
    entries: VecDeque<Entry>,
    /// For each entry the bytes of all entries through it since the log began, so that the size of
    /// any stretch is a subtraction.
    ends: VecDeque<u64>,
    /// The bytes of all entries before the first one that is kept.
    compacted_bytes: u64,
    /// Where the entries that change the membership are.
    memberships: VecDeque<LogIndex>,
}

impl Log {
    /// A log that goes on from a mark.
    pub(crate) fn new(snapshot: SnapshotMark) -> Self {
        Self {
            snapshot,
            entries: VecDeque::new(),
            ends: VecDeque::new(),
            compacted_bytes: 0,
            memberships: VecDeque::new(),
        }
    }

    pub(crate) fn fingerprint(&self, to: &mut Fingerprint<'_>) {
        // The rest follows from these.
        let Self { snapshot, entries, ends: _, compacted_bytes: _, memberships: _ } = self;
        to.mark(snapshot);
        to.each(entries.iter(), Fingerprint::entry);
    }

    pub(crate) fn snapshot(&self) -> &SnapshotMark {
        &self.snapshot
    }

    pub(crate) fn first_index(&self) -> LogIndex {
        self.snapshot.index.next()
    }

    pub(crate) fn last_index(&self) -> LogIndex {
        LogIndex(self.snapshot.index.0 + self.entries.len() as u64)
    }

    pub(crate) fn last_term(&self) -> Term {
        self.entries.back().map_or(self.snapshot.term, |entry| entry.term)
    }

    fn position(&self, index: LogIndex) -> Option<usize> {
        let position = index.0.checked_sub(self.first_index().0)? as usize;
        (position < self.entries.len()).then_some(position)
    }

    /// The term at an index; `None` before the mark and after the end.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.snapshot.index {
            return Some(self.snapshot.term);
        }
        self.position(index).map(|position| self.entries[position].term)
    }

    /// Whether the log has an entry of this index and term (§5.3, log matching).
    pub(crate) fn contains(&self, index: LogIndex, term: Term) -> bool {
        self.term_at(index) == Some(term)
    }

    /// Whether a log that ends so is at least as up to date as this one (§5.4.1).
    pub(crate) fn is_up_to_date(&self, last_index: LogIndex, last_term: Term) -> bool {
        (last_term, last_index) >= (self.last_term(), self.last_index())
    }

    /// The latest members of the group, committed or not (§6): a server uses these.
    pub(crate) fn membership(&self) -> &Membership {
        self.membership_at(self.last_index())
    }

    /// Where the latest members come from; at most the mark's index if from before it.
    pub(crate) fn membership_index(&self) -> LogIndex {
        self.memberships.back().copied().unwrap_or(self.snapshot.index)
    }

    /// The members of the group as of an index that the log covers.
    pub(crate) fn membership_at(&self, index: LogIndex) -> &Membership {
        let latest = self.memberships.iter().rev().find(|&&at| at <= index);
        let entry = latest.and_then(|&at| self.position(at)).map(|at| &self.entries[at].payload);
        match entry {
            Some(Payload::Membership(membership)) => membership,
            _ => &self.snapshot.membership,
        }
    }

    /// The mark of a snapshot taken at an index that the log covers.
    pub(crate) fn mark_at(&self, index: LogIndex) -> Option<SnapshotMark> {
        let term = self.term_at(index)?;
        Some(SnapshotMark { index, term, membership: self.membership_at(index).clone() })
    }

    /// Entries `from ..= through` up to a number of bytes, at least one if there is any.
    pub(crate) fn slice(&self, from: LogIndex, through: LogIndex, bytes_max: usize) -> Vec<Entry> {
        let Some(start) = self.position(from) else { return Vec::new() };
        let end = self.position_after(through).max(start);
        let bytes_end = self.bytes_before(start).saturating_add(bytes_max as u64);
        // Nearly always everything fits; only else is the place searched for.
        let end = if self.bytes_before(end) <= bytes_end {
            end
        } else {
            // One entry is always given.
            end.min(self.ends.partition_point(|&bytes| bytes <= bytes_end).max(start + 1))
        };
        self.entries.range(start..end).cloned().collect()
    }

    /// The bytes of the entries `from ..= through` that the log still has.
    pub(crate) fn bytes_between(&self, from: LogIndex, through: LogIndex) -> usize {
        let start = self.position_after(LogIndex(from.0 - 1));
        let end = self.position_after(through).max(start);
        (self.bytes_before(end) - self.bytes_before(start)) as usize
    }

    /// How many entries the log has up to and including an index.
    fn position_after(&self, index: LogIndex) -> usize {
        let count = index.0.saturating_sub(self.snapshot.index.0) as usize;
        count.min(self.entries.len())
    }

    /// The bytes of everything before a position.
    fn bytes_before(&self, position: usize) -> u64 {
        match position.checked_sub(1) {
            Some(last) => self.ends[last],
            None => self.compacted_bytes,
        }
    }

    /// Adds an entry at the end.
    pub(crate) fn append(&mut self, entry: Entry) {
        assert_eq!(entry.index, self.last_index().next(), "the log has no holes");
        assert!(entry.term >= self.last_term(), "terms in the log never go back");
        if matches!(entry.payload, Payload::Membership(_)) {
            self.memberships.push_back(entry.index);
        }
        let before = self.ends.back().copied().unwrap_or(self.compacted_bytes);
        self.ends.push_back(before + entry.bytes() as u64);
        self.entries.push_back(entry);
    }

    /// Drops an index and everything after it.
    pub(crate) fn truncate_from(&mut self, index: LogIndex) {
        assert!(index > self.snapshot.index, "a snapshot is never truncated");
        let kept = (index.0 - self.first_index().0) as usize;
        self.entries.truncate(kept);
        self.ends.truncate(kept);
        while self.memberships.pop_back_if(|at| *at >= index).is_some() {}
    }

    /// Drops everything up to and including an index that the log covers.
    pub(crate) fn compact(&mut self, index: LogIndex) {
        let mark = self.mark_at(index).expect("compaction ends inside the log");
        let count = (index.0 - self.snapshot.index.0) as usize;
        self.entries.drain(..count);
        self.compacted_bytes = self.ends.drain(..count).next_back().unwrap_or(self.compacted_bytes);
        while self.memberships.pop_front_if(|at| *at <= index).is_some() {}
        if self.entries.capacity() > SPARE_FACTOR * self.entries.len().max(SPARE_LEN_MIN) {
            self.entries.shrink_to_fit();
            self.ends.shrink_to_fit();
        }
        self.snapshot = mark;
    }

    /// Drops everything and goes on from a mark (§7).
    pub(crate) fn reset(&mut self, mark: SnapshotMark) {
        *self = Self::new(mark);
    }

    /// The last index not after `index` whose term is not after `term`, and its term: everything
    /// above it cannot be equal in a log that has `term` at `index` (§5.3). Below the mark, terms
    /// are unknown; the answer then is the index before the mark and term 0.
    pub(crate) fn last_at_most(&self, index: LogIndex, term: Term) -> (LogIndex, Term) {
        let count = self.entries.partition_point(|entry| entry.term <= term) as u64;
        if count == 0 && self.snapshot.term > term {
            let before = LogIndex(self.snapshot.index.0.saturating_sub(1));
            return (before.min(index), Term::ZERO);
        }
        let candidate = index.min(LogIndex(self.snapshot.index.0 + count));
        (candidate, self.term_at(candidate).unwrap_or(Term::ZERO))
    }
}

#[cfg(test)]
mod tests {
    use onefold_types::NodeId;

    use super::*;

    fn entry(term: u64, index: u64) -> Entry {
        Entry { term: Term(term), index: LogIndex(index), payload: Payload::Empty }
    }

    /// A log after a mark at (index, term) with entries of these terms.
    fn log(mark: (u64, u64), terms: &[u64]) -> Log {
        let membership = Membership::of_voters([NodeId(1)]);
        let mut log =
            Log::new(SnapshotMark { index: LogIndex(mark.0), term: Term(mark.1), membership });
        for &term in terms {
            log.append(entry(term, log.last_index().next().0));
        }
        log
    }

    #[test]
    fn terms_are_known_from_the_mark_to_the_end() {
        let log = log((3, 2), &[2, 4]);
        let terms: Vec<_> = (2..=6).map(|index| log.term_at(LogIndex(index))).collect();
        assert_eq!(terms, [None, Some(Term(2)), Some(Term(2)), Some(Term(4)), None]);
    }

    #[test]
    fn up_to_date_compares_terms_before_lengths() {
        let log = log((0, 0), &[1, 2]);
        assert!(log.is_up_to_date(LogIndex(1), Term(3)));
        assert!(log.is_up_to_date(LogIndex(2), Term(2)));
        assert!(!log.is_up_to_date(LogIndex(1), Term(2)));
        assert!(!log.is_up_to_date(LogIndex(9), Term(1)));
    }

    #[test]
    fn slice_gives_at_least_one_entry_and_respects_its_bounds() {
        let log = log((3, 2), &[2, 4, 4]);
        let indices = |from, through, bytes| -> Vec<u64> {
            let entries = log.slice(LogIndex(from), LogIndex(through), bytes);
            entries.iter().map(|entry| entry.index.0).collect()
        };
        assert_eq!(indices(4, 6, 1), [4]);
        assert_eq!(indices(4, 6, 2 * entry(1, 1).bytes()), [4, 5]);
        assert_eq!(indices(5, 5, usize::MAX), [5]);
        assert_eq!(indices(6, 5, usize::MAX), [0u64; 0]);
        assert_eq!(indices(7, 9, usize::MAX), [0u64; 0]);
        assert_eq!(indices(3, 9, usize::MAX), [0u64; 0], "before the log");
    }

    #[test]
    fn last_at_most_skips_whole_terms() {
        let log = log((3, 2), &[2, 4, 4, 7]);
        let at_most = |index, term| {
            let (index, term) = log.last_at_most(LogIndex(index), Term(term));
            (index.0, term.0)
        };
        assert_eq!(at_most(7, 7), (7, 7));
        assert_eq!(at_most(7, 6), (6, 4));
        assert_eq!(at_most(7, 3), (4, 2));
        assert_eq!(at_most(5, 9), (5, 4));
        assert_eq!(at_most(9, 9), (7, 7), "ends with the log");
        assert_eq!(at_most(7, 1), (2, 0), "unknown below the mark");
        assert_eq!(at_most(1, 1), (1, 0), "unknown below the mark");
    }

    #[test]
    fn compaction_keeps_the_tail_and_the_membership() {
        let mut log = log((0, 0), &[1, 1]);
        let changed = Membership::of_voters([NodeId(1), NodeId(2)]);
        log.append(Entry {
            term: Term(2),
            index: LogIndex(3),
            payload: Payload::Membership(Box::new(changed.clone())),
        });
        log.append(entry(2, 4));
        assert_eq!(log.membership_at(LogIndex(2)), &Membership::of_voters([NodeId(1)]));
        assert_eq!(log.membership_at(LogIndex(3)), &changed);
        log.compact(LogIndex(3));
        let mark = SnapshotMark { index: LogIndex(3), term: Term(2), membership: changed };
        assert_eq!(log.snapshot(), &mark);
        assert_eq!((log.first_index(), log.last_index()), (LogIndex(4), LogIndex(4)));
    }
}
