//! Status of nodes and of the cluster.

use std::collections::{BTreeMap, BTreeSet};

use onefold_files::Usage;
use onefold_transport::methods;
use onefold_types::{ClusterId, GroupId, LogIndex, NodeId, Term};
use serde::{Deserialize, Serialize};

methods! {
    /// Asks a node for its own status.
    321 pub GetNodeStatus "node.status" () => NodeStatus;
    /// Asks any node for the status of all.
    322 pub GetClusterStatus "node.cluster_status" () => ClusterStatus;
}

/// The part that a node plays in a Raft group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It orders the group's commands.
    Leader,
    /// It follows a leader.
    Follower,
    /// It asks for votes.
    Candidate,
}

/// One node's replica of a Raft group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupReport {
    /// The group.
    pub group: GroupId,
    /// The node's part in it.
    pub role: Role,
    /// The node's term.
    pub term: Term,
    /// Whom the node follows.
    pub leader: Option<NodeId>,
    /// The last index known to be committed.
    pub commit: LogIndex,
    /// The last index applied.
    pub applied: LogIndex,
    /// Who belongs to the group, as far as the node knows.
    pub members: GroupMembers,
}

/// Who belongs to a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMembers {
    /// Who votes; while the voters change, who will.
    pub voters: BTreeSet<NodeId>,
    /// While the voters change, who voted before.
    pub outgoing: BTreeSet<NodeId>,
    /// Who only gets the log.
    pub learners: BTreeSet<NodeId>,
    /// The learners that will vote once they have caught up.
    pub joining: BTreeSet<NodeId>,
}

impl GroupMembers {
    /// Whether the node belongs to the group in any way.
    pub fn contains(&self, node: NodeId) -> bool {
        self.voters.contains(&node)
            || self.outgoing.contains(&node)
            || self.learners.contains(&node)
    }
}

/// How one node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// The version of the program.
    pub version: String,
    /// Seconds since the process started.
    pub uptime_s: u64,
    /// Where etcd clients connect.
    pub etcd: String,
    /// Where S3 clients connect.
    pub s3: String,
    /// Where health and metrics are served.
    pub http: String,
    /// Its replicas.
    pub groups: Vec<GroupReport>,
    /// Where clients of keyspaces with a port connect.
    pub client_ports: Vec<ClientPort>,
    /// The groups of the keyspaces whose etcd clients it serves, with a port of their own or without.
    pub serving: BTreeSet<GroupId>,
    /// Groups whose leader a person chose through this node lately: it is left where it is.
    pub held: BTreeSet<GroupId>,
    /// Bytes of the write-ahead log.
    pub log_bytes: u64,
    /// Bytes of the ordered table.
    pub table_bytes: u64,
}

/// A keyspace's own port on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientPort {
    /// The keyspace's group.
    pub group: GroupId,
    /// Where the node listens for it, or would.
    pub address: String,
    /// Why it does not listen.
    pub problem: Option<String>,
}

/// One node as the answering node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The node.
    pub node: NodeId,
    /// Its peer address.
    pub address: String,
    /// How it is, when it answers.
    pub status: Option<NodeStatus>,
    /// Why there is no status.
    pub error: Option<String>,
}

/// How the cluster is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster.
    pub cluster: ClusterId,
    /// Who answered.
    pub answered_by: NodeId,
    /// Every member.
    pub nodes: Vec<NodeReport>,
    /// What the file system holds; none when its namespace has no leader.
    pub files: Option<Usage>,
    /// The names of the keyspaces, by their groups.
    pub keyspaces: BTreeMap<GroupId, String>,
}

impl ClusterStatus {
    /// The leader of a group: what the replica with the highest term says.
    pub fn leader(&self, group: GroupId) -> Option<NodeId> {
        let replicas = self.nodes.iter().filter_map(|node| node.status.as_ref());
        let reports = replicas.flat_map(|status| &status.groups);
        reports
            .filter(|report| report.group == group && report.leader.is_some())
            .max_by_key(|report| report.term)
            .and_then(|report| report.leader)
    }

    /// What a group is called in tables.
    pub fn group_name(&self, group: GroupId) -> String {
        self.keyspaces.get(&group).cloned().unwrap_or_else(|| group_name(group))
    }

    /// Groups that some node reports, ascending.
    pub fn groups(&self) -> Vec<GroupId> {
        let replicas = self.nodes.iter().filter_map(|node| node.status.as_ref());
        let mut groups: Vec<GroupId> =
            replicas.flat_map(|status| status.groups.iter().map(|report| report.group)).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}

/// What a group is called in tables.
pub fn group_name(group: GroupId) -> String {
    match group {
        GroupId::SYSTEM => "system".to_owned(),
        GroupId::KV => "kv".to_owned(),
        GroupId::NAMESPACE => "files".to_owned(),
        other => format!("group {other}"),
    }
}
