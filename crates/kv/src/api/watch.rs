//! Watching.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use onefold_types::Revision;
use serde::{Deserialize, Serialize};

use crate::api::range::prefix_pair;
use crate::{Event, EventKind, Header, KeySpan, KvError};

/// Which kinds of events a watcher does not want.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchFilters {
    /// Leave puts out.
    pub no_put: bool,
    /// Leave deletions out.
    pub no_delete: bool,
}

impl WatchFilters {
    /// Whether events of this kind are wanted.
    pub fn pass(self, kind: EventKind) -> bool {
        match kind {
            EventKind::Put => !self.no_put,
            EventKind::Delete => !self.no_delete,
        }
    }
}

/// Follows a span of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchRequest {
    /// The first key; must not be empty.
    pub key: Bytes,
    /// See [`KeySpan::parse`].
    pub range_end: Bytes,
    /// The first revision to hear of; 0 for those after the present one.
    pub from_revision: Revision,
    /// Kinds of events to leave out.
    pub filters: WatchFilters,
    /// Tell each key's version before the event.
    pub prev_kv: bool,
}

impl WatchRequest {
    /// Follows every key that begins with `prefix`; with an empty prefix, every key.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let (key, range_end) = prefix_pair(prefix.into());
        Self { key, range_end, ..Self::default() }
    }

    /// The keys that are meant.
    pub fn span(&self) -> KeySpan {
        KeySpan::parse(&self.key, &self.range_end)
    }
}

/// Waits for the next events of a span.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchPoll {
    /// The span and what is wanted of it. After the first poll, `from_revision` is the last
    /// answer's [`next_revision`](WatchBatch::next_revision).
    pub watch: WatchRequest,
    /// How long to wait when there is nothing yet; at most
    /// [`WATCH_WAIT_MAX`](crate::limits::WATCH_WAIT_MAX).
    pub wait: Duration,
    /// About how many bytes of events to answer at most; a revision is never split, so that one
    /// large revision can exceed it.
    pub bytes_max: usize,
}

/// Events of whole revisions, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchBatch {
    /// Where the store stood.
    pub header: Header,
    /// The events by revision, and within one in the order of its operations.
    pub events: Vec<Event>,
    /// Every wanted event before this revision has been answered: where to go on.
    pub next_revision: Revision,
    /// The history that was asked for is given up; this is the oldest revision there is. Nothing
    /// more will come.
    pub compacted: Option<Revision>,
}

/// One followed span. Dropping it ends the watch.
#[async_trait]
pub trait Watcher: Send {
    /// Waits for the next events, or for the news that history is gone
    /// ([`WatchBatch::compacted`]). Dropping the future loses nothing.
    ///
    /// A watcher that is called seldom costs bounded memory: what it missed is read from history.
    ///
    /// # Errors
    /// When the store cannot be read. The watch can be resumed with a new watcher from
    /// [`next_revision`](Self::next_revision).
    async fn next(&mut self) -> Result<WatchBatch, KvError>;

    /// Every wanted event before this revision was given by [`next`](Self::next).
    ///
    /// It moves on even when nothing happens to the span, so that it serves as a bookmark.
    fn next_revision(&self) -> Revision;

    /// Where the store stood when it was looked at last.
    fn header(&self) -> Header;
}
