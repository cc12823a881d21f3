//! The group host: many Raft groups on one node, each with a deterministic state machine.
//!
//! ```text
//!   Group::propose ─▶ inbox ─▶ consensus thread ── entries, votes ──▶ log (one fdatasync for all)
//!   Group::read    ─▶          one Raft core     ── messages ───────▶ peers (one frame a round)
//!   other nodes    ─▶          for each group    ── committed ──────▶ apply threads ─▶ table
//!                                                                       └─ answers to proposers
//! ```
//!
//! A command is replicated once, applied on every replica in the order of the log, and answered by
//! the replica that proposed it. Sessions make retries harmless, reads are as fresh as they are
//! asked to be, and state machines see no time but the log's.
//!
//! This room must never acknowledge what a majority does not hold durably, apply an entry that its
//! own log does not hold durably, or go on after its log or table failed: then the host stops.

mod apply;
mod change;
mod checkpoints;
mod chores;
mod clock;
mod config;
mod core;
pub mod divergence;
mod driver;
mod error;
mod forward;
#[cfg(test)]
mod fuzz;
mod group;
mod groups;
mod host;
mod inbox;
mod lifecycle;
pub mod liveness;
mod machine;
mod metrics;
mod persist;
mod propose;
#[cfg(test)]
mod purity;
mod read;
pub mod replicated_time;
mod snapshot;
mod start;
pub mod state;
mod status;
mod wire;

pub use config::{HostConfig, Limits};
pub use error::{ChangeError, GroupError, HostError, ProposeError, ReadError, TransferError};
pub use group::{AnswerSize, Consistency, Group, Leadership, SessionTag};
pub use host::{Formation, GroupSpec, Host};
pub use machine::{Apply, StateMachine};
pub use metrics::{GroupMetrics, HostMetrics, NodeMetrics};
pub use onefold_raft::MembershipChange;
pub use snapshot::SnapshotMetrics;
pub use state::sessions::{SESSION_ANSWERS_MAX, SESSION_IDLE_MS_MIN, SESSIONS_MAX};
pub use status::{GroupStatus, MemberProgress, ProgressMode, Role};
