//! Between the cores and the log: what is written, and what is read back.

use bytes::Bytes;
use onefold_log::{GroupState, RecoveredEntry, Write};
use onefold_raft::{Entry, HardState, Membership, Payload, Persist, SnapshotMark};
use onefold_types::GroupId;

use crate::HostError;
use crate::state::Logged;
use crate::state::records::{decode, encode};

/// The kinds of entries in the log. Never used again for others.
const EMPTY: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// What a write counts for beside its payload.
const WRITE_OVERHEAD_BYTES: usize = 64;

/// Adds the records of one write of a core, in their order.
pub(crate) fn writes(group: GroupId, persist: Persist, writes: &mut Vec<Write>) {
    if let Some(HardState { term, vote, commit }) = persist.hard_state {
        writes.push(Write::HardState { group, term, vote, commit });
    }
    if let Some(from) = persist.truncate_from {
        writes.push(Write::Truncate { group, from });
    }
    if let Some(SnapshotMark { index, term, membership }) = persist.snapshot {
        let data = encode(&membership);
        writes.push(Write::SnapshotMark { group, index, term, data });
    }
    for Entry { term, index, payload } in persist.entries {
        let (kind, payload) = match payload {
            Payload::Empty => (EMPTY, Bytes::new()),
            Payload::Command(command) => (COMMAND, command),
            Payload::Membership(membership) => (MEMBERSHIP, encode(&membership)),
        };
        writes.push(Write::Entry { group, term, index, kind, payload });
    }
}

/// What records count for while they are on their way to the disk.
pub(crate) fn bytes(writes: &[Write]) -> usize {
    let payload = |write: &Write| match write {
        Write::Entry { payload, .. } => payload.len(),
        Write::SnapshotMark { data, .. } => data.len(),
        Write::HardState { .. } | Write::Truncate { .. } | Write::RemoveGroup { .. } => 0,
    };
    writes.iter().map(|write| WRITE_OVERHEAD_BYTES + payload(write)).sum()
}

/// Translates what the log held of a group.
///
/// # Errors
/// When a record was written by a newer program.
pub(crate) fn stored(group: GroupId, state: GroupState) -> Result<Logged, HostError> {
    let hard_state = state.hard_state.unwrap_or_default();
    let hard_state =
        HardState { term: hard_state.term, vote: hard_state.vote, commit: hard_state.commit };
    let snapshot = state.snapshot.map(|mark| mark_of(group, mark)).transpose()?;
    let entries = state.entries.into_iter().map(|entry| entry_of(group, entry));
    Ok(Logged { hard_state, snapshot, entries: entries.collect::<Result<_, _>>()? })
}

fn mark_of(group: GroupId, stored: onefold_log::SnapshotMark) -> Result<SnapshotMark, HostError> {
    let onefold_log::SnapshotMark { index, term, data } = stored;
    let membership = decode(group, "a snapshot mark in the log", &data)?;
    Ok(SnapshotMark { index, term, membership })
}

fn entry_of(group: GroupId, stored: RecoveredEntry) -> Result<Entry, HostError> {
    let RecoveredEntry { term, index, kind, payload } = stored;
    let payload = match kind {
        EMPTY => Payload::Empty,
        COMMAND => Payload::Command(payload),
        MEMBERSHIP => {
            let membership: Membership = decode(group, "a membership in the log", &payload)?;
            Payload::Membership(Box::new(membership))
        }
        _ => {
            let reason = format!("entry {index} is of kind {kind}");
            return Err(HostError::Undecodable { group, what: "an entry in the log", reason });
        }
    };
    Ok(Entry { term, index, payload })
}

#[cfg(test)]
mod tests {
    use onefold_raft::PersistSequence;
    use onefold_types::{LogIndex, NodeId, Term};

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let membership = Membership::of_voters([NodeId(1), NodeId(2)]);
        let payloads = [
            Payload::Empty,
            Payload::Command(Bytes::from_static(b"add")),
            Payload::Membership(Box::new(membership.clone())),
        ];
        let entries: Vec<_> = (4..)
            .zip(payloads)
            .map(|(index, payload)| Entry { term: Term(2), index: LogIndex(index), payload })
            .collect();
        let hard_state = HardState { term: Term(2), vote: Some(NodeId(1)), commit: LogIndex(3) };
        let mark = SnapshotMark { index: LogIndex(3), term: Term(1), membership };
        let persist = Persist {
            sequence: PersistSequence(1),
            hard_state: Some(hard_state),
            truncate_from: Some(LogIndex(4)),
            snapshot: Some(mark.clone()),
            entries: entries.clone(),
        };
        let mut records = Vec::new();
        writes(GroupId::KV, persist, &mut records);
        let folder = tempfile::tempdir().expect("a folder for the test");
        let options = onefold_log::LogOptions::default();
        let (log, _) = onefold_log::Log::open(folder.path(), options).expect("a new log");
        log.append(records, Box::new(|_| {})).expect("the log is open");
        log.close();
        drop(log);
        let (_, mut found) = onefold_log::Log::open(folder.path(), options).expect("a good log");
        let state = found.remove(&GroupId::KV).expect("the group was written");
        let read = stored(GroupId::KV, state).expect("records of this format");
        assert_eq!(read.hard_state, hard_state);
        assert_eq!(read.snapshot, Some(mark));
        assert_eq!(read.entries, entries);
    }

    #[test]
    fn an_entry_of_an_unknown_kind_is_an_error() {
        let entry =
            RecoveredEntry { term: Term(1), index: LogIndex(1), kind: 9, payload: Bytes::new() };
        let state = GroupState { entries: vec![entry], ..GroupState::default() };
        stored(GroupId::KV, state).expect_err("kind 9 is of a newer program");
    }
}
