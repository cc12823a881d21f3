//! The members.

use tonic::{Request, Response, Status, async_trait};

use crate::ControlError;
use crate::errors::control;
use crate::gateway::Gateway;
use crate::proto::etcdserverpb::cluster_server::Cluster;
use crate::proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse,
};

#[async_trait]
impl Cluster for Gateway {
    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        let call = self.admit(request).await?;
        if call.request.linearizable {
            self.control.refresh().await.map_err(control)?;
        }
        let header = self.cluster_header();
        Ok(Response::new(MemberListResponse { header, members: self.members() }))
    }

    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        let call = self.admit(request).await?;
        call.root().await?;
        let address = address(&call.request.peer_ur_ls).map_err(control)?;
        let id =
            self.control.add_member(address, call.request.is_learner).await.map_err(control)?;
        let members = self.members();
        let member = members.iter().find(|member| member.id == id).cloned();
        let header = self.cluster_header();
        Ok(Response::new(MemberAddResponse { header, member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        let call = self.admit(request).await?;
        call.root().await?;
        self.control.remove_member(call.request.id).await.map_err(control)?;
        let header = self.cluster_header();
        Ok(Response::new(MemberRemoveResponse { header, members: self.members() }))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        let call = self.admit(request).await?;
        call.root().await?;
        let address = address(&call.request.peer_ur_ls).map_err(control)?;
        self.control.move_member(call.request.id, address).await.map_err(control)?;
        let header = self.cluster_header();
        Ok(Response::new(MemberUpdateResponse { header, members: self.members() }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        let call = self.admit(request).await?;
        call.root().await?;
        self.control.promote_member(call.request.id).await.map_err(control)?;
        let header = self.cluster_header();
        Ok(Response::new(MemberPromoteResponse { header, members: self.members() }))
    }
}

impl Gateway {
    fn members(&self) -> Vec<Member> {
        let member = |member: crate::Member| Member {
            id: member.id,
            name: member.name,
            peer_ur_ls: member.peer_urls,
            client_ur_ls: member.client_urls,
            is_learner: member.is_learner,
        };
        self.cluster.members().into_iter().map(member).collect()
    }
}

/// The address in a member's URLs. A member has one, and it is reached without TLS.
fn address(urls: &[String]) -> Result<String, ControlError> {
    let [url] = urls else { return Err(ControlError::BadAddress) };
    let address = url.strip_prefix("http://").ok_or(ControlError::BadAddress)?;
    let (host, port) = address.rsplit_once(':').ok_or(ControlError::BadAddress)?;
    let is_plain = !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']);
    match port.parse::<u16>() {
        Ok(1..) if is_plain => Ok(address.to_owned()),
        _ => Err(ControlError::BadAddress),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_has_one_plain_url_with_a_port() {
        let read =
            |urls: &[&str]| address(&urls.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(read(&["http://10.0.0.1:2380"]).as_deref(), Ok("10.0.0.1:2380"));
        assert_eq!(read(&["http://[::1]:2380"]).as_deref(), Ok("[::1]:2380"));
        for bad in [
            &[][..],
            &["http://a:1", "http://b:1"],
            &["https://a:1"],
            &["a:1"],
            &["http://a"],
            &["http://:1"],
            &["http://a:0"],
            &["http://a:1/path"],
            &["http://a:99999"],
        ] {
            assert_eq!(read(bad), Err(ControlError::BadAddress), "{bad:?}");
        }
    }
}
