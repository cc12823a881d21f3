//! Keys: reads, writes, transactions, compaction.

use futures::stream::BoxStream;
use onefold_kv::KvError;
use tonic::{Request, Response, Status, async_trait};

use crate::convert;
use crate::errors::status;
use crate::gateway::Gateway;
use crate::proto::etcdserverpb::kv_server::Kv;
use crate::proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, TxnRequest, TxnResponse,
};
use crate::services::range_stream::range_stream;

#[async_trait]
impl Kv for Gateway {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let call = self.admit(request).await?;
        let request = convert::range_request(call.request)?;
        let response = call.kv.range(request).await.map_err(status)?;
        let header = self.header(response.header);
        Ok(Response::new(convert::range_response(response, header)))
    }

    type RangeStreamStream = BoxStream<'static, Result<RangeStreamResponse, Status>>;

    async fn range_stream(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let call = self.admit(request).await?;
        let request = convert::range_request(call.request)?;
        let permit = self.admission.range_stream()?;
        Ok(Response::new(range_stream(self.clone(), call.kv, request, permit)?))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let call = self.admit(request).await?;
        let response = call.kv.put(convert::put_request(call.request)).await.map_err(status)?;
        let header = self.header(response.header);
        Ok(Response::new(convert::put_response(response, header)))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let call = self.admit(request).await?;
        let request = convert::delete_request(call.request);
        let response = call.kv.delete_range(request).await.map_err(status)?;
        let header = self.header(response.header);
        Ok(Response::new(convert::delete_response(response, header)))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let call = self.admit(request).await?;
        let request = convert::txn_request(call.request)?;
        if request.operations() > self.options.txn_operations_max {
            return Err(status(KvError::TooManyOperations));
        }
        let response = call.kv.txn(request).await.map_err(status)?;
        let header = self.header(response.header);
        Ok(Response::new(convert::txn_response(response, header)))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let call = self.admit(request).await?;
        let request = convert::compact_request(call.request);
        let response = call.kv.compact(request).await.map_err(status)?;
        Ok(Response::new(CompactionResponse { header: self.header(response.header) }))
    }
}
