//! A node's state machine: a rolling hash of every command, applied in memory and synced at times.

use onefold_raft::{Entry, SnapshotMark};
use onefold_types::LogIndex;

use crate::trace::hash_of;

/// The state after an entry, given the state before it.
pub(crate) fn apply(state: u64, entry: &Entry) -> u64 {
    hash_of(&(state, entry))
}

/// The whole state as of a mark.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Snapshot {
    pub(crate) mark: SnapshotMark,
    pub(crate) state: u64,
}

/// One node's state machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    /// The state now, and the index that made it.
    pub(crate) applied: LogIndex,
    pub(crate) state: u64,
    /// A crash falls back to some index from here to `applied`.
    pub(crate) synced: LogIndex,
    /// The mark of the last snapshot that was installed; durable.
    pub(crate) installed: Option<SnapshotMark>,
    /// Durable, waiting to be installed.
    pub(crate) staged: Option<Snapshot>,
}

impl Machine {
    /// Applies the next entry.
    pub(crate) fn apply(&mut self, entry: &Entry) {
        self.state = apply(self.state, entry);
        self.applied = entry.index;
    }

    /// Makes the current state durable.
    pub(crate) fn sync(&mut self) {
        self.synced = self.applied;
    }

    /// Loses everything but a staged snapshot.
    pub(crate) fn lose(&mut self) {
        *self = Self { staged: self.staged.take(), ..Self::default() };
    }

    /// Becomes what the snapshot holds, durably.
    pub(crate) fn install(&mut self, snapshot: &Snapshot) {
        self.applied = snapshot.mark.index;
        self.state = snapshot.state;
        self.installed = Some(snapshot.mark.clone());
        self.sync();
    }
}
