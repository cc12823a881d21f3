//! Membership changes (§6; dissertation, chapter 4).

mod cluster;

use bytes::Bytes;
use cluster::{Cluster, join, learn, node, nodes, remove};
use onefold_raft::{
    Body, Config, Entry, HardState, Input, Membership, MembershipChange, Message, Payload, Raft,
    ReadState, Restored, Role, SnapshotMark, StepError, Stepped,
};
use onefold_types::{GroupId, LogIndex, NodeId, Term};

/// Voters 1 to `count`, led by 1.
fn led(count: u64) -> Cluster {
    let mut cluster = Cluster::new(count);
    cluster.elect(node(1));
    cluster
}

/// Voters and outgoing voters, without learners.
fn joint(voters: &[u64], outgoing: &[u64]) -> Membership {
    Membership { voters: nodes(voters), outgoing: nodes(outgoing), ..Membership::default() }
}

fn voters(ids: &[u64]) -> Membership {
    Membership::of_voters(nodes(ids))
}

fn memberships_in(cluster: &Cluster, id: u64) -> Vec<Membership> {
    let payloads = cluster.stored[&node(id)].applied.iter().map(|entry| &entry.payload);
    payloads
        .filter_map(|payload| match payload {
            Payload::Membership(membership) => Some(membership.as_ref().clone()),
            Payload::Empty | Payload::Command(_) => None,
        })
        .collect()
}

#[test]
fn the_first_entry_of_a_group_names_its_founders() {
    let mut cluster = led(3);
    assert_eq!(memberships_in(&cluster, 1), [voters(&[1, 2, 3])]);
    cluster.transfer(node(1), node(2));
    assert_eq!(memberships_in(&cluster, 2), [voters(&[1, 2, 3])], "once is enough");
}

#[test]
fn a_node_joins_as_a_learner_and_becomes_a_voter_by_itself() {
    let mut cluster = led(3);
    cluster.start_empty(node(4));
    assert_eq!(
        cluster.change(node(1), join(&[4])),
        Ok(Stepped::Proposed { term: Term(1), indexes: LogIndex(2)..=LogIndex(2) })
    );
    let learning = Membership { learners: nodes(&[4]), joining: nodes(&[4]), ..voters(&[1, 2, 3]) };
    assert_eq!(cluster.membership(node(1)), &learning, "in use before it is committed");
    cluster.ticks(4);
    let promoting = joint(&[1, 2, 3, 4], &[1, 2, 3]);
    let all = [voters(&[1, 2, 3]), learning, promoting, voters(&[1, 2, 3, 4])];
    for id in 1..=4 {
        assert_eq!(memberships_in(&cluster, id), all, "node {id}");
    }
    cluster.transfer(node(1), node(4));
}

#[test]
fn a_learner_counts_for_nothing() {
    let mut cluster = led(3);
    for id in [4, 5] {
        cluster.start_empty(node(id));
    }
    cluster.change(node(1), learn(&[4, 5])).expect("a change");
    cluster.ticks(4);
    assert_eq!(cluster.membership(node(4)).learners, nodes(&[4, 5]));
    cluster.crash(node(2));
    cluster.crash(node(3));
    cluster.propose(node(1), "a").expect("a leader");
    cluster.ticks(2);
    assert_eq!(cluster.commit(node(1)), 2, "one voter and two learners are no majority");
    cluster.ticks(40);
    assert_eq!(cluster.role(node(4)), Role::Follower, "it never stands for election");
    assert_ne!(cluster.role(node(1)), Role::Leader, "learners do not keep a leader in office");
}

#[test]
fn a_node_that_was_told_nothing_waits() {
    let mut cluster = Cluster::new(1);
    cluster.start_empty(node(2));
    cluster.ticks(100);
    assert_eq!((cluster.role(node(2)), cluster.term(node(2))), (Role::Follower, 0));
}

#[test]
fn servers_vote_and_accept_whoever_the_members_are() {
    let mut core = Raft::new(Config::new(node(9), GroupId::KV, 1), Restored::default())
        .expect("a valid start");
    let request =
        Body::RequestVote { last_index: LogIndex(1), last_term: Term(1), transfer: false };
    let message = Message { term: Term(2), body: request };
    core.step(Input::Message { from: node(1), message }).expect("a request");
    let write = core.take_output().persist.expect("a vote to write");
    assert_eq!(write.hard_state.expect("a vote").vote, Some(node(1)));
    core.step(Input::Persisted(write.sequence)).expect("a write");
    let granted = Message { term: Term(2), body: Body::VoteResponse { granted: true } };
    assert_eq!(core.take_output().messages, [(node(1), granted)]);
}

#[test]
fn a_joint_configuration_commits_with_both_majorities_only() {
    let mut cluster = led(3);
    cluster.isolate(node(2));
    cluster.isolate(node(3));
    // C_new is {1}; of C_old only 1 answers.
    cluster.change(node(1), remove(&[2, 3])).expect("a change");
    cluster.settle();
    assert_eq!(cluster.membership(node(1)), &joint(&[1], &[1, 2, 3]));
    assert_eq!(cluster.commit(node(1)), 1, "a majority of C_new alone decides nothing");
    cluster.heal();
    cluster.ticks(3);
    assert_eq!(cluster.membership(node(1)), &voters(&[1]));
    assert_eq!(cluster.commit(node(1)), 3);
}

#[test]
fn an_election_in_a_joint_configuration_needs_both_majorities() {
    let start = || {
        let mut cluster = led(5);
        cluster.change(node(1), remove(&[4, 5])).expect("a change");
        // Everyone has the joint entry; nobody learns that it is committed.
        cluster.deliver_if(|_, to, _| to != node(1));
        cluster.crash(node(1));
        assert_eq!(cluster.membership(node(2)), &joint(&[1, 2, 3], &[1, 2, 3, 4, 5]));
        cluster.ticks(2);
        cluster
    };
    let elect = |mut cluster: Cluster, cut: &[u64]| {
        for id in nodes(cut) {
            cluster.isolate(id);
        }
        cluster.ticks(60);
        let leads = |id: &u64| cluster.role(node(*id)) == Role::Leader;
        (2..=5).filter(leads).collect::<Vec<_>>()
    };
    assert_eq!(elect(start(), &[2]), [0u64; 0], "3, 4, 5 are no majority of C_new");
    assert_eq!(elect(start(), &[4, 5]), [0u64; 0], "2, 3 are no majority of C_old");
    assert_eq!(elect(start(), &[4]).len(), 1, "2, 3, 5 are a majority of both");
}

#[test]
fn a_read_in_a_joint_configuration_needs_both_majorities() {
    let mut cluster = led(5);
    cluster.change(node(1), remove(&[4, 5])).expect("a change");
    cluster.read(node(1), 1).expect("a leader");
    cluster.deliver_if(|from, _, _| ![3, 4, 5].contains(&from.0));
    assert_eq!(cluster.stored[&node(1)].reads, [], "1, 2 are no majority of C_old");
    cluster.ticks(2);
    assert!(matches!(cluster.stored[&node(1)].reads[..], [ReadState::Ready { .. }]));
}

#[test]
fn a_read_does_not_wait_for_the_answer_of_a_voter_that_left() {
    let mut cluster = led(2);
    cluster.change(node(1), remove(&[2])).expect("a change");
    cluster.read(node(1), 1).expect("a leader");
    // 2 has the joint entry, but hears nothing of the read.
    cluster.deliver_if(|_, _, message| !matches!(message.body, Body::Heartbeat { .. }));
    assert_eq!(cluster.membership(node(1)), &voters(&[1]));
    assert!(matches!(cluster.stored[&node(1)].reads[..], [ReadState::Ready { .. }]));
}

#[test]
fn one_change_at_a_time() {
    let mut cluster = Cluster::new(3);
    assert_eq!(cluster.change(node(1), remove(&[3])), Err(StepError::NotLeader { leader: None }));
    cluster.step(node(1), Input::Campaign).expect("a campaign");
    cluster.deliver_if(|_, _, message| !matches!(message.body, Body::Append { .. }));
    assert_eq!(cluster.role(node(1)), Role::Leader);
    let early = cluster.change(node(1), remove(&[3]));
    assert_eq!(early, Err(StepError::ChangeInProgress), "nothing of its term is committed");
    cluster.ticks(3);
    cluster.start_empty(node(4));
    cluster.change(node(1), learn(&[4])).expect("a change");
    let second = cluster.change(node(1), remove(&[3]));
    assert_eq!(second, Err(StepError::ChangeInProgress), "the first is not committed");
    cluster.ticks(3);
    cluster.change(node(1), remove(&[3])).expect("a change");
    cluster.settle();
    assert_eq!(cluster.membership(node(1)).voters, nodes(&[1, 2]));
}

#[test]
fn what_is_so_already_changes_nothing() {
    let mut cluster = led(3);
    let change = MembershipChange { join: nodes(&[2]), remove: nodes(&[7]), ..remove(&[]) };
    assert_eq!(cluster.change(node(1), change), Ok(Stepped::Done));
    assert_eq!(cluster.change(node(1), join(&[])), Ok(Stepped::Done));
    assert_eq!(cluster.log_of(node(1)).len(), 1);
}

#[test]
fn changes_that_cannot_be_are_refused() {
    let mut cluster = led(2);
    let nobody = cluster.change(node(1), MembershipChange { learn: nodes(&[2]), ..remove(&[1]) });
    assert_eq!(nobody, Err(StepError::NoVotersLeft));
    let twice = cluster.change(node(1), MembershipChange { learn: nodes(&[2]), ..remove(&[2]) });
    assert!(matches!(twice, Err(StepError::Contract { .. })), "{twice:?}");
    cluster.step(node(1), Input::TransferLeadership(node(2))).expect("a transfer");
    let late = cluster.change(node(1), remove(&[2]));
    assert_eq!(late, Err(StepError::Transferring { to: node(2) }));
    assert_eq!(cluster.membership(node(1)), &voters(&[1, 2]));
}

#[test]
fn a_removed_follower_learns_of_it_and_stays_quiet() {
    let mut cluster = led(3);
    cluster.change(node(1), remove(&[3])).expect("a change");
    cluster.settle();
    for id in 1..=3 {
        assert_eq!(cluster.membership(node(id)), &voters(&[1, 2]), "node {id}");
        assert_eq!(cluster.commit(node(id)), 3, "node {id}");
    }
    assert!(!cluster.cores[&node(1)].status().followers.contains_key(&node(3)));
    cluster.ticks(100);
    assert_eq!((cluster.role(node(3)), cluster.term(node(3))), (Role::Follower, 1));
}

#[test]
fn a_removed_server_that_does_not_know_it_disturbs_nobody() {
    let mut cluster = led(3);
    cluster.isolate(node(3));
    cluster.change(node(1), remove(&[3])).expect("a change");
    cluster.settle();
    assert_eq!(cluster.membership(node(1)), &voters(&[1, 2]));
    cluster.heal();
    cluster.ticks(100);
    assert_eq!(cluster.membership(node(3)), &voters(&[1, 2, 3]));
    assert_eq!((cluster.role(node(1)), cluster.term(node(1))), (Role::Leader, 1));
}

#[test]
fn a_removed_leader_finishes_and_hands_over() {
    let mut cluster = led(3);
    cluster.change(node(1), remove(&[1])).expect("a change");
    cluster.propose(node(1), "a").expect("it still leads");
    cluster.settle();
    assert_eq!(cluster.role(node(1)), Role::Follower);
    assert_eq!(cluster.applied_by(node(1)), ["a"], "what it took is finished");
    let leaders = [2, 3].map(|id| cluster.role(node(id)) == Role::Leader);
    assert_eq!(leaders.iter().filter(|leads| **leads).count(), 1, "without waiting for a timeout");
    assert_eq!(cluster.membership(node(2)), &voters(&[2, 3]));
    cluster.ticks(100);
    assert_eq!(cluster.term(node(2)), 2, "nobody is disturbed");
}

#[test]
fn a_removed_leader_leads_until_it_is_committed_and_does_not_count_itself() {
    let mut cluster = led(3);
    cluster.change(node(1), remove(&[1])).expect("a change");
    // The joint entry is committed; then 3 is gone, and 1 and 2 are no majority of {2, 3}.
    cluster.deliver_if(|_, _, message| match &message.body {
        Body::Append { entries, .. } => entries.iter().all(|entry| entry.index < LogIndex(3)),
        _ => true,
    });
    assert_eq!(cluster.membership(node(1)), &voters(&[2, 3]));
    cluster.isolate(node(3));
    cluster.ticks(5);
    assert_eq!((cluster.role(node(1)), cluster.commit(node(1))), (Role::Leader, 2));
    cluster.heal();
    cluster.ticks(5);
    assert_eq!((cluster.role(node(1)), cluster.commit(node(1))), (Role::Follower, 3));
}

#[test]
fn a_leader_can_be_demoted_to_a_learner() {
    let mut cluster = led(3);
    cluster.change(node(1), learn(&[1])).expect("a change");
    cluster.settle();
    assert_eq!(cluster.role(node(1)), Role::Follower);
    let leader = if cluster.role(node(2)) == Role::Leader { node(2) } else { node(3) };
    cluster.propose(leader, "a").expect("a leader");
    cluster.settle();
    assert_eq!(cluster.applied_by(node(1)), ["a"], "it still gets the log");
    cluster.crash(node(2));
    cluster.crash(node(3));
    cluster.ticks(100);
    assert_eq!(cluster.role(node(1)), Role::Follower);
}

#[test]
fn an_uncommitted_change_is_undone_with_its_entry() {
    let mut cluster = led(3);
    cluster.isolate(node(1));
    cluster.change(node(1), remove(&[2, 3])).expect("a change");
    assert!(cluster.membership(node(1)).is_joint());
    cluster.ticks(30);
    cluster.heal();
    cluster.ticks(3);
    assert_eq!(cluster.membership(node(1)), &voters(&[1, 2, 3]));
    assert_eq!(cluster.log_of(node(1)), cluster.log_of(node(2)));
}

#[test]
fn a_new_leader_finishes_a_joint_configuration_that_it_inherits() {
    for is_committed in [false, true] {
        let mut cluster = led(3);
        cluster.change(node(1), remove(&[3])).expect("a change");
        cluster.deliver_if(|_, to, message| match &message.body {
            Body::AppendAccepted { .. } => is_committed,
            Body::Append { entries, .. } => {
                to == node(2) && entries.iter().all(|entry| entry.index == LogIndex(2))
            }
            _ => true,
        });
        assert_eq!(cluster.commit(node(1)), 1 + u64::from(is_committed));
        cluster.crash(node(1));
        assert!(cluster.membership(node(2)).is_joint());
        assert!(!cluster.membership(node(3)).is_joint());
        cluster.ticks(60);
        let leader = [2, 3].into_iter().find(|&id| cluster.role(node(id)) == Role::Leader);
        assert_eq!(leader, None, "1 is needed for a majority of C_new");
        cluster.start(node(1));
        cluster.ticks(60);
        for id in 1..=2 {
            assert_eq!(cluster.membership(node(id)), &voters(&[1, 2]));
            assert!(!cluster.cores[&node(id)].status().followers.contains_key(&node(3)));
        }
    }
}

#[test]
fn a_new_leader_finishes_a_joint_configuration_that_a_snapshot_left() {
    let mark = SnapshotMark {
        index: LogIndex(5),
        term: Term(2),
        membership: Membership { learners: nodes(&[3]), ..joint(&[1, 2], &[1, 2, 3]) },
    };
    let restored = Restored {
        hard_state: HardState { term: Term(2), vote: None, commit: LogIndex(5) },
        snapshot: mark,
        entries: Vec::new(),
        applied: LogIndex(5),
    };
    let mut cluster = Cluster::new(3);
    for id in [1, 2, 3].map(node) {
        cluster.crash(id);
        let stored = cluster.stored.get_mut(&id).expect("a node");
        stored.restored = restored.clone();
        cluster.start(id);
    }
    cluster.elect(node(1));
    let expected = Membership { learners: nodes(&[3]), ..voters(&[1, 2]) };
    assert_eq!(cluster.membership(node(1)), &expected);
    assert_eq!(cluster.membership(node(3)), &expected, "demoted, and still a member");
}

#[test]
fn a_learner_far_behind_is_promoted_once_when_it_has_caught_up() {
    let mut cluster = Cluster::configured(3, |config: &mut Config| {
        config.promotion_lag_max = 2;
        config.append_bytes_max = 1;
        config.inflight_messages_max = 1;
    });
    cluster.elect(node(1));
    let commands = vec![Bytes::from_static(b"x"); 20];
    cluster.step(node(1), Input::Propose(commands)).expect("a leader");
    cluster.settle();
    cluster.start_empty(node(4));
    cluster.change(node(1), join(&[4])).expect("a change");
    let passes = |through: u64| {
        move |_: NodeId, to: NodeId, message: &Message| match &message.body {
            Body::Append { prev_index, .. } => to != node(4) || prev_index.0 < through,
            _ => true,
        }
    };
    cluster.deliver_if(passes(19));
    cluster.step(node(1), Input::Tick).expect("a tick");
    cluster.deliver_if(passes(19));
    assert_eq!(cluster.membership(node(1)).joining, nodes(&[4]), "three entries behind");
    cluster.ticks(10);
    assert_eq!(cluster.membership(node(1)), &voters(&[1, 2, 3, 4]));
    assert_eq!(memberships_in(&cluster, 4).len(), 4, "founders, learner, joint, voter");
}

#[test]
fn a_learner_that_is_gone_is_not_promoted() {
    let mut cluster = led(3);
    cluster.start_empty(node(4));
    cluster.change(node(1), join(&[4])).expect("a change");
    cluster.deliver_if(|_, to, _| to != node(4));
    cluster.crash(node(4));
    cluster.ticks(50);
    assert_eq!(cluster.membership(node(1)).joining, nodes(&[4]));
    cluster.change(node(1), learn(&[4])).expect("a change");
    cluster.settle();
    cluster.start(node(4));
    cluster.ticks(20);
    assert_eq!(cluster.membership(node(4)).learners, nodes(&[4]), "it was told to stay one");
    assert_eq!(cluster.membership(node(4)).joining, nodes(&[]));
}

#[test]
fn a_learner_gets_a_snapshot_that_says_who_the_members_are() {
    let mut cluster = led(3);
    for command in ["a", "b", "c"] {
        cluster.propose(node(1), command).expect("a leader");
    }
    cluster.settle();
    cluster.step(node(1), Input::Compact(LogIndex(4))).expect("a compaction");
    cluster.start_empty(node(4));
    cluster.change(node(1), join(&[4])).expect("a change");
    cluster.ticks(10);
    assert_eq!(cluster.applied_by(node(4)), ["a", "b", "c"]);
    assert_eq!(cluster.membership(node(4)), &voters(&[1, 2, 3, 4]));
}

#[test]
fn voters_are_replaced_at_once_in_one_joint_configuration() {
    let mut cluster = led(3);
    for id in [4, 5] {
        cluster.start_empty(node(id));
    }
    cluster.change(node(1), learn(&[4, 5])).expect("a change");
    cluster.ticks(3);
    cluster
        .change(node(1), MembershipChange { remove: nodes(&[1, 2]), ..join(&[4, 5]) })
        .expect("learners that join while voters leave");
    cluster.ticks(10);
    for id in 3..=5 {
        assert_eq!(cluster.membership(node(id)), &voters(&[3, 4, 5]), "node {id}");
    }
}

#[test]
fn a_follower_restarts_with_the_members_of_its_log() {
    let entry = |index, payload| Entry { term: Term(1), index: LogIndex(index), payload };
    let restored = Restored {
        hard_state: HardState { term: Term(1), vote: None, commit: LogIndex::ZERO },
        snapshot: SnapshotMark::default(),
        entries: vec![
            entry(1, Payload::Membership(Box::new(voters(&[1, 2, 3])))),
            entry(2, Payload::Membership(Box::new(joint(&[1, 2], &[1, 2, 3])))),
        ],
        applied: LogIndex::ZERO,
    };
    let core = Raft::new(Config::new(node(3), GroupId::KV, 1), restored).expect("a valid start");
    assert_eq!(core.membership(), &joint(&[1, 2], &[1, 2, 3]));
}

#[test]
fn a_server_whose_removal_is_not_committed_may_still_be_needed_as_leader() {
    let mut cluster = led(2);
    cluster.change(node(1), remove(&[1])).expect("a change");
    // The joint entry is committed; what follows it only 1 has.
    cluster.deliver_if(|_, _, message| match &message.body {
        Body::Append { entries, .. } => entries.iter().all(|entry| entry.index < LogIndex(3)),
        _ => true,
    });
    assert_eq!(cluster.membership(node(1)), &voters(&[2]));
    assert_eq!(cluster.membership(node(2)), &joint(&[2], &[1, 2]));
    for id in [1, 2].map(node) {
        cluster.crash(id);
        cluster.start(id);
    }
    // 2 needs the vote of 1, whose log is longer.
    cluster.ticks(60);
    assert_eq!(cluster.role(node(2)), Role::Leader);
    assert_eq!(cluster.membership(node(2)), &voters(&[2]));
}
