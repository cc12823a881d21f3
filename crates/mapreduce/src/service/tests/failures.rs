//! What machines do.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::fixture::{Cluster, spec, streaming};
use crate::{JobId, JobSpec, MapReduce};

/// Splits of the slow job.
const SPLITS: u32 = 30;

/// A job of many small maps, each of which leaves a line `TASK NODE'S FOLDER` behind.
async fn slow_job(cluster: &Cluster) -> (JobSpec, Vec<String>) {
    let mut expected = Vec::new();
    for number in 0..SPLITS {
        cluster.put(&format!("in/{number:03}"), format!("line {number}\n")).await;
        expected.push(format!("line {number}\t"));
    }
    expected.sort();
    let trace = trace(cluster.folder.path());
    let mapper =
        format!("cat; sleep 0.1; echo $mapreduce_task_partition $TMPDIR >> {}", trace.display());
    let mut spec = spec(streaming(&mapper, Some("sleep 0.1; cat")));
    spec.split_bytes = 8;
    (spec, expected)
}

fn trace(folder: &Path) -> std::path::PathBuf {
    folder.join("trace")
}

/// For each map task, the nodes that have run it.
fn runs(cluster: &Cluster) -> BTreeMap<u32, Vec<u64>> {
    let text = std::fs::read_to_string(trace(cluster.folder.path())).unwrap_or_default();
    let mut runs: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for line in text.lines() {
        let (task, folder) = line.split_once(' ').expect("a task and a folder");
        let node = folder.split_once("/node-").expect("a node's folder").1;
        let node = node.split('/').next().and_then(|node| node.parse().ok());
        let task = task.parse().expect("a task's number");
        runs.entry(task).or_default().push(node.expect("a node's number"));
    }
    runs
}

async fn start(cluster: &Cluster) -> (JobId, Vec<String>) {
    let (spec, expected) = slow_job(cluster).await;
    let job = cluster.client().submit(spec).await.expect("accepted");
    (job, expected)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_in_the_middle_costs_time_and_nothing_else() {
    let mut cluster = Cluster::start(3).await;
    let (job, expected) = start(&cluster).await;
    cluster.wait_for(job, |status| status.summary.maps.done > SPLITS / 3).await;
    let coordinator = cluster.coordinator().await;
    let victim = (1..=3).find(|&node| node != coordinator).expect("another node");
    cluster.kill(victim);
    let status = cluster.wait(job).await;
    cluster.assert_succeeded(&status).await;
    assert_eq!(cluster.output().await, expected);
    let again = runs(&cluster).values().filter(|nodes| nodes.len() > 1).count();
    assert!(again > 0, "the map output of the dead worker was made again");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_during_the_reduces_takes_map_output_with_it() {
    let mut cluster = Cluster::start(3).await;
    let (job, expected) = start(&cluster).await;
    cluster.wait_for(job, |status| status.summary.maps.done == SPLITS).await;
    let coordinator = cluster.coordinator().await;
    let victim = (1..=3).find(|&node| node != coordinator).expect("another node");
    cluster.kill(victim);
    let status = cluster.wait(job).await;
    cluster.assert_succeeded(&status).await;
    assert_eq!(cluster.output().await, expected);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_successor_of_a_dead_coordinator_runs_nothing_again_that_is_finished() {
    let mut cluster = Cluster::start_with(3, Duration::from_secs(5)).await;
    let (job, expected) = start(&cluster).await;
    cluster.wait_for(job, |status| status.summary.maps.done > SPLITS / 3).await;
    let victim = cluster.coordinator().await;
    let before = runs(&cluster);
    cluster.kill(victim);
    let status = cluster.wait(job).await;
    cluster.assert_succeeded(&status).await;
    assert_eq!(cluster.output().await, expected);
    let after = runs(&cluster);
    let survived: Vec<u32> = before
        .iter()
        .filter(|(_, nodes)| !nodes.contains(&victim))
        .map(|(&task, _)| task)
        .collect();
    assert!(!survived.is_empty());
    for task in survived {
        assert_eq!(after[&task].len(), 1, "task {task} was run again: {:?}", after[&task]);
    }
    assert_ne!(cluster.coordinator().await, victim);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_outlives_the_whole_cluster() {
    let mut cluster = Cluster::start(2).await;
    let (job, expected) = start(&cluster).await;
    cluster.wait_for(job, |status| status.summary.maps.done > SPLITS / 3).await;
    for node in [1, 2] {
        cluster.kill(node);
    }
    for node in [1, 2] {
        cluster.start_node(node).await;
    }
    let status = cluster.wait(job).await;
    cluster.assert_succeeded(&status).await;
    assert_eq!(cluster.output().await, expected);
    cluster.stop().await;
}
