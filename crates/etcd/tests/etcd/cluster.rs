//! Cluster, Maintenance and Health.

use onefold_etcd::proto::etcdserverpb::*;
use onefold_etcd::proto::health::HealthCheckRequest;
use onefold_etcd::proto::health::health_check_response::ServingStatus;
use onefold_kv::KvError;
use tonic::{Code, Response, Status};

use crate::fixture::{MEMBER, Node, assert_error, revision};

#[tokio::test]
async fn the_members_are_listed() {
    let node = Node::start().await;
    let request = MemberListRequest { linearizable: true };
    let list = node.cluster().member_list(request).await.expect("a good list").into_inner();
    revision(&list.header);
    let [one, two] = &list.members[..] else { panic!("two members, not {:?}", list.members) };
    assert_eq!((one.id, one.name.as_str(), one.is_learner), (1, "one", false));
    assert_eq!(one.peer_ur_ls, ["http://127.0.0.1:1"]);
    assert_eq!(one.client_ur_ls, ["http://127.0.0.1:2"]);
    assert_eq!((two.id, two.name.as_str(), two.is_learner), (2, "", true));
}

#[tokio::test]
async fn the_status_tells_version_size_leader_and_raft() {
    let node = Node::start().await;
    node.put("a", "1").await;
    let status = node.maintenance().status(StatusRequest {}).await.expect("a good status");
    let status = status.into_inner();
    assert_eq!(revision(&status.header), 2);
    assert!(status.version.starts_with("3.5."), "{}", status.version);
    assert_eq!((status.db_size, status.db_size_in_use), (4096, 4096));
    assert_eq!((status.leader, status.is_learner), (MEMBER, false));
    assert_eq!((status.raft_index, status.raft_term, status.raft_applied_index), (12, 3, 11));
    assert!(status.errors.is_empty());
}

#[tokio::test]
async fn the_status_is_told_without_leader_and_store() {
    let node = Node::start().await;
    node.view.set_leader(false);
    node.fail(KvError::TimedOut { reason: "a test".to_owned() });
    let status = node.maintenance().status(StatusRequest {}).await.expect("a good status");
    let status = status.into_inner();
    assert_eq!(status.leader, 0);
    assert_eq!(status.errors, ["etcdserver: request timed out", "etcdserver: no leader"]);
}

#[tokio::test]
async fn there_are_no_alarms_and_defragmenting_is_harmless() {
    let node = Node::start().await;
    node.put("a", "1").await;
    let alarms = node.maintenance().alarm(AlarmRequest::default()).await.expect("an answer");
    let alarms = alarms.into_inner();
    assert_eq!((revision(&alarms.header), alarms.alarms.len()), (2, 0));
    node.maintenance().defragment(DefragmentRequest {}).await.expect("an answer");
    assert!(node.get("a").await.is_some());
}

#[track_caller]
fn assert_unimplemented<T: std::fmt::Debug>(call: &str, result: Result<Response<T>, Status>) {
    let status = result.expect_err("the call is not served");
    assert_eq!(status.code(), Code::Unimplemented);
    let text = format!("onefold does not serve {call}: ");
    assert!(status.message().starts_with(&text), "{}", status.message());
}

#[tokio::test]
async fn calls_that_are_not_served_say_so() {
    let node = Node::start().await;
    let (mut cluster, mut maintenance) = (node.cluster(), node.maintenance());
    assert_unimplemented("MemberAdd", cluster.member_add(MemberAddRequest::default()).await);
    let remove = cluster.member_remove(MemberRemoveRequest::default()).await;
    assert_unimplemented("MemberRemove", remove);
    let update = cluster.member_update(MemberUpdateRequest::default()).await;
    assert_unimplemented("MemberUpdate", update);
    let promote = cluster.member_promote(MemberPromoteRequest::default()).await;
    assert_unimplemented("MemberPromote", promote);
    assert_unimplemented("Hash", maintenance.hash(HashRequest {}).await);
    assert_unimplemented("HashKV", maintenance.hash_kv(HashKvRequest::default()).await);
    let move_leader = maintenance.move_leader(MoveLeaderRequest::default()).await;
    assert_unimplemented("MoveLeader", move_leader);
    let downgrade = maintenance.downgrade(DowngradeRequest::default()).await;
    assert_unimplemented("Downgrade", downgrade);
}

#[tokio::test]
async fn health_follows_the_leader() {
    let node = Node::start().await;
    let whole = HealthCheckRequest::default();
    let check = node.health().check(whole.clone()).await.expect("an answer").into_inner();
    assert_eq!(check.status(), ServingStatus::Serving);
    let mut changes = node.health().watch(whole.clone()).await.expect("a stream").into_inner();
    let first = changes.message().await.expect("a good answer").expect("an answer");
    assert_eq!(first.status(), ServingStatus::Serving);
    node.view.set_leader(false);
    let second = changes.message().await.expect("a good answer").expect("an answer");
    assert_eq!(second.status(), ServingStatus::NotServing);
    let check = node.health().check(whole).await.expect("an answer").into_inner();
    assert_eq!(check.status(), ServingStatus::NotServing);
    let other = HealthCheckRequest { service: "another".to_owned() };
    assert_error(node.health().check(other).await, Code::NotFound, "unknown service");
}
