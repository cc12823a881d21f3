//! Leases.

use std::future;
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use onefold_kv as kv;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::errors::{self, status};
use crate::gateway::Gateway;
use crate::proto::etcdserverpb::lease_server::Lease;
use crate::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};

/// Most keep-alives of one stream in work at once. Answers keep the order of the requests.
const KEEP_ALIVES_IN_WORK_MAX: usize = 64;

#[async_trait]
impl Lease for Gateway {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let call = self.admit(request).await?;
        let request = kv::LeaseGrantRequest {
            id: kv::LeaseId(call.request.id),
            ttl_seconds: call.request.ttl,
        };
        let response = call.kv.lease_grant(request).await.map_err(status)?;
        Ok(Response::new(LeaseGrantResponse {
            header: self.header(response.header),
            id: response.id.0,
            ttl: response.ttl_seconds,
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let call = self.admit(request).await?;
        let response = call.kv.lease_revoke(kv::LeaseId(call.request.id)).await.map_err(status)?;
        Ok(Response::new(LeaseRevokeResponse { header: self.header(response.header) }))
    }

    type LeaseKeepAliveStream = BoxStream<'static, Result<LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let stream = self.admit_stream(request).await?;
        let (gateway, kv) = (self.clone(), stream.kv);
        let shutdown = self.shutdown.clone();
        let answers = stream
            .requests
            .map(move |request| keep_alive(gateway.clone(), kv.clone(), request))
            .buffered(KEEP_ALIVES_IN_WORK_MAX)
            .take_until(shutdown.clone().cancelled_owned())
            .chain(farewell(shutdown));
        Ok(Response::new(answers.boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let call = self.admit(request).await?;
        let request = kv::LeaseTimeToLiveRequest {
            id: kv::LeaseId(call.request.id),
            keys: call.request.keys,
        };
        let response = call.kv.lease_time_to_live(request).await.map_err(status)?;
        Ok(Response::new(LeaseTimeToLiveResponse {
            header: self.header(response.header),
            id: response.id.0,
            ttl: response.ttl_seconds,
            granted_ttl: response.granted_ttl_seconds,
            keys: response.keys,
        }))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let call = self.admit(request).await?;
        let response = call.kv.leases().await.map_err(status)?;
        let leases = response.leases.into_iter().map(|lease| LeaseStatus { id: lease.0 });
        Ok(Response::new(LeaseLeasesResponse {
            header: self.header(response.header),
            leases: leases.collect(),
        }))
    }
}

async fn keep_alive(
    gateway: Gateway,
    kv: Arc<dyn kv::Kv>,
    request: Result<LeaseKeepAliveRequest, Status>,
) -> Result<LeaseKeepAliveResponse, Status> {
    let lease = kv::LeaseId(request?.id);
    let response = kv.lease_keep_alive(lease).await.map_err(status)?;
    Ok(LeaseKeepAliveResponse {
        header: gateway.header(response.header),
        id: response.id.0,
        ttl: response.ttl_seconds,
    })
}

/// The last word of a stream that the shutdown ended; none where the client ended it.
pub(super) fn farewell<T: Send + 'static>(
    shutdown: CancellationToken,
) -> BoxStream<'static, Result<T, Status>> {
    stream::once(async move { shutdown.is_cancelled() })
        .filter_map(|stopped| future::ready(stopped.then(|| Err(errors::stopped()))))
        .boxed()
}
