//! Reads.

use onefold_kv as kv;
use onefold_types::Revision;
use tonic::Status;

use super::{key_value, number, revision};
use crate::errors;
use crate::proto::etcdserverpb as pb;
use pb::range_request::{SortOrder, SortTarget};

/// A read that a client asks for.
pub(crate) fn range_request(request: pb::RangeRequest) -> Result<kv::RangeRequest, Status> {
    let sort_order = match SortOrder::try_from(request.sort_order) {
        Ok(SortOrder::None) => kv::SortOrder::None,
        Ok(SortOrder::Ascend) => kv::SortOrder::Ascend,
        Ok(SortOrder::Descend) => kv::SortOrder::Descend,
        Err(_) => return Err(errors::invalid_sort_option()),
    };
    let sort_target = match SortTarget::try_from(request.sort_target) {
        Ok(SortTarget::Key) => kv::SortTarget::Key,
        Ok(SortTarget::Version) => kv::SortTarget::Version,
        Ok(SortTarget::Create) => kv::SortTarget::Create,
        Ok(SortTarget::Mod) => kv::SortTarget::Mod,
        Ok(SortTarget::Value) => kv::SortTarget::Value,
        Err(_) => return Err(errors::invalid_sort_option()),
    };
    Ok(kv::RangeRequest {
        key: request.key,
        range_end: request.range_end,
        limit: u64::try_from(request.limit).unwrap_or(0),
        revision: revision(request.revision),
        sort_order,
        sort_target,
        serializable: request.serializable,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: bound(request.min_mod_revision),
        max_mod_revision: bound(request.max_mod_revision),
        min_create_revision: bound(request.min_create_revision),
        max_create_revision: bound(request.max_create_revision),
    })
}

/// The bound of a filter. 0 is none; a negative one, as 0 itself would, lies below every revision.
fn bound(value: i64) -> Option<Revision> {
    (value != 0).then(|| revision(value))
}

/// What was read, under a header that is already made.
pub(crate) fn range_response(
    response: kv::RangeResponse,
    header: Option<pb::ResponseHeader>,
) -> pb::RangeResponse {
    pb::RangeResponse {
        header,
        kvs: response.kvs.into_iter().map(key_value).collect(),
        more: response.more,
        count: number(response.count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_of_zero_is_none_and_a_negative_one_is_below_all() {
        assert_eq!(bound(0), None);
        assert_eq!(bound(7), Some(Revision(7)));
        assert_eq!(bound(-7), Some(Revision(0)));
    }

    #[test]
    fn a_limit_or_revision_that_is_not_positive_is_none() {
        let request = pb::RangeRequest { limit: -1, revision: -1, ..Default::default() };
        let request = range_request(request).expect("is valid");
        assert_eq!(request.limit, 0);
        assert_eq!(request.revision, Revision(0));
    }
}
