//! The cluster's nodes: adding, draining and removing them.

use onefold_transport::methods;
use onefold_types::{ClusterId, GroupId, NodeId};
use serde::{Deserialize, Serialize};

methods! {
    /// Records that a node may come, and what it replaces.
    328 pub AddNode "node.add" NewNode => Invitation;
    /// Begins to remove a node. It is removed when [`ListNodes`] says so.
    329 pub RemoveNode "node.remove" NodeRemoval => ();
    /// Begins to drain a node, or takes that back.
    330 pub DrainNode "node.drain" NodeDrain => ();
    /// Lists every node that the cluster knows, removed ones included.
    331 pub ListNodes "node.list" () => Vec<NodeInfo>;
}

/// What a node is to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It may come, and has not yet.
    Invited,
    /// It came, and does not have every group's data yet.
    Joining,
    /// It does everything that nodes do.
    Active,
    /// It leads nothing and takes no new chunks; its chunks are copied elsewhere. It still votes.
    Draining,
    /// As draining, and then it leaves every group.
    Removing,
    /// It left for good. Its number is never given again.
    Removed,
}

impl NodeState {
    /// Whether the node is in the cluster now, coming and going ones included.
    pub const fn is_member(self) -> bool {
        matches!(self, Self::Joining | Self::Active | Self::Draining | Self::Removing)
    }

    /// Whether the node is in the cluster and is to stay.
    pub const fn is_staying(self) -> bool {
        matches!(self, Self::Joining | Self::Active | Self::Draining)
    }

    /// What it is called in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invited => "invited",
            Self::Joining => "joining",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Removing => "removing",
            Self::Removed => "removed",
        }
    }
}

/// A node that may come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNode {
    /// The address that it will be reached at: `HOST:PORT`.
    pub address: String,
    /// The node whose place it takes.
    pub replaces: Option<NodeId>,
}

/// What the person who starts the new node has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The cluster.
    pub cluster: ClusterId,
    /// The number that the node will have.
    pub node: NodeId,
    /// Members that it can join through.
    pub join: Vec<String>,
}

/// Which node shall go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRemoval {
    /// The node.
    pub node: NodeId,
    /// Give up chunks that only it holds, instead of waiting until they are copied.
    pub force: bool,
}

/// Which node shall be drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDrain {
    /// The node.
    pub node: NodeId,
    /// Make a draining node an active one again.
    pub undo: bool,
}

/// What a node is in one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seat {
    /// It votes.
    Voter,
    /// It gets the log, and votes once it has caught up.
    Joining,
    /// It gets the log.
    Learner,
}

/// A node's seat in one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSeat {
    /// The group.
    pub group: GroupId,
    /// What the node is in it.
    pub seat: Seat,
    /// Whether it leads the group.
    pub leads: bool,
    /// Committed entries that it has not applied yet; none when it does not answer.
    pub lag: Option<u64>,
}

/// One node as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The node.
    pub node: NodeId,
    /// Where it is reached.
    pub address: String,
    /// What it is to the cluster.
    pub state: NodeState,
    /// The node whose place it takes or took.
    pub replaces: Option<NodeId>,
    /// Whether it answers.
    pub up: bool,
    /// Its seats, by ascending group.
    pub groups: Vec<GroupSeat>,
    /// Chunks of which it still holds a replica that is needed; only for nodes that are drained or
    /// removed, and none when the file system does not answer.
    pub chunks_left: Option<u64>,
}

impl NodeInfo {
    /// How many groups it leads.
    pub fn leads(&self) -> usize {
        self.groups.iter().filter(|seat| seat.leads).count()
    }
}
