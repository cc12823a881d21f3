//! Who a process says that it is when a connection opens.

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
/// formed.
///
/// A change makes `Peers` open new connections under the new identity (calls in flight finish on
/// the old ones), and the server close those that the new identity no longer admits.
#[derive(Debug)]
pub struct IdentityCell {
    current: watch::Sender<Identity>,
    process: u64,
}

impl IdentityCell {
    /// A cell with a first identity. Draws the random number that tells this process from another
    /// one that claims the same node.
    pub fn new(identity: Identity) -> Self {
        Self { current: watch::Sender::new(identity), process: rand::random() }
    }

    /// The identity now.
    pub fn get(&self) -> Identity {
        *self.current.borrow()
    }

    /// Replaces the identity. Setting an equal one changes nothing.
    pub fn set(&self, identity: Identity) {
        self.current.send_if_modified(|current| {
            let changed = *current != identity;
            *current = identity;
            changed
        });
    }

    /// The number that tells this process from another one that claims the same node.
    pub(crate) fn process(&self) -> u64 {
        self.process
    }

    /// A receiver that sees each change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Identity> {
        self.current.subscribe()
    }
}
