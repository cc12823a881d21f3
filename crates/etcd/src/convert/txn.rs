//! Transactions.

use onefold_kv as kv;
use tonic::Status;

use super::{
    delete_request, delete_response, number, put_request, put_response, range_request,
    range_response,
};
use crate::errors;
use crate::proto::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;
use pb::response_op::Response;

/// A transaction that a client asks for. The decoder bounds how deep it nests.
pub(crate) fn txn_request(request: pb::TxnRequest) -> Result<kv::TxnRequest, Status> {
    Ok(kv::TxnRequest {
        compare: request.compare.into_iter().map(compare).collect::<Result<_, _>>()?,
        success: request.success.into_iter().map(operation).collect::<Result<_, _>>()?,
        failure: request.failure.into_iter().map(operation).collect::<Result<_, _>>()?,
    })
}

fn operation(operation: pb::RequestOp) -> Result<kv::Operation, Status> {
    Ok(match operation.request.ok_or_else(errors::empty_operation)? {
        Request::RequestRange(request) => kv::Operation::Range(range_request(request)?),
        Request::RequestPut(request) => kv::Operation::Put(put_request(request)),
        Request::RequestDeleteRange(request) => kv::Operation::DeleteRange(delete_request(request)),
        Request::RequestTxn(request) => kv::Operation::Txn(txn_request(request)?),
    })
}

fn compare(compare: pb::Compare) -> Result<kv::Compare, Status> {
    let result = match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => kv::CompareResult::Equal,
        Ok(CompareResult::Greater) => kv::CompareResult::Greater,
        Ok(CompareResult::Less) => kv::CompareResult::Less,
        Ok(CompareResult::NotEqual) => kv::CompareResult::NotEqual,
        Err(_) => return Err(errors::invalid_compare()),
    };
    let target = CompareTarget::try_from(compare.target).map_err(|_| errors::invalid_compare())?;
    Ok(kv::Compare {
        result,
        target: operand(target, compare.target_union),
        key: compare.key,
        range_end: compare.range_end,
    })
}

/// The operand of `target`. As in etcd, one that is missing or of another target counts as zero.
fn operand(target: CompareTarget, union: Option<TargetUnion>) -> kv::CompareTarget {
    match (target, union) {
        (CompareTarget::Version, Some(TargetUnion::Version(value))) => {
            kv::CompareTarget::Version(value)
        }
        (CompareTarget::Version, _) => kv::CompareTarget::Version(0),
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(value))) => {
            kv::CompareTarget::CreateRevision(value)
        }
        (CompareTarget::Create, _) => kv::CompareTarget::CreateRevision(0),
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(value))) => {
            kv::CompareTarget::ModRevision(value)
        }
        (CompareTarget::Mod, _) => kv::CompareTarget::ModRevision(0),
        (CompareTarget::Value, Some(TargetUnion::Value(value))) => kv::CompareTarget::Value(value),
        (CompareTarget::Value, _) => kv::CompareTarget::Value(Default::default()),
        (CompareTarget::Lease, Some(TargetUnion::Lease(value))) => {
            kv::CompareTarget::Lease(kv::LeaseId(value))
        }
        (CompareTarget::Lease, _) => kv::CompareTarget::Lease(kv::LeaseId::NONE),
    }
}

/// What a transaction did, under a header that is already made.
pub(crate) fn txn_response(
    response: kv::TxnResponse,
    header: Option<pb::ResponseHeader>,
) -> pb::TxnResponse {
    pb::TxnResponse {
        header,
        succeeded: response.succeeded,
        responses: response.responses.into_iter().map(operation_response).collect(),
    }
}

fn operation_response(response: kv::OperationResponse) -> pb::ResponseOp {
    let response = match response {
        kv::OperationResponse::Range(response) => {
            let header = inner_header(response.header);
            Response::ResponseRange(range_response(response, header))
        }
        kv::OperationResponse::Put(response) => {
            let header = inner_header(response.header);
            Response::ResponsePut(put_response(response, header))
        }
        kv::OperationResponse::DeleteRange(response) => {
            let header = inner_header(response.header);
            Response::ResponseDeleteRange(delete_response(response, header))
        }
        kv::OperationResponse::Txn(response) => {
            let header = inner_header(response.header);
            Response::ResponseTxn(txn_response(response, header))
        }
    };
    pb::ResponseOp { response: Some(response) }
}

/// The header of an answer within a transaction has, as in etcd, only the revision.
fn inner_header(header: kv::Header) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision: number(header.revision.get()), ..Default::default() })
}
