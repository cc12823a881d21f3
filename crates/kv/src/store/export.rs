//! A whole keyspace at one moment, in the order in which it was written.

use onefold_table::{SpaceView, TableError, View};
use onefold_types::{Revision, Term};

use super::keys::{self, EventId};
use super::state::State;
use super::stored::{damaged, decode_logged};
use super::{history, lease, versions};
use crate::{Event, KeySpan, KeyValue, KvError, LeaseId};

/// A keyspace at one moment: its leases, and all of its history that is readable.
///
/// It holds old data in the table for as long as it lives. Reading it blocks.
pub struct Export {
    view: SpaceView,
    state: State,
    raft_term: Term,
}

impl Export {
    pub(crate) fn new(view: SpaceView, raft_term: Term) -> Result<Self, KvError> {
        let state = State::read(&view)?;
        Ok(Self { view, state, raft_term })
    }

    /// The term of the group at the replica that was read.
    pub fn raft_term(&self) -> Term {
        self.raft_term
    }

    /// The store's revision.
    pub fn revision(&self) -> Revision {
        self.state.revision
    }

    /// The oldest readable revision; zero when nothing was compacted yet.
    pub fn compacted(&self) -> Revision {
        self.state.compacted
    }

    /// All leases by id, with the seconds that each lives after a keep-alive.
    pub fn leases(&self) -> impl Iterator<Item = Result<(LeaseId, i64), KvError>> + '_ {
        lease::scan(&self.view).map(|lease| {
            let (id, lease) = lease?;
            Ok((id, lease.ttl_seconds))
        })
    }

    /// What stood at the compacted revision and was written before it, in the order of keys.
    pub fn settled(&self) -> impl Iterator<Item = Result<KeyValue, KvError>> + '_ {
        let compacted = self.state.compacted;
        let all = KeySpan::From([0][..].into());
        let versions = versions::at(&self.view, &all, compacted);
        versions
            .filter(move |kv| kv.as_ref().map_or(true, |kv| kv.mod_revision < compacted))
            .map(|kv| kv.map_err(KvError::from))
    }

    /// Every event from the compacted revision on, in order, with the number of its operation
    /// within its revision. What an event of the compacted revision itself wrote may be gone.
    pub fn events(&self) -> impl Iterator<Item = Result<(u32, Event), KvError>> + '_ {
        let from = EventId { revision: self.state.compacted, sub: 0 };
        let scan = self.view.scan(keys::events(from, self.state.revision), Default::default());
        scan.filter_map(|pair| self.event(pair).transpose())
            .map(|event| event.map_err(KvError::from))
    }

    fn event(
        &self,
        pair: Result<(bytes::Bytes, bytes::Bytes), TableError>,
    ) -> Result<Option<(u32, Event)>, TableError> {
        let (key, stored) = pair?;
        let EventId { revision, sub } =
            keys::event_id(&key).ok_or_else(|| damaged("an event's key"))?;
        let logged = decode_logged(stored)?;
        let event = history::restore(&self.view, revision, &logged, false)?;
        Ok(event.map(|event| (sub, event)))
    }
}
