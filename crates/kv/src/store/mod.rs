//! The pure core.
use bytes::Bytes;
use onefold_replica::{Apply, StateMachine};
use onefold_table::{SpaceView, TableError};

use crate::Feed;

/// The key-value store as a replicated state machine.
pub struct KvStore {}

impl KvStore {
    /// A store that tells `feed` what it commits.
    pub fn new(feed: Feed) -> Self {
        let _ = feed;
        todo!()
    }
}

impl StateMachine for KvStore {
    fn apply(&mut self, context: &mut Apply<'_, '_>, command: &Bytes) -> Result<Bytes, TableError> {
        let _ = (context.index, command);
        todo!()
    }

    fn restored(&mut self, view: &SpaceView) -> Result<(), TableError> {
        let _ = view;
        todo!()
    }
}
