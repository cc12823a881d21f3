//! What the log holds and what must survive a crash.

use bytes::Bytes;
use onefold_types::{LogIndex, NodeId, Term};
use serde::{Deserialize, Serialize};

use crate::membership::Membership;

/// Counted for every entry beside its payload, so that empty entries are not free.
const ENTRY_OVERHEAD_BYTES: usize = 32;

/// One entry of the replicated log (§5.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// The term in which a leader created it.
    pub term: Term,
    /// Its place in the log.
    pub index: LogIndex,
    /// What it carries.
    pub payload: Payload,
}

impl Entry {
    /// Bytes that it counts for in every limit of this crate: its payload and a small constant.
    pub fn bytes(&self) -> usize {
        let payload = match &self.payload {
            Payload::Empty => 0,
            Payload::Command(command) => command.len(),
            Payload::Membership(membership) => membership.bytes(),
        };
        ENTRY_OVERHEAD_BYTES + payload
    }
}

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Payload {
    /// Nothing: the entry with which a new leader learns what is committed (§8).
    Empty,
    /// A command for the state machine.
    Command(Bytes),
    /// The members of the group from this entry on. A server uses the latest one in its log,
    /// committed or not (dissertation, section 4.1).
    /// Boxed because it is rare and large.
    Membership(Box<Membership>),
}

/// The state that must be durable before a server answers (§5.1, figure 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HardState {
    /// The latest term that the server has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
    /// A lower bound of what is committed. Raft does not need it; it spares a restarted server the
    /// wait for a leader before it applies what it has. It never causes a write of its own.
    pub commit: LogIndex,
}

/// What a snapshot covers: everything up to and including `index` (§7).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SnapshotMark {
    /// The last entry that it replaces.
    pub index: LogIndex,
    /// The term of that entry.
    pub term: Term,
    /// The members of the group as of that entry.
    pub membership: Membership,
}

impl SnapshotMark {
    /// The mark from which a new group starts: an empty log and its first members.
    pub fn initial(membership: Membership) -> Self {
        Self { index: LogIndex::ZERO, term: Term::ZERO, membership }
    }
}
