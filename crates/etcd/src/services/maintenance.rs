//! Status, alarms and the store's upkeep.

use futures::stream::BoxStream;
use onefold_kv::{AuthQuery, HashScope, Kv};
use tonic::{Request, Response, Status, async_trait};
use tracing::debug;

use super::snapshot;
use crate::convert::{number, revision};
use crate::errors::{self, control, status};
use crate::gateway::{Gateway, identified, present, require};
use crate::proto::etcdserverpb::alarm_request::AlarmAction;
use crate::proto::etcdserverpb::downgrade_request::DowngradeAction;
use crate::proto::etcdserverpb::maintenance_server::Maintenance;
use crate::proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    DowngradeInfo, DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest,
    HashResponse, MoveLeaderRequest, MoveLeaderResponse, ResponseHeader, SnapshotRequest,
    SnapshotResponse, StatusRequest, StatusResponse,
};
use crate::{AlarmKind, ControlError, version};

#[async_trait]
impl Maintenance for Gateway {
    /// An alarm says how things are, and ends when they are better: raising or clearing one by hand
    /// changes nothing, and answers with those that there are.
    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        let call = self.admit(request).await?;
        match call.request.action() {
            AlarmAction::Get => call.user().await?,
            _ => call.root().await?,
        }
        let request = &call.request;
        let alarms = self.cluster.alarms().into_iter().map(|alarm| AlarmMember {
            member_id: alarm.member,
            alarm: match alarm.kind {
                AlarmKind::NoSpace => AlarmType::Nospace.into(),
                AlarmKind::Corrupt => AlarmType::Corrupt.into(),
            },
        });
        let is_meant = |alarm: &AlarmMember| {
            request.action == i32::from(AlarmAction::Get)
                || (request.alarm == i32::from(AlarmType::None) || request.alarm == alarm.alarm)
                    && (request.member_id == 0 || request.member_id == alarm.member_id)
        };
        let alarms = alarms.filter(is_meant).collect();
        let (header, _) = self.status_header(&*call.kv).await;
        Ok(Response::new(AlarmResponse { header, alarms }))
    }

    /// Answers whatever state this node is in, as its last resort for a diagnosis.
    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let kv = self.store(request.metadata(), request.extensions()).await?;
        let kv = identified(kv, request.metadata()).await.map_err(errors::status)?;
        require(&*kv, AuthQuery::IsUser).await?;
        let replica = self.cluster.status();
        let leader = self.cluster.leader();
        let (header, mut errors) = self.status_header(&*kv).await;
        if leader.is_none() {
            errors.push(errors::no_leader().message().to_owned());
        }
        let alarms = self.cluster.alarms();
        let alarm = |alarm: &crate::Alarm| {
            format!("memberID:{} alarm:{} ", alarm.member, alarm.kind.name())
        };
        errors.extend(alarms.iter().map(alarm));
        // Without a majority it is not known, which is said already.
        let downgrade = match leader {
            Some(_) => self.control.downgrade().await.unwrap_or_default(),
            None => None,
        };
        let member = self.cluster.member_id();
        let is_learner = self.cluster.members().iter().any(|m| m.id == member && m.is_learner);
        Ok(Response::new(StatusResponse {
            header,
            version: version::SERVER.to_owned(),
            db_size: number(replica.db_size),
            leader: leader.unwrap_or(0),
            raft_index: replica.raft_index,
            raft_term: replica.raft_term,
            raft_applied_index: replica.applied,
            errors,
            db_size_in_use: number(replica.db_size_in_use),
            is_learner,
            storage_version: version::CLUSTER.to_owned(),
            db_size_quota: number(replica.db_size_quota),
            downgrade_info: Some(DowngradeInfo {
                enabled: downgrade.is_some(),
                target_version: downgrade.unwrap_or_default(),
            }),
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
        let call = self.admit(request).await?;
        call.root().await?;
        let hashed = call.kv.hash(HashScope::Everything).await.map_err(status)?;
        Ok(Response::new(HashResponse { header: self.header(hashed.header), hash: hashed.hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        let call = self.admit(request).await?;
        call.root().await?;
        let scope = HashScope::History(revision(call.request.revision));
        let hashed = call.kv.hash(scope).await.map_err(status)?;
        Ok(Response::new(HashKvResponse {
            header: self.header(hashed.header),
            hash: hashed.hash,
            compact_revision: number(hashed.compacted.get()),
            hash_revision: number(hashed.revision.get()),
        }))
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

    /// Only the leader is asked; clients find it by [`status`](Self::status).
    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        let call = self.admit(request).await?;
        call.root().await?;
        if self.cluster.leader() != Some(self.cluster.member_id()) {
            return Err(control(ControlError::NotLeader));
        }
        self.control.move_leader(call.request.target_id).await.map_err(control)?;
        Ok(Response::new(MoveLeaderResponse { header: self.cluster_header() }))
    }

    /// Notes the wish of operators and tells it to them; nothing is stored differently for it.
    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        let call = self.admit(request).await?;
        call.root().await?;
        let request = &call.request;
        match DowngradeAction::try_from(request.action) {
            Ok(DowngradeAction::Validate) => {
                version::check_downgrade(&request.version)?;
                self.without_downgrade().await?;
            }
            Ok(DowngradeAction::Enable) => {
                let target = version::check_downgrade(&request.version)?;
                self.without_downgrade().await?;
                self.control.set_downgrade(Some(target)).await.map_err(control)?;
            }
            Ok(DowngradeAction::Cancel) => {
                if self.control.downgrade().await.map_err(control)?.is_none() {
                    return Err(errors::no_inflight_downgrade());
                }
                self.control.set_downgrade(None).await.map_err(control)?;
            }
            Err(_) => return Err(Status::invalid_argument("unknown downgrade action")),
        }
        let version = version::CLUSTER.to_owned();
        Ok(Response::new(DowngradeResponse { header: self.cluster_header(), version }))
    }
}

impl Gateway {
    /// Refuses when there is a downgrade already.
    async fn without_downgrade(&self) -> Result<(), Status> {
        match self.control.downgrade().await.map_err(control)? {
            Some(_) => Err(errors::downgrade_in_process()),
            None => Ok(()),
        }
    }

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
