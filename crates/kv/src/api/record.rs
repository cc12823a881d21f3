//! A key's record, an event, and the header of every answer.

use std::fmt;

use bytes::Bytes;
use onefold_types::{Revision, Term};
use serde::{Deserialize, Serialize};

/// The identity of a lease. [`LeaseId::NONE`] means "no lease".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct LeaseId(pub i64);

impl LeaseId {
    /// No lease.
    pub const NONE: Self = Self(0);

    /// Whether this names a lease at all.
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }
}

impl fmt::Display for LeaseId {
    /// Hexadecimal, as etcd's tools print and read lease ids.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// One version of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key; never empty.
    pub key: Bytes,
    /// The revision at which the key came into being, after its last deletion.
    pub create_revision: Revision,
    /// The revision that wrote this version.
    pub mod_revision: Revision,
    /// How often the key was written since it came into being; 1 at creation.
    pub version: u64,
    /// The value; empty if a request asked for keys only.
    pub value: Bytes,
    /// The lease that the key is attached to.
    pub lease: LeaseId,
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// A version was written.
    Put,
    /// The key was deleted. The event's record has only its key and `mod_revision`, the revision of
    /// the deletion.
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The key after the change.
    pub kv: KeyValue,
    /// The key before the change, if it existed and its version is not compacted.
    pub prev_kv: Option<KeyValue>,
}

/// Where the store stood when it answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The store's revision; for a write the revision that it made.
    pub revision: Revision,
    /// The term of the group at the replica that answered.
    pub raft_term: Term,
}
