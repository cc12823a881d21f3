//! Users over several nodes: tokens, and what is decided while requests are on their way.

use std::sync::Arc;

use onefold_kv::{
    AuthChange, AuthError, AuthQuery, Caller, HashScope, Kv, KvError, Password, Permission,
    PermissionKind, PutRequest, ROOT, RangePartRequest, RangeRequest,
};
use onefold_types::Revision;

use crate::cluster::Cluster;

async fn change(kv: &dyn Kv, change: AuthChange) -> Revision {
    kv.auth().change(change).await.expect("the cluster may").revision
}

/// Authentication on, with `root`, and `alice`, who may write `a`.
async fn guard(kv: &dyn Kv) {
    for name in [ROOT, "alice"] {
        let (name, password) = (name.to_owned(), Password::Plain(name.to_owned()));
        change(kv, AuthChange::UserAdd { name, password }).await;
    }
    change(kv, AuthChange::RoleAdd { name: "staff".to_owned() }).await;
    change(kv, AuthChange::RoleGrantPermission { role: "staff".to_owned(), permission: a() }).await;
    for (user, role) in [(ROOT, ROOT), ("alice", "staff")] {
        let (user, role) = (user.to_owned(), role.to_owned());
        change(kv, AuthChange::UserGrantRole { user, role }).await;
    }
    change(kv, AuthChange::Enable).await;
}

fn a() -> Permission {
    Permission { kind: PermissionKind::Write, key: "a".into(), range_end: "".into() }
}

fn denied<T>() -> Result<T, KvError> {
    Err(AuthError::PermissionDenied.into())
}

fn part() -> RangePartRequest {
    RangePartRequest { key: "a".into(), bytes_max: 1, ..Default::default() }
}

async fn alice(kv: &dyn Kv) -> Arc<dyn Kv> {
    let token = kv.auth().authenticate("alice".to_owned(), "alice".to_owned()).await;
    let token = token.expect("it is the password").token;
    kv.on_behalf_of(kv.auth().identify(&token).await.expect("it was just given"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_one_node_is_good_on_every_other() {
    let cluster = Cluster::start(3).await;
    guard(&cluster.any()).await;
    let first = cluster.kv(cluster.leader().await);
    let token = first.auth().authenticate("alice".to_owned(), "alice".to_owned()).await;
    let token = token.expect("it is the password").token;
    for node in cluster.running() {
        for kv in [Arc::new(cluster.kv(node)) as Arc<dyn Kv>, Arc::new(cluster.client(&[node]))] {
            let caller = kv.auth().identify(&token).await.expect("every node knows the key");
            let kv = kv.on_behalf_of(caller);
            kv.put(PutRequest::new("a", "1")).await.expect("she may");
            assert_eq!(kv.put(PutRequest::new("b", "1")).await, denied());
            assert_eq!(kv.range(RangeRequest::key("a")).await, denied());
            assert_eq!(kv.range_part(part()).await, denied());
            assert_eq!(kv.hash(HashScope::Everything).await, denied());
            assert_eq!(kv.auth().ask(AuthQuery::Users).await, denied());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_knows_at_once_that_nobody_may() {
    let cluster = Cluster::start(3).await;
    guard(&cluster.any()).await;
    // A follower may not have heard of it yet when it takes these in.
    for node in cluster.running() {
        let kv = cluster.kv(node).on_behalf_of(Caller::Anonymous);
        let refused = Err(KvError::Auth(AuthError::UserEmpty));
        assert_eq!(kv.range(RangeRequest::key("a")).await.map(drop), refused);
        assert_eq!(kv.put(PutRequest::new("a", "1")).await.map(drop), refused);
        assert_eq!(kv.range_part(part()).await.map(drop), refused);
        assert_eq!(kv.hash(HashScope::Everything).await.map(drop), refused);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_put_is_done_after_its_permission_was_taken() {
    let cluster = Cluster::start(3).await;
    let any = cluster.any();
    guard(&any).await;
    let mut putting = Vec::new();
    for node in cluster.running() {
        let kv = alice(&cluster.kv(node)).await;
        putting.push(tokio::spawn(async move {
            let mut last = Revision::ZERO;
            // Until the permission is gone, as it must be in the end.
            loop {
                match kv.put(PutRequest::new("a", "1")).await {
                    Ok(response) => last = response.header.revision,
                    Err(KvError::Auth(error)) => return (last, error),
                    // A busy machine may be late.
                    Err(_) => {}
                }
            }
        }));
    }
    while crate::cluster::get(&any, "a").await.is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let revoke = AuthChange::RoleRevokePermission {
        role: "staff".to_owned(),
        key: "a".into(),
        range_end: "".into(),
    };
    let revoked = change(&any, revoke).await;
    for putting in putting {
        let (last, error) = putting.await.expect("it does not panic");
        assert_eq!(error, AuthError::PermissionDenied);
        assert!(last <= revoked, "a put made {last} after the permission went at {revoked}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_outlive_a_node() {
    let mut cluster = Cluster::start(3).await;
    guard(&cluster.any()).await;
    let node = cluster.follower().await;
    cluster.stop(node).await;
    cluster.restart(node).await;
    let kv = alice(&cluster.kv(node)).await;
    kv.put(PutRequest::new("a", "1")).await.expect("she may");
    assert_eq!(kv.put(PutRequest::new("b", "1")).await, denied());
}
