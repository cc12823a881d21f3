//! A watcher on a node that hosts the group.

use std::sync::Arc;

use async_trait::async_trait;
use onefold_replica::{Consistency, Group};
use onefold_types::Revision;
use tokio::sync::Semaphore;

use super::auth::WatchPermit;
use super::errors::from_read;
use super::hub::{Seat, Taken};
use super::{blocking, header};
use crate::limits::REQUEST_TIMEOUT;
use crate::store::RevisionEvents;
use crate::store::history::{self, Query};
use crate::store::state::State;
use crate::{Event, Header, KvError, WatchBatch, WatchRequest, Watcher};

/// Events that one look into the history passes at most before it answers.
const HISTORY_LOOKS_MAX: usize = 10_000;

/// Follows a span: from the hub's ring, and from history when it is behind.
pub(super) struct LocalWatcher {
    group: Group,
    seat: Seat,
    request: WatchRequest,
    bytes_max: usize,
    /// Bounds the looks into history at once, over all watchers.
    history_looks: Arc<Semaphore>,
    compacted: Option<Revision>,
    permit: WatchPermit,
}

impl LocalWatcher {
    pub(super) fn new(
        group: Group,
        seat: Seat,
        request: WatchRequest,
        bytes_max: usize,
        history_looks: Arc<Semaphore>,
        permit: WatchPermit,
    ) -> Self {
        Self { group, seat, request, bytes_max, history_looks, compacted: None, permit }
    }

    /// What there is to say now, with or without events.
    pub(super) fn batch(&self, events: Vec<Event>) -> WatchBatch {
        let next_revision = self.next_revision();
        WatchBatch { header: self.header(), events, next_revision, compacted: self.compacted }
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

    async fn look_back(&mut self, from: Revision) -> Result<Vec<Event>, KvError> {
        let query = Query {
            span: self.seat.span().clone(),
            filters: self.request.filters,
            prev_kv: self.request.prev_kv,
            from,
            bytes_max: self.bytes_max,
            looks_max: HISTORY_LOOKS_MAX,
        };
        let _permit = self.history_looks.acquire().await.expect("the semaphore is never closed");
        let view = self.group.read(Consistency::Local, REQUEST_TIMEOUT).await;
        let view = view.map_err(from_read)?;
        let found = blocking(move || Ok(history::read(&view, &State::read(&view)?, &query)?));
        match found.await {
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
}

#[async_trait]
impl Watcher for LocalWatcher {
    async fn next(&mut self) -> Result<WatchBatch, KvError> {
        loop {
            let events = match self.seat.take(self.bytes_max) {
                Taken::Nothing => {
                    self.seat.wait().await;
                    continue;
                }
                Taken::Revisions(revisions) => self.wanted(&revisions),
                Taken::History(from) => self.look_back(from).await?,
            };
            if !events.is_empty() || self.compacted.is_some() {
                self.permit.check()?;
                return Ok(self.batch(events));
            }
        }
    }

    fn next_revision(&self) -> Revision {
        self.seat.next()
    }

    fn header(&self) -> Header {
        header(&self.group, self.seat.current())
    }
}
