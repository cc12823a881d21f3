//! Txn.

use onefold_etcd::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use onefold_etcd::proto::etcdserverpb::request_op::Request;
use onefold_etcd::proto::etcdserverpb::response_op::Response;
use onefold_etcd::proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest, TxnResponse,
};
use tonic::{Code, Status};

use crate::fixture::{Node, assert_error, bytes, keys, letters, put, revision};

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn put_op(key: &str, value: &str) -> RequestOp {
    op(Request::RequestPut(put(key, value)))
}

fn range_op(request: RangeRequest) -> RequestOp {
    op(Request::RequestRange(request))
}

fn delete_op(key: &str, range_end: &str) -> RequestOp {
    let (key, range_end) = (bytes(key), bytes(range_end));
    op(Request::RequestDeleteRange(DeleteRangeRequest { key, range_end, prev_kv: true }))
}

fn compare(key: &str, result: CompareResult, target: CompareTarget, of: TargetUnion) -> Compare {
    Compare {
        result: result.into(),
        target: target.into(),
        key: bytes(key),
        range_end: Default::default(),
        target_union: Some(of),
    }
}

fn success(operations: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success: operations, ..Default::default() }
}

async fn txn(node: &Node, request: TxnRequest) -> Result<TxnResponse, Status> {
    Ok(node.kv().txn(request).await?.into_inner())
}

async fn holds(node: &Node, compare: Compare) -> bool {
    let request = TxnRequest { compare: vec![compare], ..Default::default() };
    txn(node, request).await.expect("a good transaction").succeeded
}

#[tokio::test]
async fn one_branch_runs_at_one_revision_and_answers_in_order() {
    let node = Node::start().await;
    node.put("a", "old").await;
    let request = TxnRequest {
        compare: vec![compare(
            "a",
            CompareResult::Equal,
            CompareTarget::Value,
            TargetUnion::Value(bytes("old")),
        )],
        success: vec![
            op(Request::RequestPut(PutRequest { prev_kv: true, ..put("a", "new") })),
            put_op("b", "new"),
            range_op(letters()),
            delete_op("x", ""),
        ],
        failure: vec![put_op("a", "never")],
    };
    let response = txn(&node, request.clone()).await.expect("a good transaction");
    assert!(response.succeeded);
    assert_eq!(revision(&response.header), 3);
    let answers: Vec<_> = response.responses.into_iter().map(|r| r.response).collect();
    let [
        Some(Response::ResponsePut(first)),
        Some(Response::ResponsePut(second)),
        Some(Response::ResponseRange(range)),
        Some(Response::ResponseDeleteRange(delete)),
    ] = &answers[..]
    else {
        panic!("an answer for each operation, not {answers:?}");
    };
    assert_eq!(first.prev_kv.as_ref().map(|kv| &kv.value[..]), Some(&b"old"[..]));
    assert!(second.prev_kv.is_none());
    assert_eq!(keys(&range.kvs), ["a", "b"], "a range sees the writes before it");
    assert!(range.kvs.iter().all(|kv| kv.mod_revision == 3));
    assert_eq!(delete.deleted, 0);
    let other = TxnRequest { failure: vec![put_op("a", "else")], ..request };
    let response = txn(&node, other).await.expect("a good transaction");
    assert!(!response.succeeded);
    assert_eq!(node.get("a").await.map(|kv| kv.value), Some(bytes("else")));
}

#[tokio::test]
async fn every_target_is_compared() {
    let node = Node::start().await;
    node.lease().lease_grant(LeaseGrantRequest { ttl: 60, id: 7 }).await.expect("a good grant");
    node.put("a", "m").await;
    node.kv().put(PutRequest { lease: 7, ..put("a", "m") }).await.expect("a good put");
    let targets = [
        (CompareTarget::Version, [1, 2, 3].map(TargetUnion::Version)),
        (CompareTarget::Create, [1, 2, 3].map(TargetUnion::CreateRevision)),
        (CompareTarget::Mod, [2, 3, 4].map(TargetUnion::ModRevision)),
        (CompareTarget::Value, ["l", "m", "n"].map(|text| TargetUnion::Value(bytes(text)))),
        (CompareTarget::Lease, [6, 7, 8].map(TargetUnion::Lease)),
    ];
    for (target, operands) in targets {
        // The record is greater than the first operand, equal to the second, less than the third.
        for (place, operand) in operands.into_iter().enumerate() {
            let expected = [
                (CompareResult::Greater, place == 0),
                (CompareResult::Equal, place == 1),
                (CompareResult::Less, place == 2),
                (CompareResult::NotEqual, place != 1),
            ];
            for (result, expected) in expected {
                let compare = compare("a", result, target, operand.clone());
                assert_eq!(holds(&node, compare.clone()).await, expected, "{compare:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_absent_key_is_a_record_of_zeros_and_a_missing_operand_is_zero() {
    let node = Node::start().await;
    let absent =
        compare("a", CompareResult::Equal, CompareTarget::Create, TargetUnion::CreateRevision(0));
    let without = Compare { target_union: None, ..absent.clone() };
    assert!(holds(&node, absent.clone()).await);
    assert!(holds(&node, without.clone()).await);
    node.put("a", "").await;
    assert!(!holds(&node, absent).await);
    assert!(!holds(&node, without).await);
}

#[tokio::test]
async fn a_comparison_over_a_span_must_hold_for_every_key() {
    let node = Node::start().await;
    node.put("a", "1").await;
    node.put("b", "2").await;
    let below = |value: &str| Compare {
        range_end: bytes("z"),
        ..compare("a", CompareResult::Less, CompareTarget::Value, TargetUnion::Value(bytes(value)))
    };
    assert!(holds(&node, below("3")).await);
    assert!(!holds(&node, below("2")).await);
}

#[tokio::test]
async fn transactions_nest() {
    let node = Node::start().await;
    let is_new =
        || compare("inner", CompareResult::Equal, CompareTarget::Version, TargetUnion::Version(0));
    let inner = TxnRequest {
        compare: vec![is_new()],
        success: vec![put_op("inner", "1"), range_op(letters())],
        failure: vec![],
    };
    let request = success(vec![put_op("outer", "1"), op(Request::RequestTxn(inner))]);
    let response = txn(&node, request).await.expect("a good transaction");
    assert_eq!(revision(&response.header), 2);
    let Some(Response::ResponseTxn(inner)) = &response.responses[1].response else {
        panic!("the second answer is the inner transaction's");
    };
    assert!(inner.succeeded);
    let Some(Response::ResponseRange(range)) = &inner.responses[1].response else {
        panic!("the inner transaction's second answer is the range's");
    };
    assert_eq!(keys(&range.kvs), ["inner", "outer"]);
    let header = range.header.as_ref().expect("inner answers have headers, too");
    assert_eq!((header.revision, header.cluster_id), (2, 0), "with the revision only, as in etcd");
}

#[tokio::test]
async fn a_transaction_that_only_reads_makes_no_revision() {
    let node = Node::start().await;
    node.put("a", "1").await;
    let response = txn(&node, success(vec![range_op(letters())])).await.expect("it is good");
    assert_eq!(revision(&response.header), 2);
    assert_eq!(node.put("a", "2").await, 3);
}

#[tokio::test]
async fn a_key_may_be_written_once() {
    let node = Node::start().await;
    let text = "etcdserver: duplicate key given in txn request";
    let twice = success(vec![put_op("a", "1"), put_op("a", "2")]);
    assert_error(txn(&node, twice).await, Code::InvalidArgument, text);
    let deleted = success(vec![put_op("b", "1"), delete_op("a", "z")]);
    assert_error(txn(&node, deleted).await, Code::InvalidArgument, text);
    assert!(node.get("a").await.is_none());
}

#[tokio::test]
async fn operations_are_bounded() {
    let node = Node::start().await;
    let puts = |count: usize| success((0..count).map(|i| put_op(&format!("{i}"), "")).collect());
    txn(&node, puts(128)).await.expect("as many as etcd allows");
    let text = "etcdserver: too many operations in txn request";
    assert_error(txn(&node, puts(129)).await, Code::InvalidArgument, text);
}

#[tokio::test]
async fn malformed_parts_are_refused() {
    let node = Node::start().await;
    let empty = txn(&node, success(vec![RequestOp { request: None }])).await;
    assert_error(empty, Code::InvalidArgument, "etcdserver: key not found");
    let no_key = txn(&node, success(vec![put_op("", "v")])).await;
    assert_error(no_key, Code::InvalidArgument, "etcdserver: key is not provided");
    let compare = Compare { key: bytes("a"), result: 9, ..Default::default() };
    let request = TxnRequest { compare: vec![compare], ..Default::default() };
    let status = txn(&node, request).await.expect_err("there is no such comparison");
    assert_eq!(status.code(), Code::InvalidArgument);
}
