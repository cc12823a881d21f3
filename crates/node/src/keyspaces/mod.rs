//! Keyspaces: which there are, kept in the system keyspace, and how nodes come to serve them.
//!
//! ```text
//! keyspaces/entry/<name>   one record for each keyspace, as JSON
//! keyspaces/next           the number of the next one's group; numbers are never given twice
//!
//! create ─▶ record: creating ─▶ every founder forms the group ─▶ it has a leader ─▶ active
//! delete ─▶ record: deleting ─▶ every node destroys its replica ─▶ none is left ──▶ no record
//! ```
//!
//! They are a set of [`crate::records`]. As with the nodes ([`crate::registry`]), a record says what shall be, and whoever can do a part
//! of it derives the next step from what it sees: [`hosting`] on every node, [`plan`] on the leader of
//! the system group. A step that was lost is taken again; a keyspace is never half made for long.

pub(crate) mod change;
mod control;
pub(crate) mod hosting;
pub(crate) mod plan;
mod ports;
mod served;
mod service;
mod view;

use std::collections::BTreeSet;

use onefold_admin::{KeyspaceLimits, KeyspaceState};
use onefold_types::{GroupId, NodeId};
use serde::{Deserialize, Serialize};

pub(crate) use ports::ShownPorts;
pub(crate) use served::ServedKeyspaces;
pub(crate) use service::Service;

use crate::records::{self, Records, RecordsError, RecordsStore};
use change::Refused;

/// The keyspaces at one revision.
pub(crate) type Catalog = Records<Record>;

/// The catalog, changed from any node.
pub(crate) type CatalogStore = RecordsStore<Record>;

/// The catalog as far as this node knows it.
pub(crate) type FollowedCatalog = records::Followed<Record>;

/// Why the catalog was not read or changed.
pub(crate) type CatalogError = RecordsError<Refused>;

/// Most keyspaces at once, those that come or go included.
pub(crate) const KEYSPACES_MAX: usize = 1_000;

/// Replicas of a keyspace where there are as many nodes.
pub(crate) const REPLICAS: usize = 3;

/// What the cluster's own first keyspace is called.
pub(crate) const DEFAULT_NAME: &str = "default";

/// Names of the cluster's own groups, which would be confused with a keyspace's.
const RESERVED_NAMES: [&str; 4] = [DEFAULT_NAME, "system", "kv", "files"];

/// What the cluster knows of one keyspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Its name.
    pub(crate) name: String,
    /// Its group.
    pub(crate) group: GroupId,
    /// How far it is.
    pub(crate) state: KeyspaceState,
    /// The port that nodes add their offset to.
    #[serde(default)]
    pub(crate) port: Option<u16>,
    /// The nodes with which the group begins. Never changed: all of them must be told the same.
    pub(crate) founders: BTreeSet<NodeId>,
    /// The nodes that shall hold a replica.
    pub(crate) members: BTreeSet<NodeId>,
    /// What bounds it.
    #[serde(default)]
    pub(crate) limits: KeyspaceLimits,
}

impl records::Record for Record {
    type Key = String;
    type Refused = Refused;

    const SUBJECT: &'static str = "keyspaces";
    const PREFIX: &'static str = "keyspaces/entry/";
    const NEXT_KEY: &'static str = "keyspaces/next";
    const NUMBER_MIN: u64 = GroupId::FIRST_KEYSPACE.get();

    fn key(&self) -> String {
        self.name.clone()
    }
}

impl Catalog {
    /// The keyspace that a group holds.
    pub(crate) fn of_group(&self, group: GroupId) -> Option<&Record> {
        self.all.values().find(|record| record.group == group)
    }

    /// The number of the next keyspace's group.
    pub(crate) fn next_group(&self) -> GroupId {
        GroupId(self.next).max(GroupId::FIRST_KEYSPACE)
    }

    /// Whether a group was given to a keyspace that is deleted, with all of it.
    pub(crate) fn is_gone(&self, group: GroupId) -> bool {
        group.is_keyspace() && group < self.next_group() && self.of_group(group).is_none()
    }
}
