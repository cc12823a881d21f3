//! What a node's transfers of snapshots amount to.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of a host since its start, over all groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMetrics {
    /// Pieces that followers acknowledged.
    pub pieces_sent: u64,
    /// Bytes of those pieces.
    pub bytes_sent: u64,
    /// Snapshots that followers have staged.
    pub delivered: u64,
    /// Attempts that ended early; each is followed by another one, or by a fresh snapshot.
    pub interrupted: u64,
    /// Pieces that were written here.
    pub pieces_received: u64,
    /// Bytes of those pieces.
    pub bytes_received: u64,
    /// Pieces that were refused: a wrong checksum, number, total or content.
    pub pieces_refused: u64,
    /// Transfers that went on where an earlier attempt had stopped.
    pub resumed: u64,
    /// Transfers that were given up, and what they had staged removed.
    pub given_up: u64,
}

/// One count of [`SnapshotMetrics`].
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counts as they are kept.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) pieces_sent: Count,
    pub(super) bytes_sent: Count,
    pub(super) delivered: Count,
    pub(super) interrupted: Count,
    pub(super) pieces_received: Count,
    pub(super) bytes_received: Count,
    pub(super) pieces_refused: Count,
    pub(super) resumed: Count,
    pub(super) given_up: Count,
}

impl Counts {
    pub(super) fn metrics(&self) -> SnapshotMetrics {
        SnapshotMetrics {
            pieces_sent: self.pieces_sent.get(),
            bytes_sent: self.bytes_sent.get(),
            delivered: self.delivered.get(),
            interrupted: self.interrupted.get(),
            pieces_received: self.pieces_received.get(),
            bytes_received: self.bytes_received.get(),
            pieces_refused: self.pieces_refused.get(),
            resumed: self.resumed.get(),
            given_up: self.given_up.get(),
        }
    }
}
