//! The deterministic world: real cores of a whole cluster in one thread, under a virtual clock, on
//! a network and on disks that fail in every way that a seed can think of.
//!
//! A seed decides everything. The same seed gives the same run, event for event, so every failure
//! that is found once can be replayed, traced and fixed. Nothing in here reads a clock, a file or a
//! random source; only the binary draws a first seed from the time.
//!
//! [`raft`] runs one Raft group. [`cluster`] runs whole nodes with many groups, their logs, tables
//! and key-value stores, and clients whose histories [`onefold_checker`] judges. [`check`] leaves
//! nothing to chance: it looks at every interleaving of a small group, to a stated depth.

mod random;
mod trace;

pub mod check;
pub mod cluster;
pub mod raft;

pub use random::Random;
pub use trace::Trace;
