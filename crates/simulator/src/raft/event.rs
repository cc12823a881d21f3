//! What can happen next in the world, and how it is told.

use std::fmt;

use onefold_raft::{Body, Message, Payload, PersistSequence, SnapshotMark};
use onefold_types::{LogIndex, NodeId};

use super::machine::Snapshot;

/// Numbers the lives of a node: what was begun in an earlier one has no effect in the next.
pub(crate) type Life = u64;

/// One event in the queue.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Event {
    /// A node's clock ticks.
    Tick { node: NodeId, life: Life },
    /// A message arrives.
    Deliver { from: NodeId, to: NodeId, message: Message },
    /// A write and all before it have reached the disk.
    Written { node: NodeId, life: Life, sequence: PersistSequence },
    /// Entries up to here have been applied.
    Applied { node: NodeId, life: Life, index: LogIndex },
    /// The stream of a snapshot ends, well or not.
    SnapshotArrives { from: NodeId, life: Life, to: NodeId, snapshot: Snapshot },
    /// The sender learns how it went.
    SnapshotSent { node: NodeId, life: Life, to: NodeId, delivered: Option<SnapshotMark> },
    /// A staged snapshot has become the state.
    Installed { node: NodeId, life: Life, snapshot: Snapshot },
    /// A crashed node starts.
    Restart { node: NodeId, life: Life },
    /// A node is told that another is down, or up in a life.
    Hint { node: NodeId, about: NodeId, life: Life, is_up: bool },
    /// A new leader meets its fate while it still commits what it inherited (figure 8).
    Ambush { node: NodeId, life: Life },
    /// A client does something.
    Client,
    /// Something breaks.
    Fault,
}

impl Event {
    /// The node whose running process this happens to.
    pub(crate) fn process(&self) -> Option<NodeId> {
        match self {
            Self::Tick { node, .. }
            | Self::Written { node, .. }
            | Self::Applied { node, .. }
            | Self::SnapshotSent { node, .. }
            | Self::Installed { node, .. }
            | Self::Hint { node, .. }
            | Self::Deliver { to: node, .. } => Some(*node),
            Self::SnapshotArrives { .. }
            | Self::Restart { .. }
            | Self::Ambush { .. }
            | Self::Client
            | Self::Fault => None,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tick { node, .. } => write!(f, "n{node} ticks"),
            Self::Deliver { from, to, message } => {
                write!(f, "n{to} <- n{from}  {}", Told(message))
            }
            Self::Written { node, sequence, .. } => {
                write!(f, "n{node} disk wrote through #{}", sequence.0)
            }
            Self::Applied { node, index, .. } => write!(f, "n{node} applied {index}"),
            Self::SnapshotArrives { from, to, snapshot, .. } => {
                write!(f, "n{to} <= n{from}  snapshot {}", snapshot.mark.index)
            }
            Self::SnapshotSent { node, to, delivered, .. } => {
                let how = if delivered.is_some() { "delivered" } else { "failed" };
                write!(f, "n{node} snapshot to n{to} {how}")
            }
            Self::Installed { node, snapshot, .. } => {
                write!(f, "n{node} installed snapshot {}", snapshot.mark.index)
            }
            Self::Restart { node, .. } => write!(f, "n{node} restarts"),
            Self::Hint { node, about, is_up, .. } => {
                write!(f, "n{node} is told that n{about} is {}", if *is_up { "up" } else { "down" })
            }
            Self::Ambush { node, .. } => write!(f, "n{node} is ambushed"),
            Self::Client => f.write_str("client"),
            Self::Fault => f.write_str("fault"),
        }
    }
}

/// A message in one short line.
struct Told<'a>(&'a Message);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "term {} ", self.0.term)?;
        match &self.0.body {
            Body::Append { prev_index, prev_term, entries, commit } => {
                write!(f, "Append after {prev_index}/{prev_term} [")?;
                for entry in entries {
                    write!(f, " {}/{}", entry.index, entry.term)?;
                    if let Payload::Membership(membership) = &entry.payload {
                        write!(f, " {membership:?}")?;
                    }
                }
                write!(f, " ] commit {commit}")
            }
            Body::InstallSnapshot { mark } => {
                write!(f, "InstallSnapshot {}/{}", mark.index, mark.term)
            }
            other => write!(f, "{other:?}"),
        }
    }
}
