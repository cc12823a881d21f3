//! Groups that come to running hosts and go from them, with crashes in between.

mod cluster;

use std::sync::Arc;

use bytes::Bytes;
use cluster::{Cluster, LONG, Setup, Storage, count, counter, eventually, propose};
use onefold_replica::{
    ChangeError, Consistency, Formation, Group, GroupError, Limits, MembershipChange, ProposeError,
    ReadError,
};
use onefold_table::{Batch, KeyRange, Order, Space, Table, View};
use onefold_types::{GroupId, NodeId};

/// A group that no node is started with.
const NEW: GroupId = GroupId(16);

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

fn founders() -> Formation {
    Formation::Founders(NODES.into())
}

fn group(cluster: &Cluster, node: NodeId) -> Group {
    cluster.node(node).host.group(NEW).expect("the node hosts the new group")
}

async fn counted(group: &Group) -> u64 {
    let view = group.read(Consistency::Linearizable, LONG).await.expect("a majority");
    count(&view).expect("the table is good")
}

/// How many keys the table has of the group.
fn keys(table: &Arc<dyn Table>) -> usize {
    Space::new(table.clone(), NEW).scan(KeyRange::all(), Order::Ascending).count()
}

/// What a node writes where a group was that it destroys.
fn tombstone() -> (Bytes, Bytes) {
    (Bytes::from_static(&[3]), Bytes::from_static(&[2, 16]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_founded_by_running_nodes_serves_and_is_there_after_a_restart() {
    for storage in [Storage::Memory, Storage::Disk] {
        let mut cluster = Cluster::start(Setup { storage, ..Setup::new(3) }).await;
        propose(&cluster.group(NodeId(1)), "add").await.expect("a majority");
        cluster.found(NEW, &NODES).await;
        for node in NODES {
            propose(&group(&cluster, node), "add").await.expect("a majority");
        }
        for node in NODES {
            cluster.stop(node).await;
        }
        for node in NODES {
            cluster.restart(node).await;
        }
        assert_eq!(counted(&group(&cluster, NodeId(2))).await, 3);
        let other = cluster.group(NodeId(2)).read(Consistency::Linearizable, LONG).await;
        assert_eq!(count(&other.expect("a majority")).expect("the table is good"), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_majority_of_the_founders_is_enough_and_the_last_one_catches_up() {
    let mut cluster = Cluster::start(Setup::new(3)).await;
    cluster.stop(NodeId(3)).await;
    for node in [NodeId(1), NodeId(2)] {
        let created = cluster.node(node).host.create_group(counter(NEW, founders())).await;
        created.expect("it is new here");
    }
    propose(&group(&cluster, NodeId(1)), "add").await.expect("a majority");
    cluster.restart(NodeId(3)).await;
    assert!(cluster.node(NodeId(3)).host.group(NEW).is_none(), "nobody told it");
    let late = cluster.node(NodeId(3)).host.create_group(counter(NEW, founders())).await;
    assert_eq!(counted(&late.expect("it is new here")).await, 1);
    let again = cluster.node(NodeId(3)).host.create_group(counter(NEW, founders())).await;
    assert_eq!(again.err(), Some(GroupError::Exists { group: NEW }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_later_is_told_of_the_members() {
    let cluster = Cluster::start(Setup { groups: vec![cluster::GROUP], ..Setup::new(4) }).await;
    cluster.found(NEW, &NODES).await;
    propose(&group(&cluster, NodeId(1)), "add").await.expect("a majority");
    let created = cluster.node(NodeId(4)).host.create_group(counter(NEW, Formation::Joining)).await;
    let late = created.expect("it is new here");
    let change = MembershipChange { join: [NodeId(4)].into(), ..MembershipChange::default() };
    group(&cluster, NodeId(1)).change_membership(change, LONG).await.expect("a majority");
    eventually("the node votes", || async {
        late.status().voters.contains(&NodeId(4)).then_some(())
    })
    .await;
    assert_eq!(counted(&late).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destroyed_group_leaves_nothing_but_its_tombstone_and_never_comes_back() {
    let mut cluster = Cluster::start(Setup::new(3)).await;
    propose(&cluster.group(NodeId(1)), "add").await.expect("a majority");
    cluster.found(NEW, &NODES).await;
    for number in 0..50 {
        let command = format!("put {number} value");
        propose(&group(&cluster, NodeId(1)), &command).await.expect("a majority");
    }
    let held = group(&cluster, NodeId(1));
    for node in NODES {
        let host = &cluster.node(node).host;
        assert_eq!(host.destroy_group(NEW).await, Ok(true));
        assert_eq!(host.destroy_group(NEW).await, Ok(false), "twice is as good as once");
        assert!(host.group(NEW).is_none());
        assert!(host.status().iter().all(|status| status.group != NEW));
        let again = host.create_group(counter(NEW, founders())).await;
        assert_eq!(again.err(), Some(GroupError::Destroyed { group: NEW }));
    }
    // A handle from before serves nothing any more, and keeps nobody waiting.
    assert_eq!(propose(&held, "add").await, Err(ProposeError::NotHosted { group: NEW }));
    let read = held.read(Consistency::Linearizable, LONG).await;
    assert_eq!(read.err(), Some(ReadError::NotHosted { group: NEW }));
    let change = MembershipChange { remove: [NodeId(3)].into(), ..MembershipChange::default() };
    let changed = held.change_membership(change, LONG).await;
    assert_eq!(changed, Err(ChangeError::NotHosted { group: NEW }));
    for node in NODES {
        let table = cluster.node(node).table.clone();
        eventually("the table's space is back", || async { (keys(&table) == 1).then_some(()) })
            .await;
    }
    assert_eq!(propose(&cluster.group(NodeId(2)), "add").await, Ok("2".to_owned()));

    cluster.stop(NodeId(1)).await;
    assert!(!cluster.log_of(NodeId(1)).contains_key(&NEW), "the log forgot it");
    cluster.restart(NodeId(1)).await;
    let host = &cluster.node(NodeId(1)).host;
    assert!(host.group(NEW).is_none());
    let again = host.create_group(counter(NEW, founders())).await;
    assert_eq!(again.err(), Some(GroupError::Destroyed { group: NEW }));
}

#[tokio::test(flavor = "multi_thread")]
async fn late_messages_of_a_destroyed_group_are_counted_and_dropped() {
    let cluster = Cluster::start(Setup::new(3)).await;
    cluster.found(NEW, &NODES).await;
    propose(&group(&cluster, NodeId(1)), "add").await.expect("a majority");
    let leader = group(&cluster, NodeId(1)).status().leader.expect("it was just elected");
    let follower = NODES.into_iter().find(|node| *node != leader).expect("there are three");
    cluster.node(follower).host.destroy_group(NEW).await.expect("the host runs");
    propose(&group(&cluster, leader), "add").await.expect("two of three are a majority");
    eventually("a message came late", || async {
        let metrics = cluster.node(follower).host.metrics();
        (metrics.node.messages_destroyed_group_total > 0).then_some(())
    })
    .await;
    let metrics = cluster.node(follower).host.metrics();
    assert_eq!(metrics.node.messages_unknown_group_total, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_before_a_group_is_durable_leaves_none_and_it_is_created_again() {
    let mut cluster = Cluster::start(Setup::new(3)).await;
    cluster.stop(NodeId(1)).await;
    // As if the process had ended between the root and the sync: whatever is there after the crash,
    // nobody was told of it.
    let table: Arc<dyn Table> = cluster.table_of(NodeId(1));
    let mut batch = Batch::new();
    batch.put(Bytes::from_static(&[0]), Bytes::from_static(b"a root that is not synced"));
    Space::new(table, NEW).write(batch).expect("memory does not fail");
    cluster.restart(NodeId(1)).await;
    assert!(cluster.node(NodeId(1)).host.group(NEW).is_none());
    cluster.found(NEW, &NODES).await;
    propose(&group(&cluster, NodeId(1)), "add").await.expect("a majority");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_the_middle_of_a_destruction_is_made_up_for_by_the_next_start() {
    let mut cluster = Cluster::start(Setup::new(3)).await;
    cluster.found(NEW, &NODES).await;
    propose(&group(&cluster, NodeId(1)), "add").await.expect("a majority");
    cluster.stop(NodeId(1)).await;
    assert!(cluster.log_of(NodeId(1)).contains_key(&NEW));
    // The tombstone is durable, and nothing else was done.
    let table: Arc<dyn Table> = cluster.table_of(NodeId(1));
    let (key, value) = tombstone();
    let mut batch = Batch::new();
    batch.put(key, value);
    Space::new(table.clone(), NEW).write(batch).expect("memory does not fail");
    table.sync().expect("memory does not fail");
    assert!(keys(&table) > 1);

    cluster.restart(NodeId(1)).await;
    let host = &cluster.node(NodeId(1)).host;
    assert!(host.group(NEW).is_none());
    let table = cluster.node(NodeId(1)).table.clone();
    eventually("the table's space is back", || async { (keys(&table) == 1).then_some(()) }).await;
    // The log of the host that runs forgets it as well.
    propose(&cluster.group(NodeId(1)), "add").await.expect("a majority");
    cluster.stop(NodeId(1)).await;
    assert!(!cluster.log_of(NodeId(1)).contains_key(&NEW));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_takes_no_more_groups_than_it_may() {
    let limits = Limits { groups_max: 2, ..Limits::default() };
    let cluster = Cluster::start(Setup { limits, ..Setup::new(1) }).await;
    let host = &cluster.node(NodeId(1)).host;
    let alone = Formation::Founders([NodeId(1)].into());
    let first = host.create_group(counter(NEW, alone.clone())).await.expect("there is room");
    propose(&first, "add").await.expect("it leads alone");
    let next = GroupId(NEW.get() + 1);
    let refused = host.create_group(counter(next, alone.clone())).await;
    assert_eq!(refused.err(), Some(GroupError::Full { group: next, groups_max: 2 }));
    host.destroy_group(NEW).await.expect("the host runs");
    host.create_group(counter(next, alone)).await.expect("there is room again");
}
