//! Lease.

use onefold_etcd::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, PutRequest,
};
use onefold_kv::KvError;
use tokio_stream::StreamExt;
use tonic::Code;

use crate::fixture::{Node, assert_error, bytes, put, revision};
use crate::watching::{Watching, key};

const NOT_FOUND: &str = "etcdserver: requested lease not found";

async fn grant(node: &Node, id: i64, ttl: i64) -> i64 {
    let response = node.lease().lease_grant(LeaseGrantRequest { id, ttl }).await;
    let response = response.expect("a good grant").into_inner();
    revision(&response.header);
    assert!(response.ttl >= ttl);
    response.id
}

#[tokio::test]
async fn a_lease_has_the_wished_id_or_a_chosen_one() {
    let node = Node::start().await;
    assert_eq!(grant(&node, 42, 60).await, 42);
    let chosen = grant(&node, 0, 60).await;
    assert!(chosen > 0 && chosen != 42);
    let response = node.lease().lease_leases(LeaseLeasesRequest {}).await.expect("a good list");
    let mut leases: Vec<_> = response.into_inner().leases.iter().map(|lease| lease.id).collect();
    leases.sort_unstable();
    assert_eq!(leases, [42, chosen]);
    let again = node.lease().lease_grant(LeaseGrantRequest { id: 42, ttl: 60 }).await;
    assert_error(again, Code::FailedPrecondition, "etcdserver: lease already exists");
}

#[tokio::test]
async fn a_time_to_live_is_bounded() {
    let node = Node::start().await;
    let long = node.lease().lease_grant(LeaseGrantRequest { id: 0, ttl: 9_000_000_001 }).await;
    assert_error(long, Code::OutOfRange, "etcdserver: too large lease TTL");
}

#[tokio::test]
async fn a_revoked_lease_takes_its_keys_along() {
    let node = Node::start().await;
    let id = grant(&node, 7, 60).await;
    node.kv().put(PutRequest { lease: id, ..put("a", "1") }).await.expect("a good put");
    node.kv().put(PutRequest { lease: id, ..put("b", "1") }).await.expect("a good put");
    let request = LeaseTimeToLiveRequest { id, keys: true };
    let left = node.lease().lease_time_to_live(request).await.expect("it lives").into_inner();
    assert!((1..=60).contains(&left.ttl));
    assert_eq!((left.granted_ttl, left.keys), (60, vec![bytes("a"), bytes("b")]));
    let revoked = node.lease().lease_revoke(LeaseRevokeRequest { id }).await.expect("it lives");
    assert_eq!(revision(&revoked.into_inner().header), 4, "all keys go in one revision");
    assert!(node.get("a").await.is_none() && node.get("b").await.is_none());
    let again = node.lease().lease_revoke(LeaseRevokeRequest { id }).await;
    assert_error(again, Code::NotFound, NOT_FOUND);
    let request = LeaseTimeToLiveRequest { id, keys: false };
    let gone = node.lease().lease_time_to_live(request).await.expect("an answer").into_inner();
    assert_eq!((gone.id, gone.ttl), (id, -1));
}

#[tokio::test]
async fn keep_alives_are_answered_in_order_and_unknown_leases_have_no_time() {
    let node = Node::start().await;
    grant(&node, 7, 60).await;
    grant(&node, 8, 90).await;
    let asked = [8, 404, 7, 8].map(|id| LeaseKeepAliveRequest { id });
    let response = node.lease().lease_keep_alive(tokio_stream::iter(asked)).await;
    let answers: Result<Vec<_>, _> = response.expect("a stream").into_inner().collect().await;
    let answers = answers.expect("good answers");
    let told: Vec<_> = answers.iter().map(|answer| (answer.id, answer.ttl)).collect();
    assert_eq!(told, [(8, 90), (404, 0), (7, 60), (8, 90)]);
    answers.iter().for_each(|answer| assert!(revision(&answer.header) > 0));
}

#[tokio::test]
async fn keep_alives_fail_when_the_store_does() {
    let node = Node::start().await;
    let (asked, requests) = tokio::sync::mpsc::channel(1);
    asked.send(LeaseKeepAliveRequest { id: 1 }).await.expect("room for one");
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let response = node.lease().lease_keep_alive(requests).await.expect("a stream");
    let mut answers = response.into_inner();
    answers.message().await.expect("a good answer").expect("an answer");
    node.fail(KvError::Unavailable { reason: "a test".to_owned() });
    asked.send(LeaseKeepAliveRequest { id: 1 }).await.expect("room for one");
    assert_error(answers.message().await, Code::Unavailable, "etcdserver: no leader");
}

#[tokio::test]
async fn an_expired_lease_deletes_its_keys() {
    let node = Node::start().await;
    let id = grant(&node, 7, 1).await;
    node.kv().put(PutRequest { lease: id, ..put("a", "1") }).await.expect("a good put");
    let mut watching = Watching::start(&node).await;
    watching.create(key("a")).await;
    assert_eq!(watching.events().await, ["delete a"]);
    let left = node.lease().lease_time_to_live(LeaseTimeToLiveRequest { id, keys: false }).await;
    assert_eq!(left.expect("an answer").into_inner().ttl, -1);
}

#[tokio::test]
async fn a_keep_alive_stream_is_told_of_the_shutdown() {
    let node = Node::start().await;
    let (_asked, requests) = tokio::sync::mpsc::channel::<LeaseKeepAliveRequest>(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let response = node.lease().lease_keep_alive(requests).await.expect("a stream");
    node.stopping();
    let told = response.into_inner().message().await;
    assert_error(told, Code::Unavailable, "etcdserver: server stopped");
    node.stop().await;
}
