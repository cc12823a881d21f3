//! Chunkservers: replicas of chunks on a node's disk, and the calls that reach them.
//!
//! ```text
//! writer ── append ──▶ primary: order ─┬─▶ own disk ────────┐
//!                                      ├─▶ secondary: disk ─┼─▶ all durable ─▶ acknowledged
//!                                      └─▶ secondary: disk ─┘
//! reader ── read ────▶ any replica: verify each block that is touched
//! leader ── create, fence, seal, copy, delete
//! ```
//!
//! This room never acknowledges a byte before every in-sync replica holds it durably, never changes
//! one afterwards, and never hands one out whose checksum does not match. Which replicas count, and
//! where a chunk ends, is the namespace's decision; a replica only obeys the highest version.

mod appends;
mod error;
mod file;
mod folder;
mod format;
pub(crate) mod methods;
mod server;
mod store;
#[cfg(test)]
mod tests;

use crate::api::limits::PIECE_BYTES_MAX;

pub use error::ChunkError;
pub use folder::StoreError;
pub(crate) use server::{ChunkServer, LEASE, chunk_error, class, read_from};
pub(crate) use store::{ChunkStore, ReplicaReport};
