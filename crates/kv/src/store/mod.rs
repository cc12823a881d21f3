//! The pure core: commands in, answers and events out.
//!
//! All state is in the group's table; [`keys`] says where. Deterministic in the state and the
//! command: no clock, no randomness, no I/O but the table's, no threads, no waiting.

pub(crate) mod auth;
pub(crate) mod check;
pub(crate) mod command;
mod compact;
mod counts;
pub(crate) mod error;
mod export;
pub(crate) mod hash;
pub(crate) mod history;
mod import;
mod keys;
pub(crate) mod lease;
mod machine;
pub(crate) mod range;
mod retention;
pub(crate) mod state;
pub(crate) mod stored;
mod txn;
pub(crate) mod usage;
mod versions;
mod writer;

#[cfg(test)]
mod tests;

pub use export::Export;
pub use machine::KvStore;
pub(crate) use machine::{LeaseChange, Observer, Position, RevisionEvents, Round, read_only_txn};
