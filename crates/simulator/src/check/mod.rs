//! Every interleaving of a small group of real cores, breadth first, to a stated depth.
//!
//! A [`Scope`] bounds terms, entries, crashes and changes of the members; within the bounds
//! everything happens that can happen, at any moment and in any order:
//!
//! | what | how often |
//! | --- | --- |
//! | a message that was ever sent arrives | at any later moment, any number of times, or never: that is loss, delay, reordering and duplication in one |
//! | a disk finishes its oldest write | the disk may lag behind by any number of writes |
//! | a server crashes and starts again with what its disk has | as often as the scope says, at every moment |
//! | an election timeout passes, a leader's heartbeat is due, a voter stops to believe in its leader | at every moment |
//! | a client proposes or reads, an operator changes the members or hands leadership over, the log is compacted, a snapshot is delivered, fails, is installed | within the bounds |
//!
//! A server that is down is one that receives nothing, so crash and restart are one step.
//!
//! After every step the invariants of figure 3 of the Raft paper are checked, that nothing
//! committed is ever undone, that nothing is promised before it is durable, and that reads see
//! everything that was committed when they were asked.
//!
//! # How it is fast
//!
//! A step changes one server, and how it changes depends on that server alone. So the states of
//! single servers are kept once and numbered, each step of each of them is computed once, and a
//! state of the group is three numbers and the set of the numbers of all messages sent. States are
//! recognized by a 128-bit hash that is the same for groups which differ only in who is who
//! ([`onefold_raft::Fingerprint`]). What can never again have an effect is left out of a state: a
//! response of a term that its receiver has durably left.
//!
//! The search goes level by level, so the first violation that it finds has a shortest trace.

mod bug;
mod explore;
mod history;
mod scope;
mod server;
mod state;
mod table;
mod trace;
mod universe;

pub use bug::Bug;
pub use explore::{Counterexample, Level, Outcome, Report, run};
pub use scope::Scope;
