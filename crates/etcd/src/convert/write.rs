//! Puts, deletions and compactions.

use onefold_kv as kv;

use super::{key_value, number, revision};
use crate::proto::etcdserverpb as pb;

/// A put that a client asks for.
pub(crate) fn put_request(request: pb::PutRequest) -> kv::PutRequest {
    kv::PutRequest {
        key: request.key,
        value: request.value,
        lease: kv::LeaseId(request.lease),
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

/// What a put did.
pub(crate) fn put_response(
    response: kv::PutResponse,
    header: Option<pb::ResponseHeader>,
) -> pb::PutResponse {
    pb::PutResponse { header, prev_kv: response.prev_kv.map(key_value) }
}

/// A deletion that a client asks for.
pub(crate) fn delete_request(request: pb::DeleteRangeRequest) -> kv::DeleteRangeRequest {
    kv::DeleteRangeRequest {
        key: request.key,
        range_end: request.range_end,
        prev_kv: request.prev_kv,
    }
}

/// What a deletion did.
pub(crate) fn delete_response(
    response: kv::DeleteRangeResponse,
    header: Option<pb::ResponseHeader>,
) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header,
        deleted: number(response.deleted),
        prev_kvs: response.prev_kvs.into_iter().map(key_value).collect(),
    }
}

/// A compaction that a client asks for. A revision that is not positive is always compacted.
pub(crate) fn compact_request(request: pb::CompactionRequest) -> kv::CompactRequest {
    kv::CompactRequest { revision: revision(request.revision), physical: request.physical }
}
