//! Commands, reads and failures on three replicas.

mod cluster;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cluster::{Cluster, LONG, Setup, Storage, count, eventually, propose, propose_once};
use onefold_replica::{Consistency, Group, Limits, ProposeError, ReadError, TransferError};
use onefold_types::NodeId;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn every_node_takes_commands_and_shows_all_of_them() {
    let cluster = Cluster::start(Setup::new(3)).await;
    for round in 0..5 {
        for (place, node) in cluster.running().into_iter().enumerate() {
            let answer = propose(&cluster.group(node), "add").await.expect("a majority runs");
            assert_eq!(answer, (round * 3 + place + 1).to_string());
            for reader in cluster.running() {
                let view = cluster.group(reader).read(Consistency::Linearizable, LONG).await;
                let seen = count(&view.expect("a majority runs")).expect("a good table");
                assert_eq!(seen as usize, round * 3 + place + 1, "node {reader}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_commands_are_executed_once_each() {
    let cluster = Cluster::start(Setup::new(3)).await;
    let mut tasks = Vec::new();
    for client in 0..30 {
        let group = cluster.group(NodeId(client % 3 + 1));
        tasks.push(tokio::spawn(async move {
            for _ in 0..20 {
                propose(&group, "add").await.expect("a majority runs");
            }
        }));
    }
    for task in tasks {
        task.await.expect("no proposal fails");
    }
    let state = cluster.agreed().await;
    assert_eq!(state, [(Bytes::from_static(b"count"), Bytes::from_static(b"600"))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced_and_finds_everything_when_it_returns() {
    let mut cluster = Cluster::start(Setup { storage: Storage::Disk, ..Setup::new(3) }).await;
    let first = cluster.leader().await;
    for number in 0..10 {
        let command = format!("put {number} before");
        propose(&cluster.group(first), &command).await.expect("a majority runs");
    }
    cluster.stop(first).await;
    let second = cluster.leader().await;
    assert_ne!(first, second);
    for number in 5..15 {
        let command = format!("put {number} after");
        propose(&cluster.group(second), &command).await.expect("a majority runs");
    }
    cluster.restart(first).await;
    let state = cluster.agreed().await;
    assert_eq!(state.len(), 15);
    assert_eq!(state.iter().filter(|(_, value)| &value[..] == b"after").count(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_killed_and_started_again_have_everything() {
    for storage in [Storage::Disk, Storage::Memory] {
        let mut cluster = Cluster::start(Setup { storage, ..Setup::new(3) }).await;
        for number in 0..20 {
            let node = NodeId(number % 3 + 1);
            let command = format!("put {number} {number}");
            propose(&cluster.group(node), &command).await.expect("a majority runs");
        }
        let before = cluster.agreed().await;
        for node in cluster.running() {
            cluster.stop(node).await;
        }
        for node in 1..=3 {
            cluster.restart(NodeId(node)).await;
        }
        assert_eq!(cluster.agreed().await, before);
        let answer = propose(&cluster.group(NodeId(1)), "add").await;
        assert_eq!(answer, Ok("1".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_exactly_once_while_leaders_are_killed() {
    let mut cluster = Cluster::start(Setup { storage: Storage::Disk, ..Setup::new(3) }).await;
    let mut executed = 0;
    for _ in 0..3 {
        let leader = cluster.leader().await;
        let client = cluster.follower().await;
        let group = cluster.group(client);
        let writer = tokio::spawn(async move {
            let mut answers = Vec::new();
            for sequence in executed + 1..=executed + 50 {
                answers.push(propose_once(&group, "add", 99, sequence).await);
            }
            answers
        });
        let progress = cluster.group(client);
        let before = progress.applied();
        eventually("some commands are applied", || async {
            (progress.applied().get() >= before.get() + 10).then_some(())
        })
        .await;
        cluster.stop(leader).await;
        let answers = writer.await.expect("the writer ends");
        for answer in answers {
            executed += 1;
            assert_eq!(answer, Ok(executed.to_string()), "each command counts once");
        }
        cluster.restart(leader).await;
    }
    let leader = cluster.leader().await;
    let retried = propose_once(&cluster.group(leader), "add", 99, executed).await;
    assert_eq!(retried, Ok(executed.to_string()), "a late retry gets the first answer");
    let old = propose_once(&cluster.group(leader), "add", 99, executed - 1).await;
    assert!(matches!(old, Err(ProposeError::SequenceTrimmed { floor, .. }) if floor == executed));
}

/// Increments until it is told to stop, through any node; says how often it succeeded.
async fn keep_adding(doors: Arc<Mutex<Vec<Group>>>, session: u64, stop: CancellationToken) -> u64 {
    let mut sequence = 1;
    let mut attempt = session as usize;
    while !stop.is_cancelled() {
        let group = {
            let doors = doors.lock().expect("nobody panics with it");
            doors[attempt % doors.len()].clone()
        };
        match propose_once(&group, "add", session, sequence).await {
            Ok(_) => sequence += 1,
            // The node was stopped under it. The same command goes to the next one.
            Err(ProposeError::Stopped { .. } | ProposeError::Unknown { .. }) => attempt += 1,
            Err(error) => panic!("a majority runs all the time: {error}"),
        }
    }
    sequence - 1
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sessions_are_exactly_once_while_nodes_come_and_go() {
    let limits = Limits {
        compact_after_entries: 300,
        keep_entries: 50,
        snapshot_chunk_bytes: 64,
        ..Limits::default()
    };
    let mut cluster = Cluster::start(Setup { limits, ..Setup::new(3) }).await;
    let doors_of = |cluster: &Cluster| {
        let running = cluster.running().into_iter();
        running.map(|node| cluster.group(node)).collect::<Vec<_>>()
    };
    let doors = Arc::new(Mutex::new(doors_of(&cluster)));
    let stop = CancellationToken::new();
    let clients: Vec<_> = (1..=8)
        .map(|session| tokio::spawn(keep_adding(doors.clone(), session, stop.clone())))
        .collect();
    for round in 0..9 {
        // Each node in turn, and the leader every third time.
        let leader = cluster.leader().await;
        let victim = if round % 3 == 0 { leader } else { NodeId(round % 3 + 1) };
        let before = cluster.group(leader).applied();
        eventually("some commands are applied", || async {
            let applied = cluster.running().into_iter().map(|node| cluster.group(node).applied());
            (applied.max()?.get() >= before.get() + 100).then_some(())
        })
        .await;
        *doors.lock().expect("nobody panics with it") =
            doors_of(&cluster).into_iter().filter(|group| group.status().node != victim).collect();
        cluster.stop(victim).await;
        tokio::time::sleep(Duration::from_millis(20 * round)).await;
        cluster.restart(victim).await;
        *doors.lock().expect("nobody panics with it") = doors_of(&cluster);
    }
    stop.cancel();
    let mut succeeded = 0;
    for client in clients {
        succeeded += client.await.expect("no client fails");
    }
    // A client that was told to stop between two attempts may have one more executed.
    let state = cluster.agreed().await;
    let text = String::from_utf8_lossy(&state[0].1).into_owned();
    let executed: u64 = text.parse().expect("a count");
    assert!(executed >= succeeded && executed <= succeeded + 8, "{executed} of {succeeded}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_executed_and_nothing_hangs() {
    let mut cluster = Cluster::start(Setup::new(3)).await;
    propose(&cluster.group(NodeId(1)), "add").await.expect("a majority runs");
    let last = cluster.leader().await;
    for node in cluster.running().into_iter().filter(|node| *node != last) {
        cluster.stop(node).await;
    }
    let group = cluster.group(last);
    eventually("the leader without followers steps down", || async {
        (!group.is_leader()).then_some(())
    })
    .await;
    let short = Duration::from_millis(200);
    let refused = group.propose(Bytes::from_static(b"add"), None, short).await;
    assert!(matches!(refused, Err(ProposeError::NoLeader { .. })), "{refused:?}");
    let unread = group.read(Consistency::Linearizable, short).await;
    assert!(matches!(unread, Err(ReadError::NoLeader { .. })));
    let local = group.read(Consistency::Local, short).await.expect("a local read needs nobody");
    assert_eq!(count(&local).expect("a good table"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_read_needs_the_leader_only_when_its_bound_is_over() {
    let mut cluster = Cluster::start(Setup::new(3)).await;
    propose(&cluster.group(NodeId(1)), "add").await.expect("a majority runs");
    let reader = cluster.follower().await;
    let group = cluster.group(reader);
    group.read(Consistency::Linearizable, LONG).await.expect("a majority runs");
    for node in cluster.running().into_iter().filter(|node| *node != reader) {
        cluster.stop(node).await;
    }
    let short = Duration::from_millis(100);
    let stale = group.read(Consistency::BoundedStale(10 * LONG), short).await;
    assert_eq!(count(&stale.expect("confirmed lately")).expect("a good table"), 1);
    let fresh = group.read(Consistency::BoundedStale(Duration::ZERO), short).await;
    assert!(matches!(fresh, Err(ReadError::NoLeader { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_goes_to_the_node_that_is_named() {
    let cluster = Cluster::start(Setup::new(3)).await;
    let leader = cluster.leader().await;
    let heir = cluster.follower().await;
    cluster.group(leader).transfer_leadership(heir, LONG).await.expect("all nodes run");
    assert_eq!(cluster.leader().await, heir);
    let group = cluster.group(leader);
    let refused = group.transfer_leadership(leader, LONG).await;
    assert!(matches!(refused, Err(TransferError::NotLeader { .. })), "{refused:?}");
    let refused = cluster.group(heir).transfer_leadership(NodeId(9), LONG).await;
    assert!(matches!(refused, Err(TransferError::Refused { .. })), "{refused:?}");
    propose(&group, "add").await.expect("a majority runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_is_its_own_majority() {
    let setup = Setup { storage: Storage::Disk, ..Setup::new(1) };
    let mut cluster = Cluster::start(setup).await;
    let node = NodeId(1);
    for number in 1..=10 {
        let answer = propose(&cluster.group(node), "add").await;
        assert_eq!(answer, Ok(number.to_string()));
    }
    cluster.stop(node).await;
    cluster.restart(node).await;
    let view = cluster.group(node).read(Consistency::Linearizable, LONG).await;
    assert_eq!(count(&view.expect("it leads")).expect("a good table"), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicated_time_does_not_go_back_when_the_leader_changes() {
    let mut cluster = Cluster::start(Setup::new(3)).await;
    let mut latest = 0_u64;
    for _ in 0..2 {
        let leader = cluster.leader().await;
        for node in cluster.running() {
            let time = propose(&cluster.group(node), "time").await.expect("a majority runs");
            let time: u64 = time.parse().expect("milliseconds");
            assert!(time >= latest);
            latest = time;
        }
        cluster.stop(leader).await;
        cluster.restart(leader).await;
    }
}
