//! What the core asks its driver to do.

use onefold_types::{LogIndex, NodeId, Term};

use crate::{
    entry::{Entry, SnapshotMark},
    message::Message,
    persistence::Persist,
    status::Role,
};

/// Names one read request of the driver; the core only hands it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// The answer to [`crate::Input::ReadIndex`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadState {
    /// The read is linearizable once everything up to `index` is applied.
    Ready {
        /// The request.
        id: ReadId,
        /// What must be applied first.
        index: LogIndex,
    },
    /// This server stopped being leader before it could confirm; ask the new one.
    Failed {
        /// The request.
        id: ReadId,
    },
}

/// Who leads, as this server sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoleChange {
    /// What this server is.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader of that term, if known.
    pub leader: Option<NodeId>,
}

/// Everything that the core asked for since the last [`crate::Raft::take_output`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "the core asks for each thing once"]
pub struct Output {
    /// To be sent now, without waiting for `persist`. Losing one is allowed.
    pub messages: Vec<(NodeId, Message)>,
    /// To be made durable, in the order of [`Persist::sequence`].
    pub persist: Option<Persist>,
    /// To be applied in this order: committed, durable here, each handed out once in a run.
    pub committed: Vec<Entry>,
    /// Reads that may go on, or failed.
    pub read_states: Vec<ReadState>,
    /// Followers that need entries which the log no longer has, or that lost their state machine.
    /// The driver streams its state as of now (an older snapshot may not reach the follower's log)
    /// to the follower's driver, which stages it durably; then it steps
    /// [`crate::Input::SnapshotSent`]. One request stands for a follower until that answer.
    pub send_snapshot: Vec<NodeId>,
    /// Replace the state machine by the staged snapshot with this mark, durably, then step
    /// [`crate::Input::SnapshotInstalled`]; or [`crate::Input::SnapshotMissing`] if there is none.
    /// No committed entries are handed out in between. A crash in the middle must end, on the next
    /// start, either in the old state or in the finished installation (the staged data is durable,
    /// so it can be repeated): a server that forgot entries that it acknowledged must never vote.
    pub install_snapshot: Option<SnapshotMark>,
    /// Set when role, term or known leader differ from what was last reported.
    pub role_change: Option<RoleChange>,
}

impl Output {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
