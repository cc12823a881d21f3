//! The namespace: which files there are, and where their bytes lie. A deterministic state machine,
//! replicated by a Raft group of its own; its leader is what GFS calls the master.
//!
//! ```text
//! Command ─▶ apply ─┬─ tree     directories and their entries
//!                   ├─ files    put, remove, rename, copy
//!                   ├─ versions what was replaced and removed, settings of buckets
//!                   ├─ uploads  multipart
//!                   └─ chunks   allocate, seal, references, garbage
//! SpaceView ─▶ query, walk      stat, list, splits: reads, never through the log
//! ```
//!
//! A directory is a number; its entries are keyed `(directory, name)`, a file's name as it is, a
//! sub-directory's with a `/` at its end. So a file `a` and a folder `a/` live beside each other as in
//! S3, walking the tree in key order gives keys in byte order, and renaming a folder moves one entry.
//! A directory exists exactly as long as it has entries; `mkdir` makes an entry with an empty name.
//!
//! This room never reads a clock, a disk or a random number: time comes with the command.

mod chunks;
mod command;
mod files;
mod keys;
mod query;
mod records;
mod state;
#[cfg(test)]
mod tests;
mod tree;
mod uploads;
mod version_list;
mod versions;
mod walk;

pub(crate) use command::{COMMAND_CHUNKS_MAX, Command, Reply, decode_answer};
pub(crate) use files::{check_attributes, check_condition};
pub(crate) use query::Query;
pub(crate) use records::FileRecord;
pub use records::{ChunkRecord, ChunkState, Content, Extent};
pub use state::Namespace;
