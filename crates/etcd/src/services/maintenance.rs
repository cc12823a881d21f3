//! Status, alarms and the store's upkeep.

use futures::stream::BoxStream;
use onefold_kv::{AuthQuery, Kv};
use tonic::{Request, Response, Status, async_trait};
use tracing::debug;

use super::snapshot;
use crate::convert::number;
use crate::errors::{self, unimplemented};
use crate::gateway::{Gateway, identified, present, require};
use crate::proto::etcdserverpb::alarm_request::AlarmAction;
use crate::proto::etcdserverpb::maintenance_server::Maintenance;
use crate::proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeRequest,
    DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest,
    MoveLeaderResponse, ResponseHeader, SnapshotRequest, SnapshotResponse, StatusRequest,
    StatusResponse,
};

/// The etcd version whose API this is. Clients choose by it what to use: since 3.5.13, for example,
/// Kubernetes trusts the progress of watches.
const ETCD_VERSION: &str = "3.5.21";

#[async_trait]
impl Maintenance for Gateway {
    /// Nothing raises an alarm: there is none to tell, none to clear, and asking is harmless.
    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        let call = self.admit(request).await?;
        match call.request.action() {
            AlarmAction::Get => call.user().await?,
            _ => call.root().await?,
        }
        let (header, _) = self.status_header(&*call.kv).await;
        Ok(Response::new(AlarmResponse { header, alarms: Vec::new() }))
    }

    /// Answers whatever state this node is in, as its last resort for a diagnosis.
    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let kv = self.store(request.metadata(), request.extensions()).await?;
        let kv = identified(kv, request.metadata()).await.map_err(errors::status)?;
        require(&*kv, AuthQuery::IsUser).await?;
        let status = self.cluster.status();
        let leader = self.cluster.leader();
        let (header, mut errors) = self.status_header(&*kv).await;
        if leader.is_none() {
            errors.push(errors::no_leader().message().to_owned());
        }
        let member = self.cluster.member_id();
        let is_learner = self.cluster.members().iter().any(|m| m.id == member && m.is_learner);
        Ok(Response::new(StatusResponse {
            header,
            version: ETCD_VERSION.to_owned(),
            db_size: number(status.db_size),
            leader: leader.unwrap_or(0),
            raft_index: status.raft_index,
            raft_term: status.raft_term,
            raft_applied_index: status.applied,
            errors,
            // Space that is given up is reused by the table's own merges: all of it is in use.
            db_size_in_use: number(status.db_size),
            is_learner,
            storage_version: String::new(),
            db_size_quota: 0,
            downgrade_info: None,
        }))
    }

    /// The table gives space back by itself.
    async fn defragment(
        &self,
        request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        let call = self.admit(request).await?;
        call.root().await?;
        Ok(Response::new(DefragmentResponse { header: self.cluster_header() }))
    }

    async fn hash(&self, request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        self.admit(request).await?.root().await?;
        Err(unimplemented("Hash", "it hashes etcd's own file format, which is not used here"))
    }

    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        self.admit(request).await?.root().await?;
        Err(unimplemented("HashKV", "compare members by reading the same revision from each"))
    }

    type SnapshotStream = BoxStream<'static, Result<SnapshotResponse, Status>>;

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let call = self.admit(request).await?;
        call.root().await?;
        Ok(Response::new(snapshot::stream(self, &*call.kv).await?))
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        self.admit(request).await?.root().await?;
        Err(unimplemented("MoveLeader", "stop the leader's node and another one takes over"))
    }

    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        self.admit(request).await?.root().await?;
        Err(unimplemented("Downgrade", "its storage is not etcd's and has no older versions"))
    }
}

impl Gateway {
    /// A header even when the store does not answer, and then what is wrong.
    async fn status_header(&self, kv: &dyn Kv) -> (Option<ResponseHeader>, Vec<String>) {
        match present(kv).await {
            Ok(header) => (self.header(header), Vec::new()),
            Err(error) => {
                debug!(%error, "the store's revision is unknown");
                (self.cluster_header(), vec![errors::status(error).message().to_owned()])
            }
        }
    }
}
