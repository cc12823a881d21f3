//! Long ranges in parts.

use onefold_etcd::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use onefold_etcd::proto::etcdserverpb::{PutRequest, RangeRequest, RangeResponse};
use tonic::{Code, Status};

use crate::fixture::{Node, assert_error, bytes, letters, revision};

/// All parts of a stream.
async fn parts(node: &Node, request: RangeRequest) -> Result<Vec<RangeResponse>, Status> {
    let mut stream = node.kv().range_stream(request).await?.into_inner();
    let mut parts = Vec::new();
    while let Some(part) = stream.message().await? {
        parts.push(part.range_response.expect("every part has one"));
    }
    Ok(parts)
}

/// What a client gets that puts all parts together.
fn whole(parts: Vec<RangeResponse>) -> RangeResponse {
    let mut whole = RangeResponse::default();
    for part in parts {
        whole.kvs.extend(part.kvs);
        whole.header = part.header.or(whole.header);
        (whole.more, whole.count) = (part.more, part.count);
    }
    whole
}

async fn fill(node: &Node, keys: usize, value_bytes: usize) {
    for number in 0..keys {
        let request = PutRequest {
            key: bytes(&format!("k{number:04}")),
            value: vec![b'v'; value_bytes].into(),
            ..Default::default()
        };
        node.kv().put(request).await.expect("a good put");
    }
}

#[tokio::test]
async fn the_parts_are_what_a_range_answers_whole() {
    let node = Node::start().await;
    fill(&node, 40, 100_000).await;
    for limit in [0, 1, 7, 39, 40, 41] {
        for keys_only in [false, true] {
            let request = RangeRequest { limit, keys_only, ..letters() };
            let parts = parts(&node, request.clone()).await.expect("a good stream");
            let is_long = limit != 1 && limit != 7 && !keys_only;
            assert_eq!(parts.len() > 1, is_long, "{} parts for {limit}", parts.len());
            let (last, before) = parts.split_last().expect("there is one at least");
            assert_eq!(revision(&last.header), 41);
            assert!(
                before.iter().all(|part| part.header.is_none() && part.count == 0 && !part.more)
            );
            assert_eq!(whole(parts), node.range(request).await, "limit {limit}");
        }
    }
}

#[tokio::test]
async fn all_parts_are_of_one_revision_whatever_is_written_meanwhile() {
    let node = Node::start().await;
    fill(&node, 80, 100_000).await;
    let before = node.range(letters()).await;
    let mut stream = node.kv().range_stream(letters()).await.expect("a stream").into_inner();
    let first = stream.message().await.expect("a part").expect("it is long");
    fill(&node, 80, 10).await;
    node.delete("k0079").await;
    let mut parts = vec![first.range_response.expect("every part has one")];
    while let Some(part) = stream.message().await.expect("a part") {
        parts.push(part.range_response.expect("every part has one"));
    }
    let read = whole(parts);
    assert_eq!(revision(&read.header), revision(&before.header));
    assert_eq!((read.kvs, read.count), (before.kvs, before.count));
}

#[tokio::test]
async fn one_revision_can_be_asked_for_and_must_be_readable() {
    let node = Node::start().await;
    node.put("a", "1").await;
    let old = node.put("b", "1").await;
    node.put("a", "2").await;
    let request = RangeRequest { revision: old, serializable: true, ..letters() };
    let read = whole(parts(&node, request.clone()).await.expect("a good stream"));
    let values: Vec<_> = read.kvs.iter().map(|kv| kv.value.clone()).collect();
    assert_eq!(values, ["1", "1"]);
    let counted = RangeRequest { count_only: true, ..letters() };
    let counted = whole(parts(&node, counted).await.expect("a good stream"));
    assert_eq!((counted.count, counted.kvs.len()), (2, 0));
    node.compact(old + 1).await;
    let text = "etcdserver: mvcc: required revision has been compacted";
    assert_error(parts(&node, request).await, Code::OutOfRange, text);
    let none = RangeRequest::default();
    let text = "etcdserver: key is not provided";
    assert_error(parts(&node, none).await, Code::InvalidArgument, text);
}

#[tokio::test]
async fn sorting_and_filters_are_refused_since_they_need_everything() {
    let node = Node::start().await;
    let text = "RangeStream does not support custom sort orders";
    let descending = RangeRequest { sort_order: SortOrder::Descend.into(), ..letters() };
    assert_error(parts(&node, descending).await, Code::Unimplemented, text);
    let by_value = RangeRequest {
        sort_order: SortOrder::Ascend.into(),
        sort_target: SortTarget::Value.into(),
        ..letters()
    };
    assert_error(parts(&node, by_value).await, Code::Unimplemented, text);
    let filtered = RangeRequest { min_mod_revision: 2, ..letters() };
    let text = "RangeStream does not support revision filters";
    assert_error(parts(&node, filtered).await, Code::Unimplemented, text);
    let ascending = RangeRequest { sort_order: SortOrder::Ascend.into(), ..letters() };
    assert!(parts(&node, ascending).await.is_ok());
}
