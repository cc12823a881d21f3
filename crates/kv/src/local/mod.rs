//! The store on a node that hosts its group.
use async_trait::async_trait;
use onefold_replica::Group;
use onefold_transport::{Peers, Router};

use crate::*;

/// What a replica's store tells the node about: events for watchers, leases for the lessor. Cheap to
/// clone.
#[derive(Clone, Default)]
pub struct Feed {}

/// A keyspace on a node that hosts its group. Cheap to clone; its tasks end with the last clone.
#[derive(Clone)]
pub struct LocalKv {}

impl LocalKv {
    /// Serves the keyspace of `group`, whose state machine is a [`KvStore`](crate::KvStore) made
    /// with the same `feed`. Must be called in a tokio runtime.
    pub fn start(group: Group, feed: Feed, peers: Peers) -> Self {
        let _ = (group, feed, peers);
        todo!()
    }
}

/// Enters the methods through which other processes reach these keyspaces into a node's router.
pub fn register(keyspaces: &[LocalKv], router: &mut Router) {
    let _ = (keyspaces, router);
    todo!()
}

#[async_trait]
impl Kv for LocalKv {
    async fn range(&self, _: RangeRequest) -> Result<RangeResponse, KvError> {
        todo!()
    }
    async fn put(&self, _: PutRequest) -> Result<PutResponse, KvError> {
        todo!()
    }
    async fn delete_range(&self, _: DeleteRangeRequest) -> Result<DeleteRangeResponse, KvError> {
        todo!()
    }
    async fn txn(&self, _: TxnRequest) -> Result<TxnResponse, KvError> {
        todo!()
    }
    async fn compact(&self, _: CompactRequest) -> Result<CompactResponse, KvError> {
        todo!()
    }
    async fn lease_grant(&self, _: LeaseGrantRequest) -> Result<LeaseGrantResponse, KvError> {
        todo!()
    }
    async fn lease_revoke(&self, _: LeaseId) -> Result<LeaseRevokeResponse, KvError> {
        todo!()
    }
    async fn lease_keep_alive(&self, _: LeaseId) -> Result<LeaseKeepAliveResponse, KvError> {
        todo!()
    }
    async fn lease_time_to_live(
        &self,
        _: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, KvError> {
        todo!()
    }
    async fn leases(&self) -> Result<LeasesResponse, KvError> {
        todo!()
    }
    async fn watch_poll(&self, _: WatchPoll) -> Result<WatchBatch, KvError> {
        todo!()
    }
    async fn watch(&self, _: WatchRequest) -> Result<Box<dyn Watcher>, KvError> {
        todo!()
    }
}

impl crate::store::Observer for Feed {
    fn committed(&mut self, _: crate::store::Round) {}
    fn restored(&mut self, _: onefold_types::Revision, _: bool) {}
}
