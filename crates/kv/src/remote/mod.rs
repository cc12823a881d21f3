//! The store from outside: calls to any node.
use async_trait::async_trait;
use onefold_transport::Peers;
use onefold_types::GroupId;

use crate::*;

/// A keyspace reached through any of a list of nodes. Cheap to clone.
#[derive(Clone)]
pub struct RemoteKv {}

impl RemoteKv {
    /// Reaches the keyspace of `group` through the nodes at these peer addresses, `host:port`.
    pub fn new(peers: Peers, group: GroupId, addresses: Vec<String>) -> Self {
        let _ = (peers, group, addresses);
        todo!()
    }
}

#[async_trait]
impl Kv for RemoteKv {
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
