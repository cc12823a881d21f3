//! The write-ahead log that all Raft groups of a node share.
//!
//! Appends of every group wait in one bounded queue. One thread takes all that wait, writes them in
//! one piece, syncs once, and then tells each of them: group commit.
//!
//! ```text
//!   group 1 ─┐                       ┌─ …0007.log   sealed: read-only, removed from the front
//!   group 2 ─┼─▶ queue ─▶ log thread ┼─ …0008.log   sealed
//!   group 3 ─┘   bounded      │      └─ …0009.log   active: laid out in advance, zeros at its end
//!                             └─▶ done(Ok) after fdatasync
//! ```
//!
//! What a group no longer needs (it wrote a [`Write::SnapshotMark`]) makes old segments removable.
//! What a slow or idle group still needs is carried forward into the active segment, so that it
//! never pins old ones.
//!
//! This room never loses what it acknowledged without saying so: a torn tail that was never
//! acknowledged is cut when the log is opened, everything else that can't be read is an error. It
//! never retries a sync that failed. It knows nothing of Raft's rules but that entries of a group
//! are contiguous.

mod cleaner;
mod error;
mod format;
mod index;
mod log;
mod manifest;
mod queue;
mod recovery;
mod segment;
mod status;
#[cfg(test)]
mod tests;
mod types;
mod writer;

pub use error::LogError;
pub use format::LOG_FORMAT;
pub use log::{Done, Log, LogOptions};
pub use status::LogStatus;
pub use types::{GroupState, HardState, Recovered, RecoveredEntry, SnapshotMark, Write};
