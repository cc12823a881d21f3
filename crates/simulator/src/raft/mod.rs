//! A Raft group of one to five real cores under faults.
//!
//! | part | what it may do |
//! | --- | --- |
//! | network | lose, duplicate, delay and reorder messages; cut the group in two, cut off one node, cut one direction only |
//! | disk | take its time, stall for long; on a crash lose every write that was not reported durable, or keep any prefix of them |
//! | state machine | on a crash fall back to any state since its last sync; install a snapshot whose mark the log does not have yet |
//! | node | crash, restart, all at once; tick faster or slower than others; step several inputs before it takes the output |
//! | driver | compact at any applied index; fail to deliver snapshots; lose staged ones |
//! | clients | propose, read, transfer leadership, call elections, on any node |
//!
//! After every step [`Checker`](checker::Checker) looks at the five invariants of figure 3 of the
//! Raft paper and at what makes them last: durability of votes, terms and acknowledged entries,
//! linearizable reads. At the end everything is healed, and the group must elect a leader and
//! commit on every node within a bounded time.

mod checker;
mod coverage;
mod disk;
mod driver;
mod event;
mod faults;
mod machine;
mod network;
mod plan;
mod run;
mod sabotage;
mod world;

pub use checker::Violation;
pub use coverage::{Branch, Coverage};
pub use run::{Failure, Report, replay_command, run};
pub use sabotage::Sabotage;
