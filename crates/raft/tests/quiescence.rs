//! Idle groups are silent, and never for ever.

mod cluster;

use cluster::{Cluster, ELECTION_TICKS, join, node};
use onefold_raft::{Body, Config, Input, Message, Role};
use onefold_types::{LogIndex, NodeId, Term};

const AFTER_TICKS: u32 = 6;

fn cluster(count: u64) -> Cluster {
    let mut cluster = Cluster::configured(count, |config: &mut Config| {
        config.quiesce_after_ticks = Some(AFTER_TICKS);
    });
    cluster.elect(node(1));
    cluster
}

/// Three voters that are silent, led by 1.
fn quiet() -> Cluster {
    let mut cluster = cluster(3);
    cluster.ticks(AFTER_TICKS + 2);
    assert_eq!(quiet_nodes(&cluster), [1, 2, 3]);
    cluster.delivered.clear();
    cluster
}

fn quiet_nodes(cluster: &Cluster) -> Vec<u64> {
    let quiet = cluster.cores.iter().filter(|(_, core)| core.is_quiet());
    quiet.map(|(id, _)| id.0).collect()
}

fn leaders(cluster: &Cluster) -> Vec<u64> {
    let leaders = cluster.cores.iter().filter(|(_, core)| core.role() == Role::Leader);
    leaders.map(|(id, _)| id.0).collect()
}

fn node_down(cluster: &mut Cluster, at: u64, id: u64) {
    cluster.step(node(at), Input::NodeDown(node(id))).expect("a hint");
}

fn node_up(cluster: &mut Cluster, at: u64, id: u64) {
    cluster.step(node(at), Input::NodeUp(node(id))).expect("a hint");
}

fn is_quiesce(message: &Message) -> bool {
    matches!(message.body, Body::Quiesce { .. })
}

#[test]
fn an_idle_group_says_nothing() {
    let mut cluster = quiet();
    cluster.ticks(500);
    assert_eq!(cluster.delivered, []);
    assert_eq!((cluster.role(node(1)), cluster.term(node(2))), (Role::Leader, 1));
}

#[test]
fn it_is_off_unless_configured() {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    cluster.ticks(500);
    assert_eq!(quiet_nodes(&cluster), []);
}

#[test]
fn a_group_of_one_is_silent_too() {
    let mut cluster = cluster(1);
    cluster.ticks(AFTER_TICKS + 2);
    assert_eq!(quiet_nodes(&cluster), [1]);
    cluster.propose(node(1), "a").expect("a leader");
    assert_eq!(cluster.applied_by(node(1)), ["a"]);
}

#[test]
fn a_proposal_wakes_the_group() {
    let mut cluster = quiet();
    cluster.propose(node(1), "a").expect("a leader");
    cluster.settle();
    assert_eq!(quiet_nodes(&cluster), []);
    cluster.ticks(1);
    for id in 1..=3 {
        assert_eq!(cluster.applied_by(node(id)), ["a"]);
    }
    cluster.ticks(AFTER_TICKS + 4);
    assert_eq!(quiet_nodes(&cluster), [1, 2, 3], "and it falls silent again");
}

#[test]
fn a_read_wakes_the_group_and_is_confirmed() {
    let mut cluster = quiet();
    cluster.read(node(1), 1).expect("a leader");
    cluster.settle();
    assert_eq!(cluster.stored[&node(1)].reads.len(), 1);
}

#[test]
fn a_leader_is_not_silent_while_a_live_member_lacks_something() {
    let mut cluster = cluster(3);
    cluster.isolate(node(3));
    cluster.propose(node(1), "a").expect("a leader");
    cluster.ticks(100);
    assert_eq!(quiet_nodes(&cluster), []);
    node_down(&mut cluster, 1, 3);
    cluster.ticks(AFTER_TICKS);
    assert_eq!(quiet_nodes(&cluster), [1, 2], "3 is not waited for");
    cluster.heal();
    node_up(&mut cluster, 1, 3);
    cluster.ticks(3);
    assert_eq!(cluster.applied_by(node(3)), ["a"]);
}

#[test]
fn a_leader_whose_majority_is_down_steps_down() {
    let mut cluster = quiet();
    cluster.crash(node(2));
    cluster.crash(node(3));
    node_down(&mut cluster, 1, 2);
    assert_eq!(quiet_nodes(&cluster), [1]);
    node_down(&mut cluster, 1, 3);
    assert_eq!(quiet_nodes(&cluster), []);
    cluster.ticks(2 * ELECTION_TICKS);
    assert_ne!(cluster.role(node(1)), Role::Leader);
}

#[test]
fn one_follower_that_knows_of_a_dead_leader_is_enough() {
    let mut cluster = quiet();
    cluster.crash(node(1));
    cluster.ticks(100);
    assert_eq!(quiet_nodes(&cluster), [2, 3], "nobody told them");
    node_down(&mut cluster, 2, 1);
    cluster.ticks(6 * ELECTION_TICKS);
    assert_eq!(leaders(&cluster).len(), 1);
}

#[test]
fn followers_that_all_know_elect_within_one_timeout() {
    let mut cluster = quiet();
    cluster.crash(node(1));
    node_down(&mut cluster, 2, 1);
    node_down(&mut cluster, 3, 1);
    cluster.ticks(ELECTION_TICKS);
    assert_eq!(leaders(&cluster).len(), 1);
}

#[test]
fn a_wrong_word_about_the_leader_wakes_it_and_changes_nothing() {
    let mut cluster = quiet();
    node_down(&mut cluster, 2, 1);
    assert_eq!(quiet_nodes(&cluster), [1, 3]);
    cluster.ticks(5 * ELECTION_TICKS);
    assert_eq!((leaders(&cluster), cluster.term(node(1))), (vec![1], 1));
    node_up(&mut cluster, 2, 1);
    cluster.ticks(5 * ELECTION_TICKS);
    assert_eq!(quiet_nodes(&cluster), [1, 2, 3]);
}

#[test]
fn a_leader_that_restarts_is_elected_again_by_silent_followers() {
    let mut cluster = quiet();
    cluster.crash(node(1));
    cluster.start(node(1));
    cluster.ticks(3 * ELECTION_TICKS);
    assert_eq!(leaders(&cluster).len(), 1);
}

#[test]
fn a_follower_that_restarts_is_told_who_leads() {
    let mut cluster = quiet();
    cluster.crash(node(3));
    cluster.start(node(3));
    cluster.ticks(3 * ELECTION_TICKS);
    assert_eq!(cluster.cores[&node(3)].leader(), Some(node(1)));
    assert_eq!(cluster.term(node(1)), 1, "without an election");
}

#[test]
fn a_follower_that_missed_the_word_asks_and_gets_it_again() {
    let mut cluster = cluster(3);
    for _ in 0..AFTER_TICKS + 2 {
        for id in 1..=3 {
            cluster.step(node(id), Input::Tick).expect("a tick");
        }
        cluster.deliver_if(|_, to, message| to != node(3) || !is_quiesce(message));
    }
    assert_eq!(quiet_nodes(&cluster), [1, 2]);
    cluster.ticks(5 * ELECTION_TICKS);
    assert_eq!(quiet_nodes(&cluster), [1, 2, 3]);
    assert_eq!(cluster.term(node(1)), 1);
}

#[test]
fn a_learner_that_missed_the_word_asks_too() {
    let mut cluster = cluster(3);
    cluster.start_empty(node(4));
    cluster.change(node(1), cluster::learn(&[4])).expect("a change");
    cluster.ticks(2);
    for _ in 0..AFTER_TICKS + 4 {
        for id in 1..=4 {
            cluster.step(node(id), Input::Tick).expect("a tick");
        }
        cluster.deliver_if(|_, to, message| to != node(4) || !is_quiesce(message));
    }
    assert_eq!(quiet_nodes(&cluster), [1, 2, 3]);
    cluster.ticks(5 * ELECTION_TICKS);
    assert_eq!(quiet_nodes(&cluster), [1, 2, 3, 4]);
}

#[test]
fn a_learner_that_restarts_finds_the_leader() {
    let mut cluster = cluster(3);
    cluster.start_empty(node(4));
    cluster.change(node(1), cluster::learn(&[4])).expect("a change");
    cluster.ticks(AFTER_TICKS + 6);
    assert_eq!(quiet_nodes(&cluster), [1, 2, 3, 4]);
    cluster.crash(node(4));
    cluster.start(node(4));
    cluster.ticks(5 * ELECTION_TICKS);
    assert_eq!(cluster.cores[&node(4)].leader(), Some(node(1)));
    assert_eq!(quiet_nodes(&cluster), [1, 2, 3, 4]);
}

#[test]
fn a_follower_that_lacks_something_answers_and_wakes_the_leader() {
    let mut cluster = cluster(3);
    cluster.isolate(node(3));
    cluster.propose(node(1), "a").expect("a leader");
    node_down(&mut cluster, 1, 3);
    for _ in 0..AFTER_TICKS {
        for id in 1..=3 {
            cluster.step(node(id), Input::Tick).expect("a tick");
        }
        if cluster.network.iter().any(|(_, _, message)| is_quiesce(message)) {
            // The node was not down, only slow.
            cluster.heal();
        }
        cluster.settle();
    }
    cluster.ticks(AFTER_TICKS + 4);
    assert_eq!(cluster.applied_by(node(3)), ["a"]);
    assert_eq!(quiet_nodes(&cluster), [1, 2, 3]);
}

#[test]
fn a_late_word_of_a_dead_leader_is_refused() {
    let mut cluster = cluster(3);
    let mut late = Vec::new();
    for _ in 0..AFTER_TICKS + 2 {
        for id in 1..=3 {
            cluster.step(node(id), Input::Tick).expect("a tick");
        }
        late.extend(cluster.network.iter().filter(|(_, _, m)| is_quiesce(m)).cloned());
        cluster.deliver_if(|_, _, message| !is_quiesce(message));
    }
    assert_eq!(late.len(), 2);
    cluster.crash(node(1));
    for id in [2, 3] {
        node_down(&mut cluster, id, 1);
    }
    cluster.network.extend(late);
    cluster.settle();
    assert_eq!(quiet_nodes(&cluster), []);
    cluster.ticks(5 * ELECTION_TICKS);
    assert_eq!(leaders(&cluster).len(), 1);
}

#[test]
fn a_late_word_of_an_earlier_time_is_refused() {
    let mut cluster = quiet();
    cluster.propose(node(1), "a").expect("a leader");
    cluster.ticks(2);
    let stale =
        Message { term: cluster.cores[&node(1)].term(), body: Body::Quiesce { last: LogIndex(1) } };
    cluster.step(node(2), Input::Message { from: node(1), message: stale }).expect("a message");
    assert!(!cluster.cores[&node(2)].is_quiet());
}

#[test]
fn a_removed_server_does_not_wake_the_group() {
    let mut cluster = cluster(3);
    cluster.isolate(node(3));
    cluster.change(node(1), cluster::remove(&[3])).expect("a change");
    cluster.ticks(AFTER_TICKS + 4);
    assert_eq!(quiet_nodes(&cluster), [1, 2]);
    cluster.heal();
    for _ in 0..200 {
        cluster.tick();
        assert_eq!(quiet_nodes(&cluster), [1, 2]);
    }
}

#[test]
fn a_member_that_waits_to_be_promoted_keeps_the_group_awake_unless_it_is_down() {
    let mut cluster = cluster(3);
    cluster.change(node(1), join(&[4])).expect("a change");
    cluster.ticks(100);
    assert_eq!(quiet_nodes(&cluster), []);
    node_down(&mut cluster, 1, 4);
    cluster.ticks(AFTER_TICKS + 2);
    assert_eq!(quiet_nodes(&cluster), [1, 2, 3]);
    cluster.start_empty(node(4));
    node_up(&mut cluster, 1, 4);
    cluster.ticks(AFTER_TICKS + 10);
    assert_eq!(cluster.membership(node(4)).voters.len(), 4);
    assert_eq!(quiet_nodes(&cluster), [1, 2, 3, 4]);
}

#[test]
fn a_silent_leader_that_was_replaced_learns_of_it() {
    let mut cluster = quiet();
    cluster.isolate(node(1));
    for id in [2, 3] {
        node_down(&mut cluster, id, 1);
    }
    cluster.ticks(2 * ELECTION_TICKS);
    assert_eq!(leaders(&cluster).len(), 2, "the old one is silent and does not know");
    cluster.heal();
    let new: Vec<NodeId> = leaders(&cluster).into_iter().filter(|id| *id != 1).map(node).collect();
    cluster.step(new[0], Input::NodeDown(node(1))).expect("a hint");
    cluster.step(new[0], Input::NodeUp(node(1))).expect("a hint");
    cluster.ticks(3);
    assert_eq!(leaders(&cluster), [new[0].0]);
}

#[test]
fn who_asks_in_an_older_term_whether_anybody_is_there_learns_of_the_newer_one() {
    let mut cluster = quiet();
    cluster.step(node(1), Input::TransferLeadership(node(2))).expect("a leader");
    cluster.ticks(3 * AFTER_TICKS);
    assert_eq!((quiet_nodes(&cluster), cluster.term(node(3))), (vec![1, 2, 3], 2));
    let message = Message { term: Term(1), body: Body::Awake };
    for to in [2, 3] {
        let message = message.clone();
        cluster.step(node(to), Input::Message { from: node(1), message }).expect("a message");
        let (_, to, answer) = cluster.network.pop_back().expect("an answer");
        assert_eq!((to, answer.term, answer.body), (node(1), Term(2), Body::TermOver));
    }
    assert_eq!(quiet_nodes(&cluster), [1, 2, 3], "an old question is no news");
}
