//! The registry: which nodes belong to the cluster, kept in the system keyspace.
//!
//! ```text
//! nodes/member/<id>   one record for each node that ever came or was invited, as JSON
//! nodes/next          the number of the next one; numbers are never given twice
//! ```
//!
//! Every change is one transaction that fails if anything of this has changed since it was read, so
//! what is decided here is decided on a state that still holds. The decisions themselves are pure
//! ([`change`]). Every node follows the registry and acts on it: whom it knows, whom it refuses, and
//! whether it may run at all. The registry says what the cluster shall be; the groups' own
//! memberships, which decide who votes, are led there step by step by the controller.

pub(crate) mod change;
mod follow;
mod store;

use std::collections::{BTreeMap, BTreeSet};

use onefold_admin::NodeState;
use onefold_types::{NodeId, Revision};
use serde::{Deserialize, Serialize};

pub(crate) use follow::{Followed, follow};
pub(crate) use store::{Registry, RegistryError};

use crate::folder::{Formed, Member};

/// Prefix of the records.
const MEMBER_PREFIX: &str = "nodes/member/";
/// The number of the next node. The records and this key are one range.
const NEXT_KEY: &str = "nodes/next";
/// The end of the range of [`MEMBER_PREFIX`] and [`NEXT_KEY`].
const RANGE_END: &str = "nodes/next\0";

/// What the cluster knows of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The node.
    pub(crate) id: NodeId,
    /// Where it is reached.
    pub(crate) address: String,
    /// Its data folder; none before it came.
    pub(crate) incarnation: Option<u64>,
    /// What it is to the cluster.
    pub(crate) state: NodeState,
    /// The node whose place it takes.
    #[serde(default)]
    pub(crate) replaces: Option<NodeId>,
    /// While it is removed: do not wait for its chunks.
    #[serde(default)]
    pub(crate) force: bool,
    /// It does not get a vote until somebody promotes it.
    #[serde(default)]
    pub(crate) is_learner: bool,
}

/// The registry at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Directory {
    /// The revision of the system keyspace at which it was changed last; zero for what a node knows
    /// before it has read anything.
    pub(crate) revision: Revision,
    /// The number of the next node; zero while there is no registry.
    pub(crate) next: u64,
    /// Every node, removed ones included.
    pub(crate) nodes: BTreeMap<NodeId, Record>,
}

impl Directory {
    /// What a node knows of its cluster when it starts.
    pub(crate) fn of_folder(formed: &Formed) -> Self {
        let record = |member: &Member| Record {
            id: member.id,
            address: member.address.clone(),
            incarnation: Some(member.incarnation),
            state: NodeState::Active,
            replaces: None,
            force: false,
            is_learner: false,
        };
        let nodes = formed.members.iter().map(|member| (member.id, record(member))).collect();
        Self { nodes, ..Self::default() }
    }

    /// The nodes in one of the states that `is_meant` picks.
    pub(crate) fn having(
        &self,
        is_meant: impl Fn(NodeState) -> bool,
    ) -> impl Iterator<Item = &Record> {
        self.nodes.values().filter(move |record| is_meant(record.state))
    }

    /// The nodes that are in the cluster now, coming and going ones included.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Record> {
        self.having(NodeState::is_member)
    }

    /// The nodes that left for good.
    pub(crate) fn removed(&self) -> BTreeSet<NodeId> {
        self.having(|state| state == NodeState::Removed).map(|record| record.id).collect()
    }

    /// The nodes that shall hold no files' data, and those that left.
    pub(crate) fn leaving(&self) -> BTreeSet<NodeId> {
        let leaves =
            |state| matches!(state, NodeState::Draining | NodeState::Removing | NodeState::Removed);
        self.having(leaves).map(|record| record.id).collect()
    }

    /// What the node is to the cluster.
    pub(crate) fn state(&self, node: NodeId) -> Option<NodeState> {
        self.nodes.get(&node).map(|record| record.state)
    }

    /// The node that has come to take another one's place.
    pub(crate) fn replacement(&self, of: NodeId) -> Option<&Record> {
        self.members().find(|record| record.replaces == Some(of))
    }

    /// The members as data folders list them.
    pub(crate) fn as_members(&self) -> Vec<Member> {
        let member = |record: &Record| {
            let (id, address) = (record.id, record.address.clone());
            record.incarnation.map(|incarnation| Member { id, address, incarnation })
        };
        self.members().filter_map(member).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_record_is_the_same_after_it_was_stored_or_sent() {
        let record = Record {
            id: NodeId(4),
            address: "h:4".to_owned(),
            incarnation: None,
            state: NodeState::Invited,
            replaces: None,
            force: false,
            is_learner: true,
        };
        let text = serde_json::to_vec(&record).unwrap();
        assert_eq!(serde_json::from_slice::<Record>(&text).unwrap(), record);
        let directory = Directory {
            revision: Revision(9),
            next: 5,
            nodes: BTreeMap::from([(record.id, record)]),
        };
        let bytes = postcard::to_stdvec(&directory).unwrap();
        assert_eq!(postcard::from_bytes::<Directory>(&bytes).unwrap(), directory);
    }
}
