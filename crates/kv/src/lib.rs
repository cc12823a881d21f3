//! The multi-version key-value store: etcd's data model on a replicated state machine.
//!
//! ```text
//! gateways, mapreduce, cli ──►  dyn Kv ──┬── LocalKv   over the node's replica of the group
//!                                        └── RemoteKv  over calls to any node
//! api      requests, responses, errors and the trait that hides where the store runs
//! store    the pure core: commands in, answers and events out, all state in the group's table
//! core     the pure core without a node around it, for simulation
//! local    the driver on a node: reads, watches, leases, compaction, quota
//! remote   the client's side, and the methods that carry it
//! ```
//!
//! Every transaction that writes makes one revision. History stays readable until it is compacted.
//! Nothing in memory grows with the number of keys: the table is the index.
//!
//! The core never touches a clock, a socket, a file or a thread, so that it behaves the same on
//! every replica and in simulation. What needs time (leases) or waiting (watches) is the driver's.

pub mod api;
pub mod core;
mod local;
mod remote;
mod store;

pub use api::*;
pub use local::{
    AutoCompaction, Feed, KvOptions, LEASE_CHECKPOINT_INTERVAL_DEFAULT, LocalKv,
    QUOTA_BYTES_DEFAULT, RETENTION_DEFAULT, REVISIONS_KEPT_MIN,
};
pub use remote::{Keyspaces, RemoteKv, register};
pub use store::{Export, KvStore};
