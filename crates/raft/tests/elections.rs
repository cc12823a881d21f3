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
fn a_leader_keeps_its_followers_quiet() {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    cluster.ticks(20 * ELECTION_TICKS);
    assert_eq!((cluster.role(node(1)), cluster.term(node(1))), (Role::Leader, 1));
}

#[test]
fn a_follower_votes_once_a_term_even_across_a_restart() {
    let mut cluster = Cluster::new(3);
    let ask = |cluster: &mut Cluster, from: u64| {
        let input = Input::Message { from: node(from), message: request_vote(5, 0, 0) };
        cluster.step(node(1), input).expect("a request");
        let answer = cluster.network.pop_back().expect("an answer");
        assert_eq!(answer.1, node(from));
        answer.2.body == Body::VoteResponse { granted: true }
    };
    assert!(ask(&mut cluster, 2));
    assert!(!ask(&mut cluster, 3));
    assert!(ask(&mut cluster, 2), "a repeated request gets the same answer");
    cluster.crash(node(1));
    cluster.start(node(1));
    assert!(!ask(&mut cluster, 3));
    assert!(ask(&mut cluster, 2));
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
fn a_log_that_is_behind_gets_no_vote() {
    let mut cluster = Cluster::with_logs(&[&[1, 1], &[1, 1, 1], &[2]]);
    cluster.campaign(node(1));
    assert_ne!(cluster.role(node(1)), Role::Leader);
    cluster.elect(node(3));
}

#[test]
fn a_node_that_lost_touch_does_not_raise_the_term() {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    cluster.isolate(node(3));
    cluster.ticks(20 * ELECTION_TICKS);
    assert_eq!(cluster.role(node(3)), Role::PreCandidate);
    assert_eq!(cluster.term(node(3)), 1);
    cluster.heal();
    cluster.ticks(5);
    assert_eq!((cluster.role(node(1)), cluster.term(node(1))), (Role::Leader, 1));
    assert_eq!(cluster.role(node(3)), Role::Follower);
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
fn a_leader_without_a_majority_steps_down() {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    cluster.isolate(node(1));
    cluster.ticks(2 * ELECTION_TICKS);
    assert_eq!(cluster.role(node(1)), Role::Follower);
    cluster.ticks(4 * ELECTION_TICKS);
    assert!([2, 3].iter().any(|&id| cluster.role(node(id)) == Role::Leader));
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
fn leadership_goes_to_the_named_voter_once_it_has_everything() {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    cluster.propose(node(1), "x").expect("a proposal");
    cluster.step(node(1), Input::TransferLeadership(node(3))).expect("a transfer");
    let refused = cluster.propose(node(1), "y");
    assert_eq!(refused, Err(StepError::Transferring { to: node(3) }));
    cluster.settle();
    assert_eq!((cluster.role(node(3)), cluster.term(node(3))), (Role::Leader, 2));
    assert_eq!(cluster.applied_by(node(3)), ["x"]);
}

#[test]
fn a_transfer_to_a_dead_node_is_given_up() {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    cluster.isolate(node(3));
    cluster.propose(node(1), "x").expect("a proposal");
    cluster.step(node(1), Input::TransferLeadership(node(3))).expect("a transfer");
    cluster.ticks(ELECTION_TICKS + 1);
    assert_eq!(cluster.role(node(1)), Role::Leader);
    cluster.propose(node(1), "y").expect("the transfer was given up");
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

#[test]
fn the_preferred_server_stands_first() {
    for seed in 0..20 {
        let mut cluster = Cluster::configured(3, |config| {
            config.election_rank = 3 - config.id.0 as u32;
        });
        for _ in 0..seed {
            cluster.tick();
        }
        cluster.ticks(2 * ELECTION_TICKS);
        assert_eq!(cluster.role(node(3)), Role::Leader);
        cluster.crash(node(3));
        cluster.ticks(3 * ELECTION_TICKS);
        assert_eq!(cluster.role(node(2)), Role::Leader);
        cluster.crash(node(1));
        cluster.start(node(3));
        cluster.ticks(8 * ELECTION_TICKS);
        assert_eq!(cluster.role(node(2)), Role::Leader, "a rank deposes nobody");
    }
}
