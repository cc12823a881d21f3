//! A long range, part by part.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use onefold_kv::{Header, Kv, RangePartRequest, RangeRequest, SortOrder, SortTarget};
use tonic::Status;

use crate::convert::{key_value, number};
use crate::errors::status;
use crate::gateway::Gateway;
use crate::proto::etcdserverpb::{RangeResponse, RangeStreamResponse};
use crate::room::Taken;
use crate::services::lease::farewell;

/// Bytes of keys and values in a part, beyond which it ends. Every open stream holds one part.
const PART_BYTES: u64 = 1 << 20;

/// A stream that is being read.
struct Reading {
    gateway: Gateway,
    kv: Arc<dyn Kv>,
    request: RangePartRequest,
    /// Records that may still be answered; none for all that there are.
    left: Option<u64>,
    /// Records that were answered.
    count: u64,
    /// Where the store stood when the stream began.
    header: Option<Header>,
    _permit: Taken,
}

/// The parts of a range, all of one revision. The client's pace is the stream's: a part is read when
/// the one before it was taken. The last part has the header, and says how many keys there are.
///
/// # Errors
/// When the range is sorted or filtered by revisions, which would take all of it at once.
pub(super) fn range_stream(
    gateway: Gateway,
    kv: Arc<dyn Kv>,
    request: RangeRequest,
    permit: Taken,
) -> Result<BoxStream<'static, Result<RangeStreamResponse, Status>>, Status> {
    let by_key = request.sort_target == SortTarget::Key && request.sort_order == SortOrder::Ascend;
    if request.sort_order != SortOrder::None && !by_key {
        return Err(Status::unimplemented("RangeStream does not support custom sort orders"));
    }
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if bounds.iter().any(Option::is_some) {
        return Err(Status::unimplemented("RangeStream does not support revision filters"));
    }
    if request.count_only {
        let counted = async move {
            let _permit = permit;
            let counted = kv.range(request).await.map_err(status)?;
            let header = gateway.header(counted.header);
            let count = number(counted.count);
            Ok(answer(RangeResponse { header, count, ..RangeResponse::default() }))
        };
        return Ok(stream::once(counted).boxed());
    }
    let reading = Reading {
        gateway,
        kv,
        left: (request.limit > 0).then_some(request.limit),
        request: RangePartRequest {
            key: request.key,
            range_end: request.range_end,
            limit: request.limit,
            bytes_max: PART_BYTES,
            revision: request.revision,
            serializable: request.serializable,
            keys_only: request.keys_only,
        },
        count: 0,
        header: None,
        _permit: permit,
    };
    let shutdown = reading.gateway.shutdown.clone();
    let parts = stream::try_unfold(Some(reading), |reading| async move {
        let Some(reading) = reading else { return Ok(None) };
        reading.next().await.map(Some)
    });
    let parts = parts.take_until(shutdown.clone().cancelled_owned());
    Ok(parts.chain(farewell(shutdown)).boxed())
}

impl Reading {
    /// The next part, and what is left to read behind it.
    async fn next(mut self) -> Result<(RangeStreamResponse, Option<Self>), Status> {
        let part = self.kv.range_part(self.request.clone()).await.map_err(status)?;
        let header = *self.header.get_or_insert(part.header);
        if self.request.revision.get() == 0 {
            self.request.revision = header.revision;
        }
        let read = part.kvs.len() as u64;
        self.count += read;
        self.left = self.left.map(|left| left.saturating_sub(read));
        let mut response = RangeResponse {
            kvs: part.kvs.into_iter().map(key_value).collect(),
            ..RangeResponse::default()
        };
        match part.next {
            Some(next) if self.left != Some(0) => {
                self.request.key = next;
                self.request.limit = self.left.unwrap_or_default();
                Ok((answer(response), Some(self)))
            }
            next => {
                response.more = next.is_some();
                let behind = match next {
                    Some(next) => self.count_from(next).await?,
                    None => 0,
                };
                response.header = self.gateway.header(header);
                response.count = number(self.count + behind);
                Ok((answer(response), None))
            }
        }
    }

    /// How many keys of the range there are from one on.
    async fn count_from(&self, key: bytes::Bytes) -> Result<u64, Status> {
        let counting = RangeRequest {
            key,
            range_end: self.request.range_end.clone(),
            revision: self.request.revision,
            serializable: self.request.serializable,
            count_only: true,
            ..RangeRequest::default()
        };
        Ok(self.kv.range(counting).await.map_err(status)?.count)
    }
}

fn answer(range_response: RangeResponse) -> RangeStreamResponse {
    RangeStreamResponse { range_response: Some(range_response) }
}
