//! Who decides: one node's coordinator, elected through kv.
//!
//! ```text
//!             ┌────────────── kv: system keyspace ──────────────┐
//!  submit ───►│ spec, state, active   plan, splits, done   lease │
//!             └──▲───────────────────────▲─────────────────▲────┘
//!     watches active jobs         records (fenced)      election
//!             ┌──┴───────────────────────┴─────────────────┴────┐
//!  workers ──►│ term: scheduler, one loop                        │──► files: commit, _SUCCESS
//!             └──────────────────────────────────────────────────┘
//! ```
//!
//! All that a successor needs is in kv, and every write of a coordinator carries the condition that
//! it is still the elected one. What is only in memory (what runs where) comes back with the
//! workers' heartbeats.
//!
//! What this room must never do: tell a worker anything that a deposed coordinator believes. Each
//! answer carries the coordinator's epoch, and workers follow only the highest that they have seen.

mod election;
mod output;
mod plan;
mod records;
mod store;
mod term;

pub(crate) use election::Coordinator;
pub(crate) use output::OutputFolder;
pub(crate) use plan::find_files;
pub(crate) use store::Store;
pub(crate) use term::prepare::check_overwrite;
pub(crate) use term::{HeartbeatReply, WorkOrder, WorkOrderInput};
