//! The etcd v3 gRPC API over the key-value store: any etcd client works against any node.
//!
//! ```text
//! etcdctl, Go/Python/Rust clients ──gRPC──► server ──► services ──► dyn Kv
//! curl, probes, Prometheus ───────HTTP───────┴─► http ────┘
//! proto       the published messages and services, compiled from proto/
//! keyspace    what serves one keyspace, at however many ports
//! choice      which keyspace a call is for, by its token or metadata
//! room        what the keyspaces of a node share
//! server      the listener: connections, HTTP, what is served, shutdown
//! http        what plain HTTP clients get on the same port: JSON gateway, health, version, metrics
//! metrics     what is counted, under etcd's names
//! services    KV, Lease, Cluster, Maintenance, Auth, Health: one call in, one answer out
//! snapshot    etcd's snapshot files, written and read
//! watch       the Watch service: many watches on one stream
//! concurrency the Lock and Election services
//! convert     between the API's messages and the store's values
//! errors      the store's errors as etcd's codes and texts; the only place that knows them
//! admission   how much may be in work at once
//! authority   repairs what old clients send as the authority of their calls
//! ```
//!
//! This room translates. It keeps no data, takes no decision about it and knows no consensus; what
//! a request means is the store's business, who the members are and what happens to them is the
//! node's ([`ClusterView`], [`ClusterControl`]).

mod admission;
mod authority;
mod choice;
mod cluster;
mod concurrency;
mod connections;
mod control;
mod convert;
mod errors;
mod gateway;
mod http;
mod keyspace;
mod metrics;
pub mod proto;
mod room;
mod server;
mod services;
pub mod snapshot;
mod version;
mod watch;

pub use choice::KEYSPACE_METADATA;
pub use cluster::{Alarm, AlarmKind, ClusterView, Member, StatusView};
pub use control::{ClusterControl, ControlError};
pub use keyspace::{Directory, Keyspace, NoOther};
pub use room::Room;
pub use server::{Options, ServeError, serve, serve_keyspace, serve_with};
