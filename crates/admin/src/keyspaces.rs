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
}

/// A keyspace to be created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKeyspace {
    /// Its name: 1 to 63 lower-case letters, digits and hyphens, a letter first and no hyphen last.
    pub name: String,
    /// The port at which etcd clients reach it on every node, which adds its own offset to it; none
    /// for no port of its own.
    pub port: Option<u16>,
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
