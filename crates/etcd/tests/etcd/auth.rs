//! Users, roles, tokens, and what is refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use onefold_etcd::proto::authpb::permission::Type;
use onefold_etcd::proto::authpb::{Permission, UserAddOptions};
use onefold_etcd::proto::etcdserverpb::alarm_request::AlarmAction;
use onefold_etcd::proto::etcdserverpb::downgrade_request::DowngradeAction;
use onefold_etcd::proto::etcdserverpb::request_op::Request::{RequestPut, RequestRange};
use onefold_etcd::proto::etcdserverpb::*;
use tonic::{Code, Request, Status};

use crate::fixture::{Node, assert_error, bytes, keys, letters, put, revision};
use crate::http::{get, send};
use crate::watching::Watching;

const DENIED: &str = "etcdserver: permission denied";
const NOBODY: &str = "etcdserver: user name is empty";
const INVALID: &str = "etcdserver: invalid auth token";

/// A node with authentication on: `root`, and `alice`, who may read from `b` up to `d` and write `c`.
struct Guarded {
    node: Node,
    root: String,
    alice: String,
}

impl Guarded {
    async fn start() -> Self {
        let node = Node::start().await;
        for key in ["a", "b", "c"] {
            node.put(key, "1").await;
        }
        let mut auth = node.auth();
        for name in ["root", "alice"] {
            auth.user_add(user(name, name)).await.expect("a new user");
        }
        auth.role_add(AuthRoleAddRequest { name: "staff".into() }).await.expect("a new role");
        auth.role_grant_permission(grant("staff", Type::Read, "b", "d")).await.expect("a grant");
        auth.role_grant_permission(grant("staff", Type::Write, "c", "")).await.expect("a grant");
        auth.user_grant_role(role("alice", "staff")).await.expect("a grant");
        auth.user_grant_role(role("root", "root")).await.expect("a grant");
        auth.auth_enable(AuthEnableRequest {}).await.expect("root is root");
        let root = login(&node, "root", "root").await.expect("the password is right");
        let alice = login(&node, "alice", "alice").await.expect("the password is right");
        Self { node, root, alice }
    }

    fn root<T>(&self, message: T) -> Request<T> {
        shown(&self.root, message)
    }

    fn alice<T>(&self, message: T) -> Request<T> {
        shown(&self.alice, message)
    }
}

fn shown<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("token", token.parse().expect("printable ASCII"));
    request
}

async fn login(node: &Node, name: &str, password: &str) -> Result<String, Status> {
    let request = AuthenticateRequest { name: name.into(), password: password.into() };
    let response = node.auth().authenticate(request).await?.into_inner();
    revision(&response.header);
    Ok(response.token)
}

fn user(name: &str, password: &str) -> AuthUserAddRequest {
    AuthUserAddRequest { name: name.into(), password: password.into(), ..Default::default() }
}

fn role(user: &str, role: &str) -> AuthUserGrantRoleRequest {
    AuthUserGrantRoleRequest { user: user.into(), role: role.into() }
}

fn grant(role: &str, kind: Type, key: &str, end: &str) -> AuthRoleGrantPermissionRequest {
    let (key, range_end) = (bytes(key), bytes(end));
    let perm = Some(Permission { perm_type: kind.into(), key, range_end });
    AuthRoleGrantPermissionRequest { name: role.into(), perm }
}

fn range(key: &str, end: &str) -> RangeRequest {
    RangeRequest { key: bytes(key), range_end: bytes(end), ..Default::default() }
}

#[tokio::test]
async fn authentication_is_off_and_there_are_no_users() {
    let node = Node::start().await;
    let mut auth = node.auth();
    let status = auth.auth_status(AuthStatusRequest {}).await.expect("an answer").into_inner();
    assert_eq!((status.enabled, status.auth_revision), (false, 1));
    auth.auth_disable(AuthDisableRequest {}).await.expect("it is off");
    let users = auth.user_list(AuthUserListRequest {}).await.expect("an answer").into_inner();
    assert!(users.users.is_empty());
    let roles = auth.role_list(AuthRoleListRequest {}).await.expect("an answer").into_inner();
    assert!(roles.roles.is_empty());
    let enable = auth.auth_enable(AuthEnableRequest {}).await;
    assert_error(enable, Code::FailedPrecondition, "etcdserver: root user does not exist");
    let text = "etcdserver: authentication is not enabled";
    assert_error(login(&node, "root", "x").await, Code::FailedPrecondition, text);
    // As in etcd, nobody looks at a token.
    node.kv().put(shown("nonsense", put("a", "1"))).await.expect("everybody may");
}

#[tokio::test]
async fn what_is_not_there_is_told() {
    let node = Node::start().await;
    let mut auth = node.auth();
    let code = Code::FailedPrecondition;
    let text = "etcdserver: user name not found";
    assert_error(auth.user_get(AuthUserGetRequest::default()).await, code, text);
    assert_error(auth.user_delete(AuthUserDeleteRequest::default()).await, code, text);
    let password = auth.user_change_password(AuthUserChangePasswordRequest::default()).await;
    assert_error(password, code, text);
    assert_error(auth.user_grant_role(AuthUserGrantRoleRequest::default()).await, code, text);
    assert_error(auth.user_revoke_role(AuthUserRevokeRoleRequest::default()).await, code, text);
    let text = "etcdserver: role name not found";
    assert_error(auth.role_get(AuthRoleGetRequest::default()).await, code, text);
    assert_error(auth.role_delete(AuthRoleDeleteRequest::default()).await, code, text);
    let granted = auth.role_grant_permission(grant("x", Type::Read, "a", "")).await;
    assert_error(granted, code, text);
    let revoke = auth.role_revoke_permission(AuthRoleRevokePermissionRequest::default()).await;
    assert_error(revoke, code, text);
    let nothing = auth.role_grant_permission(AuthRoleGrantPermissionRequest::default()).await;
    assert_error(nothing, Code::InvalidArgument, "etcdserver: permission not given");
    let empty = auth.role_grant_permission(grant("x", Type::Read, "b", "a")).await;
    assert_error(empty, Code::InvalidArgument, "etcdserver: invalid auth management");
    let nameless = auth.user_add(user("", "")).await;
    assert_error(nameless, Code::InvalidArgument, "etcdserver: user name is empty");
    let nameless = auth.role_add(AuthRoleAddRequest::default()).await;
    assert_error(nameless, Code::InvalidArgument, "etcdserver: role name is empty");
    auth.user_add(user("root", "x")).await.expect("a new user");
    let again = auth.user_add(user("root", "x")).await;
    assert_error(again, code, "etcdserver: user name already exists");
    let enable = auth.auth_enable(AuthEnableRequest {}).await;
    assert_error(enable, code, "etcdserver: root user does not have root role");
}

#[tokio::test]
async fn users_and_roles_are_told() {
    let guarded = Guarded::start().await;
    let mut auth = guarded.node.auth();
    let users = auth.user_list(guarded.root(AuthUserListRequest {})).await.expect("root may");
    assert_eq!(users.into_inner().users, ["alice", "root"]);
    let roles = auth.role_list(guarded.root(AuthRoleListRequest {})).await.expect("root may");
    assert_eq!(roles.into_inner().roles, ["staff"]);
    // Users may ask about themselves and about roles that they have.
    let of = |name: &str| AuthUserGetRequest { name: name.into() };
    let alice = auth.user_get(guarded.alice(of("alice"))).await.expect("it is herself");
    assert_eq!(alice.into_inner().roles, ["staff"]);
    let other = auth.user_get(guarded.alice(of("root"))).await;
    assert_error(other, Code::PermissionDenied, DENIED);
    let of = |role: &str| AuthRoleGetRequest { role: role.into() };
    let staff = auth.role_get(guarded.alice(of("staff"))).await.expect("she has it").into_inner();
    let told: Vec<_> = staff.perm.iter().map(|perm| (perm.perm_type(), &perm.key[..])).collect();
    assert_eq!(told, [(Type::Read, &b"b"[..]), (Type::Write, &b"c"[..])]);
    let other = auth.role_get(guarded.alice(of("root"))).await;
    assert_error(other, Code::PermissionDenied, DENIED);
    let list = auth.user_list(guarded.alice(AuthUserListRequest {})).await;
    assert_error(list, Code::PermissionDenied, DENIED);
    let status = auth.auth_status(AuthStatusRequest {}).await.expect("everybody may");
    let status = status.into_inner();
    assert_eq!((status.enabled, status.auth_revision), (true, 8));
}

#[tokio::test]
async fn keys_are_for_those_who_may() {
    let guarded = Guarded::start().await;
    let mut kv = guarded.node.kv();
    let read = kv.range(guarded.alice(range("b", "d"))).await.expect("she may").into_inner();
    assert_eq!(keys(&read.kvs), ["b", "c"]);
    let all = kv.range(guarded.alice(letters())).await;
    assert_error(all, Code::PermissionDenied, DENIED);
    let stale = RangeRequest { serializable: true, ..letters() };
    assert_error(kv.range(guarded.alice(stale)).await, Code::PermissionDenied, DENIED);
    kv.put(guarded.alice(put("c", "2"))).await.expect("she may");
    assert_error(kv.put(guarded.alice(put("b", "2"))).await, Code::PermissionDenied, DENIED);
    let delete = DeleteRangeRequest { key: bytes("b"), ..Default::default() };
    assert_error(kv.delete_range(guarded.alice(delete)).await, Code::PermissionDenied, DENIED);
    assert_error(kv.range(letters()).await, Code::InvalidArgument, NOBODY);
    assert_error(kv.put(put("c", "3")).await, Code::InvalidArgument, NOBODY);
    let compact = CompactionRequest { revision: 2, ..Default::default() };
    assert_error(kv.compact(guarded.alice(compact)).await, Code::PermissionDenied, DENIED);
    kv.compact(guarded.root(compact)).await.expect("root may");
    kv.range(guarded.root(letters())).await.expect("root may");
}

#[tokio::test]
async fn a_transaction_is_for_those_who_may_do_all_of_it() {
    let guarded = Guarded::start().await;
    let mut kv = guarded.node.kv();
    let op = |request| RequestOp { request: Some(request) };
    let read = |key| op(RequestRange(range(key, "")));
    let write = |key| op(RequestPut(put(key, "3")));
    let permitted = TxnRequest { success: vec![read("b"), write("c")], ..Default::default() };
    kv.txn(guarded.alice(permitted)).await.expect("she may");
    for operation in [read("a"), write("b")] {
        let txn = TxnRequest { failure: vec![operation], ..Default::default() };
        assert_error(kv.txn(guarded.alice(txn)).await, Code::PermissionDenied, DENIED);
    }
}

#[tokio::test]
async fn tokens_are_tested() {
    let guarded = Guarded::start().await;
    let mut kv = guarded.node.kv();
    let nonsense = kv.range(shown("nonsense", letters())).await;
    assert_error(nonsense, Code::Unauthenticated, INVALID);
    let wrong = login(&guarded.node, "alice", "wrong").await;
    let text = "etcdserver: authentication failed, invalid user ID or password";
    assert_error(wrong, Code::InvalidArgument, text);
    let stranger = login(&guarded.node, "stranger", "x").await;
    assert_error(stranger, Code::InvalidArgument, text);
    // The JSON gateway and JWT libraries write it so.
    let mut request = Request::new(range("b", ""));
    let value = format!("Bearer {}", guarded.alice).parse().expect("printable ASCII");
    request.metadata_mut().insert("authorization", value);
    kv.range(request).await.expect("she may");
}

#[tokio::test]
async fn a_new_password_makes_tokens_invalid() {
    let guarded = Guarded::start().await;
    let change = AuthUserChangePasswordRequest {
        name: "alice".into(),
        password: "another".into(),
        ..Default::default()
    };
    let mut auth = guarded.node.auth();
    auth.user_change_password(guarded.root(change)).await.expect("root may");
    let late = guarded.node.kv().range(guarded.alice(range("b", ""))).await;
    assert_error(late, Code::Unauthenticated, INVALID);
    let token = login(&guarded.node, "alice", "another").await.expect("it is the password");
    let read = guarded.node.kv().range(shown(&token, range("b", ""))).await;
    read.expect("she may");
}

#[tokio::test]
async fn other_changes_leave_tokens_valid() {
    let guarded = Guarded::start().await;
    let mut auth = guarded.node.auth();
    auth.user_add(guarded.root(user("bob", "bob"))).await.expect("root may");
    let grant = grant("staff", Type::Read, "a", "b");
    auth.role_grant_permission(guarded.root(grant)).await.expect("root may");
    let read = guarded.node.kv().range(guarded.alice(range("a", "d"))).await;
    assert_eq!(keys(&read.expect("she may by now").into_inner().kvs), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_user_without_a_password_cannot_log_in() {
    let guarded = Guarded::start().await;
    let options = Some(UserAddOptions { no_password: true });
    let request = AuthUserAddRequest { name: "robot".into(), options, ..Default::default() };
    guarded.node.auth().user_add(guarded.root(request)).await.expect("root may");
    let text = "auth: authentication failed, password was given for no password user";
    assert_error(login(&guarded.node, "robot", "").await, Code::Unknown, text);
}

#[tokio::test]
async fn a_user_is_taken_over_with_the_hash_that_etcd_has() {
    let guarded = Guarded::start().await;
    let hash = "$2a$10$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga";
    let request = AuthUserAddRequest {
        name: "carol".into(),
        hashed_password: STANDARD.encode(hash),
        ..Default::default()
    };
    guarded.node.auth().user_add(guarded.root(request)).await.expect("root may");
    login(&guarded.node, "carol", "allmine").await.expect("the password is right");
    let request = AuthUserAddRequest {
        name: "dave".into(),
        hashed_password: STANDARD.encode("swordfish"),
        ..Default::default()
    };
    let text = "auth: authentication failed, password was given for no password user";
    assert_error(guarded.node.auth().user_add(guarded.root(request)).await, Code::Unknown, text);
}

#[tokio::test]
async fn turning_it_off_lets_everybody_in() {
    let guarded = Guarded::start().await;
    let mut auth = guarded.node.auth();
    let off = auth.auth_disable(guarded.alice(AuthDisableRequest {})).await;
    assert_error(off, Code::PermissionDenied, DENIED);
    assert_error(auth.auth_disable(AuthDisableRequest {}).await, Code::InvalidArgument, NOBODY);
    auth.auth_disable(guarded.root(AuthDisableRequest {})).await.expect("root may");
    guarded.node.put("a", "anybody").await;
    // Tokens of before do not come back with it.
    auth.auth_enable(AuthEnableRequest {}).await.expect("root is root");
    let late = guarded.node.kv().range(guarded.root(letters())).await;
    assert_error(late, Code::Unauthenticated, INVALID);
}

#[tokio::test]
async fn leases_are_for_users_and_their_keys_for_those_who_may() {
    let guarded = Guarded::start().await;
    let (mut lease, mut kv) = (guarded.node.lease(), guarded.node.kv());
    let grant = || LeaseGrantRequest { ttl: 60, id: 0 };
    assert_error(lease.lease_grant(grant()).await, Code::InvalidArgument, NOBODY);
    let id = lease.lease_grant(guarded.alice(grant())).await.expect("she may").into_inner().id;
    let attached = PutRequest { lease: id, ..put("c", "4") };
    kv.put(guarded.alice(attached)).await.expect("she may");
    let secret = PutRequest { lease: id, ..put("secret", "4") };
    kv.put(guarded.root(secret)).await.expect("root may");
    let revoke = lease.lease_revoke(guarded.alice(LeaseRevokeRequest { id })).await;
    assert_error(revoke, Code::PermissionDenied, DENIED);
    let ask = LeaseTimeToLiveRequest { id, keys: true };
    let told = lease.lease_time_to_live(guarded.alice(ask)).await;
    assert_error(told, Code::PermissionDenied, DENIED);
    let ask = LeaseTimeToLiveRequest { id, keys: false };
    lease.lease_time_to_live(guarded.alice(ask)).await.expect("the time is no secret");
    let list = lease.lease_leases(guarded.alice(LeaseLeasesRequest {})).await;
    assert_error(list, Code::PermissionDenied, DENIED);
    let keep = tokio_stream::once(LeaseKeepAliveRequest { id });
    let mut kept = lease.lease_keep_alive(guarded.alice(keep)).await.expect("a stream");
    assert_error(kept.get_mut().message().await, Code::PermissionDenied, DENIED);
    lease.lease_revoke(guarded.root(LeaseRevokeRequest { id })).await.expect("root may");
}

#[tokio::test]
async fn a_watch_is_for_those_who_may_and_as_long_as_they_may() {
    let guarded = Guarded::start().await;
    let token = guarded.alice.parse().expect("printable ASCII");
    let show = |request: &mut Request<_>| drop(request.metadata_mut().insert("token", token));
    let mut watching = Watching::start_with(&guarded.node, show).await;
    let create = |key, end| WatchCreateRequest {
        key: bytes(key),
        range_end: bytes(end),
        ..Default::default()
    };
    let refused = watching.create(create("a", "d")).await;
    assert!(refused.canceled);
    assert_eq!((refused.watch_id, refused.cancel_reason.as_str()), (-1, DENIED));
    let created = watching.create(create("b", "d")).await;
    assert!(!created.canceled, "{created:?}");
    guarded.node.kv().put(guarded.root(put("b", "5"))).await.expect("root may");
    assert_eq!(watching.next().await.events.len(), 1);
    let revoke = AuthRoleRevokePermissionRequest {
        role: "staff".into(),
        key: bytes("b"),
        range_end: bytes("d"),
    };
    let mut auth = guarded.node.auth();
    auth.role_revoke_permission(guarded.root(revoke)).await.expect("root may");
    guarded.node.kv().put(guarded.root(put("b", "secret"))).await.expect("root may");
    let last = watching.next().await;
    assert!(last.canceled && last.events.is_empty(), "{last:?}");
    assert_eq!((last.watch_id, last.cancel_reason.as_str()), (created.watch_id, DENIED));
}

#[tokio::test]
async fn a_watch_without_a_valid_token_is_refused_with_the_reason() {
    let guarded = Guarded::start().await;
    let create = || WatchCreateRequest { key: bytes("b"), ..Default::default() };
    let mut nobody = Watching::start(&guarded.node).await;
    assert_eq!(nobody.create(create()).await.cancel_reason, NOBODY);
    let show = |request: &mut Request<_>| {
        request.metadata_mut().insert("token", "nonsense".parse().expect("ASCII"));
    };
    let mut stranger = Watching::start_with(&guarded.node, show).await;
    assert_eq!(stranger.create(create()).await.cancel_reason, INVALID);
}

#[tokio::test]
async fn the_cluster_is_roots() {
    let guarded = Guarded::start().await;
    let (mut maintenance, mut cluster) = (guarded.node.maintenance(), guarded.node.cluster());
    let defragment = maintenance.defragment(guarded.alice(DefragmentRequest {})).await;
    assert_error(defragment, Code::PermissionDenied, DENIED);
    maintenance.defragment(guarded.root(DefragmentRequest {})).await.expect("root may");
    let raise = AlarmRequest { action: AlarmAction::Deactivate.into(), ..Default::default() };
    let raise = maintenance.alarm(guarded.alice(raise)).await;
    assert_error(raise, Code::PermissionDenied, DENIED);
    let list = || AlarmRequest::default();
    maintenance.alarm(guarded.alice(list())).await.expect("users may");
    assert_error(maintenance.alarm(list()).await, Code::InvalidArgument, NOBODY);
    maintenance.status(guarded.alice(StatusRequest {})).await.expect("users may");
    assert_error(maintenance.status(StatusRequest {}).await, Code::InvalidArgument, NOBODY);
    let add = cluster.member_add(guarded.alice(MemberAddRequest::default())).await;
    assert_error(add, Code::PermissionDenied, DENIED);
    cluster.member_list(MemberListRequest::default()).await.expect("everybody may");
}

/// Asks without a token, as alice, and as root, who alone is let in.
macro_rules! assert_roots {
    ($guarded:ident, $client:ident . $call:ident, $message:expr) => {{
        let name = stringify!($call);
        let mut client = $guarded.node.$client();
        assert_error(client.$call($message).await, Code::InvalidArgument, NOBODY);
        let denied = client.$call($guarded.alice($message)).await;
        assert_error(denied, Code::PermissionDenied, DENIED);
        assert!($guarded.node.control.asked().is_empty(), "{name} was done for nobody");
        client.$call($guarded.root($message)).await.expect(name);
        $guarded.node.control.asked()
    }};
}

#[tokio::test]
async fn members_leaders_and_hashes_are_roots() {
    let guarded = Guarded::start().await;
    let peer_ur_ls = || vec!["http://10.0.0.9:7000".to_owned()];
    let add = || MemberAddRequest { peer_ur_ls: peer_ur_ls(), is_learner: true };
    let asked = assert_roots!(guarded, cluster.member_add, add());
    assert_eq!(asked, ["add 10.0.0.9:7000 true"]);
    let remove = MemberRemoveRequest { id: 2 };
    assert_eq!(assert_roots!(guarded, cluster.member_remove, remove), ["remove 2"]);
    let update = || MemberUpdateRequest { id: 2, peer_ur_ls: peer_ur_ls() };
    let asked = assert_roots!(guarded, cluster.member_update, update());
    assert_eq!(asked, ["move 2 10.0.0.9:7000"]);
    let promote = MemberPromoteRequest { id: 2 };
    assert_eq!(assert_roots!(guarded, cluster.member_promote, promote), ["promote 2"]);
    let lead = MoveLeaderRequest { target_id: 2 };
    assert_eq!(assert_roots!(guarded, maintenance.move_leader, lead), ["lead 2"]);
    let version = || "3.4.0".to_owned();
    let downgrade =
        || DowngradeRequest { action: DowngradeAction::Enable.into(), version: version() };
    assert_roots!(guarded, maintenance.downgrade, downgrade());
    assert_roots!(guarded, maintenance.hash, HashRequest {});
    assert_roots!(guarded, maintenance.hash_kv, HashKvRequest { revision: 0 });
}

#[tokio::test]
async fn json_is_for_those_who_may() {
    let guarded = Guarded::start().await;
    let ask = async |path: &str, token: &str, body: &str| {
        let head = match token {
            "" => String::new(),
            token => format!("Authorization: {token}\r\n"),
        };
        let answer = send(guarded.node.address, "POST", path, &head, body).await;
        (answer.status, answer.json()["message"].as_str().unwrap_or_default().to_owned())
    };
    for (path, body) in [
        ("/v3/cluster/member/add", r#"{"peerURLs":["http://10.0.0.9:7000"]}"#),
        ("/v3/cluster/member/remove", r#"{"ID":"2"}"#),
        ("/v3/cluster/member/update", r#"{"ID":"2","peerURLs":["http://10.0.0.9:7000"]}"#),
        ("/v3/cluster/member/promote", r#"{"ID":"2"}"#),
        ("/v3/maintenance/transfer-leadership", r#"{"targetID":"2"}"#),
        ("/v3/maintenance/downgrade", r#"{"action":"ENABLE","version":"3.4.0"}"#),
        ("/v3/maintenance/hash", "{}"),
        ("/v3/maintenance/hashkv", "{}"),
        ("/v3/kv/range", r#"{"key":"YQ=="}"#),
    ] {
        let nobody = ask(path, "", body).await;
        assert_eq!(nobody, (400, NOBODY.to_owned()), "{path}");
        let alice = ask(path, &guarded.alice, body).await;
        assert_eq!(alice, (403, DENIED.to_owned()), "{path}");
        assert!(guarded.node.control.asked().is_empty(), "{path} was done for nobody");
        let root = ask(path, &guarded.root, body).await;
        assert_eq!(root, (200, String::new()), "{path}");
        guarded.node.control.asked();
    }
    let stranger = ask("/v3/maintenance/hashkv", "nonsense", "{}").await;
    assert_eq!(stranger, (401, INVALID.to_owned()));
}

#[tokio::test]
async fn a_streamed_range_is_for_those_who_may() {
    let guarded = Guarded::start().await;
    let read = async |request: Request<RangeRequest>| {
        let mut stream = guarded.node.kv().range_stream(request).await?.into_inner();
        let mut kvs = Vec::new();
        while let Some(part) = stream.message().await? {
            kvs.extend(part.range_response.expect("every part has one").kvs);
        }
        Ok::<_, Status>(kvs)
    };
    let permitted = read(guarded.alice(range("b", "d"))).await.expect("she may");
    assert_eq!(keys(&permitted), ["b", "c"]);
    for request in [letters(), RangeRequest { serializable: true, ..letters() }] {
        let denied = read(guarded.alice(request.clone())).await;
        assert_error(denied, Code::PermissionDenied, DENIED);
        assert_error(read(Request::new(request)).await, Code::InvalidArgument, NOBODY);
    }
    let counted = RangeRequest { count_only: true, ..letters() };
    assert_error(read(guarded.alice(counted)).await, Code::PermissionDenied, DENIED);
}

#[tokio::test]
async fn the_nodes_health_is_nobodys_secret() {
    let guarded = Guarded::start().await;
    for path in ["/health", "/health?serializable=true", "/livez", "/readyz", "/version"] {
        assert_eq!(get(&guarded.node, path).await.status, 200, "{path}");
    }
}
