//! Records: what the body of a batch consists of.

use bytes::Bytes;
use onefold_types::{GroupId, LogIndex, NodeId, Term};

use super::Reader;
use crate::types::{HardState, SnapshotMark, Write};

const HARD_STATE: u8 = 1;
const ENTRY: u8 = 2;
const TRUNCATE: u8 = 3;
const SNAPSHOT_MARK: u8 = 4;
const REMOVE_GROUP: u8 = 5;
const CARRIED_ENTRY: u8 = 6;

/// Type and group, which every record begins with.
const HEAD_BYTES: usize = 1 + 8;
/// Bytes of an entry's record beside its payload.
const ENTRY_OVERHEAD_BYTES: usize = HEAD_BYTES + 8 + 8 + 1 + 4;
const HARD_STATE_BYTES: usize = HEAD_BYTES + 8 + 1 + 8 + 8;
const MARK_OVERHEAD_BYTES: usize = HEAD_BYTES + 8 + 8 + 4;

/// One record as it stands in a batch; contents are borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    HardState {
        group: GroupId,
        state: HardState,
    },
    Entry {
        group: GroupId,
        entry: EntryRecord<'a>,
    },
    Truncate {
        group: GroupId,
        from: LogIndex,
    },
    SnapshotMark {
        group: GroupId,
        index: LogIndex,
        term: Term,
        data: &'a [u8],
    },
    RemoveGroup {
        group: GroupId,
    },
    /// An entry that is written once more so that its old segment can go. Unlike an entry it
    /// removes nothing after it.
    CarriedEntry {
        group: GroupId,
        entry: EntryRecord<'a>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryRecord<'a> {
    pub(crate) term: Term,
    pub(crate) index: LogIndex,
    pub(crate) kind: u8,
    pub(crate) payload: &'a [u8],
}

/// Bytes that a write takes in the body of a batch.
pub(crate) fn write_bytes(write: &Write) -> usize {
    Record::of_write(write).bytes()
}

impl<'a> Record<'a> {
    pub(crate) fn of_write(write: &'a Write) -> Self {
        match write {
            Write::HardState { group, term, vote, commit } => Self::HardState {
                group: *group,
                state: HardState { term: *term, vote: *vote, commit: *commit },
            },
            Write::Entry { group, term, index, kind, payload } => Self::Entry {
                group: *group,
                entry: EntryRecord { term: *term, index: *index, kind: *kind, payload },
            },
            Write::Truncate { group, from } => Self::Truncate { group: *group, from: *from },
            Write::SnapshotMark { group, index, term, data } => {
                Self::SnapshotMark { group: *group, index: *index, term: *term, data }
            }
            Write::RemoveGroup { group } => Self::RemoveGroup { group: *group },
        }
    }

    pub(crate) fn of_mark(group: GroupId, mark: &'a SnapshotMark) -> Self {
        Self::SnapshotMark { group, index: mark.index, term: mark.term, data: &mark.data }
    }

    /// Bytes that the record takes in the body of a batch.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::HardState { .. } => HARD_STATE_BYTES,
            Self::Entry { entry, .. } | Self::CarriedEntry { entry, .. } => entry.bytes(),
            Self::Truncate { .. } => HEAD_BYTES + 8,
            Self::SnapshotMark { data, .. } => MARK_OVERHEAD_BYTES + data.len(),
            Self::RemoveGroup { .. } => HEAD_BYTES,
        }
    }

    pub(crate) fn group(&self) -> GroupId {
        match self {
            Self::HardState { group, .. }
            | Self::Entry { group, .. }
            | Self::Truncate { group, .. }
            | Self::SnapshotMark { group, .. }
            | Self::RemoveGroup { group }
            | Self::CarriedEntry { group, .. } => *group,
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut head = |kind: u8| {
            out.push(kind);
            out.extend_from_slice(&self.group().get().to_le_bytes());
        };
        match self {
            Self::HardState { state, .. } => {
                head(HARD_STATE);
                out.extend_from_slice(&state.term.get().to_le_bytes());
                out.push(u8::from(state.vote.is_some()));
                out.extend_from_slice(&state.vote.unwrap_or_default().get().to_le_bytes());
                out.extend_from_slice(&state.commit.get().to_le_bytes());
            }
            Self::Entry { entry, .. } => {
                head(ENTRY);
                entry.encode(out);
            }
            Self::CarriedEntry { entry, .. } => {
                head(CARRIED_ENTRY);
                entry.encode(out);
            }
            Self::Truncate { from, .. } => {
                head(TRUNCATE);
                out.extend_from_slice(&from.get().to_le_bytes());
            }
            Self::SnapshotMark { index, term, data, .. } => {
                head(SNAPSHOT_MARK);
                out.extend_from_slice(&index.get().to_le_bytes());
                out.extend_from_slice(&term.get().to_le_bytes());
                encode_bytes(data, out);
            }
            Self::RemoveGroup { .. } => head(REMOVE_GROUP),
        }
    }

    /// Takes a record off the front of a batch's body; nothing if it is not one.
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Option<Self> {
        let kind = reader.u8()?;
        let group = GroupId(reader.u64()?);
        Some(match kind {
            HARD_STATE => {
                let term = Term(reader.u64()?);
                let voted = reader.u8()?;
                let vote = NodeId(reader.u64()?);
                let vote = match voted {
                    0 => None,
                    1 => Some(vote),
                    _ => return None,
                };
                let commit = LogIndex(reader.u64()?);
                Self::HardState { group, state: HardState { term, vote, commit } }
            }
            ENTRY => Self::Entry { group, entry: EntryRecord::decode(reader)? },
            CARRIED_ENTRY => Self::CarriedEntry { group, entry: EntryRecord::decode(reader)? },
            TRUNCATE => Self::Truncate { group, from: LogIndex(reader.u64()?) },
            SNAPSHOT_MARK => Self::SnapshotMark {
                group,
                index: index_before_the_last(reader)?,
                term: Term(reader.u64()?),
                data: decode_bytes(reader)?,
            },
            REMOVE_GROUP => Self::RemoveGroup { group },
            _ => return None,
        })
    }
}

impl<'a> EntryRecord<'a> {
    /// Bytes that the record takes.
    pub(crate) fn bytes(&self) -> usize {
        ENTRY_OVERHEAD_BYTES + self.payload.len()
    }

    pub(crate) fn owned_payload(&self) -> Bytes {
        Bytes::copy_from_slice(self.payload)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.term.get().to_le_bytes());
        out.extend_from_slice(&self.index.get().to_le_bytes());
        out.push(self.kind);
        encode_bytes(self.payload, out);
    }

    fn decode(reader: &mut Reader<'a>) -> Option<Self> {
        Some(Self {
            term: Term(reader.u64()?),
            index: index_before_the_last(reader).filter(|index| *index > LogIndex::ZERO)?,
            kind: reader.u8()?,
            payload: decode_bytes(reader)?,
        })
    }
}

/// An index after which there is another one: no log has the last of them.
fn index_before_the_last(reader: &mut Reader<'_>) -> Option<LogIndex> {
    reader.u64().filter(|index| *index < u64::MAX).map(LogIndex)
}

fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(bytes.len()).expect("an append is smaller than 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

fn decode_bytes<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let length = reader.u32()?;
    reader.take(usize::try_from(length).ok()?)
}
