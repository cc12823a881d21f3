//! The Lock service.

use bytes::Bytes;
use onefold_kv::DeleteRangeRequest;
use tonic::{Request, Response, Status, async_trait};

use super::place::{Place, lease};
use crate::errors::{self, status};
use crate::gateway::Gateway;
use crate::proto::v3lockpb::lock_server::Lock;
use crate::proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};

#[async_trait]
impl Lock for Gateway {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let call = self.admit(request).await?;
        let LockRequest { name, lease: id } = call.request.clone();
        let lease = lease(&*call.kv, id).await?;
        let taken = Place::take(call.kv.clone(), name, lease, Bytes::new()).await?;
        let (place, header) = if taken.is_first() {
            (taken.place, taken.header)
        } else {
            let mut place = taken.place;
            // As in etcd, a wait in vain gives up the lease's place whoever took it.
            place.give_up();
            let header = self.wait(call, place.turn()).await?;
            (place, header)
        };
        Ok(Response::new(LockResponse { header: self.header(header), key: place.keep() }))
    }

    async fn unlock(
        &self,
        request: Request<UnlockRequest>,
    ) -> Result<Response<UnlockResponse>, Status> {
        let call = self.admit(request).await?;
        let request = DeleteRangeRequest::key(call.request.key);
        let response = call.kv.delete_range(request).await.map_err(status)?;
        Ok(Response::new(UnlockResponse { header: self.header(response.header) }))
    }
}

impl Gateway {
    /// Waits for a turn, which may take as long as the caller cares to wait: it counts as a watch
    /// and no longer as a request in work.
    pub(super) async fn wait<T, R>(
        &self,
        call: crate::gateway::Admitted<R>,
        turn: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let _permit = self.admission.watch().ok_or_else(errors::too_many_requests)?;
        drop(call);
        tokio::select! {
            () = self.shutdown.cancelled() => Err(errors::stopped()),
            result = turn => result,
        }
    }
}
