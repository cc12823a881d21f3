//! Hashing what is stored, to compare replicas.

use onefold_types::Revision;
use serde::{Deserialize, Serialize};

use crate::Header;

/// What of the store a hash is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HashScope {
    /// The history from the oldest readable revision up to this one; zero for the present one. It is
    /// the same on every replica that has the revision and was compacted to the same one.
    History(Revision),
    /// Everything that the store keeps. It is the same on replicas at the same place of the log.
    Everything,
}

/// The hash of what a replica stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashResponse {
    /// Where the replica stands.
    pub header: Header,
    /// The hash.
    pub hash: u32,
    /// The oldest readable revision; zero when nothing was compacted yet.
    pub compacted: Revision,
    /// The revision up to which the hash reaches.
    pub revision: Revision,
}
