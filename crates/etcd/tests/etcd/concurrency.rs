//! The Lock and Election services.

use std::time::Duration;

use onefold_etcd::proto::etcdserverpb::{LeaseGrantRequest, LeaseRevokeRequest};
use onefold_etcd::proto::v3electionpb::{
    CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
};
use onefold_etcd::proto::v3lockpb::{LockRequest, UnlockRequest};
use tokio::time::{sleep, timeout};
use tonic::Code;

use crate::fixture::{LONG, Node, assert_error, bytes, letters, revision};

async fn lease(node: &Node) -> i64 {
    let grant = LeaseGrantRequest { ttl: 600, id: 0 };
    node.lease().lease_grant(grant).await.expect("a lease").into_inner().id
}

fn lock(lease: i64) -> LockRequest {
    LockRequest { name: bytes("job"), lease }
}

fn campaign(lease: i64, value: &str) -> CampaignRequest {
    CampaignRequest { name: bytes("job"), lease, value: bytes(value) }
}

/// Waits until so many keys are in the row.
async fn row(node: &Node, count: usize) {
    while node.range(letters()).await.kvs.len() != count {
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_free_lock_is_the_callers() {
    let node = Node::start().await;
    let id = lease(&node).await;
    let taken = node.lock().lock(lock(id)).await.expect("it is free").into_inner();
    assert_eq!(revision(&taken.header), 2);
    assert_eq!(taken.key, format!("job/{id:x}"));
    assert_eq!(node.get(&format!("job/{id:x}")).await.expect("it is there").lease, id);
    // The lease has it already.
    let again = node.lock().lock(lock(id)).await.expect("it is the caller's").into_inner();
    assert_eq!(again.key, taken.key);
    let unlock = UnlockRequest { key: taken.key };
    let unlocked = node.lock().unlock(unlock).await.expect("it is there").into_inner();
    assert_eq!(revision(&unlocked.header), 3);
    assert!(node.range(letters()).await.kvs.is_empty());
}

#[tokio::test]
async fn a_lock_without_a_lease_gets_one() {
    let node = Node::start().await;
    let taken = node.lock().lock(lock(0)).await.expect("it is free").into_inner();
    let key = String::from_utf8(taken.key.to_vec()).expect("text");
    let record = node.get(&key).await.expect("it is there");
    assert!(record.lease > 0);
}

#[tokio::test]
async fn a_lock_of_an_unknown_lease_is_refused() {
    let node = Node::start().await;
    let refused = node.lock().lock(lock(99)).await;
    assert_error(refused, Code::NotFound, "etcdserver: requested lease not found");
}

#[tokio::test]
async fn locks_are_given_in_the_order_of_the_requests() {
    let node = Node::start().await;
    let first = node.lock().lock(lock(lease(&node).await)).await.expect("it is free").into_inner();
    let mut waiting = Vec::new();
    for count in [2, 3] {
        let (mut client, request) = (node.lock(), lock(lease(&node).await));
        waiting.push(tokio::spawn(async move { client.lock(request).await }));
        row(&node, count).await;
    }
    let unlock = UnlockRequest { key: first.key };
    node.lock().unlock(unlock).await.expect("it is there");
    let second = timeout(LONG, waiting.remove(0)).await.expect("its turn").expect("no panic");
    let second = second.expect("its turn").into_inner();
    assert!(!waiting[0].is_finished(), "the third waits for the second");
    let unlock = UnlockRequest { key: second.key };
    node.lock().unlock(unlock).await.expect("it is there");
    let third = timeout(LONG, waiting.remove(0)).await.expect("its turn").expect("no panic");
    third.expect("its turn");
}

#[tokio::test]
async fn a_caller_who_stops_waiting_leaves_no_key() {
    let node = Node::start().await;
    node.lock().lock(lock(lease(&node).await)).await.expect("it is free");
    let (mut client, request) = (node.lock(), lock(lease(&node).await));
    let waiting = tokio::spawn(async move { client.lock(request).await });
    row(&node, 2).await;
    waiting.abort();
    timeout(LONG, row(&node, 1)).await.expect("the key goes");
}

#[tokio::test]
async fn a_lock_whose_lease_ends_while_it_waits_fails() {
    let node = Node::start().await;
    let first = node.lock().lock(lock(lease(&node).await)).await.expect("it is free").into_inner();
    let id = lease(&node).await;
    let (mut client, request) = (node.lock(), lock(id));
    let waiting = tokio::spawn(async move { client.lock(request).await });
    row(&node, 2).await;
    node.lease().lease_revoke(LeaseRevokeRequest { id }).await.expect("it is there");
    node.lock().unlock(UnlockRequest { key: first.key }).await.expect("it is there");
    let end = timeout(LONG, waiting).await.expect("it ends").expect("no panic");
    assert_error(end, Code::Unknown, "mutex: session is expired");
}

#[tokio::test]
async fn one_who_is_elected_proclaims_and_resigns() {
    let node = Node::start().await;
    let id = lease(&node).await;
    let mut election = node.election();
    let elected = election.campaign(campaign(id, "one")).await.expect("nobody else").into_inner();
    assert_eq!(revision(&elected.header), 2);
    let leader = elected.leader.expect("a key");
    let expected =
        LeaderKey { name: bytes("job"), key: bytes(&format!("job/{id:x}")), rev: 2, lease: id };
    assert_eq!(leader, expected);
    let proclaim = |value: &str, leader| ProclaimRequest { leader, value: bytes(value) };
    election.proclaim(proclaim("two", Some(leader.clone()))).await.expect("it is elected");
    let ask = || LeaderRequest { name: bytes("job") };
    let told = election.leader(ask()).await.expect("there is one").into_inner();
    let record = told.kv.expect("a record");
    assert_eq!((record.value, record.mod_revision, record.lease), (bytes("two"), 3, id));
    // Another campaign of the same lease proclaims.
    election.campaign(campaign(id, "three")).await.expect("it is elected");
    let told = election.leader(ask()).await.expect("there is one").into_inner();
    assert_eq!(told.kv.expect("a record").value, bytes("three"));
    election.resign(ResignRequest { leader: Some(leader.clone()) }).await.expect("it may");
    assert_error(election.leader(ask()).await, Code::Unknown, "election: no leader");
    let late = election.proclaim(proclaim("four", Some(leader.clone()))).await;
    assert_error(late, Code::Unknown, "election: not leader");
    election.resign(ResignRequest { leader: Some(leader) }).await.expect("twice is once");
    let text = "\"leader\" field must be provided";
    assert_error(election.proclaim(proclaim("x", None)).await, Code::Unknown, text);
    assert_error(election.resign(ResignRequest { leader: None }).await, Code::Unknown, text);
}

#[tokio::test]
async fn candidates_follow_each_other_and_observers_see_it() {
    let node = Node::start().await;
    let mut election = node.election();
    let observe = election.observe(LeaderRequest { name: bytes("job") }).await;
    let mut observed = observe.expect("a stream").into_inner();
    let first = election.campaign(campaign(lease(&node).await, "one")).await.expect("nobody else");
    let first = first.into_inner().leader;
    let mut told = async || {
        let answer =
            timeout(LONG, observed.message()).await.expect("it tells").expect("it goes on");
        answer.expect("it goes on").kv.expect("a leader").value
    };
    assert_eq!(told().await, bytes("one"));
    let (mut client, request) = (node.election(), campaign(lease(&node).await, "two"));
    let waiting = tokio::spawn(async move { client.campaign(request).await });
    row(&node, 2).await;
    let proclaim = ProclaimRequest { leader: first.clone(), value: bytes("one more") };
    election.proclaim(proclaim).await.expect("it is elected");
    assert_eq!(told().await, bytes("one more"));
    election.resign(ResignRequest { leader: first }).await.expect("it may");
    let second = timeout(LONG, waiting).await.expect("its turn").expect("no panic");
    second.expect("it is elected");
    assert_eq!(told().await, bytes("two"));
}

#[tokio::test]
async fn a_candidate_who_stops_waiting_leaves_no_key() {
    let node = Node::start().await;
    node.election().campaign(campaign(lease(&node).await, "one")).await.expect("nobody else");
    let (mut client, request) = (node.election(), campaign(lease(&node).await, "two"));
    let waiting = tokio::spawn(async move { client.campaign(request).await });
    row(&node, 2).await;
    waiting.abort();
    timeout(LONG, row(&node, 1)).await.expect("the key goes");
}
