//! Whether a history of concurrent operations could have happened one at a time.
//!
//! ```text
//!   client 1   ├── put x=1 ──┤        ├── get x → 2 ──┤
//!   client 2         ├───── put x=2 ─────┤                       linearizable: 1, 2, get
//!   client 3                      ├── put x=3 ─ ─ ─ ─ ─ ─ ─ …    its outcome is unknown
//! ```
//!
//! A history is linearizable if each operation can be given one moment between its call and its
//! return so that the answers are those of a sequential object (Herlihy and Wing, 1990). The search
//! is Wing and Gong's, with Lowe's memo of the configurations that were already tried (*Testing for
//! linearizability*, 2017). Linearizability is local: a history of many keys is linearizable if that
//! of each key is, so each key is searched alone.
//!
//! An operation whose outcome is unknown may have happened at any moment after its call, or never.
//!
//! This room never guesses: a search that used up its budget says so, and that is an error.

mod register;
mod search;

pub use register::{Register, RegisterInput, RegisterOutput, simplify};
pub use search::{Model, Operation, Unproven, check};

#[cfg(test)]
mod tests;
