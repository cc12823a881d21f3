//! One node: every role of Onefold in one process.
//!
//! ```text
//! etcd gateway   s3 gateway   http          sockets that clients know
//! kv   files   mapreduce   admin            the systems, each over its group
//! host ── log, table                        consensus and storage
//! transport                                 the peer port
//! ```
//!
//! This room only puts parts together and takes them apart again in the right order. It has no
//! protocol of its own but one: how fresh nodes become a cluster ([`formation`]).

mod admin;
pub mod folder;
pub mod formation;
mod http;
mod keys;
mod members;
mod node;

/// A directive for the process's log filter: a library below the S3 gateway logs every request that
/// a client gets wrong as an error of its own.
pub const QUIET_DIRECTIVE: &str = onefold_s3::TRACING_DIRECTIVE;

pub use node::{NodeConfig, NodeError, NodeEvent, run};
