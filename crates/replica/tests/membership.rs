//! Groups whose members come, go and die while commands are executed.

mod cluster;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cluster::{Cluster, LONG, Setup, Storage, count, eventually, propose, propose_once};
use onefold_replica::{
    ChangeError, Consistency, Group, Limits, MembershipChange, ProgressMode, ProposeError,
    ReadError,
};
use onefold_types::NodeId;
use tokio_util::sync::CancellationToken;

fn nodes(ids: impl IntoIterator<Item = u64>) -> BTreeSet<NodeId> {
    ids.into_iter().map(NodeId).collect()
}

fn join(ids: impl IntoIterator<Item = u64>) -> MembershipChange {
    MembershipChange { join: nodes(ids), ..MembershipChange::default() }
}

fn remove(ids: impl IntoIterator<Item = u64>) -> MembershipChange {
    MembershipChange { remove: nodes(ids), ..MembershipChange::default() }
}

/// The leader of those that run and were told of the members.
async fn leader(cluster: &Cluster) -> NodeId {
    eventually("all members agree on a leader", || async {
        let running = cluster.running();
        let members = running.iter().map(|node| cluster.group(*node));
        let members: Vec<_> = members.filter(|it| !it.status().voters.is_empty()).collect();
        let leaders: BTreeSet<_> =
            members.iter().map(|it| it.leadership().borrow().leader).collect();
        let leader = leaders.first().copied().flatten()?;
        (leaders.len() == 1 && running.contains(&leader)).then_some(leader)
    })
    .await
}

/// Waits until a node sees exactly these voters, settled.
async fn voters(group: &Group, ids: impl IntoIterator<Item = u64>) {
    let wanted = nodes(ids);
    eventually("the voters are those that were asked for", || async {
        let status = group.status();
        (status.voters == wanted && status.outgoing.is_empty() && status.joining.is_empty())
            .then_some(())
    })
    .await;
}

/// A log that keeps little, so that who joins needs a snapshot.
fn short_log() -> Limits {
    Limits {
        compact_after_entries: 200,
        keep_entries: 20,
        compact_after_bytes: 64 << 10,
        keep_bytes: 8 << 10,
        snapshot_chunk_bytes: 1 << 10,
        ..Limits::default()
    }
}

/// Three nodes that found the group, and others that do not run yet.
fn setup(all: u64) -> Setup {
    Setup { joiners: all - 3, limits: short_log(), ..Setup::new(all) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_learns_everything_and_becomes_a_voter_by_itself() {
    for storage in [Storage::Memory, Storage::Disk] {
        let mut cluster = Cluster::start(Setup { storage, ..setup(4) }).await;
        for number in 0..300 {
            let command = format!("put {number} before");
            propose(&cluster.group(NodeId(number % 3 + 1)), &command).await.expect("a majority");
        }
        cluster.restart(NodeId(4)).await;
        let newcomer = cluster.group(NodeId(4));
        assert!(newcomer.status().voters.is_empty(), "nobody told it anything");
        // Whoever is asked, it goes to the leader.
        let asked = cluster.group(NodeId(2));
        asked.change_membership(join([4]), LONG).await.expect("a majority runs");
        voters(&newcomer, [1, 2, 3, 4]).await;
        let view = newcomer.read(Consistency::Linearizable, LONG).await.expect("it is a member");
        assert_eq!(cluster::pairs(&view).len(), 300);
        propose(&newcomer, "add").await.expect("it forwards");
        assert!(!newcomer.status().is_removed);

        // It votes: with it and one more of the founders the group goes on.
        let leader = cluster.leader().await;
        let gone: Vec<_> = (1..=3).map(NodeId).filter(|node| *node != leader).take(1).collect();
        for node in gone {
            cluster.stop(node).await;
        }
        propose(&newcomer, "add").await.expect("three of four run");
        let answer = newcomer.change_membership(join([4]), LONG).await;
        assert_eq!(answer, Ok(()), "what is so already is done");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_shows_how_far_the_members_are() {
    let mut cluster = Cluster::start(setup(4)).await;
    propose(&cluster.group(NodeId(1)), "add").await.expect("a majority runs");
    let learn = MembershipChange { learn: nodes([4]), ..MembershipChange::default() };
    let group = cluster.group(NodeId(1));
    group.change_membership(learn, LONG).await.expect("a learner need not run");
    cluster.restart(NodeId(4)).await;
    let leader = cluster.leader().await;
    let leading = cluster.group(leader);
    let progress = eventually("every member has everything", || async {
        let progress = leading.status().progress?;
        let is_even = |it: &onefold_replica::MemberProgress| {
            it.lag == 0 && it.mode == ProgressMode::Replicate && it.is_active
        };
        (progress.len() == 3 && progress.values().all(is_even)).then_some(progress)
    })
    .await;
    assert!(progress.contains_key(&NodeId(4)) && !progress.contains_key(&leader));
    let status = leading.status();
    assert_eq!((status.voters, status.learners), (nodes([1, 2, 3]), nodes([4])));
    let other = cluster.group(NodeId(4)).status();
    assert_eq!((other.progress, other.learners), (None, nodes([4])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_leader_hands_over_and_its_replica_does_no_harm() {
    let cluster = Cluster::start(Setup::new(3)).await;
    let leader = cluster.leader().await;
    let group = cluster.group(leader);
    propose(&group, "add").await.expect("a majority runs");
    group.change_membership(remove([leader.get()]), LONG).await.expect("a majority runs");
    let rest: Vec<_> = (1..=3).map(NodeId).filter(|node| *node != leader).collect();
    for node in &rest {
        voters(&cluster.group(*node), rest.iter().map(|node| node.get())).await;
        propose(&cluster.group(*node), "add").await.expect("both of two run");
    }
    eventually("the removed replica knows", || async { group.status().is_removed.then_some(()) })
        .await;
    // Commands still find the leader; reads would show what is old.
    assert_eq!(propose(&group, "add").await, Ok("4".to_owned()));
    for consistency in [Consistency::Linearizable, Consistency::Local] {
        let read = group.read(consistency, LONG).await.map(|_| ());
        assert_eq!(read, Err(ReadError::NotHosted { group: group.id() }));
    }
    let terms: Vec<_> = rest.iter().map(|node| cluster.group(*node).status().term).collect();
    tokio::time::sleep(Duration::from_millis(700)).await;
    for (node, term) in rest.iter().zip(terms) {
        assert_eq!(cluster.group(*node).status().term, term, "it does not disturb");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_starts_again_on_its_log_and_stays_passive() {
    let mut cluster = Cluster::start(Setup { storage: Storage::Disk, ..Setup::new(3) }).await;
    propose(&cluster.group(NodeId(1)), "add").await.expect("a majority runs");
    let removed = cluster.follower().await;
    let others: Vec<_> = (1..=3).map(NodeId).filter(|node| *node != removed).collect();
    let group = cluster.group(others[0]);
    group.change_membership(remove([removed.get()]), LONG).await.expect("a majority runs");
    eventually("the removed replica knows", || async {
        cluster.group(removed).status().is_removed.then_some(())
    })
    .await;
    cluster.stop(removed).await;
    propose(&group, "add").await.expect("both of two run");
    cluster.restart(removed).await;
    let passive = cluster.group(removed);
    assert_eq!(propose(&passive, "add").await, Ok("3".to_owned()), "members know the leader");
    let status = passive.status();
    assert!(status.is_removed && !status.voters.contains(&removed), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_cannot_be_are_refused_in_clear_words() {
    let cluster = Cluster::start(Setup::new(3)).await;
    let group = cluster.group(NodeId(1));
    let nobody = group.change_membership(remove([1, 2, 3]), LONG).await;
    assert!(matches!(nobody, Err(ChangeError::Refused { .. })), "{nobody:?}");
    let both = MembershipChange { join: nodes([4]), remove: nodes([4]), ..Default::default() };
    let both = group.change_membership(both, LONG).await;
    assert!(matches!(both, Err(ChangeError::Refused { .. })), "{both:?}");
    voters(&group, [1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_no_change_succeeds_and_none_hangs() {
    let mut cluster = Cluster::start(Setup::new(3)).await;
    let last = cluster.leader().await;
    for node in cluster.running().into_iter().filter(|node| *node != last) {
        cluster.stop(node).await;
    }
    let group = cluster.group(last);
    let others = (1..=3).filter(|id| *id != last.get());
    let change = group.change_membership(remove(others), Duration::from_millis(500)).await;
    assert!(
        matches!(change, Err(ChangeError::NoLeader { .. } | ChangeError::Unfinished { .. })),
        "{change:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_replaced_while_commands_are_executed() {
    let mut cluster = Cluster::start(setup(4)).await;
    for _ in 0..50 {
        propose(&cluster.group(NodeId(1)), "add").await.expect("a majority runs");
    }
    let dead = cluster.follower().await;
    cluster.stop(dead).await;
    cluster.restart(NodeId(4)).await;
    let asked = cluster.running()[0];
    let change = MembershipChange { remove: nodes([dead.get()]), ..join([4]) };
    cluster.group(asked).change_membership(change, LONG).await.expect("two of three run");
    let expected = (1..=4).filter(|id| *id != dead.get());
    voters(&cluster.group(NodeId(4)), expected).await;
    assert_eq!(propose(&cluster.group(NodeId(4)), "add").await, Ok("51".to_owned()));
}

/// Increments through any of the doors until it is told to stop; says how often it succeeded.
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

/// A cluster under load, whose clients use the doors that are open.
struct Loaded {
    cluster: Cluster,
    doors: Arc<Mutex<Vec<Group>>>,
}

impl Loaded {
    fn open_doors(&self, nodes: impl IntoIterator<Item = u64>) {
        let groups = nodes.into_iter().map(|node| self.cluster.group(NodeId(node)));
        *self.doors.lock().expect("nobody panics with it") = groups.collect();
    }

    /// Waits until further commands are executed.
    async fn progress(&self) {
        let applied = || {
            let nodes = self.cluster.running().into_iter();
            nodes.map(|node| self.cluster.group(node).applied()).max()
        };
        let before = applied().expect("some node runs");
        eventually("commands are executed", || async {
            (applied()?.get() >= before.get() + 50).then_some(())
        })
        .await;
    }

    /// Kills the leader and starts it again, while a change is made.
    async fn change_with_a_kill(&mut self, change: MembershipChange) {
        let leader = leader(&self.cluster).await;
        let others: Vec<_> =
            self.cluster.running().into_iter().filter(|node| *node != leader).collect();
        self.open_doors(others.iter().map(|node| node.get()));
        let asking = self.cluster.group(others[0]);
        let changing = tokio::spawn(async move { asking.change_membership(change, LONG).await });
        tokio::task::yield_now().await;
        self.cluster.stop(leader).await;
        self.progress().await;
        self.cluster.restart(leader).await;
        changing.await.expect("no task panics").expect("a majority runs all the time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_to_five_to_three_under_load_with_kills_of_the_leader() {
    let mut cluster = Cluster::start(setup(5)).await;
    cluster.leader().await;
    let doors = Arc::new(Mutex::new((1..=3).map(|id| cluster.group(NodeId(id))).collect()));
    let stop = CancellationToken::new();
    let clients: Vec<_> = (1..=6)
        .map(|session| tokio::spawn(keep_adding(doors.clone(), session, stop.clone())))
        .collect();
    cluster.restart(NodeId(4)).await;
    cluster.restart(NodeId(5)).await;
    let mut loaded = Loaded { cluster, doors };
    loaded.progress().await;

    loaded.change_with_a_kill(join([4, 5])).await;
    voters(&loaded.cluster.group(NodeId(5)), 1..=5).await;
    loaded.open_doors(1..=5);
    loaded.progress().await;

    let leader = loaded.cluster.leader().await.get();
    let leaving: Vec<_> = (1..=5).filter(|id| *id != leader).take(1).chain([leader]).collect();
    let staying: Vec<_> = (1..=5).filter(|id| !leaving.contains(id)).collect();
    loaded.change_with_a_kill(remove(leaving.clone())).await;
    loaded.open_doors(staying.iter().copied());
    voters(&loaded.cluster.group(NodeId(staying[0])), staying.iter().copied()).await;
    loaded.progress().await;
    for id in leaving {
        loaded.cluster.stop(NodeId(id)).await;
    }
    loaded.progress().await;

    stop.cancel();
    let mut succeeded = 0;
    for client in clients {
        succeeded += client.await.expect("no client fails");
    }
    // A client that was told to stop between two attempts may have one more executed.
    let mut counts = BTreeSet::new();
    for id in staying {
        let view = loaded.cluster.group(NodeId(id)).read(Consistency::Linearizable, LONG).await;
        counts.insert(count(&view.expect("all three run")).expect("a good table"));
    }
    assert_eq!(counts.len(), 1, "all replicas agree");
    let executed = counts.into_iter().next().expect("it was counted");
    assert!(executed >= succeeded && executed <= succeeded + 6, "{executed} of {succeeded}");
    let late = loaded.cluster.leader().await;
    let bytes = Bytes::from_static(b"add");
    loaded.cluster.group(late).propose(bytes, None, LONG).await.expect("all three run");
}
