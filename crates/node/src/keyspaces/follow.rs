//! Following the catalog of keyspaces through the node's own replica of the system group.

use std::sync::Arc;
use std::time::Duration;

use onefold_kv::{EventKind, WatchRequest};
use tokio::sync::watch;

use super::Catalog;
use super::store::{CatalogError, CatalogStore, ENTRY_PREFIX, RANGE_END};

const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The catalog as far as this node knows it. Cheap to clone; clones share what they know.
#[derive(Clone, Default)]
pub(crate) struct FollowedCatalog {
    current: Arc<watch::Sender<Arc<Catalog>>>,
}

impl FollowedCatalog {
    /// What is known now.
    pub(crate) fn get(&self) -> Arc<Catalog> {
        Arc::clone(&self.current.borrow())
    }

    /// Sees each change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Catalog>> {
        self.current.subscribe()
    }

    /// Takes up what somebody read, if it is later than what is known here.
    pub(crate) fn offer(&self, catalog: &Catalog) {
        self.current.send_if_modified(|current| {
            let is_later = catalog.revision > current.revision;
            if is_later {
                *current = Arc::new(catalog.clone());
            }
            is_later
        });
    }
}

/// Follows the catalog for as long as the future is polled.
pub(crate) async fn follow(store: CatalogStore, followed: FollowedCatalog) {
    loop {
        if let Err(error) = follow_once(&store, &followed).await {
            tracing::debug!("following the cluster's keyspaces: {error}");
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn follow_once(store: &CatalogStore, followed: &FollowedCatalog) -> Result<(), CatalogError> {
    let (mut catalog, read_at) = store.read().await?;
    followed.offer(&catalog);
    let mut watcher = store
        .kv()
        .watch(WatchRequest {
            key: ENTRY_PREFIX.into(),
            range_end: RANGE_END.into(),
            from_revision: read_at.next(),
            ..WatchRequest::default()
        })
        .await?;
    loop {
        let batch = watcher.next().await?;
        if batch.compacted.is_some() {
            return Ok(());
        }
        for event in &batch.events {
            match event.kind {
                EventKind::Put => catalog.learn(&event.kv)?,
                EventKind::Delete => catalog.unlearn(&event.kv),
            }
        }
        followed.offer(&catalog);
    }
}
