//! Waiting for the next news of one watch.

use futures::FutureExt;
use futures::future::{AbortHandle, Abortable, Aborted, BoxFuture};
use onefold_kv::{KvError, WatchBatch, Watcher};
use onefold_types::Revision;
use tokio::sync::watch;

/// A watcher between two waits, and what it listens to meanwhile.
pub(crate) struct Followed {
    pub(crate) id: i64,
    pub(crate) watcher: Box<dyn Watcher>,
    /// Counts the rounds of questions for progress.
    pub(crate) rounds: watch::Receiver<u64>,
}

/// What came first.
pub(crate) enum News {
    /// Events, or the end of history.
    Batch(WatchBatch),
    /// Progress was asked for: every event before this revision was given.
    Bookmark(Revision),
    /// The store cannot be read.
    Failed(KvError),
}

/// A wait that can be aborted.
pub(crate) type Waiting = BoxFuture<'static, Result<(Followed, News), Aborted>>;

impl Followed {
    /// Waits for events or for a question, and gives the watcher back.
    pub(crate) fn wait(self) -> (AbortHandle, Waiting) {
        let (stop, registration) = AbortHandle::new_pair();
        (stop, Abortable::new(self.news(), registration).boxed())
    }

    /// Events go first, so that a bookmark is as late as it can be.
    async fn news(mut self) -> (Self, News) {
        let news = tokio::select! {
            biased;
            batch = self.watcher.next() => batch.map_or_else(News::Failed, News::Batch),
            // The session has the other end and outlives this.
            _ = self.rounds.changed() => News::Bookmark(self.watcher.next_revision()),
        };
        (self, news)
    }
}
