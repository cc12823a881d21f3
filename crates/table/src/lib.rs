//! The ordered table under every replicated state machine.
//!
//! One table a node holds the state of all its Raft groups: byte keys in order, byte values, atomic
//! batches, snapshots. Each group sees only its own key space.
//!
//! ```text
//!   state machine ── writes ──▶ Overlay ── into_batch ──▶ Table::write
//!        │                         │ reads through            ▲
//!        └── reads ──▶ SpaceView ──┘                 MemoryTable │ FjallTable
//! ```
//!
//! The table is not where durability comes from: a write is atomic but reaches the disk for certain
//! only with [`Table::sync`]. What was acknowledged stands in the log, and is applied again after a
//! crash.
//!
//! This room never interprets keys or values, and never answers with a state of which it is in
//! doubt: damage is an error.

mod batch;
mod checksum;
pub mod conformance;
mod error;
mod fjall_table;
mod memory;
mod overlay;
mod range;
mod space;
mod view;

pub use batch::{Batch, Operation};
pub use error::TableError;
pub use fjall_table::{FjallTable, TABLE_FORMAT, TableOptions};
pub use memory::MemoryTable;
pub use overlay::Overlay;
pub use range::{KeyRange, Order};
pub use space::{Space, SpaceView};
pub use view::{KEY_BYTES_MAX, Scan, Table, VALUE_BYTES_MAX, View};
