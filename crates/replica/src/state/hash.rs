//! The rolling hash by which replicas notice that they differ.

use std::fmt;

use onefold_types::{LogIndex, Term, Timestamp};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Entries between two checkpoints of a group.
pub const CHECKPOINT_EVERY: u64 = 1024;

/// A hash (XXH3, 64 bits) of everything that the entries up to some index did: each one's place,
/// kind and time, and every put and delete that it made, sessions included, in order. It is part of
/// the state, and travels in snapshots.
///
/// Replicas that applied the same entries to the same state have the same one. Those that ever
/// differed have different ones from then on, but for a chance of 2^-64: it tells accidents, not
/// attacks. It says nothing of what a disk did to the table afterwards; that is for the table's own
/// checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StateHash(pub u64);

impl fmt::Display for StateHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// The hash of a replica's state at one index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The last entry that was applied.
    pub index: LogIndex,
    /// The hash then.
    pub hash: StateHash,
}

impl Checkpoint {
    /// Whether every replica makes a checkpoint at this index.
    pub(super) fn is_due(index: LogIndex) -> bool {
        index.get().is_multiple_of(CHECKPOINT_EVERY)
    }
}

/// What one entry did.
pub(super) struct Step {
    pub(super) index: LogIndex,
    pub(super) term: Term,
    pub(super) kind: Kind,
    /// Replicated time after it.
    pub(super) time: Timestamp,
    /// Of the members, if that is what it carries.
    pub(super) members: u64,
    /// Of its writes to the state machine's part.
    pub(super) machine: u64,
    /// Of its writes to the host's part.
    pub(super) host: u64,
}

/// What an entry carries.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Empty = 0,
    Command = 1,
    Membership = 2,
}

impl StateHash {
    /// The hash after one more entry.
    pub(super) fn after(self, step: &Step) -> Self {
        let Step { index, term, kind, time, members, machine, host } = *step;
        let place = [self.0, index.get(), term.get(), kind as u64];
        let effect = [time.get(), members, machine, host];
        let mut block = [0; 8 * 8];
        for (bytes, word) in block.chunks_exact_mut(8).zip(place.into_iter().chain(effect)) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Self(xxh3_64(&block))
    }
}
