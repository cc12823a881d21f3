//! §5.3, §5.4.2 and §5.5: replication, commitment, durability and flow control.

mod cluster;

use cluster::{Cluster, ELECTION_TICKS, node};
use onefold_raft::{
    Body, ConfigError, Entry, HardState, Input, Membership, Message, Payload, PersistSequence,
    Raft, Restored, Role, SnapshotMark, StepError, Stepped,
};
use onefold_types::{GroupId, LogIndex, Term};

#[test]
fn a_command_is_applied_by_every_node() {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    let stepped = cluster.propose(node(1), "x").expect("a proposal");
    let indexes = LogIndex(2)..=LogIndex(2);
    assert_eq!(stepped, Stepped::Proposed { term: Term(1), indexes });
    cluster.settle();
    for id in [1, 2, 3].map(node) {
        assert_eq!(cluster.applied_by(id), ["x"]);
    }
}

#[test]
fn a_single_node_commits_alone_once_its_write_is_durable() {
    let mut cluster = Cluster::new(1);
    cluster.elect(node(1));
    cluster.stall_disk(node(1));
    cluster.propose(node(1), "x").expect("a proposal");
    assert!(cluster.applied_by(node(1)).is_empty());
    cluster.resume_disk(node(1));
    assert_eq!(cluster.applied_by(node(1)), ["x"]);
}

#[test]
fn only_the_leader_takes_commands_and_others_name_it() {
    let mut cluster = Cluster::new(3);
    let refused = cluster.propose(node(2), "x");
    assert_eq!(refused, Err(StepError::NotLeader { leader: None }));
    cluster.elect(node(1));
    let refused = cluster.propose(node(2), "x");
    assert_eq!(refused, Err(StepError::NotLeader { leader: Some(node(1)) }));
}

#[test]
fn a_follower_acknowledges_only_what_is_durable() {
    let mut cluster = Cluster::new(2);
    cluster.elect(node(1));
    cluster.stall_disk(node(2));
    cluster.propose(node(1), "x").expect("a proposal");
    cluster.settle();
    assert_eq!(cluster.commit(node(1)), 1, "the follower has it in memory only");
    cluster.resume_disk(node(2));
    cluster.settle();
    assert_eq!(cluster.commit(node(1)), 2);
}

#[test]
fn uncommitted_entries_of_a_deposed_leader_are_replaced() {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    cluster.isolate(node(1));
    cluster.propose(node(1), "lost").expect("a proposal");
    cluster.settle();
    cluster.ticks(4 * ELECTION_TICKS);
    let heir = [2, 3].map(node).into_iter().find(|&id| cluster.role(id) == Role::Leader);
    cluster.propose(heir.expect("a new leader"), "kept").expect("a proposal");
    cluster.settle();
    cluster.heal();
    cluster.ticks(10);
    for id in [1, 2, 3].map(node) {
        assert_eq!(cluster.applied_by(id), ["kept"], "node {id}");
    }
}

#[test]
fn a_follower_commits_only_what_it_is_known_to_share_with_the_leader() {
    let mut cluster = Cluster::with_logs(&[&[1, 1, 2], &[1], &[1]]);
    let body = Body::Append {
        prev_index: LogIndex(1),
        prev_term: Term(1),
        entries: Vec::new(),
        commit: LogIndex(3),
    };
    let message = Message { term: Term(3), body };
    cluster.step(node(1), Input::Message { from: node(2), message }).expect("an append");
    assert_eq!(cluster.commit(node(1)), 1, "the rest may conflict");
    assert_eq!(cluster.log_of(node(1)), [1, 1, 2]);
}

#[test]
fn appends_in_flight_are_limited() {
    let mut cluster = Cluster::configured(3, |config| {
        config.inflight_messages_max = 4;
    });
    cluster.elect(node(1));
    for _ in 0..10 {
        cluster.propose(node(1), "x").expect("a proposal");
    }
    let sent = cluster.network.iter().filter(|(_, to, _)| *to == node(2)).count();
    assert_eq!(sent, 4);
    cluster.settle();
    assert_eq!(cluster.applied_by(node(2)).len(), 10);
}

#[test]
fn a_leader_refuses_more_than_it_may_hold_uncommitted() {
    let mut cluster = Cluster::configured(3, |config| {
        config.uncommitted_bytes_max = 100;
    });
    cluster.elect(node(1));
    cluster.propose(node(1), "first").expect("within the limit");
    cluster.propose(node(1), "second").expect("within the limit");
    assert_eq!(cluster.propose(node(1), "third"), Err(StepError::Overloaded));
    cluster.settle();
    cluster.propose(node(1), "third").expect("there is room again");
    cluster.propose(node(1), "fourth").expect("for both of them");
}

#[test]
fn entries_are_handed_out_as_fast_as_they_are_applied() {
    let membership = Membership::of_voters([node(1)]);
    let entry = |index| Entry {
        term: Term(1),
        index: LogIndex(index),
        payload: Payload::Command(vec![0; 100].into()),
    };
    let restored = Restored {
        hard_state: HardState { term: Term(1), vote: None, commit: LogIndex(10) },
        snapshot: SnapshotMark::initial(membership),
        entries: (1..=10).map(entry).collect(),
        applied: LogIndex::ZERO,
    };
    let mut config = onefold_raft::Config::new(node(1), GroupId::KV, 1);
    config.unapplied_bytes_max = 300;
    let mut core = Raft::new(config, restored).expect("a valid start");
    let handed = |core: &mut Raft| -> Vec<u64> {
        core.take_output().committed.iter().map(|entry| entry.index.0).collect()
    };
    assert_eq!(handed(&mut core), [1, 2]);
    assert_eq!(handed(&mut core), [3], "one may go over the limit");
    assert!(handed(&mut core).is_empty());
    core.step(Input::Applied(LogIndex(2))).expect("as handed out");
    assert_eq!(handed(&mut core), [4]);
}

#[test]
fn a_restarted_node_goes_on_where_it_was() {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    cluster.propose(node(1), "a").expect("a proposal");
    cluster.settle();
    for id in [1, 2, 3].map(node) {
        cluster.crash(id);
        cluster.start(id);
    }
    cluster.ticks(4 * ELECTION_TICKS);
    let leader = [1, 2, 3].map(node).into_iter().find(|&id| cluster.role(id) == Role::Leader);
    cluster.propose(leader.expect("a leader"), "b").expect("a proposal");
    cluster.settle();
    for id in [1, 2, 3].map(node) {
        assert_eq!(cluster.applied_by(id), ["a", "b"], "node {id}");
    }
}

#[test]
fn malformed_messages_are_refused_without_a_trace() {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    let before = cluster.cores[&node(2)].status();
    let entry =
        |term, index| Entry { term: Term(term), index: LogIndex(index), payload: Payload::Empty };
    let append = |prev_index, entries| Body::Append {
        prev_index: LogIndex(prev_index),
        prev_term: Term(1),
        entries,
        commit: LogIndex(99),
    };
    let malformed = [
        append(1, vec![entry(1, 3)]),
        append(1, vec![entry(1, 2), entry(0, 3)]),
        append(1, vec![entry(9, 2)]),
        append(u64::MAX, vec![entry(1, 1)]),
    ];
    for body in malformed {
        let message = Message { term: Term(1), body };
        let refused = cluster.step(node(2), Input::Message { from: node(1), message });
        assert!(matches!(refused, Err(StepError::Malformed { .. })), "{refused:?}");
    }
    assert_eq!(cluster.cores[&node(2)].status(), before);
    let message = Message { term: Term(1), body: Body::AppendAccepted { matched: LogIndex(99) } };
    let refused = cluster.step(node(1), Input::Message { from: node(2), message });
    assert!(matches!(refused, Err(StepError::Malformed { .. })), "{refused:?}");
}

#[test]
fn a_node_that_lost_acknowledged_entries_says_so() {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    cluster.propose(node(1), "x").expect("a proposal");
    cluster.settle();
    let heartbeat = Body::Heartbeat { commit: LogIndex(3), read_round: 0 };
    let message = Message { term: Term(1), body: heartbeat };
    let refused = cluster.step(node(2), Input::Message { from: node(1), message });
    let expected =
        StepError::AcknowledgedEntriesLost { last_index: LogIndex(2), acknowledged: LogIndex(3) };
    assert_eq!(refused, Err(expected));
}

#[test]
fn reports_of_the_driver_that_make_no_sense_are_refused() {
    let mut cluster = Cluster::new(1);
    cluster.elect(node(1));
    let nonsense = [
        Input::Persisted(PersistSequence(99)),
        Input::Applied(LogIndex(99)),
        Input::Compact(LogIndex(99)),
        Input::SnapshotInstalled(SnapshotMark::default()),
        Input::SnapshotMissing(SnapshotMark::default()),
    ];
    for input in nonsense {
        let refused = cluster.step(node(1), input);
        assert!(matches!(refused, Err(StepError::Contract { .. })), "{refused:?}");
    }
}

#[test]
fn restored_state_that_contradicts_itself_is_refused() {
    let good = || Restored {
        hard_state: HardState { term: Term(2), vote: None, commit: LogIndex(2) },
        snapshot: SnapshotMark::initial(Membership::of_voters([node(1)])),
        entries: (1..=3)
            .map(|index| Entry { term: Term(2), index: LogIndex(index), payload: Payload::Empty })
            .collect(),
        applied: LogIndex(1),
    };
    let start = |change: fn(&mut Restored)| {
        let mut restored = good();
        change(&mut restored);
        Raft::new(onefold_raft::Config::new(node(1), GroupId::KV, 1), restored).err()
    };
    assert_eq!(start(|_| {}), None);
    type Change = fn(&mut Restored);
    let cases: [(Change, ConfigError); 4] = [
        (|it| drop(it.entries.remove(1)), ConfigError::LogNotContiguous { index: LogIndex(3) }),
        (|it| drop(it.entries.remove(0)), ConfigError::LogNotContiguous { index: LogIndex(2) }),
        (
            |it| it.hard_state.term = Term(1),
            ConfigError::TermLost { term: Term(1), last_term: Term(2) },
        ),
        (
            |it| it.hard_state.commit = LogIndex(4),
            ConfigError::LogEndLost {
                last_index: LogIndex(3),
                what: "the commit index",
                index: LogIndex(4),
            },
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(start(change), Some(expected));
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let start = |change: fn(&mut onefold_raft::Config)| {
        let mut config = onefold_raft::Config::new(node(1), GroupId::KV, 1);
        change(&mut config);
        let snapshot = SnapshotMark::initial(Membership::of_voters([node(1)]));
        Raft::new(config, Restored { snapshot, ..Restored::default() }).err()
    };
    assert_eq!(start(|_| {}), None);
    let zero = start(|config| config.append_bytes_max = 0);
    assert_eq!(zero, Some(ConfigError::Zero { setting: "append_bytes_max" }));
    let short = start(|config| config.election_ticks = config.heartbeat_ticks);
    assert!(matches!(short, Some(ConfigError::ElectionTooShort { .. })), "{short:?}");
}
