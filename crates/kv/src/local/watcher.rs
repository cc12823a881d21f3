//! A watcher on a node that hosts the group.

use std::sync::Arc;

use async_trait::async_trait;
use onefold_replica::{Consistency, Group};
use onefold_types::Revision;
use tokio::sync::Semaphore;

use super::auth::WatchPermit;
use super::errors::from_read;
use super::watching::{News, Watching, look_back};
use super::{blocking, header};
use crate::limits::REQUEST_TIMEOUT;
use crate::store::history::Query;
use crate::{Event, Header, KvError, WatchBatch, Watcher};

/// [`Watching`], and the waiting for news and for history.
pub(super) struct LocalWatcher {
    group: Group,
    watching: Watching,
    /// Bounds the looks into history at once, over all watchers.
    history_looks: Arc<Semaphore>,
    permit: WatchPermit,
}

impl LocalWatcher {
    pub(super) fn new(
        group: Group,
        watching: Watching,
        history_looks: Arc<Semaphore>,
        permit: WatchPermit,
    ) -> Self {
        Self { group, watching, history_looks, permit }
    }

    /// What there is to say now, with or without events.
    pub(super) fn batch(&self, events: Vec<Event>) -> WatchBatch {
        let next_revision = self.next_revision();
        let compacted = self.watching.compacted();
        WatchBatch { header: self.header(), events, next_revision, compacted }
    }

    async fn look_back(&mut self, query: Query) -> Result<Vec<Event>, KvError> {
        let _permit = self.history_looks.acquire().await.expect("the semaphore is never closed");
        let view = self.group.read(Consistency::Local, REQUEST_TIMEOUT).await;
        let view = view.map_err(from_read)?;
        let found = blocking(move || look_back(&view, &query)).await;
        self.watching.looked_back(found)
    }
}

#[async_trait]
impl Watcher for LocalWatcher {
    async fn next(&mut self) -> Result<WatchBatch, KvError> {
        loop {
            let events = match self.watching.look() {
                News::None => {
                    self.watching.seat().wait().await;
                    continue;
                }
                News::Events(events) => events,
                News::History(query) => self.look_back(query).await?,
            };
            if !events.is_empty() || self.watching.compacted().is_some() {
                self.permit.check()?;
                return Ok(self.batch(events));
            }
        }
    }

    fn next_revision(&self) -> Revision {
        self.watching.next_revision()
    }

    fn header(&self) -> Header {
        header(&self.group, self.watching.current())
    }
}
