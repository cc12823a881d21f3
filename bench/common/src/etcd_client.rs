//! As much of the etcd API as clusters and the leader-kill need, for any server that speaks it.

use std::time::Duration;

use anyhow::Result;
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::status::MemberStatus;

/// Fields and numbers of `etcdserverpb.PutRequest`.
#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct PutResponse {}

#[derive(Clone, PartialEq, Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
    #[prost(uint64, tag = "5")]
    raft_index: u64,
}

/// A connection to one member, made when it is needed.
#[derive(Clone)]
pub struct EtcdClient {
    channel: Channel,
    timeout: Duration,
}

impl EtcdClient {
    /// Every attempt, to connect or to call, ends after `timeout`.
    pub fn new(address: &str, timeout: Duration) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(timeout)
            .timeout(timeout)
            .tcp_nodelay(true);
        Ok(Self { channel: endpoint.connect_lazy(), timeout })
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let call = async {
            let mut grpc = Grpc::new(self.channel.clone());
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let path = PathAndQuery::from_static(path);
            let codec: ProstCodec<Q, A> = ProstCodec::default();
            Ok(grpc.unary(Request::new(request), path, codec).await?.into_inner())
        };
        let timed_out = |_| Status::deadline_exceeded("no answer in time");
        tokio::time::timeout(self.timeout, call).await.map_err(timed_out)?
    }

    pub async fn put(&self, key: Vec<u8>, value: Vec<u8>) -> Result<(), Status> {
        let request = PutRequest { key, value };
        self.call::<_, PutResponse>("/etcdserverpb.KV/Put", request).await.map(|_| ())
    }

    pub async fn status(&self) -> Result<MemberStatus, Status> {
        let path = "/etcdserverpb.Maintenance/Status";
        let status: StatusResponse = self.call(path, StatusRequest {}).await?;
        let member = status.header.map_or(0, |header| header.member_id);
        Ok(MemberStatus {
            is_leader: status.leader != 0 && status.leader == member,
            has_leader: status.leader != 0,
            raft_index: status.raft_index,
        })
    }
}
