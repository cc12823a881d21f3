//! What followers cost the leader's memory that are slow, dead or far behind.

mod cluster;

use cluster::{Cluster, GROUP, LONG, Setup, eventually, pairs, propose};
use onefold_replica::{Consistency, Limits};
use onefold_types::{GroupId, NodeId};

/// Applied entries that a node may keep, over all its groups.
const BUDGET: usize = 256 << 10;
/// What is applied between two looks at the budget: the rounds in the pipeline.
const SLACK: usize = 128 << 10;
const COMMAND_BYTES: usize = 4 << 10;

/// Groups that would keep far more, each for itself.
fn setup() -> Setup {
    let limits =
        Limits { retained_bytes_max: BUDGET, snapshot_chunk_bytes: 4 << 10, ..Limits::default() };
    let groups = (0..4).map(|number| GroupId(GROUP.get() + number)).collect();
    Setup { limits, groups, ..Setup::new(3) }
}

/// Writes to all groups, a lot to the first, and gives the most that any node ever kept.
async fn write(cluster: &Cluster, node: NodeId, commands: usize) -> u64 {
    let value = "v".repeat(COMMAND_BYTES);
    let mut most = 0;
    for number in 0..commands {
        let place = if number % 4 == 0 { number / 4 % 4 } else { 0 };
        let host = &cluster.node(node).host;
        let group = host.group(cluster.setup.groups[place]).expect("every node hosts every group");
        propose(&group, &format!("put {number} {value}")).await.expect("a majority runs");
        for node in cluster.running() {
            most = most.max(cluster.node(node).host.metrics().node.retained_bytes);
        }
    }
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_follower_costs_no_more_than_the_budget_and_catches_up() {
    let mut cluster = Cluster::start(setup()).await;
    let leader = cluster.leader().await;
    let dead = cluster.follower().await;
    cluster.stop(dead).await;
    let most = write(&cluster, leader, 600).await;
    assert!(most <= (BUDGET + SLACK) as u64, "kept {most} of at most {BUDGET} bytes");
    let metrics = cluster.node(leader).host.metrics();
    assert!(metrics.node.compactions_forced_total > 0, "the budget was in the way");
    // The small groups keep what they have; the biggest pays.
    let kept: Vec<_> = metrics.groups.values().map(|group| group.retained_bytes).collect();
    assert!(kept.iter().sum::<u64>() > BUDGET as u64 / 4, "{kept:?}");

    // While it is caught up by snapshots, the bound holds as well.
    cluster.restart(dead).await;
    let most = write(&cluster, leader, 300).await;
    assert!(most <= (BUDGET + SLACK) as u64, "kept {most} of at most {BUDGET} bytes");
    eventually("the node that was dead has everything", || async {
        let view = cluster.group(dead).read(Consistency::Linearizable, LONG).await.ok()?;
        let here = pairs(&cluster.group(leader).view()).len();
        (pairs(&view).len() == here).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_shows_what_is_under_way_to_each_follower() {
    let cluster = Cluster::start(setup()).await;
    let leader = cluster.leader().await;
    write(&cluster, leader, 20).await;
    eventually("everything is answered", || async {
        let status = cluster.group(leader).status();
        let progress = status.progress?;
        let is_done = progress.len() == 2
            && progress.values().all(|it| it.in_flight_bytes == 0 && it.lag == 0);
        is_done.then_some(())
    })
    .await;
    let metrics = cluster.node(leader).host.metrics();
    assert_eq!(metrics.groups[&GROUP].in_flight_bytes, 0);
    assert!(metrics.groups[&GROUP].retained_bytes > 0);
    assert!(metrics.node.log_appends_total > 0 && metrics.node.frames_sent_total > 0);
}
