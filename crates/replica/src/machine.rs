//! What a group replicates.

use bytes::Bytes;
use onefold_table::{Overlay, SpaceView, TableError};
use onefold_types::{LogIndex, Timestamp};

/// A deterministic state machine of one group.
///
/// All its state is in its key space of the table, so that it survives a restart and travels in a
/// snapshot. Anything in memory is a cache that [`restored`](Self::restored) rebuilds.
pub trait StateMachine: Send + 'static {
    /// Applies one command and answers its response, which travels to whoever proposed it.
    ///
    /// Deterministic in the state, the context and the command: every replica does the same. A bad
    /// command is answered in the response, not with an error.
    ///
    /// # Errors
    /// Only what the table answers. It stops the host: the replica's state is in doubt.
    fn apply(&mut self, context: &mut Apply<'_, '_>, command: &Bytes) -> Result<Bytes, TableError>;

    /// The writes of a round are in the table and visible to readers, up to and with `applied`:
    /// publish events, wake waiters. Called before the proposers get their answers; must be quick.
    fn committed(&mut self, applied: LogIndex) {
        let _ = applied;
    }

    /// The content of the table was read or replaced (start, snapshot): rebuild the caches. Mostly it
    /// is further than before; when a wrong state was replaced, it may be of an earlier index.
    ///
    /// # Errors
    /// What the table answers. It stops the host.
    fn restored(&mut self, view: &SpaceView) -> Result<(), TableError>;
}

/// Where and when a command is applied.
pub struct Apply<'a, 'v> {
    /// The command's place in the group's log.
    pub index: LogIndex,
    /// Replicated time: what the proposing leader's clock said, never less than for an earlier
    /// command. The only time that a state machine may look at.
    pub time: Timestamp,
    /// The group's own key space, with the writes of earlier commands.
    pub table: &'a mut Overlay<'v>,
}
