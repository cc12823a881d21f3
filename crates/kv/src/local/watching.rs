//! What a watcher does without waiting: takes news from its seat, and asks history for what is not
//! there any more.

use std::sync::Arc;

use onefold_table::View;
use onefold_types::Revision;

use super::hub::{Seat, Taken};
use crate::store::history::{self, Events, Query};
use crate::store::state::State;
use crate::store::{RevisionEvents, error::StoreError};
use crate::{Event, KvError, WatchRequest};

/// Events that one look into the history passes at most before it answers.
const HISTORY_LOOKS_MAX: usize = 10_000;

/// Follows a span: from the hub's ring, and from history when it is behind.
pub struct Watching {
    seat: Seat,
    request: WatchRequest,
    bytes_max: usize,
    compacted: Option<Revision>,
}

/// What there is to hear now.
#[derive(Debug)]
pub(super) enum News {
    /// Nothing.
    None,
    /// These events, perhaps none.
    Events(Vec<Event>),
    /// What history has: to be [read](look_back), and [told](Watching::looked_back).
    History(Query),
}

impl Watching {
    pub(super) fn new(seat: Seat, request: WatchRequest, bytes_max: usize) -> Self {
        Self { seat, request, bytes_max, compacted: None }
    }

    pub(super) fn seat(&self) -> &Seat {
        &self.seat
    }

    /// The oldest readable revision, once that was found to be beyond what is wanted: nothing is told
    /// any more.
    pub fn compacted(&self) -> Option<Revision> {
        self.compacted
    }

    /// The newest revision that watchers of this replica may have heard of.
    pub fn current(&self) -> Revision {
        self.seat.current()
    }

    /// Every event before this revision was told.
    pub fn next_revision(&self) -> Revision {
        self.seat.next()
    }

    /// The next events, of whole revisions, from the seat and from a view of the store: none when
    /// there is no news, or when what is wanted is [compacted](Self::compacted).
    ///
    /// # Errors
    /// When the view does not hold a store.
    pub fn next(&mut self, view: &dyn View) -> Result<Vec<Event>, KvError> {
        loop {
            let events = match self.look() {
                News::None => return Ok(Vec::new()),
                News::Events(events) => events,
                News::History(query) => self.looked_back(look_back(view, &query))?,
            };
            if !events.is_empty() || self.compacted.is_some() {
                return Ok(events);
            }
        }
    }

    /// Takes what the seat has.
    pub(super) fn look(&self) -> News {
        match self.seat.take(self.bytes_max) {
            Taken::Nothing => News::None,
            Taken::Revisions(revisions) => News::Events(self.wanted(&revisions)),
            Taken::History(from) => News::History(Query {
                span: self.seat.span().clone(),
                filters: self.request.filters,
                prev_kv: self.request.prev_kv,
                from,
                bytes_max: self.bytes_max,
                looks_max: HISTORY_LOOKS_MAX,
            }),
        }
    }

    /// Notes how a look into history ended.
    ///
    /// # Errors
    /// That look's, unless what is wanted is compacted.
    pub(super) fn looked_back(
        &mut self,
        found: Result<Events, KvError>,
    ) -> Result<Vec<Event>, KvError> {
        match found {
            Ok(found) => {
                self.seat.saw(found.next);
                Ok(found.events)
            }
            Err(KvError::Compacted { compacted, .. }) => {
                self.compacted = Some(compacted);
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    fn wanted(&self, revisions: &[Arc<RevisionEvents>]) -> Vec<Event> {
        let events = revisions.iter().flat_map(|revision| &revision.events);
        let wanted = events.filter(|event| {
            self.request.filters.pass(event.kind) && self.seat.span().contains(&event.kv.key)
        });
        wanted
            .map(|event| Event {
                kind: event.kind,
                kv: event.kv.clone(),
                prev_kv: event.prev_kv.clone().filter(|_| self.request.prev_kv),
            })
            .collect()
    }
}

/// Reads history from a view.
///
/// # Errors
/// [`KvError::Compacted`] when what is wanted is gone.
pub(super) fn look_back(view: &dyn View, query: &Query) -> Result<Events, KvError> {
    let read = || -> Result<Events, StoreError> { history::read(view, &State::read(view)?, query) };
    Ok(read()?)
}
