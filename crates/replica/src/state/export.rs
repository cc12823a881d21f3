//! The sending side of a snapshot: one state, cut into pieces.

use bytes::Bytes;
use onefold_raft::SnapshotMark;
use onefold_table::{KeyRange, SpaceView, TableError};
use serde::{Deserialize, Serialize};

use super::pairs::{self, crc32c};

/// One whole state of a group. It does not change, and holds old data in the table for as long as it
/// lives. Cheap to clone.
#[derive(Clone)]
pub struct Export {
    view: SpaceView,
    mark: SnapshotMark,
}

/// How much of an export was cut, or staged: where the next piece begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The number of the next piece.
    pub pieces: u64,
    /// The last key of the piece before.
    pub after: Option<Bytes>,
    /// What all pieces before hold.
    pub total: SnapshotTotal,
}

/// What the pieces of a snapshot hold together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotTotal {
    /// How many pairs of key and value.
    pub pairs: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// XXH3 of the bodies, chained: each is hashed with the hash of those before as its seed.
    pub hash: u64,
}

/// One piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Pieces are numbered from 0.
    pub number: u64,
    /// CRC-32C of the body, computed when it was read from the table.
    pub crc32c: u32,
    /// Set on the last one: what all pieces together hold.
    pub end: Option<SnapshotTotal>,
    /// The pairs, each with the lengths of key and value in front.
    pub body: Bytes,
}

impl Export {
    pub(super) fn new(view: SpaceView, mark: SnapshotMark) -> Self {
        Self { view, mark }
    }

    /// What it covers.
    pub fn mark(&self) -> &SnapshotMark {
        &self.mark
    }

    /// Cuts the piece at a position, with at least one pair if there is any and else at most
    /// `bytes_max` bytes; and gives the position after it.
    ///
    /// # Errors
    /// When the table can't be read.
    pub fn piece(&self, at: &Position, bytes_max: usize) -> Result<(Piece, Position), TableError> {
        let range = at.after.clone().map_or_else(KeyRange::all, KeyRange::after);
        let read = pairs::read(&self.view, range, bytes_max)?;
        let next = Position {
            pieces: at.pieces + 1,
            total: at.total.with(&read.body, read.pairs, read.bytes),
            after: read.last.or_else(|| at.after.clone()),
        };
        let piece = Piece {
            number: at.pieces,
            crc32c: crc32c(&read.body),
            end: read.is_end.then_some(next.total),
            body: read.body,
        };
        Ok((piece, next))
    }
}

impl SnapshotTotal {
    /// With one piece more.
    pub(super) fn with(self, body: &[u8], pairs: u64, bytes: u64) -> Self {
        Self {
            pairs: self.pairs.saturating_add(pairs),
            bytes: self.bytes.saturating_add(bytes),
            hash: xxhash_rust::xxh3::xxh3_64_with_seed(body, self.hash),
        }
    }
}
