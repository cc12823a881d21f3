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
