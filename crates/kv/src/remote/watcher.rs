//! A watcher over polls: it survives the node that it asks.

use std::time::Duration;

use async_trait::async_trait;
use onefold_types::Revision;

use super::client::RemoteKv;
use crate::limits::{WATCH_BATCH_BYTES, WATCH_WAIT_MAX};
use crate::{Header, KvError, WatchBatch, WatchPoll, WatchRequest, Watcher};

/// Follows a span by polling from where the last answer ended.
pub(super) struct PollWatcher {
    kv: RemoteKv,
    poll: WatchPoll,
    header: Header,
    /// What the first poll brought.
    first: Option<WatchBatch>,
}

impl PollWatcher {
    /// Asks once, so that "from now on" has a revision before the caller goes on.
    pub(super) async fn start(kv: RemoteKv, watch: WatchRequest) -> Result<Self, KvError> {
        let is_from_now = watch.from_revision == Revision::ZERO;
        let mut poll = WatchPoll { watch, wait: Duration::ZERO, bytes_max: WATCH_BATCH_BYTES };
        let batch = kv.poll(poll.clone()).await?;
        poll.wait = WATCH_WAIT_MAX;
        let header = batch.header;
        let mut watcher = Self { kv, poll, header, first: None };
        if batch.events.is_empty() && batch.compacted.is_none() {
            watcher.poll.watch.from_revision = batch.next_revision;
        } else {
            if let Some(event) = batch.events.first().filter(|_| is_from_now) {
                watcher.poll.watch.from_revision = event.kv.mod_revision;
            }
            watcher.first = Some(batch);
        }
        Ok(watcher)
    }

    fn take(&mut self, batch: WatchBatch) -> WatchBatch {
        self.poll.watch.from_revision = batch.next_revision;
        self.header = batch.header;
        batch
    }
}

#[async_trait]
impl Watcher for PollWatcher {
    async fn next(&mut self) -> Result<WatchBatch, KvError> {
        if let Some(first) = self.first.take() {
            return Ok(self.take(first));
        }
        loop {
            let batch = self.kv.poll(self.poll.clone()).await?;
            let batch = self.take(batch);
            if !batch.events.is_empty() || batch.compacted.is_some() {
                return Ok(batch);
            }
        }
    }

    fn next_revision(&self) -> Revision {
        self.poll.watch.from_revision
    }

    fn header(&self) -> Header {
        self.header
    }
}
