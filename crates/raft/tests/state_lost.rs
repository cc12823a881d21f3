//! Replicas whose state machine is lost while their log is whole.

mod cluster;

use std::collections::BTreeSet;

use cluster::{Cluster, ELECTION_TICKS, node};
use onefold_raft::{Body, Input, MembershipChange, Role, StepError};
use onefold_types::LogIndex;

/// Three voters led by 1, with `count` commands applied everywhere.
fn with_commands(count: usize) -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    for _ in 0..count {
        cluster.propose(node(1), "x").expect("a leader");
    }
    cluster.ticks(3);
    cluster
}

/// Forgets what a running node applied.
fn lose_state(cluster: &mut Cluster, id: u64) {
    let stored = cluster.stored.get_mut(&node(id)).expect("a node");
    stored.applied.clear();
    stored.restored.applied = LogIndex::ZERO;
    cluster.step(node(id), Input::StateLost).expect("a loss");
}

fn is_state_lost(cluster: &Cluster, id: u64) -> bool {
    cluster.cores[&node(id)].status().is_state_lost
}

fn snapshots_wanted(cluster: &Cluster) -> usize {
    let wanted = cluster.delivered.iter().map(|(_, _, message)| &message.body);
    wanted.filter(|body| matches!(body, Body::SnapshotWanted { .. })).count()
}

#[test]
fn a_follower_that_lost_its_state_asks_for_a_snapshot_and_goes_on() {
    let mut cluster = with_commands(3);
    lose_state(&mut cluster, 3);
    assert!(is_state_lost(&cluster, 3));
    cluster.settle();
    assert!(!is_state_lost(&cluster, 3));
    cluster.propose(node(1), "y").expect("a leader");
    cluster.ticks(3);
    assert_eq!(cluster.applied_by(node(3)), ["x", "x", "x", "y"]);
    assert_eq!(snapshots_wanted(&cluster), 1);
    cluster.ticks(10);
    assert_eq!(snapshots_wanted(&cluster), 1, "it does not ask again");
}

#[test]
fn a_state_that_is_older_than_the_log_is_as_good_as_lost() {
    let mut cluster = with_commands(3);
    cluster.step(node(3), Input::Compact(LogIndex(3))).expect("a compaction");
    cluster.crash(node(3));
    let stored = cluster.stored.get_mut(&node(3)).expect("a node");
    stored.restored.applied = LogIndex(1);
    stored.applied.truncate(1);
    cluster.start(node(3));
    assert!(is_state_lost(&cluster, 3));
    cluster.ticks(5);
    assert!(!is_state_lost(&cluster, 3));
    assert_eq!(cluster.applied_by(node(3)), ["x", "x", "x"]);
}

#[test]
fn it_votes_and_acknowledges_meanwhile() {
    let mut cluster = with_commands(3);
    cluster.crash(node(2));
    lose_state(&mut cluster, 3);
    cluster.propose(node(1), "y").expect("a leader");
    cluster.deliver_if(|_, _, message| !matches!(message.body, Body::SnapshotWanted { .. }));
    assert!(is_state_lost(&cluster, 3));
    assert_eq!(cluster.commit(node(1)), 5, "with the log of 3");
    assert_eq!(cluster.applied_by(node(3)), [""; 0], "nothing is handed out");
    cluster.ticks(3);
    assert_eq!(cluster.applied_by(node(3)), ["x", "x", "x", "y"]);
}

#[test]
fn what_was_lost_on_the_way_is_asked_for_again() {
    let mut cluster = with_commands(3);
    lose_state(&mut cluster, 3);
    cluster.deliver_if(|_, _, message| !matches!(message.body, Body::SnapshotWanted { .. }));
    for _ in 0..3 {
        cluster.step(node(1), Input::Tick).expect("a tick");
        cluster.deliver_if(|_, _, message| !matches!(message.body, Body::InstallSnapshot { .. }));
    }
    assert!(is_state_lost(&cluster, 3));
    cluster.ticks(5);
    assert!(!is_state_lost(&cluster, 3));
    assert!(cluster.cores[&node(1)].status().followers[&node(3)].matched > LogIndex::ZERO);
}

#[test]
fn a_snapshot_that_is_older_than_the_log_is_refused() {
    let mut cluster = with_commands(3);
    cluster.step(node(3), Input::Compact(LogIndex(4))).expect("a compaction");
    lose_state(&mut cluster, 3);
    let mark = cluster.cores[&node(1)].snapshot_mark_at(LogIndex(2)).expect("a known index");
    let old = onefold_raft::Message {
        term: cluster.cores[&node(1)].term(),
        body: Body::InstallSnapshot { mark },
    };
    cluster.network.clear();
    cluster.step(node(3), Input::Message { from: node(1), message: old }).expect("a message");
    let answers: Vec<_> = cluster.network.iter().map(|(_, _, message)| &message.body).collect();
    assert_eq!(answers, [&Body::SnapshotMissing { index: LogIndex(2) }]);
    assert!(is_state_lost(&cluster, 3));
}

#[test]
fn a_leader_that_lost_its_state_hands_over() {
    let mut cluster = with_commands(3);
    cluster.read(node(1), 1).expect("a leader");
    lose_state(&mut cluster, 1);
    let refused = cluster.read(node(1), 2);
    assert!(matches!(refused, Err(StepError::NotLeader { .. })), "{refused:?}");
    cluster.settle();
    assert_ne!(cluster.role(node(1)), Role::Leader);
    let leaders = [2, 3].map(|id| cluster.role(node(id)) == Role::Leader);
    assert!(leaders.contains(&true), "without waiting for a timeout");
    cluster.ticks(5);
    assert_eq!(cluster.applied_by(node(1)), ["x", "x", "x"]);
}

#[test]
fn a_log_that_nobody_else_has_is_handed_on_by_a_server_without_a_state() {
    let mut cluster = with_commands(1);
    cluster.isolate(node(2));
    cluster.propose(node(1), "y").expect("a leader");
    cluster.ticks(3);
    cluster.crash(node(1));
    cluster.heal();
    lose_state(&mut cluster, 3);
    // 2 lacks what 1 and 3 committed, so only 3 can be elected; then it lets 2 lead.
    cluster.ticks(150);
    assert_eq!(cluster.role(node(2)), Role::Leader);
    for id in [2, 3] {
        assert_eq!(cluster.applied_by(node(id)), ["x", "y"]);
    }
}

#[test]
fn the_only_voter_of_a_group_does_not_lead_without_its_state() {
    let mut cluster = Cluster::new(1);
    cluster.elect(node(1));
    cluster.propose(node(1), "x").expect("a leader");
    lose_state(&mut cluster, 1);
    cluster.ticks(200);
    assert_eq!((cluster.role(node(1)), cluster.term(node(1))), (Role::Follower, 1));
}

#[test]
fn a_group_is_not_left_to_a_voter_without_a_state() {
    let mut cluster = with_commands(3);
    cluster.step(node(3), Input::Compact(LogIndex(3))).expect("a compaction");
    lose_state(&mut cluster, 3);
    cluster.deliver_if(|_, _, message| !matches!(message.body, Body::InstallSnapshot { .. }));
    let change = || MembershipChange {
        remove: BTreeSet::from([node(1), node(2)]),
        ..MembershipChange::default()
    };
    assert_eq!(cluster.change(node(1), change()), Err(StepError::ChangeInProgress));
    cluster.ticks(5);
    assert!(!is_state_lost(&cluster, 3));
    cluster.change(node(1), change()).expect("3 has a state again");
}

#[test]
fn a_leader_that_has_applied_nothing_has_nothing_to_give() {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    cluster.step(node(1), Input::StateLost).expect("a loss");
    cluster.step(node(2), Input::StateLost).expect("a loss");
    cluster.network.clear();
    let wanted = onefold_raft::Message {
        term: cluster.cores[&node(3)].term(),
        body: Body::SnapshotWanted { least: LogIndex::ZERO },
    };
    let core = cluster.cores.get_mut(&node(1)).expect("a node");
    core.step(Input::Message { from: node(2), message: wanted }).expect("a message");
    assert_eq!(core.take_output().send_snapshot, []);
}

#[test]
fn two_servers_without_a_state_do_not_hand_leadership_to_each_other_for_ever() {
    let mut cluster = with_commands(3);
    cluster.isolate(node(1));
    lose_state(&mut cluster, 2);
    lose_state(&mut cluster, 3);
    cluster.settle();
    for _ in 0..ELECTION_TICKS {
        for id in [2, 3] {
            cluster.step(node(id), Input::Tick).expect("a tick");
        }
    }
    cluster.settle();
    cluster.heal();
    cluster.step(node(2), Input::Campaign).expect("a campaign");
    for _ in 0..20 * ELECTION_TICKS {
        settle_slowly(&mut cluster, 1);
        if cluster.role(node(1)) == Role::Leader && !is_state_lost(&cluster, 2) {
            return;
        }
        for id in [1, 2, 3] {
            cluster.step(node(id), Input::Tick).expect("a tick");
        }
    }
    panic!("nobody with a state leads: {:?}", [1, 2, 3].map(|id| cluster.role(node(id))));
}

/// Delivers everything, but to and from one server only when nothing else is left. Gives up on those
/// that never come to an end.
fn settle_slowly(cluster: &mut Cluster, slow: u64) {
    for _ in 0..1000 {
        let is_fast = |(from, to, _): &(_, _, _)| *from != node(slow) && *to != node(slow);
        let Some(at) = cluster.network.iter().position(is_fast).or(Some(0)) else { return };
        let Some((from, to, message)) = cluster.network.remove(at) else { return };
        cluster.step(to, Input::Message { from, message }).expect("a well-formed message");
    }
}

#[test]
fn a_server_without_a_state_does_not_stand_when_it_is_asked_to_but_asks_for_a_snapshot() {
    let mut cluster = with_commands(3);
    lose_state(&mut cluster, 3);
    cluster.network.clear();
    let asked =
        onefold_raft::Message { term: cluster.cores[&node(1)].term(), body: Body::TimeoutNow };
    cluster.step(node(3), Input::Message { from: node(1), message: asked }).expect("a message");
    assert_eq!(cluster.role(node(3)), Role::Follower);
    let sent: Vec<_> =
        cluster.network.iter().map(|(_, to, message)| (*to, &message.body)).collect();
    assert_eq!(sent, [(node(1), &Body::SnapshotWanted { least: LogIndex::ZERO })]);
}

#[test]
fn a_leader_without_a_state_leads_until_a_server_with_one_has_its_log() {
    let mut cluster = with_commands(1);
    cluster.isolate(node(2));
    cluster.propose(node(1), "y").expect("a leader");
    cluster.ticks(3);
    lose_state(&mut cluster, 3);
    let (_, _, wanted) = cluster.network.pop_back().expect("it asks for a snapshot");
    let leader = cluster.cores.get_mut(&node(1)).expect("a node");
    leader.step(Input::StateLost).expect("a loss");
    leader.step(Input::Message { from: node(3), message: wanted }).expect("a message");
    lose_state(&mut cluster, 1);
    cluster.settle();
    assert_eq!(cluster.role(node(1)), Role::Leader, "2 cannot be elected, and 3 has no state");
    assert!(matches!(cluster.propose(node(1), "z"), Err(StepError::Transferring { .. })));
    cluster.heal();
    cluster.ticks(ELECTION_TICKS / 2);
    assert_eq!(cluster.role(node(2)), Role::Leader);
    cluster.ticks(5);
    assert_eq!([1, 3].map(|id| is_state_lost(&cluster, id)), [false, false]);
}
