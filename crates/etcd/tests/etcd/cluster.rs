//! Cluster, Maintenance and Health.

use onefold_etcd::proto::etcdserverpb::alarm_request::AlarmAction;
use onefold_etcd::proto::etcdserverpb::downgrade_request::DowngradeAction;
use onefold_etcd::proto::etcdserverpb::*;
use onefold_etcd::proto::health::HealthCheckRequest;
use onefold_etcd::proto::health::health_check_response::ServingStatus;
use onefold_etcd::{Alarm, AlarmKind, ControlError};
use onefold_kv::KvError;
use tonic::Code;

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
    assert_eq!((status.db_size, status.db_size_in_use), (4096, 2048));
    assert_eq!((status.leader, status.is_learner), (MEMBER, false));
    assert_eq!((status.raft_index, status.raft_term, status.raft_applied_index), (12, 3, 11));
    assert_eq!((status.db_size_quota, status.storage_version.as_str()), (1 << 30, "3.5.0"));
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
async fn alarms_are_told_and_only_end_by_themselves() {
    let node = Node::start().await;
    node.put("a", "1").await;
    let ask = async |action: AlarmAction, alarm: AlarmType| {
        let (action, alarm) = (action.into(), alarm.into());
        let request = AlarmRequest { action, member_id: 0, alarm };
        let answer = node.maintenance().alarm(request).await.expect("an answer").into_inner();
        assert_eq!(revision(&answer.header), 2);
        answer.alarms.into_iter().map(|alarm| (alarm.member_id, alarm.alarm())).collect::<Vec<_>>()
    };
    assert_eq!(ask(AlarmAction::Get, AlarmType::None).await, []);
    assert_eq!(ask(AlarmAction::Activate, AlarmType::Corrupt).await, [], "nothing is corrupt");
    node.view.set_alarms(vec![Alarm { member: 7, kind: AlarmKind::NoSpace }]);
    let raised = [(7, AlarmType::Nospace)];
    assert_eq!(ask(AlarmAction::Get, AlarmType::None).await, raised);
    assert_eq!(ask(AlarmAction::Deactivate, AlarmType::Corrupt).await, []);
    assert_eq!(ask(AlarmAction::Deactivate, AlarmType::Nospace).await, raised);
    assert_eq!(ask(AlarmAction::Get, AlarmType::None).await, raised, "it is still so");
    let status = node.maintenance().status(StatusRequest {}).await.expect("a status").into_inner();
    assert_eq!(status.errors, ["memberID:7 alarm:NOSPACE "]);
    node.maintenance().defragment(DefragmentRequest {}).await.expect("an answer");
    assert!(node.get("a").await.is_some());
}

#[tokio::test]
async fn members_are_added_removed_moved_and_promoted() {
    let node = Node::start().await;
    let mut cluster = node.cluster();
    let peer_ur_ls = vec!["http://10.0.0.9:2380".to_owned()];
    let request = MemberAddRequest { peer_ur_ls: peer_ur_ls.clone(), is_learner: true };
    let added = cluster.member_add(request).await.expect("an answer").into_inner();
    assert_eq!((added.member.expect("the new one").id, added.members.len()), (2, 2));
    let removed = cluster.member_remove(MemberRemoveRequest { id: 2 }).await;
    assert_eq!(removed.expect("an answer").into_inner().members.len(), 2);
    let request = MemberUpdateRequest { id: 2, peer_ur_ls: peer_ur_ls.clone() };
    cluster.member_update(request).await.expect("an answer");
    cluster.member_promote(MemberPromoteRequest { id: 2 }).await.expect("an answer");
    cluster.member_list(MemberListRequest { linearizable: false }).await.expect("an answer");
    cluster.member_list(MemberListRequest { linearizable: true }).await.expect("an answer");
    let asked =
        ["add 10.0.0.9:2380 true", "remove 2", "move 2 10.0.0.9:2380", "promote 2", "refresh"];
    assert_eq!(node.control.asked(), asked);

    let bad = MemberAddRequest { peer_ur_ls: vec!["nonsense".to_owned()], is_learner: false };
    let text = "etcdserver: given member URLs are invalid";
    assert_error(cluster.member_add(bad).await, Code::InvalidArgument, text);
    for (error, code, text) in [
        (ControlError::MemberNotFound, Code::NotFound, "etcdserver: member not found"),
        (
            ControlError::AddressTaken,
            Code::FailedPrecondition,
            "etcdserver: Peer URLs already exists",
        ),
        (
            ControlError::TooFewStarted,
            Code::FailedPrecondition,
            "etcdserver: re-configuration failed due to not enough started members",
        ),
        (
            ControlError::NotLearner,
            Code::FailedPrecondition,
            "etcdserver: can only promote a learner member",
        ),
        (
            ControlError::LearnerNotReady,
            Code::FailedPrecondition,
            "etcdserver: can only promote a learner member which is in sync with leader",
        ),
        (
            ControlError::Unavailable("a test".to_owned()),
            Code::Unavailable,
            "etcdserver: unhealthy cluster",
        ),
        (
            ControlError::TimedOut("a test".to_owned()),
            Code::Unavailable,
            "etcdserver: request timed out",
        ),
        (ControlError::Refused("since".to_owned()), Code::FailedPrecondition, "since"),
    ] {
        node.control.refuse(error);
        let promote = MemberPromoteRequest { id: 2 };
        assert_error(cluster.member_promote(promote).await, code, text);
    }
}

#[tokio::test]
async fn the_leader_hands_over_and_others_do_not() {
    let node = Node::start().await;
    let mut maintenance = node.maintenance();
    maintenance.move_leader(MoveLeaderRequest { target_id: 2 }).await.expect("it leads");
    assert_eq!(node.control.asked(), ["lead 2"]);
    node.control.refuse(ControlError::BadTransferee);
    let text = "etcdserver: bad leader transferee";
    let code = Code::FailedPrecondition;
    assert_error(maintenance.move_leader(MoveLeaderRequest { target_id: 9 }).await, code, text);
    node.view.set_leader(false);
    let text = "etcdserver: not leader";
    assert_error(maintenance.move_leader(MoveLeaderRequest { target_id: 2 }).await, code, text);
}

#[tokio::test]
async fn a_downgrade_is_checked_noted_told_and_cancelled() {
    let node = Node::start().await;
    let ask = async |action: DowngradeAction, version: &str| {
        let request = DowngradeRequest { action: action.into(), version: version.to_owned() };
        node.maintenance().downgrade(request).await.map(|answer| answer.into_inner().version)
    };
    let told = async || {
        let status = node.maintenance().status(StatusRequest {}).await.expect("a status");
        let info = status.into_inner().downgrade_info.expect("it is always told");
        (info.enabled, info.target_version)
    };
    let code = Code::FailedPrecondition;
    assert_eq!(told().await, (false, String::new()));
    assert_eq!(ask(DowngradeAction::Validate, "3.4.0").await.expect("a good target"), "3.5.0");
    let text = "etcdserver: invalid downgrade target version";
    assert_error(ask(DowngradeAction::Enable, "3.3.0").await, Code::InvalidArgument, text);
    let text = "etcdserver: no inflight downgrade job";
    assert_error(ask(DowngradeAction::Cancel, "").await, code, text);
    ask(DowngradeAction::Enable, "3.4").await.expect("a good target");
    assert_eq!(told().await, (true, "3.4.0".to_owned()));
    let text = "etcdserver: cluster has a downgrade job in progress";
    assert_error(ask(DowngradeAction::Validate, "3.4.0").await, code, text);
    assert_error(ask(DowngradeAction::Enable, "3.4.0").await, code, text);
    ask(DowngradeAction::Cancel, "").await.expect("there is one");
    assert_eq!(told().await, (false, String::new()));
}

#[tokio::test]
async fn hashes_tell_histories_apart() {
    let node = Node::start().await;
    let hash_kv = async |revision: i64| {
        let answer = node.maintenance().hash_kv(HashKvRequest { revision }).await;
        answer.map(|answer| answer.into_inner())
    };
    node.put("a", "1").await;
    let first = hash_kv(0).await.expect("a hash");
    assert_eq!((first.hash_revision, first.compact_revision, revision(&first.header)), (2, 0, 2));
    node.put("a", "2").await;
    node.delete("a").await;
    let now = hash_kv(0).await.expect("a hash");
    assert_eq!(now.hash_revision, 4);
    assert_ne!(now.hash, first.hash);
    assert_eq!(hash_kv(2).await.expect("a hash").hash, first.hash, "what came later is left out");
    // To the end: what a sweep removes later would change the hash of the whole store.
    let to_the_end = CompactionRequest { revision: 4, physical: true };
    node.kv().compact(to_the_end).await.expect("a good compaction");
    let compacted = hash_kv(4).await.expect("a hash");
    assert_eq!(compacted.compact_revision, 4);
    assert_ne!(compacted.hash, now.hash, "the history is another one");
    let text = "etcdserver: mvcc: required revision has been compacted";
    assert_error(hash_kv(3).await, Code::OutOfRange, text);
    let text = "etcdserver: mvcc: required revision is a future revision";
    assert_error(hash_kv(5).await, Code::OutOfRange, text);
    let whole = async || {
        let answer = node.maintenance().hash(HashRequest {}).await.expect("a hash");
        answer.into_inner().hash
    };
    let before = whole().await;
    assert_eq!(whole().await, before);
    node.put("b", "1").await;
    assert_ne!(whole().await, before);
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
