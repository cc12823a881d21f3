//! Messages that no correct server sends, or that show that another one went wrong, are refused
//! before they change anything.

mod cluster;

use cluster::{Cluster, node, nodes};
use onefold_raft::{
    Body, Entry, Input, Membership, Message, Payload, Role, SnapshotMark, StepError,
};
use onefold_types::{LogIndex, NodeId, Term};

const HUGE: u64 = u64::MAX;

/// Three voters, led by 1 in term 1, with "x" committed at 2.
fn led() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    cluster.propose(node(1), "x").expect("a leader");
    cluster.ticks(3);
    cluster
}

fn deliver(
    cluster: &mut Cluster,
    from: u64,
    to: u64,
    term: u64,
    body: Body,
) -> Result<(), StepError> {
    let message = Message { term: Term(term), body };
    cluster.step(node(to), Input::Message { from: node(from), message }).map(|_| ())
}

/// Delivers to a server something that it must refuse, and checks that nothing came of it.
fn refused(cluster: &mut Cluster, from: u64, to: u64, term: u64, body: Body) -> StepError {
    let before = cluster.cores[&node(to)].status();
    cluster.network.clear();
    let text = format!("{body:?}");
    let error = deliver(cluster, from, to, term, body).expect_err(&text);
    assert_eq!(cluster.cores[&node(to)].status(), before, "{text}");
    assert!(cluster.network.is_empty(), "{text}");
    error
}

fn entry(term: u64, index: u64) -> Entry {
    Entry { term: Term(term), index: LogIndex(index), payload: Payload::Empty }
}

fn append(prev: (u64, u64), entries: Vec<Entry>) -> Body {
    Body::Append {
        prev_index: LogIndex(prev.0),
        prev_term: Term(prev.1),
        entries,
        commit: LogIndex::ZERO,
    }
}

fn snapshot(index: u64, term: u64, membership: Membership) -> Body {
    let mark = SnapshotMark { index: LogIndex(index), term: Term(term), membership };
    Body::InstallSnapshot { mark }
}

fn voters() -> Membership {
    Membership::of_voters([1, 2, 3].map(NodeId))
}

#[test]
fn numbers_beyond_all_range_are_refused_wherever_they_stand_and_in_a_newer_term_too() {
    let (index, term) = (LogIndex(HUGE), Term(HUGE));
    let (one, first) = (LogIndex(1), Term(1));
    let bodies = [
        Body::RequestPreVote { last_index: index, last_term: first },
        Body::RequestPreVote { last_index: one, last_term: term },
        Body::RequestVote { last_index: index, last_term: first, transfer: true },
        Body::RequestVote { last_index: one, last_term: term, transfer: true },
        append((HUGE, 1), vec![]),
        append((1, HUGE), vec![]),
        Body::Append { prev_index: one, prev_term: first, entries: vec![], commit: index },
        Body::AppendAccepted { matched: index },
        Body::AppendRejected { prev_index: index, hint_index: one, hint_term: first },
        Body::AppendRejected { prev_index: one, hint_index: index, hint_term: first },
        Body::AppendRejected { prev_index: one, hint_index: one, hint_term: term },
        Body::Heartbeat { commit: index, read_round: 1 },
        snapshot(HUGE, 1, voters()),
        snapshot(1, HUGE, voters()),
        Body::SnapshotMissing { index },
        Body::SnapshotInstalled { index },
        Body::Quiesce { last: index },
        Body::SnapshotWanted { least: index },
    ];
    let mut cluster = led();
    for body in bodies {
        for (to, term) in [(1, 1), (3, 1), (1, 9), (3, 9)] {
            let error = refused(&mut cluster, 2, to, term, body.clone());
            assert!(matches!(error, StepError::Malformed { .. }), "{error}");
        }
    }
}

#[test]
fn a_refusal_of_an_endless_index_does_not_stop_a_leader_that_probes() {
    let mut cluster = Cluster::new(3);
    cluster.step(node(1), Input::Campaign).expect("a campaign");
    cluster.deliver_if(|_, _, message| !matches!(message.body, Body::Append { .. }));
    assert_eq!(cluster.role(node(1)), Role::Leader, "which knows nothing of 2 yet");
    for prev_index in [HUGE, HUGE - 1, HUGE / 2 + 1] {
        let prev_index = LogIndex(prev_index);
        let (hint_index, hint_term) = (LogIndex::ZERO, Term::ZERO);
        let body = Body::AppendRejected { prev_index, hint_index, hint_term };
        let error = refused(&mut cluster, 2, 1, 1, body);
        assert!(matches!(error, StepError::Malformed { .. }), "{error}");
    }
}

#[test]
fn what_is_of_a_later_term_than_its_message_is_refused() {
    let mut cluster = led();
    for body in
        [snapshot(9, 6, voters()), append((2, 1), vec![entry(6, 3)]), append((9, 6), vec![])]
    {
        let error = refused(&mut cluster, 1, 3, 5, body);
        assert!(matches!(error, StepError::Malformed { .. }), "{error}");
    }
}

#[test]
fn members_that_no_group_can_have_are_refused() {
    let mut cluster = led();
    let wrong = [
        Membership::default(),
        Membership { outgoing: nodes(&[1, 2]), ..Membership::default() },
        Membership { joining: nodes(&[4]), ..voters() },
        Membership { learners: nodes(&[3]), ..voters() },
    ];
    for membership in wrong {
        let payload = Payload::Membership(Box::new(membership.clone()));
        let entries = vec![Entry { payload, ..entry(1, 3) }];
        for body in [append((2, 1), entries), snapshot(9, 1, membership)] {
            let error = refused(&mut cluster, 1, 3, 1, body);
            assert!(matches!(error, StepError::Malformed { .. }), "{error}");
        }
    }
    let demoted = Membership {
        voters: nodes(&[1, 2]),
        outgoing: nodes(&[1, 2, 3]),
        learners: nodes(&[3, 4]),
        joining: nodes(&[4]),
    };
    let payload = Payload::Membership(Box::new(demoted.clone()));
    let entries = vec![Entry { payload, ..entry(1, 3) }];
    deliver(&mut cluster, 1, 3, 1, append((2, 1), entries)).expect("a change under way");
    assert_eq!(cluster.membership(node(3)), &demoted);
}

#[test]
fn a_second_leader_of_the_term_is_refused_and_the_first_is_followed_on() {
    let mut cluster = led();
    let bodies = || {
        [
            append((2, 1), vec![entry(1, 3)]),
            Body::Heartbeat { commit: LogIndex(2), read_round: 1 },
            snapshot(9, 1, voters()),
            Body::Quiesce { last: LogIndex(2) },
        ]
    };
    for to in [1, 3] {
        for body in bodies() {
            let error = refused(&mut cluster, 2, to, 1, body);
            let expected = StepError::TwoLeaders { term: Term(1), known: node(1), from: node(2) };
            assert_eq!(error, expected);
        }
    }
    cluster.propose(node(1), "y").expect("still the leader");
    cluster.ticks(3);
    assert_eq!(cluster.applied_by(node(3)), ["x", "y"]);
}

#[test]
fn a_leader_that_has_another_entry_than_the_committed_one_is_refused() {
    let mut cluster = led();
    let bodies = [
        append((1, 1), vec![entry(5, 2)]),
        append((0, 0), vec![entry(4, 1), entry(4, 2), entry(5, 3)]),
        append((2, 5), vec![entry(5, 3)]),
        snapshot(2, 5, voters()),
    ];
    for body in bodies {
        let error = refused(&mut cluster, 2, 3, 5, body);
        let is_replaced =
            matches!(error, StepError::CommittedEntryReplaced { from, .. } if from == node(2));
        assert!(is_replaced, "{error}");
    }
}

#[test]
fn an_acknowledgement_that_is_missing_here_is_noticed_before_the_term_changes() {
    let mut cluster = led();
    let lost = Body::Heartbeat { commit: LogIndex(3), read_round: 0 };
    let error = refused(&mut cluster, 2, 3, 5, lost);
    assert!(matches!(error, StepError::AcknowledgedEntriesLost { .. }), "{error}");
}

#[test]
fn a_snapshot_that_contradicts_what_was_committed_while_it_was_fetched_is_refused() {
    let mut cluster = led();
    let core = cluster.cores.get_mut(&node(3)).expect("a node");
    let step = |core: &mut onefold_raft::Raft, body: Body| {
        core.step(Input::Message { from: node(1), message: Message { term: Term(2), body } })
    };
    step(core, snapshot(3, 1, voters())).expect("a leader's word");
    let mark = core.take_output().install_snapshot.expect("it is news");
    let other = Body::Append {
        prev_index: LogIndex(2),
        prev_term: Term(1),
        entries: vec![entry(2, 3)],
        commit: LogIndex(3),
    };
    step(core, other).expect("a leader's word");
    let error = core.step(Input::SnapshotInstalled(mark)).expect_err("both cannot be");
    let expected = StepError::CommittedEntryReplaced { index: LogIndex(3), from: node(1) };
    assert_eq!(error, expected);
}
