//! A state machine as small as a key-value store can be.

use bytes::Bytes;
use onefold_replica::{Apply, StateMachine};
use onefold_table::{SpaceView, TableError};
use onefold_types::LogIndex;

/// Bytes of a command that name its key.
pub(crate) const KEY_BYTES: usize = 8;

/// Stores each command under its first bytes.
pub(crate) struct Puts;

impl StateMachine for Puts {
    fn apply(&mut self, context: &mut Apply<'_, '_>, command: &Bytes) -> Result<Bytes, TableError> {
        let key = command.slice(..KEY_BYTES.min(command.len()));
        context.table.put(key, command.clone());
        Ok(Bytes::new())
    }

    fn committed(&mut self, _applied: LogIndex) {}

    fn restored(&mut self, _view: &SpaceView) -> Result<(), TableError> {
        Ok(())
    }
}
