//! §5.2 and §5.4.1: elections; pre-vote, check-quorum and leadership transfer.

mod cluster;

use cluster::{Cluster, ELECTION_TICKS, node};
use onefold_raft::{Body, Input, Message, Role, StepError};
use onefold_types::{LogIndex, NodeId, Term};

fn message(term: u64, body: Body) -> Message {
    Message { term: Term(term), body }
}

fn request_vote(term: u64, last_index: u64, last_term: u64) -> Message {
    let (last_index, last_term) = (LogIndex(last_index), Term(last_term));
    message(term, Body::RequestVote { last_index, last_term, transfer: false })
}

#[test]
fn a_group_elects_one_leader_by_itself() {
    for count in 1..=5 {
        let mut cluster = Cluster::new(count);
        cluster.ticks(4 * ELECTION_TICKS);
        let leaders = (1..=count).filter(|&id| cluster.role(node(id)) == Role::Leader).count();
        assert_eq!(leaders, 1, "of {count}");
    }
}

#[test]
fn a_vote_leaves_only_when_it_is_durable() {
    let mut cluster = Cluster::new(3);
    cluster.stall_disk(node(1));
    let input = Input::Message { from: node(2), message: request_vote(5, 0, 0) };
    cluster.step(node(1), input).expect("a request");
    assert!(cluster.network.is_empty());
    cluster.resume_disk(node(1));
    let granted = message(5, Body::VoteResponse { granted: true });
    assert_eq!(cluster.network, [(node(1), node(2), granted)]);
}

#[test]
fn a_candidate_asks_for_votes_only_when_its_own_is_durable() {
    let mut cluster = Cluster::new(3);
    cluster.stall_disk(node(1));
    cluster.campaign(node(1));
    assert_eq!((cluster.role(node(1)), cluster.term(node(1))), (Role::Candidate, 1));
    assert_eq!(cluster.term(node(2)), 0, "nobody was asked");
    cluster.resume_disk(node(1));
    cluster.settle();
    assert_eq!(cluster.role(node(1)), Role::Leader);
}

#[test]
fn a_vote_for_itself_counts_only_in_its_own_term() {
    let mut cluster = Cluster::new(1);
    cluster.stall_disk(node(1));
    cluster.campaign(node(1));
    cluster.campaign(node(1));
    assert_eq!((cluster.role(node(1)), cluster.term(node(1))), (Role::Candidate, 2));
    let first = cluster.stored[&node(1)].unfinished[0].sequence;
    cluster.step(node(1), Input::Persisted(first)).expect("the vote of term 1");
    assert_eq!(cluster.role(node(1)), Role::Candidate);
    cluster.resume_disk(node(1));
    assert_eq!((cluster.role(node(1)), cluster.term(node(1))), (Role::Leader, 2));
}

#[test]
fn followers_of_a_live_leader_ignore_candidates() {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    let input = Input::Message { from: node(3), message: request_vote(9, 99, 9) };
    cluster.step(node(2), input).expect("a request");
    assert_eq!(cluster.term(node(2)), 1);
    assert!(cluster.network.is_empty());
}

#[test]
fn a_leader_whose_disk_stalls_gives_up_leadership() {
    let mut cluster = Cluster::configured(3, |config| {
        config.disk_stall_ticks = 20;
    });
    cluster.elect(node(1));
    cluster.stall_disk(node(1));
    cluster.propose(node(1), "x").expect("a proposal");
    cluster.ticks(10);
    assert_eq!(cluster.role(node(1)), Role::Leader);
    cluster.ticks(20 + 4 * ELECTION_TICKS);
    assert_eq!(cluster.role(node(1)), Role::Follower);
    let heir = [2, 3].map(node).into_iter().find(|&id| cluster.role(id) == Role::Leader);
    let heir = heir.expect("another leader");
    assert_eq!(cluster.applied_by(heir), ["x"], "a majority had it");
}

#[test]
fn a_leader_of_an_older_term_learns_of_the_newer_one() {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    let newer = message(5, Body::AppendAccepted { matched: LogIndex(0) });
    cluster.step(node(2), Input::Message { from: node(3), message: newer }).expect("a message");
    assert_eq!(cluster.term(node(2)), 5);
    cluster.ticks(2);
    assert_ne!(cluster.role(node(1)), Role::Leader);
    assert_eq!(cluster.term(node(1)), 5, "by the answer to its heartbeat");
}

#[test]
fn leadership_goes_only_to_another_voter() {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    for to in [1, 9].map(NodeId) {
        let refused = cluster.step(node(1), Input::TransferLeadership(to));
        assert_eq!(refused, Err(StepError::NotAVoter { to }));
    }
    let refused = cluster.step(node(2), Input::TransferLeadership(node(3)));
    assert_eq!(refused, Err(StepError::NotLeader { leader: Some(node(1)) }));
}

/// Nodes that stand still for some ticks, again and again, and what they wanted to say comes after.
fn stalling(cluster: &mut Cluster, stall_ticks: u32, rounds: u32) -> u64 {
    let before = [1, 2, 3].map(|id| cluster.term(node(id))).into_iter().max().unwrap_or(0);
    for _ in 0..rounds {
        let leader = [1, 2, 3].map(node).into_iter().find(|&id| cluster.role(id) == Role::Leader);
        let Some(leader) = leader else {
            cluster.ticks(1);
            continue;
        };
        for _ in 0..stall_ticks {
            for id in [1, 2, 3].map(node).into_iter().filter(|&id| id != leader) {
                cluster.step(id, Input::Tick).expect("a tick");
            }
            // What followers say to each other arrives; what the leader is told waits.
            cluster.deliver_except_to(leader);
        }
        for _ in 0..4 {
            cluster.step(leader, Input::Tick).expect("a tick");
        }
        cluster.settle();
        cluster.ticks(2);
    }
    [1, 2, 3].map(|id| cluster.term(node(id))).into_iter().max().unwrap_or(0) - before
}

#[test]
fn elections_settle_where_leaders_are_late_again_and_again() {
    let mut impatient = Cluster::configured(3, |config| config.patience_doublings_max = 0);
    impatient.elect(node(1));
    let stall = 3 * ELECTION_TICKS;
    let without = stalling(&mut impatient, stall, 60);
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    let with = stalling(&mut cluster, stall, 60);
    assert!(without >= 30, "the delay must cause elections: {without}");
    assert!(with <= 8, "{with} terms");
}

#[test]
fn a_group_without_delays_becomes_quick_again() {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    stalling(&mut cluster, 3 * ELECTION_TICKS, 20);
    let doublings = |cluster: &Cluster| {
        cluster.cores.values().map(|core| core.status().patience_doublings).max()
    };
    assert!(doublings(&cluster) > Some(0));
    cluster.ticks(4 * 70 * ELECTION_TICKS);
    assert_eq!(doublings(&cluster), Some(0));
}

#[test]
fn a_leader_that_is_gone_makes_nobody_patient() {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    cluster.crash(node(1));
    cluster.ticks(6 * ELECTION_TICKS);
    cluster.start(node(1));
    cluster.ticks(4 * ELECTION_TICKS);
    assert!(cluster.cores.values().all(|core| core.status().patience_doublings == 0));
}
