//! Etcd's snapshot files: what a member's `db` file holds, as its own tools write and read it.
//!
//! ```text
//! key      a revision (8 bytes, `_`, 8 bytes, and `t` for a deletion) to a mvccpb.KeyValue
//! lease    an id (8 bytes) to a leasepb.Lease
//! meta     how far the store was compacted
//! others   members, users, roles, alarms: each etcd's own business
//! ```
//!
//! A file that came over the network has its SHA-256 behind its last page. [`write`] makes such a
//! file of a keyspace, [`EtcdFile`] reads one of any origin.

mod read;
mod schema;
mod sort;
mod write;

pub use read::{Contents, EtcdFile, SnapshotError, VersionRecord};
pub(crate) use write::{WriteError, write};

/// Bytes of the SHA-256 behind the pages of a snapshot.
pub const DIGEST_BYTES: usize = 32;

/// A file has pages of at least this size; what is beyond a multiple of it is the digest.
const SECTOR_BYTES: u64 = 512;
