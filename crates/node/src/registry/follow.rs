//! Following the registry: through the node's own replica, and through what other nodes tell.

use std::sync::Arc;
use std::time::Duration;

use onefold_kv::{EventKind, WatchRequest};
use onefold_types::NodeId;
use tokio::sync::watch;

use super::{Directory, MEMBER_PREFIX, RANGE_END, Registry, RegistryError};
use crate::folder::Formed;

const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The registry as far as this node knows it. Cheap to clone; clones share what they know.
#[derive(Clone)]
pub(crate) struct Followed {
    current: Arc<watch::Sender<Arc<Directory>>>,
}

impl Followed {
    /// Knows what the data folder says.
    pub(crate) fn new(first: Directory) -> Self {
        Self { current: Arc::new(watch::Sender::new(Arc::new(first))) }
    }

    /// What is known now.
    pub(crate) fn get(&self) -> Arc<Directory> {
        Arc::clone(&self.current.borrow())
    }

    /// Sees each change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Directory>> {
        self.current.subscribe()
    }

    /// Takes up what somebody knows, if it is later than what is known here.
    pub(crate) fn offer(&self, directory: Directory) {
        self.current.send_if_modified(|current| {
            let is_later = directory.next > 0 && directory.revision > current.revision;
            if is_later {
                *current = Arc::new(directory);
            }
            is_later
        });
    }
}

/// Follows the registry for as long as the future is polled. A founder writes its first records if
/// nobody has.
pub(crate) async fn follow(registry: Registry, followed: Followed, node: NodeId, formed: Formed) {
    let founded = formed.founders().contains(&node).then_some(formed);
    loop {
        if let Err(error) = follow_once(&registry, &followed, founded.as_ref()).await {
            tracing::debug!("following the cluster's list of nodes: {error}");
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn follow_once(
    registry: &Registry,
    followed: &Followed,
    founded: Option<&Formed>,
) -> Result<(), RegistryError> {
    let (mut directory, mut read_at) = registry.read_at().await?;
    if let Some(formed) = founded.filter(|_| directory.next == 0) {
        registry.bootstrap(formed).await?;
        (directory, read_at) = registry.read_at().await?;
    }
    followed.offer(directory.clone());
    let mut watcher = registry
        .kv()
        .watch(WatchRequest {
            key: MEMBER_PREFIX.into(),
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
        for event in batch.events.iter().filter(|event| event.kind == EventKind::Put) {
            directory.learn(&event.kv)?;
        }
        followed.offer(directory.clone());
    }
}
