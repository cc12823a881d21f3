//! Writers and readers while one node after the other dies and comes back: what was acknowledged is
//! there, whole and right; what was not is absent or whole.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cluster::{BUCKET, Cluster, content, eventually, get, put};
use onefold_files::{ErrorKind, FileSystem, FilesError, RemoteFiles};

const WRITERS: u64 = 4;

/// Which seeds may stand under a key: the last acknowledged, and those whose fate is unknown since.
#[derive(Clone, Default)]
struct Expected {
    acknowledged: Option<u64>,
    unknown: Vec<u64>,
}

fn data(seed: u64) -> Bytes {
    let sizes = [0, 100, 5_000, 300_000, 2_500_000];
    content(sizes[(seed % 5) as usize] + (seed % 97) as usize, seed)
}

fn is_right(expected: &Expected, found: &Result<Bytes, FilesError>) -> bool {
    let mut allowed = expected.acknowledged.iter().chain(&expected.unknown);
    match found {
        Ok(found) => allowed.any(|seed| data(*seed) == *found),
        Err(FilesError::NoSuchKey { .. }) => expected.acknowledged.is_none(),
        Err(_) => false,
    }
}

/// Overwrites and reads its own few keys until it is told to stop.
async fn write_and_read(
    files: RemoteFiles,
    writer: u64,
    stop: Arc<AtomicBool>,
) -> BTreeMap<String, Expected> {
    let mut keys: BTreeMap<String, Expected> = BTreeMap::new();
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let seed = writer * 1_000_000 + turn;
        let key = format!("w{writer}/k{}", turn % 7);
        let expected = keys.entry(key.clone()).or_default();
        match put(&files, &key, &data(seed)).await {
            Ok(_) => *expected = Expected { acknowledged: Some(seed), unknown: Vec::new() },
            Err(error) if error.kind() == ErrorKind::Unknown => expected.unknown.push(seed),
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        let found = get(&files, &key).await;
        let is_unavailable = found.as_ref().is_err_and(FilesError::is_retryable);
        assert!(
            is_unavailable || is_right(expected, &found),
            "{key}: {:?}",
            found.map(|f| f.len())
        );
    }
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_files_survive_a_series_of_deaths() {
    let mut cluster = Cluster::start(3).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers = (0..WRITERS)
        .map(|writer| tokio::spawn(write_and_read(cluster.client(), writer, stop.clone())));
    let writers: Vec<_> = writers.collect();
    for round in 0..4 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let victim = if round % 2 == 0 { cluster.leader().await } else { cluster.follower().await };
        cluster.stop(victim).await;
        tokio::time::sleep(Duration::from_millis(900)).await;
        cluster.restart(victim).await;
    }
    stop.store(true, Ordering::Relaxed);
    let results = futures::future::try_join_all(writers).await.unwrap();
    let mut acknowledged = 0;
    for (key, expected) in results.iter().flatten() {
        acknowledged += u64::from(expected.acknowledged.is_some());
        for node in 1..=3 {
            let files = cluster.files(node);
            let found = eventually("an answer", || async {
                let found = get(&files, key).await;
                (!found.as_ref().is_err_and(FilesError::is_retryable)).then_some(found)
            })
            .await;
            assert!(
                is_right(expected, &found),
                "{key} on node {node}: {:?}",
                found.map(|f| f.len())
            );
        }
    }
    assert!(acknowledged > 0, "something was acknowledged");
    let files = cluster.files(1);
    eventually("everything is replicated again", || async {
        let usage = files.usage().await.ok()?;
        (usage.chunks_under_replicated == 0 && usage.repairs_running == 0).then_some(())
    })
    .await;
    assert!(files.remove_tree(BUCKET, "").await.unwrap() >= acknowledged);
}
