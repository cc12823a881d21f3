//! A Raft group of real cores under faults: one to five founders, and up to three nodes that may join.
//!
//! | part | what it may do |
//! | --- | --- |
//! | network | lose, duplicate, delay and reorder messages; cut the group in two, cut off one node, cut one direction only |
//! | disk | take its time, stall for long; on a crash lose every write that was not reported durable, or keep any prefix of them |
//! | state machine | on a crash fall back to any state since its last sync; lose all of it; install a snapshot whose mark the log does not have yet |
//! | node | crash, restart, all at once; stand still; tick faster or slower than others; step several inputs before it takes the output |
//! | driver | compact at any applied index; fail to deliver snapshots; lose staged ones |
//! | liveness | tell nodes that others are down or up: late, never, or wrongly |
//! | clocks | show anything, and run at different rates within the drift that leases allow for |
//! | clients | propose, read, transfer leadership, call elections, change the members, or pause until the group is silent; on any node |
//!
//! After every step [`Checker`](checker::Checker) looks at the five invariants of figure 3 of the
//! Raft paper and at what makes them last: durability of votes, terms and acknowledged entries,
//! linearizable reads, with and without leases, and members that change only through joint
//! configurations. At the end everything is healed, and the group must elect a leader and
//! commit on every member within a bounded time.

mod checker;
mod clock;
mod coverage;
mod disk;
mod driver;
mod event;
mod faults;
mod liveness;
mod machine;
mod members;
mod network;
mod plan;
mod run;
mod sabotage;
mod world;

pub use checker::Violation;
pub use coverage::{Branch, Coverage};
pub use run::{Failure, Report, replay_command, run};
pub use sabotage::Sabotage;
