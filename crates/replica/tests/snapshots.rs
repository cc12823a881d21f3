//! Compaction of the log, and replicas that are too far behind for it.

mod cluster;

use std::time::Duration;

use bytes::Bytes;
use cluster::relay::{Relay, Rule};
use cluster::{
    Cluster, GROUP, LONG, Setup, Storage, count, eventually, pairs, propose, propose_once,
};
use onefold_log::{Log, LogOptions};
use onefold_replica::{Consistency, Limits, SnapshotMetrics};
use onefold_types::{LogIndex, NodeId};

/// A log that keeps little, and pieces so small that there are many.
fn limits() -> Limits {
    Limits {
        compact_after_bytes: 64 << 10,
        compact_after_entries: 200,
        keep_bytes: 8 << 10,
        keep_entries: 20,
        snapshot_chunk_bytes: 1 << 10,
        ..Limits::default()
    }
}

fn setup(storage: Storage) -> Setup {
    Setup { storage, limits: limits(), ..Setup::new(3) }
}

/// Many commands, some at a time.
async fn write(cluster: &Cluster, node: NodeId, keys: std::ops::Range<u32>) {
    let group = cluster.group(node);
    let tasks: Vec<_> = (0..8)
        .map(|part| {
            let (group, keys) = (group.clone(), keys.clone());
            tokio::spawn(async move {
                for key in keys.filter(|key| key % 8 == part) {
                    let command = format!("put {key:05} {}", "v".repeat(100));
                    propose(&group, &command).await.expect("a majority runs");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no proposal fails");
    }
}

/// The first entry that the log on a stopped node's disk still has.
fn first_logged(cluster: &Cluster, node: NodeId) -> LogIndex {
    let folder = cluster.folder(node.get() as usize - 1).join("log");
    let (_log, recovered) = Log::open(&folder, LogOptions::default()).expect("a good log");
    recovered[&GROUP].entries.first().expect("the log keeps a tail").index
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_far_behind_gets_a_snapshot_and_goes_on() {
    for storage in [Storage::Disk, Storage::Memory] {
        let mut cluster = Cluster::start(setup(storage)).await;
        let leader = cluster.leader().await;
        let behind = cluster.follower().await;
        let answer = propose_once(&cluster.group(leader), "add", 5, 1).await;
        assert_eq!(answer, Ok("1".to_owned()));
        cluster.stop(behind).await;
        write(&cluster, leader, 0..1500).await;

        cluster.restart(behind).await;
        let state = cluster.agreed().await;
        assert_eq!(state.len(), 1501);

        // Sessions travel with the state, and the replica can lead with it.
        let leader = cluster.leader().await;
        cluster.group(leader).transfer_leadership(behind, LONG).await.expect("it caught up");
        let retried = propose_once(&cluster.group(behind), "add", 5, 1).await;
        assert_eq!(retried, Ok("1".to_owned()));
        assert_eq!(propose(&cluster.group(behind), "add").await, Ok("2".to_owned()));

        // It finds all of it again after a restart, also what was only in the snapshot.
        cluster.stop(behind).await;
        assert!(first_logged(&cluster, behind) > LogIndex(1000));
        cluster.restart(behind).await;
        let local = cluster.group(behind).view();
        assert!(pairs(&local).len() >= 1000, "before it heard of anybody");
        assert_eq!(cluster.agreed().await.len(), 1501);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_compacted_and_nothing_is_lost_by_it() {
    let setup = Setup { storage: Storage::Disk, limits: limits(), ..Setup::new(1) };
    let mut cluster = Cluster::start(setup).await;
    let node = NodeId(1);
    write(&cluster, node, 0..1500).await;
    cluster.stop(node).await;
    assert!(first_logged(&cluster, node) > LogIndex(1000));
    cluster.restart(node).await;
    let view = cluster.group(node).read(Consistency::Linearizable, LONG).await;
    assert_eq!(pairs(&view.expect("it leads")).len(), 1500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_sent_while_the_leader_is_written_to() {
    let mut cluster = Cluster::start(setup(Storage::Memory)).await;
    let leader = cluster.leader().await;
    let behind = cluster.follower().await;
    cluster.stop(behind).await;
    write(&cluster, leader, 0..1000).await;
    cluster.restart(behind).await;
    let group = cluster.group(leader);
    let writer = tokio::spawn(async move {
        for number in 1..=300 {
            assert_eq!(propose(&group, "add").await, Ok(number.to_string()));
        }
    });
    writer.await.expect("no proposal fails");
    let state = cluster.agreed().await;
    assert_eq!(state.len(), 1001);
    let view = cluster.group(behind).read(Consistency::Linearizable, LONG).await;
    assert_eq!(count(&view.expect("a majority runs")).expect("a good table"), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_from_before_a_snapshot_keeps_showing_what_it_showed() {
    let mut cluster = Cluster::start(setup(Storage::Memory)).await;
    let leader = cluster.leader().await;
    let behind = cluster.follower().await;
    cluster.stop(behind).await;
    write(&cluster, leader, 0..1000).await;
    cluster.restart(behind).await;
    let group = cluster.group(behind);
    let early = group.view();
    let shown = pairs(&early);
    let wanted = cluster.group(leader).applied();
    eventually("the snapshot is installed", || async { (group.applied() >= wanted).then_some(()) })
        .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(pairs(&early), shown);
    assert_eq!(pairs(&group.view()).len(), 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_a_crash_ends_leaves_the_old_state_and_no_trace() {
    let mut cluster = Cluster::start(setup(Storage::Disk)).await;
    let leader = cluster.leader().await;
    let behind = cluster.follower().await;
    propose(&cluster.group(behind), "put early 1").await.expect("a majority runs");
    cluster.agreed().await;
    cluster.stop(behind).await;
    write(&cluster, leader, 0..3000).await;
    // Stopped again and again, at whatever moment of the transfer that is.
    for pause in [0, 5, 10, 20, 40, 80] {
        cluster.restart(behind).await;
        let view = cluster.group(behind).view();
        let early = pairs(&view);
        assert!(early.len() == 1 || early.len() == 3001, "never a part: {}", early.len());
        tokio::time::sleep(Duration::from_millis(pause)).await;
        cluster.stop(behind).await;
    }
    cluster.restart(behind).await;
    assert_eq!(cluster.agreed().await.len(), 3001);
    let table = cluster.node(behind).table.clone();
    let expected = pairs(&cluster.group(behind).view()).len();
    eventually("leftovers are removed", || async {
        // The state's pairs, and the host's own two records.
        (pairs(&*table).len() == expected + 2).then_some(())
    })
    .await;
    assert_eq!(&pairs(&cluster.group(behind).view())[0].0, &Bytes::from_static(b"key/00000"));
}

/// A cluster with much state, and a node that is far behind and stopped; others will find a relay
/// where it was.
async fn far_behind(storage: Storage) -> (Cluster, NodeId, NodeId, Relay) {
    let mut cluster = Cluster::start(setup(storage)).await;
    let leader = cluster.leader().await;
    let behind = cluster.follower().await;
    cluster.stop(behind).await;
    write(&cluster, leader, 0..1500).await;
    let relay = Relay::start(cluster.address(behind)).await;
    (cluster, leader, behind, relay)
}

fn transfers(cluster: &Cluster, node: NodeId) -> SnapshotMetrics {
    cluster.node(node).host.metrics().snapshots
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_goes_on_after_broken_connections_and_sends_nothing_twice() {
    let (mut cluster, leader, behind, relay) = far_behind(Storage::Memory).await;
    relay.set_rule(Rule::CutEvery(40 << 10));
    relay.set_target(cluster.restart_elsewhere(behind).await);
    eventually("a snapshot is delivered", || async {
        (transfers(&cluster, leader).delivered > 0).then_some(())
    })
    .await;
    relay.set_rule(Rule::Pass);
    assert_eq!(cluster.agreed().await.len(), 1500);
    assert_eq!(cluster.leader().await, leader);

    let (sent, received) = (transfers(&cluster, leader), transfers(&cluster, behind));
    assert!(relay.cuts() >= 3, "{} cuts", relay.cuts());
    assert!(received.resumed >= 3, "{received:?}");
    assert_eq!((sent.delivered, received.given_up), (1, 0), "one transfer was enough");
    // Of those that were received, the answers to some were lost, and they were sent again; those
    // that were acknowledged were not.
    assert!(sent.pieces_sent >= 150, "{sent:?}");
    assert!(sent.pieces_sent <= received.pieces_received, "{sent:?} {received:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_goes_on_after_restarts_of_the_receiver_and_sends_nothing_twice() {
    let (mut cluster, leader, behind, relay) = far_behind(Storage::Disk).await;
    let mut received_before = 0;
    for _ in 0..3 {
        relay.set_rule(Rule::HoldAfter(40 << 10));
        relay.set_target(cluster.restart_elsewhere(behind).await);
        let received = eventually("the transfer is held", || async {
            let before = transfers(&cluster, behind).pieces_received;
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = transfers(&cluster, behind).pieces_received;
            (now > 0 && now == before).then_some(now)
        })
        .await;
        received_before += received;
        cluster.stop(behind).await;
    }
    relay.set_rule(Rule::Pass);
    relay.set_target(cluster.restart_elsewhere(behind).await);
    assert_eq!(cluster.agreed().await.len(), 1500);

    let (sent, received) = (transfers(&cluster, leader), transfers(&cluster, behind));
    assert_eq!((sent.delivered, received.given_up), (1, 0), "one transfer was enough");
    assert_eq!(received.resumed, 1, "{received:?}");
    assert!(sent.pieces_sent <= received_before + received.pieces_received, "{sent:?}");
    assert!(received.pieces_received < sent.pieces_sent, "the last process did not begin again");
    let wanted = pairs(&cluster.group(leader).view());
    assert_eq!(pairs(&cluster.group(behind).view()), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_whose_sender_is_gone_is_replaced_and_leaves_no_trace() {
    let (mut cluster, leader, behind, relay) = far_behind(Storage::Memory).await;
    relay.set_rule(Rule::HoldAfter(40 << 10));
    relay.set_target(cluster.restart_elsewhere(behind).await);
    eventually("pieces arrive", || async {
        (transfers(&cluster, behind).pieces_received > 0).then_some(())
    })
    .await;
    cluster.stop(leader).await;
    relay.set_rule(Rule::Pass);
    let state = cluster.agreed().await;
    assert_eq!(state.len(), 1500);
    assert_eq!(transfers(&cluster, behind).given_up, 1);
    let table = cluster.node(behind).table.clone();
    eventually("what it left is removed", || async {
        (pairs(&*table).len() == state.len() + 2).then_some(())
    })
    .await;
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("a folder for the copy");
    for file in std::fs::read_dir(from).expect("the log's folder") {
        let file = file.expect("the log's folder");
        std::fs::copy(file.path(), to.join(file.file_name())).expect("a file of the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_table_and_log_of_an_installation_is_repaired() {
    // Another election would add an entry after the snapshot.
    let setup = Setup { election_ticks: 100, ..setup(Storage::Disk) };
    let mut cluster = Cluster::start(setup).await;
    let leader = cluster.leader().await;
    let behind = cluster.follower().await;
    propose(&cluster.group(leader), "add").await.expect("a majority runs");
    cluster.agreed().await;
    cluster.stop(behind).await;
    let log = cluster.folder(behind.get() as usize - 1).join("log");
    let copy = tempfile::tempdir().expect("a folder for the test");
    copy_folder(&log, copy.path());
    write(&cluster, leader, 0..1000).await;
    let written = cluster.group(leader).applied();

    cluster.restart(behind).await;
    cluster.agreed().await;
    assert_eq!(cluster.leader().await, leader);
    assert_eq!(cluster.group(behind).applied(), written);
    cluster.stop(behind).await;
    // As if the log's part of the installation had not reached the disk.
    std::fs::remove_dir_all(&log).expect("the log is closed");
    copy_folder(copy.path(), &log);

    cluster.restart(behind).await;
    assert_eq!(pairs(&cluster.group(behind).view()).len(), 1001);
    cluster.group(leader).transfer_leadership(behind, LONG).await.expect("it has everything");
    assert_eq!(propose(&cluster.group(behind), "add").await, Ok("2".to_owned()));
    assert_eq!(cluster.agreed().await.len(), 1001);
    cluster.stop(behind).await;
    cluster.restart(behind).await;
    assert_eq!(cluster.agreed().await.len(), 1001);
}
