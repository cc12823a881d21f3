//! The etcd v3 gRPC API over the key-value store: any etcd client works against any node.
//!
//! ```text
//! etcdctl, Go/Python/Rust clients ──gRPC──► server ──► services ──► dyn Kv
//! proto       the published messages and services, compiled from proto/
//! server      the listener: connections, HTTP/2, what is served, shutdown
//! services    KV, Lease, Cluster, Maintenance, Auth, Health: one call in, one answer out
//! snapshot    etcd's snapshot files, written and read
//! watch       the Watch service: many watches on one stream
//! concurrency the Lock and Election services
//! convert     between the API's messages and the store's values
//! errors      the store's errors as etcd's codes and texts; the only place that knows them
//! admission   how much may be in work at once
//! ```
//!
//! This room translates. It keeps no data, takes no decision about it and knows no consensus; what
//! a request means is the store's business, who the members are is the node's ([`ClusterView`]).

mod admission;
mod cluster;
mod concurrency;
mod connections;
mod convert;
mod errors;
mod gateway;
pub mod proto;
mod server;
mod services;
pub mod snapshot;
mod watch;

pub use cluster::{ClusterView, Member, StatusView};
pub use server::{Options, ServeError, serve, serve_with};
