//! The two traits that every table and every layer over one implements.

use std::sync::Arc;

use bytes::Bytes;
use onefold_types::DurationCounts;

use crate::{Batch, KeyRange, Order, TableError};

/// Most bytes of a key. The disk's format stores the length in 16 bits and needs some of it for
/// itself.
pub const KEY_BYTES_MAX: usize = 60 << 10;

/// Most bytes of a value: far more than a replicated command carries.
pub const VALUE_BYTES_MAX: usize = 64 << 20;

/// The pairs of a range, in order. After an error it yields nothing more.
pub type Scan<'a> = Box<dyn Iterator<Item = Result<(Bytes, Bytes), TableError>> + Send + 'a>;

/// Reads of one consistent or current state.
pub trait View: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// When the table can't be read or is damaged.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TableError>;

    /// The pairs within a range. A scan shows one consistent state: batches that are written while
    /// it runs are not in it.
    fn scan(&self, range: KeyRange, order: Order) -> Scan<'_>;
}

/// An ordered table: a view of its current state that can be written.
pub trait Table: View {
    /// The state as it is now; later writes do not change it.
    fn snapshot(&self) -> Arc<dyn View>;

    /// Applies a batch: all of it or nothing, also across a crash. Later operations of a batch
    /// override earlier ones on the same key. Not synced: a crash of the machine may lose the
    /// newest batches, always whole ones, always from the end.
    ///
    /// # Errors
    /// When a key or value is longer than [`KEY_BYTES_MAX`] or [`VALUE_BYTES_MAX`] (then nothing
    /// was written and the table goes on), or when the disk fails (then the table takes no further
    /// writes: stop, and open it again).
    fn write(&self, batch: Batch) -> Result<(), TableError>;

    /// Everything written before is durable when this returns.
    ///
    /// # Errors
    /// When the disk fails; what was written since the last sync may be lost, and the table takes
    /// no further writes.
    fn sync(&self) -> Result<(), TableError>;

    /// Bytes that the table occupies, on disk where it has one.
    fn size_bytes(&self) -> u64;

    /// How long each write took; nothing where there is no disk.
    fn write_durations(&self) -> DurationCounts {
        DurationCounts::default()
    }
}
