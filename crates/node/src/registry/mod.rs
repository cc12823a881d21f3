//! The registry: which nodes belong to the cluster, kept in the system keyspace.
//!
//! ```text
//! nodes/member/<id>   one record for each node that ever came or was invited, as JSON
//! nodes/next          the number of the next one; numbers are never given twice
//! ```
//!
//! It is a set of [`crate::records`]; what may be changed is decided in [`change`]. Every node follows
//! the registry and acts on it: whom it knows, whom it refuses, and whether it may run at all. The
//! registry says what the cluster shall be; the groups' own memberships, which decide who votes, are
//! led there step by step by the controller.

pub(crate) mod change;

use std::collections::BTreeSet;

use onefold_admin::NodeState;
use onefold_types::NodeId;
use serde::{Deserialize, Serialize};

use crate::folder::{Formed, Member};
use crate::records::{self, Records, RecordsError, RecordsStore};
use change::ChangeRefused;

/// The registry at one revision: every node, removed ones included.
pub(crate) type Directory = Records<Record>;

/// The registry, changed from any node.
pub(crate) type Registry = RecordsStore<Record>;

/// The registry as far as this node knows it.
pub(crate) type Followed = records::Followed<Record>;

/// Why the registry was not read or changed.
pub(crate) type RegistryError = RecordsError<ChangeRefused>;

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

impl records::Record for Record {
    type Key = NodeId;
    type Refused = ChangeRefused;

    const SUBJECT: &'static str = "nodes";
    const PREFIX: &'static str = "nodes/member/";
    const NEXT_KEY: &'static str = "nodes/next";
    const NUMBER_MIN: u64 = 1;

    fn key(&self) -> NodeId {
        self.id
    }

    fn begin() -> Result<(), ChangeRefused> {
        // A founder writes the first records.
        Err(ChangeRefused::NotReady)
    }
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
        let all = formed.members.iter().map(|member| (member.id, record(member))).collect();
        Self { all, ..Self::default() }
    }

    /// The nodes in one of the states that `is_meant` picks.
    pub(crate) fn having(
        &self,
        is_meant: impl Fn(NodeState) -> bool,
    ) -> impl Iterator<Item = &Record> {
        self.all.values().filter(move |record| is_meant(record.state))
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
        self.all.get(&node).map(|record| record.state)
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

    use std::collections::BTreeMap;

    use onefold_types::Revision;

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
            all: BTreeMap::from([(record.id, record)]),
        };
        let bytes = postcard::to_stdvec(&directory).unwrap();
        assert_eq!(postcard::from_bytes::<Directory>(&bytes).unwrap(), directory);
    }
}
