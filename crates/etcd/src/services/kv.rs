//! Keys: reads, writes, transactions, compaction.

use tonic::{Request, Response, Status, async_trait};

use crate::convert;
use crate::errors::status;
use crate::gateway::Gateway;
use crate::proto::etcdserverpb::kv_server::Kv;
use crate::proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};

#[async_trait]
impl Kv for Gateway {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let (request, _permit) = self.admit(request)?;
        let request = convert::range_request(request)?;
        let response = self.kv.range(request).await.map_err(status)?;
        let header = self.header(response.header);
        Ok(Response::new(convert::range_response(response, header)))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let (request, _permit) = self.admit(request)?;
        let response = self.kv.put(convert::put_request(request)).await.map_err(status)?;
        let header = self.header(response.header);
        Ok(Response::new(convert::put_response(response, header)))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let (request, _permit) = self.admit(request)?;
        let request = convert::delete_request(request);
        let response = self.kv.delete_range(request).await.map_err(status)?;
        let header = self.header(response.header);
        Ok(Response::new(convert::delete_response(response, header)))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let (request, _permit) = self.admit(request)?;
        let request = convert::txn_request(request)?;
        let response = self.kv.txn(request).await.map_err(status)?;
        let header = self.header(response.header);
        Ok(Response::new(convert::txn_response(response, header)))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let (request, _permit) = self.admit(request)?;
        let request = convert::compact_request(request);
        let response = self.kv.compact(request).await.map_err(status)?;
        Ok(Response::new(CompactionResponse { header: self.header(response.header) }))
    }
}
