//! How a store stands.

use onefold_types::Revision;
use serde::{Deserialize, Serialize};

use crate::Header;

/// How a store stands, as the replica that answers knows it. Sizes are bytes of keys and values of the
/// store's records, counted by the state machine: they are the same on every replica at the same
/// place of the log, and less depends on when a disk gives its room back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusResponse {
    /// Where the store stands.
    pub header: Header,
    /// The oldest revision that can be read; zero when nothing was compacted yet.
    pub compacted: Revision,
    /// Keys that exist.
    pub keys: u64,
    /// Bytes of the current versions and of the leases.
    pub live_bytes: u64,
    /// Bytes of superseded versions and of events, those that wait to be removed included.
    pub history_bytes: u64,
    /// The bound on both together; 0 when there is none.
    pub quota_bytes: u64,
    /// Whether the bound was reached and growth is refused: etcd's alarm `NOSPACE`. It ends by itself
    /// when a sixteenth of the quota is free again.
    pub is_full: bool,
}

impl StatusResponse {
    /// Bytes of everything: what the quota bounds.
    pub fn bytes(&self) -> u64 {
        self.live_bytes + self.history_bytes
    }
}
