//! Who a process says that it is when a connection opens.

use std::collections::BTreeSet;

use onefold_types::{ClusterId, NodeId};
use tokio::sync::watch;

/// What a process is known as. A command-line client has neither part; a node that is being formed
/// may have no cluster yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The cluster that the process belongs to.
    pub cluster: Option<ClusterId>,
    /// The node that the process is.
    pub node: Option<NodeId>,
}

impl Identity {
    /// The identity of a process that is no node.
    pub const CLIENT: Self = Self { cluster: None, node: None };

    /// The identity of a node of a cluster.
    pub const fn node(cluster: ClusterId, node: NodeId) -> Self {
        Self { cluster: Some(cluster), node: Some(node) }
    }
}

/// The identity of this process, shared by its [`Server`](crate::Server) and its
/// [`Peers`](crate::Peers), and settable while they run: a node learns its cluster when it is
/// formed, and whom the cluster has removed while it runs.
///
/// A change makes `Peers` open new connections under the new identity (calls in flight finish on
/// the old ones), and the server close those that it would now refuse.
#[derive(Debug)]
pub struct IdentityCell {
    current: watch::Sender<Known>,
    process: u64,
}

/// Who this process is, and whom it knows to be no member any more.
#[derive(Debug, Default)]
pub(crate) struct Known {
    identity: Identity,
    removed: BTreeSet<NodeId>,
}

impl IdentityCell {
    /// A cell with a first identity. Draws the random number that tells this process from another
    /// one that claims the same node.
    pub fn new(identity: Identity) -> Self {
        let known = Known { identity, removed: BTreeSet::new() };
        Self { current: watch::Sender::new(known), process: rand::random() }
    }

    /// The identity now.
    pub fn get(&self) -> Identity {
        self.current.borrow().identity
    }

    /// Replaces the identity. Setting an equal one changes nothing.
    pub fn set(&self, identity: Identity) {
        self.current.send_if_modified(|known| {
            let changed = known.identity != identity;
            known.identity = identity;
            changed
        });
    }

    /// Says which nodes were removed from the cluster: numbers are never given again, so whoever
    /// comes with one runs on a data folder whose votes and copies count for nothing any more. Such
    /// a node is refused in both directions, and the connections that it has are closed.
    pub fn set_removed(&self, removed: BTreeSet<NodeId>) {
        self.current.send_if_modified(|known| {
            let changed = known.removed != removed;
            known.removed = removed;
            changed
        });
    }

    /// Whether a node was removed from the cluster.
    pub fn is_removed(&self, node: NodeId) -> bool {
        self.current.borrow().removed.contains(&node)
    }

    /// The number that tells this process from another one that claims the same node.
    pub(crate) fn process(&self) -> u64 {
        self.process
    }

    /// A receiver that sees each change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Known> {
        self.current.subscribe()
    }
}
