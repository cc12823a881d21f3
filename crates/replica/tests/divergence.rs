//! Replicas whose states differ, and states that are gone.

mod cluster;

use std::time::Duration;

use bytes::Bytes;
use cluster::{Cluster, GROUP, LONG, Setup, Storage, eventually, pairs, propose, propose_once};
use onefold_replica::{Consistency, GroupMetrics, Limits, ReadError};
use onefold_table::Batch;
use onefold_types::NodeId;

/// Changes a value behind the back of a node's state machine, as a broken memory would.
fn corrupt(cluster: &Cluster, node: NodeId, key: &str, value: &'static str) {
    let mut batch = Batch::new();
    let generation = [1, 0, 0, 0, 0];
    let path = [&GROUP.get().to_be_bytes()[..], &generation, b"mkey/", key.as_bytes()].concat();
    batch.put(path, value);
    cluster.node(node).table.write(batch).expect("the table is good");
}

fn metrics(cluster: &Cluster, node: NodeId) -> GroupMetrics {
    cluster.node(node).host.metrics().groups[&GROUP]
}

async fn rebuilt(cluster: &Cluster, node: NodeId) {
    eventually("the replica is rebuilt", || async {
        let status = cluster.group(node).status();
        let is_whole = metrics(cluster, node).snapshots_installed_total > 0;
        (is_whole && !status.is_state_lost).then_some(())
    })
    .await;
}

/// One replica has another value than the others, which matters as soon as a command reads it.
async fn diverge(cluster: &Cluster, wrong: NodeId) {
    let group = cluster.group(wrong);
    propose_once(&group, "put source good", 5, 1).await.expect("a majority runs");
    cluster.agreed().await;
    corrupt(cluster, wrong, "source", "bad");
    propose(&group, "copy source target").await.expect("a majority runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_differs_is_rebuilt_when_the_group_falls_silent() {
    let cluster = Cluster::start(Setup::new(3)).await;
    let wrong = cluster.follower().await;
    diverge(&cluster, wrong).await;
    rebuilt(&cluster, wrong).await;
    assert_eq!(metrics(&cluster, wrong).divergences_total, 1);
    for node in cluster.running() {
        if node != wrong {
            assert_eq!(metrics(&cluster, node).divergences_total, 0);
        }
    }
    let state = cluster.agreed().await;
    assert!(state.contains(&(Bytes::from("key/target"), Bytes::from("good"))));
    // Sessions came with it, and it can lead.
    let leader = cluster.leader().await;
    cluster.group(leader).transfer_leadership(wrong, LONG).await.expect("it is whole");
    let group = cluster.group(wrong);
    let first = propose_once(&group, "put source good", 5, 1).await.expect("a majority runs");
    propose(&group, "put source better").await.expect("a majority runs");
    let again = propose_once(&group, "put source good", 5, 1).await.expect("a majority runs");
    assert_eq!(first, again);
    assert_eq!(cluster.agreed().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_differs_is_found_under_load_too() {
    let cluster = Cluster::start(Setup::new(3)).await;
    let wrong = cluster.follower().await;
    let writer = cluster.group(cluster.leader().await);
    let writing = tokio::spawn(async move {
        loop {
            let _ = propose(&writer, "add").await;
        }
    });
    diverge(&cluster, wrong).await;
    rebuilt(&cluster, wrong).await;
    writing.abort();
    assert_eq!(metrics(&cluster, wrong).divergences_total, 1);
    cluster.agreed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_differs_hands_over_and_is_rebuilt() {
    let cluster = Cluster::start(Setup::new(3)).await;
    let wrong = cluster.leader().await;
    diverge(&cluster, wrong).await;
    rebuilt(&cluster, wrong).await;
    assert_ne!(cluster.leader().await, wrong);
    let state = cluster.agreed().await;
    assert!(state.contains(&(Bytes::from("key/target"), Bytes::from("good"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_that_differ_tell_it_and_serve_on() {
    let cluster = Cluster::start(Setup::new(2)).await;
    let wrong = cluster.follower().await;
    diverge(&cluster, wrong).await;
    eventually("both noticed", || async {
        let undecided = |node| metrics(&cluster, node).divergences_undecided_total > 0;
        cluster.running().into_iter().all(undecided).then_some(())
    })
    .await;
    for node in cluster.running() {
        assert_eq!(metrics(&cluster, node).divergences_total, 0);
        propose(&cluster.group(node), "add").await.expect("a majority runs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_its_table_shows_nothing_until_a_snapshot_gave_it_one() {
    let limits = Limits {
        compact_after_entries: 100,
        keep_entries: 10,
        keep_bytes: 1 << 10,
        ..Limits::default()
    };
    let setup = Setup { storage: Storage::Disk, limits, ..Setup::new(3) };
    let mut cluster = Cluster::start(setup).await;
    let lost = cluster.follower().await;
    let group = cluster.group(lost);
    for number in 0..500 {
        propose(&group, &format!("put {number:03} x")).await.expect("a majority runs");
    }
    cluster.agreed().await;
    drop(group);
    cluster.stop(lost).await;
    let others = cluster.running();
    for &node in &others {
        cluster.stop(node).await;
    }
    let place = lost.get() as usize - 1;
    std::fs::remove_dir_all(cluster.folder(place).join("table")).expect("the table is closed");

    cluster.restart(lost).await;
    let group = cluster.group(lost);
    let refused = group.read(Consistency::Local, Duration::from_millis(100)).await.err();
    assert!(matches!(refused, Some(ReadError::StateLost { .. })), "{refused:?}");
    assert!(group.status().is_state_lost);
    drop(group);
    for &node in &others {
        cluster.restart(node).await;
    }
    rebuilt(&cluster, lost).await;
    assert_eq!(cluster.agreed().await.len(), 500);
    assert_eq!(pairs(&cluster.group(lost).view()).len(), 500);
    cluster.stop(lost).await;
    cluster.restart(lost).await;
    assert_eq!(pairs(&cluster.group(lost).view()).len(), 500, "it is on disk");
}
