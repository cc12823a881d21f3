//! What is written to a log and what is read back when it is opened.

use std::collections::BTreeMap;

use bytes::Bytes;
use onefold_types::{GroupId, LogIndex, NodeId, Term};

/// One record. The log does not interpret terms, votes, kinds, payloads or data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Replaces the group's hard state (Raft paper, figure 2: persistent state).
    HardState {
        /// The group.
        group: GroupId,
        /// The latest term that the replica has seen.
        term: Term,
        /// Whom it voted for in that term.
        vote: Option<NodeId>,
        /// The highest index that it knows to be committed.
        commit: LogIndex,
    },
    /// Adds an entry. Everything at this index and after it that was there before is gone. The
    /// index lies after the group's snapshot mark and at most one after its last entry.
    Entry {
        /// The group.
        group: GroupId,
        /// The term in which the leader received the entry.
        term: Term,
        /// The entry's index.
        index: LogIndex,
        /// What the payload is, for the reader.
        kind: u8,
        /// The entry's content.
        payload: Bytes,
    },
    /// Removes the entries from this index on.
    Truncate {
        /// The group.
        group: GroupId,
        /// The first index that is gone.
        from: LogIndex,
    },
    /// The entries up to and including this index are gone: their effects are durable elsewhere.
    /// Entries after it stay; who installs a snapshot that conflicts with them writes a
    /// [`Write::Truncate`] in the same append. A mark before the current one is ignored.
    SnapshotMark {
        /// The group.
        group: GroupId,
        /// The last index that the snapshot covers.
        index: LogIndex,
        /// The term of the entry at that index.
        term: Term,
        /// What the reader must know about that point, such as the membership.
        data: Bytes,
    },
    /// Forgets everything of the group.
    RemoveGroup {
        /// The group.
        group: GroupId,
    },
}

impl Write {
    /// The group that the record belongs to.
    pub fn group(&self) -> GroupId {
        match self {
            Self::HardState { group, .. }
            | Self::Entry { group, .. }
            | Self::Truncate { group, .. }
            | Self::SnapshotMark { group, .. }
            | Self::RemoveGroup { group } => *group,
        }
    }
}

/// The hard state of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term that the replica has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
    /// The highest index that it knew to be committed.
    pub commit: LogIndex,
}

/// The point up to which a group's entries are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMark {
    /// The last index that is gone.
    pub index: LogIndex,
    /// The term of the entry at that index.
    pub term: Term,
    /// What was written with the mark.
    pub data: Bytes,
}

/// An entry that was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredEntry {
    /// The term in which the leader received the entry.
    pub term: Term,
    /// The entry's index.
    pub index: LogIndex,
    /// What the payload is, for the reader.
    pub kind: u8,
    /// The entry's content.
    pub payload: Bytes,
}

/// What the log holds of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    /// The newest hard state, if one was written.
    pub hard_state: Option<HardState>,
    /// The newest snapshot mark, if one was written.
    pub snapshot: Option<SnapshotMark>,
    /// The entries after the mark (from index 1 without one), contiguous.
    pub entries: Vec<RecoveredEntry>,
}

/// What a log holds, by group.
pub type Recovered = BTreeMap<GroupId, GroupState>;
