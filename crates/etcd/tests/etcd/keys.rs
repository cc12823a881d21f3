//! Range, Put, DeleteRange and Compact.

use onefold_etcd::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use onefold_etcd::proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest,
};
use tonic::Code;

use crate::fixture::{Node, assert_error, bytes, keys, letters, put, revision};

/// c, a, b in this order, then a again, with values that sort otherwise.
async fn filled() -> Node {
    let node = Node::start().await;
    assert_eq!(node.put("c", "1").await, 2);
    assert_eq!(node.put("a", "3").await, 3);
    assert_eq!(node.put("b", "2").await, 4);
    assert_eq!(node.put("a", "9").await, 5);
    node
}

#[tokio::test]
async fn a_put_key_is_read_with_its_revisions() {
    let node = filled().await;
    let response = node.range(RangeRequest { key: bytes("a"), ..Default::default() }).await;
    assert_eq!(revision(&response.header), 5);
    assert_eq!((response.count, response.more), (1, false));
    let kv = &response.kvs[0];
    assert_eq!((&kv.key[..], &kv.value[..]), (&b"a"[..], &b"9"[..]));
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version, kv.lease), (3, 5, 2, 0));
    assert!(node.get("nothing").await.is_none());
}

#[tokio::test]
async fn a_range_end_means_a_span_or_everything_from_a_key_on() {
    let node = filled().await;
    assert_eq!(keys(&node.range(letters()).await.kvs), ["a", "b", "c"]);
    let half = RangeRequest { key: bytes("a"), range_end: bytes("c"), ..Default::default() };
    assert_eq!(keys(&node.range(half).await.kvs), ["a", "b"]);
    let rest = RangeRequest { key: bytes("b"), range_end: bytes("\0"), ..Default::default() };
    assert_eq!(keys(&node.range(rest).await.kvs), ["b", "c"]);
    let all = RangeRequest { key: bytes("\0"), range_end: bytes("\0"), ..Default::default() };
    assert_eq!(node.range(all).await.count, 3);
    let inverted = RangeRequest { key: bytes("c"), range_end: bytes("a"), ..Default::default() };
    assert_eq!(node.range(inverted).await.count, 0);
}

#[tokio::test]
async fn a_limit_cuts_off_and_says_so() {
    let node = filled().await;
    let response = node.range(RangeRequest { limit: 2, ..letters() }).await;
    assert_eq!(keys(&response.kvs), ["a", "b"]);
    assert_eq!((response.count, response.more), (3, true));
    let response = node.range(RangeRequest { limit: 3, ..letters() }).await;
    assert_eq!((response.kvs.len(), response.more), (3, false));
}

#[tokio::test]
async fn answers_are_sorted_by_each_target_both_ways() {
    let node = filled().await;
    let expected = [
        (SortTarget::Key, ["a", "b", "c"]),
        (SortTarget::Create, ["c", "a", "b"]),
        (SortTarget::Mod, ["c", "b", "a"]),
        (SortTarget::Value, ["c", "b", "a"]),
    ];
    for (target, ascending) in expected {
        let request = RangeRequest { sort_target: target.into(), ..letters() };
        for order in [SortOrder::None, SortOrder::Ascend] {
            let request = RangeRequest { sort_order: order.into(), ..request.clone() };
            assert_eq!(keys(&node.range(request).await.kvs), ascending, "{target:?} {order:?}");
        }
        let request = RangeRequest { sort_order: SortOrder::Descend.into(), ..request };
        let mut descending = ascending;
        descending.reverse();
        assert_eq!(keys(&node.range(request).await.kvs), descending, "{target:?}");
    }
    let by_version = RangeRequest {
        sort_order: SortOrder::Descend.into(),
        sort_target: SortTarget::Version.into(),
        limit: 1,
        ..letters()
    };
    assert_eq!(keys(&node.range(by_version).await.kvs), ["a"]);
}

#[tokio::test]
async fn values_or_records_are_left_out_on_demand() {
    let node = filled().await;
    let response = node.range(RangeRequest { keys_only: true, ..letters() }).await;
    assert_eq!(keys(&response.kvs), ["a", "b", "c"]);
    assert!(response.kvs.iter().all(|kv| kv.value.is_empty() && kv.mod_revision > 0));
    let response = node.range(RangeRequest { count_only: true, ..letters() }).await;
    assert_eq!((response.kvs.len(), response.count), (0, 3));
}

#[tokio::test]
async fn filters_bound_the_revisions_of_records() {
    let node = filled().await;
    let cases = [
        (RangeRequest { min_mod_revision: 4, ..letters() }, vec!["a", "b"]),
        (RangeRequest { max_mod_revision: 4, ..letters() }, vec!["b", "c"]),
        (RangeRequest { min_create_revision: 3, ..letters() }, vec!["a", "b"]),
        (RangeRequest { max_create_revision: 3, ..letters() }, vec!["a", "c"]),
    ];
    for (request, expected) in cases {
        let response = node.range(request.clone()).await;
        assert_eq!(keys(&response.kvs), expected, "{request:?}");
        assert_eq!(response.count, 3, "filters leave the count alone");
    }
}

#[tokio::test]
async fn the_past_is_read_at_its_revision() {
    let node = filled().await;
    let response = node.range(RangeRequest { revision: 3, ..letters() }).await;
    assert_eq!(keys(&response.kvs), ["a", "c"]);
    assert_eq!(&response.kvs[0].value[..], b"3");
    assert_eq!(revision(&response.header), 5, "the header tells the present");
}

#[tokio::test]
async fn a_serializable_read_answers_from_the_node() {
    let node = filled().await;
    let response = node.range(RangeRequest { serializable: true, ..letters() }).await;
    assert_eq!(keys(&response.kvs), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_put_keeps_or_tells_what_was_there() {
    let node = filled().await;
    let grant = LeaseGrantRequest { ttl: 60, id: 7 };
    node.lease().lease_grant(grant).await.expect("a good grant");
    let request = PutRequest { lease: 7, prev_kv: true, ..put("a", "10") };
    let response = node.kv().put(request).await.expect("a good put").into_inner();
    assert_eq!(revision(&response.header), 6);
    assert_eq!(&response.prev_kv.expect("there was one").value[..], b"9");
    let keep_value = PutRequest { ignore_value: true, lease: 7, ..put("a", "") };
    node.kv().put(keep_value).await.expect("a good put");
    let keep_lease = PutRequest { ignore_lease: true, ..put("a", "11") };
    node.kv().put(keep_lease).await.expect("a good put");
    let kv = node.get("a").await.expect("it is there");
    assert_eq!((&kv.value[..], kv.lease, kv.version), (&b"11"[..], 7, 5));
    let response = node.kv().put(PutRequest { prev_kv: true, ..put("new", "") }).await;
    assert!(response.expect("a good put").into_inner().prev_kv.is_none());
}

#[tokio::test]
async fn a_deletion_counts_and_tells_what_it_deleted() {
    let node = filled().await;
    let request = DeleteRangeRequest { key: bytes("b"), range_end: bytes("z"), prev_kv: true };
    let response = node.kv().delete_range(request).await.expect("a good deletion").into_inner();
    assert_eq!((revision(&response.header), response.deleted), (6, 2));
    assert_eq!(keys(&response.prev_kvs), ["b", "c"]);
    let again = node.delete("b").await;
    assert_eq!(again, 6, "a deletion of nothing makes no revision");
}

#[tokio::test]
async fn compacted_history_cannot_be_read() {
    let node = filled().await;
    let request = CompactionRequest { revision: 4, physical: true };
    let response = node.kv().compact(request).await.expect("a good compaction").into_inner();
    assert_eq!(revision(&response.header), 5);
    assert_eq!(node.range(RangeRequest { revision: 4, ..letters() }).await.count, 3);
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    let past = node.kv().range(RangeRequest { revision: 3, ..letters() }).await;
    assert_error(past, Code::OutOfRange, compacted);
    let again = node.kv().compact(CompactionRequest { revision: 4, physical: false }).await;
    assert_error(again, Code::OutOfRange, compacted);
    let negative = node.kv().compact(CompactionRequest { revision: -1, physical: false }).await;
    assert_error(negative, Code::OutOfRange, compacted);
}
