//! The state of one group: what committed entries become.
//!
//! ```text
//!   committed entries ─▶ GroupState::apply ─▶ state machine ─▶ one atomic batch ─▶ table
//!                             │                 sessions
//!                             │                 applied index, time, members, hash
//!                             └─▶ answers, checkpoints
//!
//!   leader                                           follower
//!   Generations::export ─▶ Export::piece ─ ─ ─ ─ ─▶ Staging::piece ─▶ a further generation
//!                                                    GroupState::install ─▶ the state
//! ```
//!
//! Pure: no thread, no clock, no network, no random source. The same entries make the same table
//! byte for byte, whatever rounds they are applied in. The host runs it on its apply threads over
//! the node's table; the simulator runs the same code over a table in memory.
//!
//! This room must never let anything but entry and state decide what an entry does, and never let a
//! generation become the state before all of it is there.

pub(crate) mod command;
mod export;
mod generations;
mod group;
mod hash;
pub(crate) mod pairs;
pub(crate) mod presence;
pub(crate) mod records;
pub(crate) mod sessions;
mod staging;
#[cfg(test)]
mod tests;

pub use command::seal as seal_command;
pub use export::{Export, Piece, Position, SnapshotTotal};
pub use generations::{Generation, Generations};
pub use group::{Applied, GroupState, Logged};
pub use hash::{CHECKPOINT_EVERY, Checkpoint, StateHash};
pub use presence::{StoredGroups, stored_groups};
pub use staging::{PieceError, Staged, Staging};
