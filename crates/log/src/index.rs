//! Where the live records of each group stand, without their contents.
//!
//! Entries are kept as runs: entries in a row that stand in the same segment. A group costs a few
//! words for each segment it has entries in, not for each entry. The same code follows the records
//! when they are written and when they are read back.

use std::collections::{BTreeMap, VecDeque};

use onefold_types::{GroupId, LogIndex};

use crate::format::Record;
use crate::types::{HardState, SnapshotMark};

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The segment's number.
    pub(crate) segment: u64,
    /// The record's first byte in the segment's file.
    pub(crate) offset: u64,
    /// The record's length.
    pub(crate) bytes: u64,
}

/// Entries in a row in one segment. The live record of each of them is the only one of its index
/// in the segment that stands at or after `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: LogIndex,
    last: LogIndex,
    segment: u64,
    offset: u64,
    /// Bytes of the entries' records; an estimate once a part of the run is gone.
    bytes: u64,
    /// Nothing may be added: dead records of later indexes stand behind `offset`.
    is_closed: bool,
}

impl Run {
    fn len(&self) -> u64 {
        self.last.get() - self.first.get() + 1
    }

    fn contains(&self, index: LogIndex) -> bool {
        self.first <= index && index <= self.last
    }

    /// The part of the run from `first` to `last`.
    fn part(&self, first: LogIndex, last: LogIndex) -> Option<Self> {
        (first <= last).then(|| {
            let part = Self { first, last, ..*self };
            let bytes = u128::from(self.bytes) * u128::from(part.len()) / u128::from(self.len());
            Self { bytes: u64::try_from(bytes).unwrap_or(self.bytes), ..part }
        })
    }
}

/// What is live of one group.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupIndex {
    /// The newest hard state and the segment that it stands in.
    pub(crate) hard_state: Option<(HardState, u64)>,
    /// The newest snapshot mark and the segment that it stands in.
    pub(crate) mark: Option<(SnapshotMark, u64)>,
    /// By index.
    runs: VecDeque<Run>,
}

impl GroupIndex {
    /// The last index that is gone.
    pub(crate) fn compacted(&self) -> LogIndex {
        self.mark.as_ref().map_or(LogIndex::ZERO, |(mark, _)| mark.index)
    }

    /// The index of the last entry; that of the mark if there is none after it.
    pub(crate) fn last(&self) -> LogIndex {
        self.runs.back().map_or(self.compacted(), |run| run.last)
    }

    /// Whether the record at this place is the live one of its index.
    pub(crate) fn is_live(&self, index: LogIndex, segment: u64, offset: u64) -> bool {
        self.runs
            .iter()
            .any(|run| run.segment == segment && run.contains(index) && offset >= run.offset)
    }

    fn entry(&mut self, index: LogIndex, place: Place) {
        if index <= self.last() {
            self.truncate(index);
        }
        let at = self.runs.len();
        self.insert(at, index, place);
    }

    /// The entry stands at a new place; the others are untouched.
    fn carried_entry(&mut self, index: LogIndex, place: Place) {
        if index <= self.compacted() {
            return;
        }
        if let Some(at) = self.runs.iter().position(|run| run.contains(index)) {
            let run = self.runs.remove(at).expect("the position was just found");
            let behind = run.part(index.next(), run.last);
            let before = run.part(run.first, LogIndex(index.get() - 1));
            for part in [behind, before].into_iter().flatten() {
                self.runs.insert(at, part);
            }
        }
        let at = self.runs.partition_point(|run| run.last < index);
        self.insert(at, index, place);
    }

    /// Puts an entry between the runs, or at the end of the run before.
    fn insert(&mut self, at: usize, index: LogIndex, place: Place) {
        if let Some(before) = at.checked_sub(1).and_then(|before| self.runs.get_mut(before))
            && before.segment == place.segment
            && before.last.next() == index
            && before.offset < place.offset
            && !before.is_closed
        {
            before.last = index;
            before.bytes += place.bytes;
            return;
        }
        let Place { segment, offset, bytes } = place;
        let run = Run { first: index, last: index, segment, offset, bytes, is_closed: false };
        self.runs.insert(at, run);
    }

    fn truncate(&mut self, from: LogIndex) {
        while let Some(run) = self.runs.pop_back() {
            if run.first >= from {
                continue;
            }
            let last = run.last.min(LogIndex(from.get().saturating_sub(1)));
            let part = run.part(run.first, last).expect("the run begins before the cut");
            self.runs.push_back(Run { is_closed: true, ..part });
            return;
        }
    }

    fn compact(&mut self, through: LogIndex) {
        while let Some(run) = self.runs.pop_front() {
            if run.last <= through {
                continue;
            }
            let first = run.first.max(through.next());
            let part = run.part(first, run.last).expect("the run ends after the cut");
            self.runs.push_front(part);
            return;
        }
    }
}

/// What is live of all groups.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    pub(crate) groups: BTreeMap<GroupId, GroupIndex>,
}

impl Index {
    /// Follows a record that stands at a place.
    pub(crate) fn apply(&mut self, record: Record<'_>, place: Place) {
        if let Record::RemoveGroup { group } = record {
            self.groups.remove(&group);
            return;
        }
        let group = self.groups.entry(record.group()).or_default();
        match record {
            Record::HardState { state, .. } => group.hard_state = Some((state, place.segment)),
            Record::Entry { entry, .. } => group.entry(entry.index, place),
            Record::CarriedEntry { entry, .. } => group.carried_entry(entry.index, place),
            Record::Truncate { from, .. } => group.truncate(from),
            Record::SnapshotMark { index, term, data, .. } => {
                let compacted = group.compacted();
                if group.mark.is_none() || index >= compacted {
                    let data = bytes::Bytes::copy_from_slice(data);
                    group.mark = Some((SnapshotMark { index, term, data }, place.segment));
                    group.compact(index);
                }
            }
            Record::RemoveGroup { .. } => unreachable!("handled above"),
        }
    }

    /// Bytes of live entries, by segment.
    pub(crate) fn live_bytes(&self) -> BTreeMap<u64, u64> {
        let mut live = BTreeMap::new();
        for run in self.groups.values().flat_map(|group| &group.runs) {
            *live.entry(run.segment).or_default() += run.bytes;
        }
        live
    }

    /// Whether a live entry stands in a segment.
    pub(crate) fn has_entries_in(&self, segment: u64) -> bool {
        self.groups.values().flat_map(|group| &group.runs).any(|run| run.segment == segment)
    }
}

#[cfg(test)]
mod tests {
    use onefold_types::Term;

    use super::*;
    use crate::format::EntryRecord;

    const GROUP: GroupId = GroupId(1);

    fn at(segment: u64, offset: u64) -> Place {
        Place { segment, offset, bytes: 100 }
    }

    fn entry(index: u64) -> EntryRecord<'static> {
        EntryRecord { term: Term(1), index: LogIndex(index), kind: 0, payload: b"" }
    }

    fn write(index: &mut Index, entries: std::ops::RangeInclusive<u64>, segment: u64, offset: u64) {
        for (step, number) in entries.enumerate() {
            let place = at(segment, offset + 100 * step as u64);
            index.apply(Record::Entry { group: GROUP, entry: entry(number) }, place);
        }
    }

    fn carry(index: &mut Index, number: u64, place: Place) {
        index.apply(Record::CarriedEntry { group: GROUP, entry: entry(number) }, place);
    }

    #[test]
    fn an_overwritten_entry_is_not_live_at_its_old_place() {
        let mut index = Index::default();
        write(&mut index, 1..=10, 5, 1000);
        write(&mut index, 8..=9, 5, 3000);
        let group = &index.groups[&GROUP];
        assert!(group.is_live(LogIndex(7), 5, 1600));
        assert!(!group.is_live(LogIndex(8), 5, 1700), "the old 8");
        assert!(group.is_live(LogIndex(8), 5, 3000), "the new 8");
        assert!(!group.is_live(LogIndex(10), 5, 1900), "cut off by the new 8");
        assert_eq!(group.last(), LogIndex(9));
    }

    #[test]
    fn a_run_is_not_continued_over_dead_records() {
        let mut index = Index::default();
        write(&mut index, 1..=3, 5, 1000);
        index.apply(Record::Truncate { group: GROUP, from: LogIndex(3) }, at(5, 2000));
        write(&mut index, 3..=3, 5, 3000);
        assert!(!index.groups[&GROUP].is_live(LogIndex(3), 5, 1200));
        assert!(index.groups[&GROUP].is_live(LogIndex(3), 5, 3000));
    }

    #[test]
    fn carried_entries_move_and_leave_the_rest() {
        let mut index = Index::default();
        write(&mut index, 1..=4, 5, 1000);
        write(&mut index, 5..=6, 6, 1000);
        carry(&mut index, 1, at(7, 100));
        carry(&mut index, 2, at(7, 200));
        let group = &index.groups[&GROUP];
        assert!(!group.is_live(LogIndex(2), 5, 1100));
        assert!(group.is_live(LogIndex(2), 7, 200));
        assert!(group.is_live(LogIndex(3), 5, 1200));
        assert_eq!(group.last(), LogIndex(6));
        carry(&mut index, 3, at(7, 300));
        carry(&mut index, 4, at(7, 400));
        assert!(!index.has_entries_in(5));
        assert_eq!(index.live_bytes(), BTreeMap::from([(6, 200), (7, 400)]));
    }

    #[test]
    fn a_mark_beyond_the_end_leaves_no_entries() {
        let mut index = Index::default();
        write(&mut index, 1..=4, 5, 1000);
        let mark =
            Record::SnapshotMark { group: GROUP, index: LogIndex(9), term: Term(2), data: b"" };
        index.apply(mark, at(5, 2000));
        assert!(!index.has_entries_in(5));
        assert_eq!(index.groups[&GROUP].last(), LogIndex(9));
        write(&mut index, 10..=10, 5, 3000);
        assert_eq!(index.groups[&GROUP].last(), LogIndex(10));
    }
}
