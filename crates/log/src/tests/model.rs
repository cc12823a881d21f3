//! What a log should hold, the simplest way.

use std::ops::RangeInclusive;

use bytes::Bytes;
use onefold_types::{GroupId, LogIndex, NodeId, Term};
use proptest::prelude::*;

use crate::{GroupState, HardState, Recovered, RecoveredEntry, SnapshotMark, Write};

const GROUPS: RangeInclusive<u64> = 1..=4;

/// Applies an append to what a log should hold.
pub(super) fn apply(model: &mut Recovered, writes: &[Write]) {
    for write in writes {
        let state = model.entry(write.group()).or_default();
        match write.clone() {
            Write::HardState { term, vote, commit, .. } => {
                state.hard_state = Some(HardState { term, vote, commit });
            }
            Write::Entry { term, index, kind, payload, .. } => {
                state.entries.retain(|entry| entry.index < index);
                state.entries.push(RecoveredEntry { term, index, kind, payload });
            }
            Write::Truncate { from, .. } => state.entries.retain(|entry| entry.index < from),
            Write::SnapshotMark { index, term, data, .. } => {
                if state.snapshot.as_ref().is_none_or(|mark| mark.index <= index) {
                    state.snapshot = Some(SnapshotMark { index, term, data });
                    state.entries.retain(|entry| entry.index > index);
                }
            }
            Write::RemoveGroup { group } => drop(model.remove(&group)),
        }
    }
    model.retain(|_, state| *state != GroupState::default());
}

pub(super) fn mark_of(state: &GroupState) -> u64 {
    state.snapshot.as_ref().map_or(0, |mark| mark.index.get())
}

pub(super) fn last_of(state: &GroupState) -> u64 {
    state.entries.last().map_or(mark_of(state), |entry| entry.index.get())
}

/// A write that does not yet know what the log holds.
#[derive(Clone, Debug)]
pub(super) struct Sketch {
    group: u64,
    kind: u8,
    /// Where among the possible indexes, in 1/256.
    position: u8,
    payload_bytes: usize,
    number: u64,
}

pub(super) fn sketches() -> impl Strategy<Value = Vec<Sketch>> {
    let sketch = (GROUPS, 0..40_u8, any::<u8>(), 0..300_usize, any::<u64>()).prop_map(
        |(group, kind, position, payload_bytes, number)| {
            // Group 1 is idle most of the time, so that its entries get old.
            let group = if group == 1 && number % 8 != 0 { 2 } else { group };
            Sketch { group, kind, position, payload_bytes, number }
        },
    );
    prop::collection::vec(sketch, 1..6)
}

/// Turns sketches into writes that fit what the log holds, one after the other.
pub(super) fn writes(model: &Recovered, sketches: &[Sketch]) -> Vec<Write> {
    let mut model = model.clone();
    sketches
        .iter()
        .map(|sketch| {
            let group = GroupId(sketch.group);
            let state = model.get(&group).cloned().unwrap_or_default();
            let write = sketch.write(group, mark_of(&state), last_of(&state));
            apply(&mut model, std::slice::from_ref(&write));
            write
        })
        .collect()
}

impl Sketch {
    fn write(&self, group: GroupId, mark: u64, last: u64) -> Write {
        let term = Term(self.number % 100);
        let between = |first: u64, last: u64| {
            LogIndex(first + (last - first) * u64::from(self.position) / 256)
        };
        let payload: Vec<u8> =
            (0..self.payload_bytes).map(|at| self.number as u8 ^ at as u8).collect();
        let payload = Bytes::from(payload);
        let entry =
            |index| Write::Entry { group, term, index, kind: self.kind, payload: payload.clone() };
        match self.kind {
            0 => Write::RemoveGroup { group },
            1..=2 => Write::Truncate { group, from: between(mark + 1, last + 2) },
            3..=4 => entry(between(mark + 1, last + 1)),
            5..=9 => {
                Write::SnapshotMark { group, index: between(mark, last + 1), term, data: payload }
            }
            10 => Write::SnapshotMark { group, index: LogIndex(last + 10), term, data: payload },
            11..=15 => Write::HardState {
                group,
                term,
                vote: Some(NodeId(self.number % 3)).filter(|vote| vote.get() > 0),
                commit: between(mark, last + 1),
            },
            _ => entry(LogIndex(last + 1)),
        }
    }
}
