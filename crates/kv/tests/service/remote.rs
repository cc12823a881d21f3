//! Clients from outside, while nodes come and go.

use onefold_kv::{Kv, PutRequest, RangeRequest, WatchRequest};

use crate::cluster::{Cluster, events, get, put, told};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_write_is_executed_once_while_the_leader_changes() {
    let mut cluster = Cluster::start(3).await;
    let kv = cluster.any();
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let kv = kv.clone();
            tokio::spawn(async move {
                for _ in 0..40 {
                    let request = PutRequest::new(format!("counter/{writer}"), "");
                    kv.put(request).await.expect("an election fits into a request's time");
                }
            })
        })
        .collect();
    let leader = cluster.leader().await;
    cluster.stop(leader).await;
    cluster.leader().await;
    cluster.restart(leader).await;
    for writer in writers {
        writer.await.expect("all its writes were acknowledged");
    }
    let response = kv.range(RangeRequest::prefix("counter/")).await.expect("it is read");
    let versions: Vec<u64> = response.kvs.iter().map(|kv| kv.version).collect();
    assert_eq!(versions, [40; 8], "no write was lost or done twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_goes_to_another_node_when_its_own_is_gone() {
    let mut cluster = Cluster::start(3).await;
    let kv = cluster.any();
    put(&kv, "a", "1").await;
    for node in cluster.running() {
        cluster.stop(node).await;
        assert_eq!(get(&kv, "a").await.expect("it is there"), "1", "without {node}");
        cluster.restart(node).await;
        cluster.leader().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_watch_survives_each_node_in_turn() {
    let mut cluster = Cluster::start(3).await;
    let kv = cluster.any();
    let mut watcher = kv.watch(WatchRequest::prefix("")).await.expect("it is watched");
    for (round, node) in cluster.running().into_iter().enumerate() {
        put(&kv, "before", &round.to_string()).await;
        cluster.stop(node).await;
        let revision = put(&kv, "after", &round.to_string()).await;
        let heard = told(&events(&mut watcher, 2).await);
        let before = revision.get() - 1;
        let wanted =
            [format!("{before} put before={round}"), format!("{revision} put after={round}")];
        assert_eq!(heard, wanted);
        cluster.restart(node).await;
        cluster.leader().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_replica_passes_on_what_clients_ask_while_nodes_are_lost() {
    let mut cluster = Cluster::start(3).await;
    let kv = Cluster::client_at(cluster.outsider().await);
    let mut watcher = kv.watch(WatchRequest::prefix("")).await.expect("it is watched");
    for (round, node) in cluster.running().into_iter().enumerate() {
        cluster.stop(node).await;
        let revision = put(&kv, "key", &round.to_string()).await;
        assert_eq!(get(&kv, "key").await.expect("it is there"), round.to_string());
        let heard = told(&events(&mut watcher, 1).await);
        assert_eq!(heard, [format!("{revision} put key={round}")]);
        cluster.restart(node).await;
        cluster.leader().await;
    }
    let response = kv.range(RangeRequest::key("key")).await.expect("it is read");
    assert_eq!(response.kvs[0].version, 3, "no write was lost or done twice");
}
