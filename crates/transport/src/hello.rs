//! The handshake: each side says who it is, and refuses whom it must not talk to.

use onefold_types::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::frame::VERSION;
use crate::{Class, IdentityCell};

/// Most bytes of a hello or a refusal: nothing larger is read from a stranger.
pub(crate) const HELLO_BYTES_MAX: usize = 4 << 10;

/// The first frame of each side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) node: Option<NodeId>,
    /// Tells a process from another one that claims the same node.
    pub(crate) process: u64,
    /// Whom the dialler wants to reach; the listener repeats it.
    pub(crate) expected: Option<NodeId>,
    /// What the connection is for; the listener repeats it.
    pub(crate) class: Class,
}

/// Why two processes must not talk. Phrased so that it reads the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Refusal {
    /// The two belong to different clusters.
    #[error(
        "the node there belongs to cluster {listener}, the process that connected to cluster \
         {dialler}; correct the address, or give the node the data folder of its own cluster"
    )]
    OtherCluster {
        /// The cluster of the process that connected.
        dialler: ClusterId,
        /// The cluster of the process that listens.
        listener: ClusterId,
    },
    /// The listener is not the node that the dialler wants.
    #[error(
        "{}, node {expected} was expected there; correct the address of node {expected}",
        match actual {
            Some(actual) => format!("node {actual} listens there"),
            None => "a process that is no node yet listens there".to_owned(),
        }
    )]
    WrongNode {
        /// The node that the dialler wants.
        expected: NodeId,
        /// The node that listens; none while it has not been formed.
        actual: Option<NodeId>,
    },
    /// Two processes claim to be one node.
    #[error(
        "two running processes claim to be node {node}; stop the one whose data folder is a copy"
    )]
    DuplicateNode {
        /// The node.
        node: NodeId,
    },
    /// The listener has as many connections as it may.
    #[error("all {connections_max} connections are taken; close some or try again later")]
    Full {
        /// The listener's limit.
        connections_max: u64,
    },
    /// The two speak different versions of the protocol.
    #[error(
        "the process that connected speaks version {dialler} of the peer protocol, the one that \
         listens version {listener}; upgrade the older one"
    )]
    OtherVersion {
        /// The version of the process that connected.
        dialler: u16,
        /// The version of the process that listens.
        listener: u16,
    },
    /// One of the two was removed from the cluster.
    #[error(
        "node {node} was removed from the cluster and its number is never used again; stop that \
         process, and let the machine join as a new node on an empty data folder"
    )]
    Removed {
        /// The node.
        node: NodeId,
    },
    /// A reason that this version does not know.
    #[error("the node there refused the connection for a reason unknown to this version ({0})")]
    Unknown(String),
}

impl Refusal {
    /// Every [`kind`](Self::kind).
    pub const KINDS: [&'static str; 7] = [
        "other_cluster",
        "wrong_node",
        "duplicate_node",
        "full",
        "other_version",
        "removed_node",
        "unknown",
    ];

    /// A short name of the rule, for metrics.
    pub const fn kind(&self) -> &'static str {
        Self::KINDS[match self {
            Self::OtherCluster { .. } => 0,
            Self::WrongNode { .. } => 1,
            Self::DuplicateNode { .. } => 2,
            Self::Full { .. } => 3,
            Self::OtherVersion { .. } => 4,
            Self::Removed { .. } => 5,
            Self::Unknown(_) => 6,
        }]
    }

    /// The refusal that a dialler concludes from a listener's frame of another version.
    pub(crate) fn version_of_listener(listener: u16) -> Self {
        Self::OtherVersion { dialler: VERSION, listener }
    }
}

/// Whether this process may talk to one that said `theirs`. `expected` is the node that the dialler
/// wants; `own_dials` says which of the two opened the connection.
pub(crate) fn check(
    own: &IdentityCell,
    theirs: &Hello,
    expected: Option<NodeId>,
    own_dials: bool,
) -> Result<(), Refusal> {
    let identity = own.get();
    if let (Some(ours), Some(other)) = (identity.cluster, theirs.cluster)
        && ours != other
    {
        let (dialler, listener) = if own_dials { (ours, other) } else { (other, ours) };
        return Err(Refusal::OtherCluster { dialler, listener });
    }
    let listener = if own_dials { theirs.node } else { identity.node };
    if let Some(expected) = expected
        && listener != Some(expected)
    {
        return Err(Refusal::WrongNode { expected, actual: listener });
    }
    if let Some(node) = identity.node
        && theirs.node == Some(node)
        && theirs.process != own.process()
    {
        return Err(Refusal::DuplicateNode { node });
    }
    match theirs.node {
        Some(node) if own.is_removed(node) => Err(Refusal::Removed { node }),
        _ => Ok(()),
    }
}
