//! A whole cluster: one to seven nodes, each with the real cores of up to three groups.
//!
//! ```text
//!   clients ──▶ node ── raft::Raft ── replica::state::GroupState ── kv::KvStore      × groups
//!                │       liveness      sessions, snapshots           over CrashTable
//!                └── Disk: one log and one sync for all groups
//! ```
//!
//! | part | what it may do |
//! | --- | --- |
//! | network | lose, duplicate, delay and reorder packets; split, cut off one node, cut one direction, flap, clog |
//! | log | lose or tear what was not synced; stall, be full, fail a sync, lose a bit, be wiped |
//! | table | lose its newest batches since the last sync |
//! | clocks | run at wrong rates, jump |
//! | node | crash, restart, all at once, be paused; be lost for good and replaced under a new identity |
//! | members | join, be demoted, be removed, be exchanged several at once; leaders move |
//! | snapshots | travel in pieces that are lost, damaged, cut off and resumed |
//! | groups | fall quiet, and are told wrongly who is down |
//! | clients | write, compare and swap, read with every freshness; use [`store`] groups in every way; lose requests and answers, try again, give up |
//! | leases, watches | end by clocks that drift; break off with their node, and go on elsewhere |
//!
//! After every step [`checker`] looks at the invariants of Raft; [`history`] compares every answer
//! with what the log says, and searches each key's history for linearizability; those of whole
//! stores go to the checkers that judge real clusters. At the end [`recovery`] demands that the healed
//! cluster becomes whole.

mod bugs;
mod checker;
mod client;
mod clock;
mod counted;
mod coverage;
mod disk;
mod divergence;
mod driver;
mod event;
mod faults;
mod history;
mod network;
mod node;
mod operator;
mod plan;
mod queue;
mod recovery;
mod run;
mod sabotage;
mod store;
mod table;
mod transfers;
mod world;

pub use checker::Violation;
pub use coverage::{Branch, Coverage, FaultKind, Faults};
pub use run::{Failure, Report, Totals, replay_command, run, run_twice};
pub use sabotage::Sabotage;
