//! One node: every role of Onefold in one process.
//!
//! ```text
//! etcd gateway   s3 gateway   http          sockets that clients know
//! kv   files   mapreduce   admin            the systems, each over its group
//! host ── log, table                        consensus and storage
//! transport                                 the peer port
//! ```
//!
//! This room puts parts together and takes them apart again in the right order. What it has of its
//! own is the cluster's membership: how fresh nodes become a cluster or join one ([`formation`]),
//! which nodes and keyspaces there are (`registry`, `keyspaces`), and how every group is led to the members and leaders that it
//! should have (`placement`, `controller`). It must never decide who votes: the groups do.

mod admin;
mod controller;
mod duplicate;
pub mod folder;
pub mod formation;
mod http;
mod keys;
mod keyspaces;
mod members;
mod membership;
mod metrics;
mod moves;
mod node;
mod nodes;
mod operations;
mod placement;
mod records;
mod registry;
mod roster;

/// A directive for the process's log filter: a library below the S3 gateway logs every request that
/// a client gets wrong as an error of its own.
pub const QUIET_DIRECTIVE: &str = onefold_s3::TRACING_DIRECTIVE;

pub use onefold_etcd::Options as EtcdOptions;

pub use node::{NodeConfig, NodeError, NodeEvent, run};
