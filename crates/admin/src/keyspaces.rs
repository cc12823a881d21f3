//! Keyspaces: many independent key-value stores in one cluster.

use std::collections::BTreeSet;

use onefold_transport::methods;
use onefold_types::{GroupId, NodeId};
use serde::{Deserialize, Serialize};

methods! {
    /// Creates a keyspace; answers once it serves, or when it did not within some seconds.
    333 pub CreateKeyspace "keyspace.create" NewKeyspace => KeyspaceInfo;
    /// Deletes a keyspace with all that is in it; answers as soon as that is decided.
    334 pub DeleteKeyspace "keyspace.delete" String => ();
    /// Lists the keyspaces with what the nodes say about them.
    335 pub ListKeyspaces "keyspace.list" () => Vec<KeyspaceInfo>;
    /// The group of a keyspace that serves, by its name.
    336 pub FindKeyspace "keyspace.find" String => GroupId;
    /// Changes what bounds a keyspace.
    338 pub SetKeyspace "keyspace.set" LimitsChange => ();
    /// What the keyspaces that a node holds replicas of take.
    339 pub GetKeyspaceUsage "keyspace.usage" () => Vec<KeyspaceUsage>;
}

/// A keyspace to be created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKeyspace {
    /// Its name: 1 to 63 lower-case letters, digits and hyphens, a letter first and no hyphen last.
    pub name: String,
    /// The port at which etcd clients reach it on every node, which adds its own offset to it; none
    /// for no port of its own.
    pub port: Option<u16>,
    /// What bounds it.
    pub limits: KeyspaceLimits,
}

/// What bounds a keyspace. What is not chosen is as its leader was started with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyspaceLimits {
    /// Most bytes of data and history; 0 for no bound.
    pub quota_bytes: Option<u64>,
    /// Which history is kept.
    pub history: Option<History>,
}

/// Which history is kept without anybody asking for more or less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// All of it, until somebody compacts it.
    All,
    /// What is not older than so many seconds, and some newest revisions.
    Seconds(u64),
    /// So many of the newest revisions.
    Revisions(u64),
}

/// A change of what bounds a keyspace. What is `None` stays; what is `Some(None)` is no longer chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsChange {
    /// The keyspace's name.
    pub name: String,
    /// The new quota in bytes.
    pub quota_bytes: Option<Option<u64>>,
    /// The history that is kept.
    pub history: Option<Option<History>>,
}

/// What a keyspace takes, as one node's replica has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyspaceUsage {
    /// The Raft group that holds it.
    pub group: GroupId,
    /// Keys that exist.
    pub keys: u64,
    /// The newest revision.
    pub revision: u64,
    /// The oldest revision that can be read; 0 when nothing was compacted yet.
    pub compacted: u64,
    /// Bytes of current versions and leases.
    pub live_bytes: u64,
    /// Bytes of history.
    pub history_bytes: u64,
    /// Most bytes of both together; 0 for no bound.
    pub quota_bytes: u64,
    /// Whether growth is refused because the quota was reached.
    pub is_full: bool,
    /// Watches that read from this replica.
    pub watchers: u64,
    /// Leases that live; counted by the leader, 0 elsewhere.
    pub leases: u64,
}

/// How far a keyspace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyspaceState {
    /// Its nodes form its group; nobody is served yet.
    Creating,
    /// It serves.
    Active,
    /// Its nodes destroy it; nobody is served any more.
    Deleting,
}

impl KeyspaceState {
    /// What a person calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Active => "active",
            Self::Deleting => "deleting",
        }
    }
}

/// A keyspace as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyspaceInfo {
    /// Its name.
    pub name: String,
    /// How far it is.
    pub state: KeyspaceState,
    /// The Raft group that holds it.
    pub group: GroupId,
    /// The port that it was given.
    pub port: Option<u16>,
    /// The nodes that hold a replica, or are to.
    pub members: BTreeSet<NodeId>,
    /// Who leads the group, as the nodes say.
    pub leader: Option<NodeId>,
    /// Where etcd clients reach it, by node.
    pub endpoints: Vec<KeyspaceEndpoint>,
    /// Nodes that answer and do not serve it yet.
    pub unready: BTreeSet<NodeId>,
    /// What was chosen to bound it.
    pub limits: KeyspaceLimits,
    /// What it takes, as its leader says.
    pub usage: Option<KeyspaceUsage>,
}

/// Where etcd clients reach a keyspace on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyspaceEndpoint {
    /// The node.
    pub node: NodeId,
    /// The address.
    pub address: String,
    /// Why the node does not listen there.
    pub problem: Option<String>,
}

impl KeyspaceInfo {
    /// The addresses at which a node listens.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        let serving = self.endpoints.iter().filter(|endpoint| endpoint.problem.is_none());
        serving.map(|endpoint| endpoint.address.as_str())
    }
}
