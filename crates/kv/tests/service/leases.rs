//! Leases as time goes by.

use std::time::{Duration, Instant};

use onefold_kv::{
    EventKind, Kv, KvError, KvOptions, LeaseGrantRequest, LeaseId, LeaseTimeToLiveRequest,
    PutRequest, WatchRequest,
};

use crate::cluster::{Cluster, LONG, events, get};

async fn grant(kv: &dyn Kv, ttl_seconds: i64) -> LeaseId {
    let request = LeaseGrantRequest { id: LeaseId::NONE, ttl_seconds };
    kv.lease_grant(request).await.expect("it is granted").id
}

async fn attach(kv: &dyn Kv, key: &'static str, lease: LeaseId) {
    let request = PutRequest { lease, ..PutRequest::new(key, "") };
    kv.put(request).await.expect("it is put");
}

fn ask(id: LeaseId) -> LeaseTimeToLiveRequest {
    LeaseTimeToLiveRequest { id, keys: true }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_nobody_keeps_alive_ends_with_its_keys() {
    let cluster = Cluster::start(3).await;
    let kv = cluster.kv(cluster.follower().await);
    let began = Instant::now();
    let lease = grant(&kv, 2).await;
    let mut watcher = kv.watch(WatchRequest::prefix("")).await.expect("it is watched");
    attach(&kv, "a", lease).await;
    let heard = events(&mut watcher, 2).await;
    assert_eq!((heard[1].kind, &heard[1].kv.key[..]), (EventKind::Delete, &b"a"[..]));
    assert!(began.elapsed() >= Duration::from_secs(2), "not before its time");
    let answer = kv.lease_time_to_live(ask(lease)).await.expect("it is told");
    assert_eq!((answer.ttl_seconds, answer.granted_ttl_seconds), (-1, 0));
    assert_eq!(kv.lease_keep_alive(lease).await.expect("it is told").ttl_seconds, 0);
    assert_eq!(kv.lease_revoke(lease).await, Err(KvError::LeaseNotFound { id: lease }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_and_client_keeps_a_lease_alive() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.kv(cluster.leader().await);
    let follower = cluster.kv(cluster.follower().await);
    let client = cluster.any();
    let lease = grant(&client, 3).await;
    attach(&client, "a", lease).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        for kv in [&leader as &dyn Kv, &follower, &client] {
            let answer = kv.lease_keep_alive(lease).await.expect("it is kept");
            assert_eq!(answer.ttl_seconds, 3);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
    assert!(get(&client, "a").await.is_some(), "it outlived its first time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_tells_its_time_and_keys() {
    let cluster = Cluster::start(3).await;
    let client = cluster.any();
    let lease = grant(&client, 100).await;
    attach(&client, "b", lease).await;
    attach(&client, "a", lease).await;
    for node in cluster.running() {
        let kv = cluster.kv(node);
        let answer = kv.lease_time_to_live(ask(lease)).await.expect("it is told");
        assert!((1..=100).contains(&answer.ttl_seconds), "{answer:?}");
        assert_eq!((answer.granted_ttl_seconds, answer.keys), (100, vec!["a".into(), "b".into()]));
        assert_eq!(kv.leases().await.expect("they are told").leases, [lease]);
    }
    client.lease_revoke(lease).await.expect("it is revoked");
    assert_eq!(client.leases().await.expect("they are told").leases, []);
    assert_eq!(get(&client, "a").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_keeps_and_ends_the_leases_of_the_old_one() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.any();
    let kept = grant(&client, 100).await;
    let left = grant(&client, 2).await;
    attach(&client, "kept", kept).await;
    attach(&client, "left", left).await;
    let leader = cluster.leader().await;
    cluster.stop(leader).await;
    let answer = client.lease_keep_alive(kept).await.expect("it is kept");
    assert_eq!(answer.ttl_seconds, 100);
    let began = Instant::now();
    while get(&client, "left").await.is_some() {
        assert!(began.elapsed() < LONG, "the new leader ends no leases");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(get(&client, "kept").await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_goes_on_from_the_time_that_the_old_one_noted() {
    let lease_checkpoint_interval = Duration::from_secs(1);
    let options = KvOptions { lease_checkpoint_interval, ..KvOptions::default() };
    let mut cluster = Cluster::start_with(3, options).await;
    let client = cluster.any();
    let (left, kept) = (grant(&client, 100).await, grant(&client, 100).await);
    // Until well after the first notes are in the log.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let renewed = client.lease_keep_alive(kept).await.expect("it is kept");
    assert_eq!(renewed.ttl_seconds, 100);
    let leader = cluster.leader().await;
    cluster.stop(leader).await;
    let left = client.lease_time_to_live(ask(left)).await.expect("it is told");
    assert!(left.ttl_seconds <= 97, "some of the time before was counted: {left:?}");
    let kept = client.lease_time_to_live(ask(kept)).await.expect("it is told");
    assert!(kept.ttl_seconds > left.ttl_seconds, "the note of before was cleared: {kept:?}");
}
