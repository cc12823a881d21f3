//! The members.

use tonic::{Request, Response, Status, async_trait};

use crate::errors::unimplemented;
use crate::gateway::Gateway;
use crate::proto::etcdserverpb::cluster_server::Cluster;
use crate::proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse,
};

const FIXED_MEMBERS: &str = "the members are those that the cluster was formed of";

#[async_trait]
impl Cluster for Gateway {
    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        let _call = self.admit(request).await?;
        let members = self.cluster.members().into_iter().map(|member| Member {
            id: member.id,
            name: member.name,
            peer_ur_ls: member.peer_urls,
            client_ur_ls: member.client_urls,
            is_learner: member.is_learner,
        });
        Ok(Response::new(MemberListResponse {
            header: self.cluster_header(),
            members: members.collect(),
        }))
    }

    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        self.admit(request).await?.root().await?;
        Err(unimplemented("MemberAdd", FIXED_MEMBERS))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        self.admit(request).await?.root().await?;
        Err(unimplemented("MemberRemove", FIXED_MEMBERS))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        self.admit(request).await?.root().await?;
        Err(unimplemented("MemberUpdate", "a node tells its own addresses when it starts"))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        self.admit(request).await?.root().await?;
        Err(unimplemented("MemberPromote", FIXED_MEMBERS))
    }
}
