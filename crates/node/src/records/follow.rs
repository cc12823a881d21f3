//! Following a set of records through the node's own replica of the system group, and through what
//! others tell.

use std::sync::Arc;
use std::time::Duration;

use onefold_kv::EventKind;
use tokio::sync::watch;

use super::{Change, Record, Records, RecordsError, RecordsStore};

const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A set as far as this node knows it. Cheap to clone; clones share what they know.
#[derive(Clone)]
pub(crate) struct Followed<R: Record> {
    current: Arc<watch::Sender<Arc<Records<R>>>>,
}

impl<R: Record> Default for Followed<R> {
    fn default() -> Self {
        Self::new(Records::default())
    }
}

impl<R: Record> Followed<R> {
    /// Knows this to begin with.
    pub(crate) fn new(first: Records<R>) -> Self {
        Self { current: Arc::new(watch::Sender::new(Arc::new(first))) }
    }

    /// What is known now.
    pub(crate) fn get(&self) -> Arc<Records<R>> {
        Arc::clone(&self.current.borrow())
    }

    /// Sees each change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Records<R>>> {
        self.current.subscribe()
    }

    /// Takes up what somebody knows, if it is later than what is known here.
    pub(crate) fn offer(&self, records: &Records<R>) {
        self.current.send_if_modified(|current| {
            let is_later = records.next > 0 && records.revision > current.revision;
            if is_later {
                *current = Arc::new(records.clone());
            }
            is_later
        });
    }
}

/// Follows a set for as long as the future is polled. Writes `first` if nobody has written to it.
pub(crate) async fn follow<R: Record>(
    store: RecordsStore<R>,
    followed: Followed<R>,
    first: Option<Change<R>>,
) {
    loop {
        if let Err(error) = follow_once(&store, &followed, first.as_ref()).await {
            tracing::debug!("following the cluster's {}: {error}", R::SUBJECT);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn follow_once<R: Record>(
    store: &RecordsStore<R>,
    followed: &Followed<R>,
    first: Option<&Change<R>>,
) -> Result<(), RecordsError<R::Refused>> {
    let (mut records, mut read_at) = store.read_at().await?;
    if let Some(first) = first.filter(|_| records.next == 0) {
        store.begin(first).await?;
        (records, read_at) = store.read_at().await?;
    }
    followed.offer(&records);
    let unanswered = |source| RecordsError::Kv { subject: R::SUBJECT, source };
    let mut watcher = store.watch(read_at.next()).await?;
    loop {
        let batch = watcher.next().await.map_err(unanswered)?;
        if batch.compacted.is_some() {
            return Ok(());
        }
        for event in &batch.events {
            match event.kind {
                EventKind::Put => records.learn(&event.kv)?,
                EventKind::Delete => records.unlearn(&event.kv),
            }
        }
        followed.offer(&records);
    }
}
