//! Groups in which nothing happens cost nothing, and are there when they are needed.

mod cluster;

use std::time::Duration;

use cluster::{Cluster, GROUP, LONG, Setup, count, eventually, propose};
use onefold_replica::{Consistency, HostMetrics, Limits, MembershipChange};
use onefold_types::{GroupId, NodeId};

/// Many groups on three nodes.
fn setup(groups: u64) -> Setup {
    let groups = (0..groups).map(|number| GroupId(GROUP.get() + number)).collect();
    Setup { groups, ..Setup::new(3) }
}

fn metrics(cluster: &Cluster) -> Vec<HostMetrics> {
    cluster.running().into_iter().map(|node| cluster.node(node).host.metrics()).collect()
}

async fn all_quiet(cluster: &Cluster) {
    let groups = cluster.setup.groups.len() as u64;
    eventually("all groups are quiet on all nodes", || async {
        metrics(cluster).iter().all(|it| it.node.groups_quiet == groups).then_some(())
    })
    .await;
}

/// What the hosts sent: messages of groups, and beats.
fn sent(cluster: &Cluster) -> (u64, u64) {
    let metrics = metrics(cluster);
    let messages = metrics.iter().map(|it| it.node.messages_sent_total).sum();
    let beats = metrics.iter().map(|it| it.node.beats_sent_total).sum();
    (messages, beats)
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_groups_say_nothing_while_their_nodes_beat() {
    let cluster = Cluster::start(setup(100)).await;
    propose(&cluster.group(NodeId(1)), "add").await.expect("a majority runs");
    all_quiet(&cluster).await;
    assert!(cluster.group(NodeId(2)).status().is_quiet);
    let (messages, beats) = sent(&cluster);
    eventually("the nodes beat", || async { (sent(&cluster).1 >= beats + 60).then_some(()) }).await;
    assert_eq!(sent(&cluster).0, messages, "no group says anything");
    assert!(metrics(&cluster).iter().all(|it| it.node.nodes_down == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_or_a_read_on_any_node_wakes_a_quiet_group() {
    let cluster = Cluster::start(setup(3)).await;
    for node in 1..=3 {
        all_quiet(&cluster).await;
        let group = cluster.group(NodeId(node));
        assert_eq!(propose(&group, "add").await, Ok(node.to_string()));
        all_quiet(&cluster).await;
        let view = group.read(Consistency::Linearizable, LONG).await.expect("a majority runs");
        assert_eq!(count(&view).expect("a good table"), node);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_groups_of_a_dead_node_get_other_leaders() {
    let mut cluster = Cluster::start(setup(30)).await;
    let leader = cluster.leader().await;
    all_quiet(&cluster).await;
    cluster.stop(leader).await;
    let groups = cluster.setup.groups.clone();
    eventually("every group has a leader that runs", || async {
        let node = cluster.running()[0];
        let is_led = |id: &GroupId| {
            let group = cluster.node(node).host.group(*id).expect("every node hosts every group");
            group.leadership().borrow().leader.is_some_and(|it| it != leader)
        };
        groups.iter().all(is_led).then_some(())
    })
    .await;
    propose(&cluster.group(cluster.running()[0]), "add").await.expect("two of three run");
    // Nobody waits for the dead node: the groups fall silent without it.
    all_quiet(&cluster).await;
    assert!(metrics(&cluster).iter().all(|it| it.node.nodes_down == 1));
    cluster.restart(leader).await;
    assert_eq!(cluster.agreed().await.len(), 1, "it catches up");
    all_quiet(&cluster).await;
    assert!(metrics(&cluster).iter().all(|it| it.node.nodes_down == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_restarts_before_anybody_misses_it_is_replaced() {
    let mut cluster = Cluster::start(setup(10)).await;
    for _ in 0..3 {
        let leader = cluster.leader().await;
        all_quiet(&cluster).await;
        cluster.stop(leader).await;
        cluster.restart(leader).await;
        cluster.leader().await;
        propose(&cluster.group(leader), "add").await.expect("all run");
    }
    assert_eq!(cluster.agreed().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_a_quiet_group_is_told_of_it() {
    let mut cluster = Cluster::start(Setup { joiners: 1, ..Setup::new(4) }).await;
    let leader = cluster.leader().await;
    let join = MembershipChange { join: [NodeId(4)].into(), ..MembershipChange::default() };
    cluster.group(leader).change_membership(join, LONG).await.expect("all founders run");
    all_quiet(&cluster).await;
    cluster.restart(NodeId(4)).await;
    eventually("the joined node votes", || async {
        cluster.group(NodeId(4)).status().voters.contains(&NodeId(4)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_waits_to_be_applied_is_not_given_up_by_silence() {
    let limits = Limits { applying_bytes_max: 1, ..Limits::default() };
    let cluster = Cluster::start(Setup { limits, ..Setup::new(3) }).await;
    let slow = NodeId(1);
    if cluster.leader().await != slow {
        let leader = cluster.group(cluster.leader().await);
        leader.transfer_leadership(slow, LONG).await.expect("all run");
    }
    cluster.setup.gate.close();
    let proposals: Vec<_> = (0..3)
        .map(|_| {
            let group = cluster.group(slow);
            tokio::spawn(async move { group.propose("add".into(), None, LONG).await })
        })
        .collect();
    let counted = || async {
        let view = cluster.group(NodeId(2)).view();
        (count(&view).expect("a good table") == 3).then_some(())
    };
    eventually("the others have applied the commands", counted).await;
    cluster.group(slow).transfer_leadership(NodeId(2), LONG).await.expect("all run");
    eventually("the slow one is quiet", || async {
        cluster.group(slow).status().is_quiet.then_some(())
    })
    .await;
    cluster.setup.gate.open();
    let mut answers = Vec::new();
    for proposal in proposals {
        answers.push(proposal.await.expect("no task panics").expect("it was committed"));
    }
    answers.sort();
    assert_eq!(answers, ["1", "2", "3"], "each was executed once, and answered");
    counted().await.expect("and none again");
}

#[tokio::test(flavor = "multi_thread")]
async fn active_groups_send_their_heartbeats_in_one_frame_for_each_node() {
    let cluster = Cluster::start(setup(100)).await;
    // Quiet groups that wake at any moment fall in step with the others.
    all_quiet(&cluster).await;
    for (place, id) in cluster.setup.groups.iter().enumerate() {
        let node = NodeId(place as u64 % 3 + 1);
        let group = cluster.node(node).host.group(*id).expect("every node hosts every group");
        propose(&group, "add").await.expect("a majority runs");
        tokio::time::sleep(Duration::from_millis(place as u64 % 7)).await;
    }
    let before = metrics(&cluster);
    eventually("all groups are active and heartbeat", || async {
        let more = metrics(&cluster).iter().zip(&before).all(|(now, before)| {
            now.node.messages_sent_total >= before.node.messages_sent_total + 500
        });
        more.then_some(())
    })
    .await;
    for (now, before) in metrics(&cluster).iter().zip(&before) {
        let frames = now.node.frames_sent_total - before.node.frames_sent_total;
        let messages = now.node.messages_sent_total - before.node.messages_sent_total;
        assert!(frames * 10 <= messages, "{messages} messages in {frames} frames");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_lease_the_leader_reads_without_asking() {
    const READS: u64 = 500;
    let mut messages = Vec::new();
    for lease_reads in [false, true] {
        let cluster = Cluster::start(Setup { lease_reads, ..Setup::new(3) }).await;
        let leader = cluster.leader().await;
        let group = cluster.group(leader);
        propose(&group, "add").await.expect("a majority runs");
        let before = cluster.node(leader).host.metrics().node.messages_sent_total;
        for _ in 0..READS {
            let view = group.read(Consistency::Linearizable, LONG).await.expect("it leads");
            assert_eq!(count(&view).expect("a good table"), 1);
        }
        messages.push(cluster.node(leader).host.metrics().node.messages_sent_total - before);
    }
    assert!(messages[0] >= 2 * READS, "each read asks both: {messages:?}");
    assert!(messages[1] < READS, "heartbeats are enough: {messages:?}");
}
