//! Errors: etcd's codes and texts.

use bytes::Bytes;
use onefold_etcd::Options;
use onefold_etcd::proto::etcdserverpb::request_op::Request as Operation;
use onefold_etcd::proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use onefold_kv::KvError;
use tonic::{Code, Request};

use crate::fixture::{Node, assert_error, bytes, letters, put};

#[tokio::test]
async fn a_request_without_a_key_is_refused() {
    let node = Node::start().await;
    let text = "etcdserver: key is not provided";
    assert_error(node.kv().range(RangeRequest::default()).await, Code::InvalidArgument, text);
    assert_error(node.kv().put(put("", "v")).await, Code::InvalidArgument, text);
    let delete = node.kv().delete_range(DeleteRangeRequest::default()).await;
    assert_error(delete, Code::InvalidArgument, text);
}

#[tokio::test]
async fn keeping_what_is_given_or_not_there_is_refused() {
    let node = Node::start().await;
    let cases = [
        (PutRequest { ignore_value: true, ..put("a", "v") }, "etcdserver: value is provided"),
        (
            PutRequest { ignore_lease: true, lease: 1, ..put("a", "v") },
            "etcdserver: lease is provided",
        ),
        (PutRequest { ignore_value: true, ..put("a", "") }, "etcdserver: key not found"),
        (PutRequest { ignore_lease: true, ..put("a", "v") }, "etcdserver: key not found"),
    ];
    for (request, text) in cases {
        assert_error(node.kv().put(request).await, Code::InvalidArgument, text);
    }
}

#[tokio::test]
async fn revisions_of_the_future_are_refused() {
    let node = Node::start().await;
    let text = "etcdserver: mvcc: required revision is a future revision";
    let range = node.kv().range(RangeRequest { revision: 99, ..letters() }).await;
    assert_error(range, Code::OutOfRange, text);
    let compact = node.kv().compact(CompactionRequest { revision: 99, physical: false }).await;
    assert_error(compact, Code::OutOfRange, text);
}

#[tokio::test]
async fn a_put_to_an_unknown_lease_is_refused() {
    let node = Node::start().await;
    let put = node.kv().put(PutRequest { lease: 404, ..put("a", "v") }).await;
    assert_error(put, Code::NotFound, "etcdserver: requested lease not found");
    assert!(node.get("a").await.is_none());
}

#[tokio::test]
async fn a_sort_that_the_api_does_not_have_is_refused() {
    let node = Node::start().await;
    let text = "etcdserver: invalid sort option";
    let order = node.kv().range(RangeRequest { sort_order: 9, ..letters() }).await;
    assert_error(order, Code::InvalidArgument, text);
    let target = node.kv().range(RangeRequest { sort_target: 9, ..letters() }).await;
    assert_error(target, Code::InvalidArgument, text);
}

#[tokio::test]
async fn a_request_beyond_the_bound_is_refused_and_the_connection_lives_on() {
    let node = Node::start().await;
    let large = |bytes: usize| PutRequest {
        key: Bytes::from_static(b"large"),
        value: Bytes::from(vec![1; bytes]),
        ..Default::default()
    };
    let refused = node.kv().put(large(1536 << 10)).await;
    assert_error(refused, Code::InvalidArgument, "etcdserver: request is too large");
    node.kv().put(large((1536 << 10) - 100)).await.expect("this is within the bound");
    let huge = node.kv().put(large(8 << 20)).await.expect_err("this is not even read");
    assert_eq!(huge.code(), Code::OutOfRange, "{huge}");
    assert_eq!(node.get("large").await.map(|kv| kv.version), Some(1));
}

#[tokio::test]
async fn a_client_that_requires_a_leader_is_refused_without_one() {
    let node = Node::start().await;
    node.view.set_leader(false);
    let mut request = Request::new(put("a", "v"));
    request.metadata_mut().insert("hasleader", "true".parse().expect("plain text"));
    assert_error(node.kv().put(request).await, Code::Unavailable, "etcdserver: no leader");
    node.put("a", "others are served if the store can").await;
}

#[tokio::test]
async fn trouble_of_the_store_has_etcds_code_and_text() {
    let reason = || "a test".to_owned();
    let node = Node::start().await;
    let cases = [
        (
            KvError::TimedOut { reason: reason() },
            Code::Unavailable,
            "etcdserver: request timed out",
        ),
        (KvError::Unavailable { reason: reason() }, Code::Unavailable, "etcdserver: no leader"),
        (
            KvError::Overloaded { reason: reason() },
            Code::ResourceExhausted,
            "etcdserver: too many requests",
        ),
        (
            KvError::Internal { reason: reason() },
            Code::Internal,
            "internal error of the store: a test",
        ),
    ];
    for (error, code, text) in cases {
        node.fail(error);
        assert_error(node.kv().put(put("a", "v")).await, code, text);
        let range = RangeRequest { key: bytes("a"), ..Default::default() };
        assert_error(node.kv().range(range).await, code, text);
    }
}

#[tokio::test]
async fn limits_are_what_the_node_was_told() {
    let write = |bytes: usize| PutRequest { value: vec![1; bytes].into(), ..put("a", "") };
    let txn = |operations: usize| TxnRequest {
        success: (0..operations)
            .map(|number| RequestOp {
                request: Some(Operation::RequestPut(put(&format!("k{number}"), ""))),
            })
            .collect(),
        ..TxnRequest::default()
    };
    for (request_bytes_max, txn_operations_max) in [(4 << 10, 3), (3 << 20, 500)] {
        let options = Options { request_bytes_max, txn_operations_max, ..Options::default() };
        let node = Node::start_with(options).await;
        node.kv().put(write(request_bytes_max - 100)).await.expect("this is within the bound");
        let refused = node.kv().put(write(request_bytes_max)).await;
        assert_error(refused, Code::InvalidArgument, "etcdserver: request is too large");
        node.kv().txn(txn(txn_operations_max)).await.expect("this is within the bound");
        let refused = node.kv().txn(txn(txn_operations_max + 1)).await;
        let text = "etcdserver: too many operations in txn request";
        assert_error(refused, Code::InvalidArgument, text);
    }
}
