//! Judges histories: what clients asked and what they were answered, whoever recorded it.
//!
//! ```text
//! linearizability   could the operations on an object have happened one at a time?
//! history           what was recorded of a store with etcd's API
//! chronicle         every revision of that store, read back when all was over
//! replay, state     is each answer what the history up to its revision makes of the request?
//! order             does real time agree with the order of revisions?
//! watches           ordered, unique, reliable, atomic, resumable, bookmarkable, and true
//! leases            neither too short nor in pieces
//! registers         single keys, through the search for linearizability
//! copies            what every node holds in the end
//! ```
//!
//! The simulator records histories in its virtual world, `onefold torture` on real processes; both
//! are judged here, so that nobody trusts a checker that only looked at one of them. Each promise has
//! a violation of its own, and the tests show that each is found.
//!
//! Everything in here is a function of the history. Nothing reads a clock, a file or a socket.

mod chronicle;
mod copies;
mod findings;
pub mod history;
mod judge;
mod leases;
pub mod linearizability;
mod order;
mod registers;
mod replay;
mod state;
mod violation;
mod watches;

pub use judge::{Looked, Verdict, judge};
pub use violation::{Promise, Unjudged, Violation};

#[cfg(test)]
mod tests;
