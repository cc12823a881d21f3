//! §7: compaction, and snapshots for followers that fell behind it.

mod cluster;

use cluster::{Cluster, node};
use onefold_raft::{
    Body, Config, Entry, HardState, Input, Membership, Message, Payload, Raft, Restored,
    SnapshotMark, SnapshotOutcome,
};
use onefold_types::{GroupId, LogIndex, Term};

/// Node 3 was away while the others committed and compacted commands `a` to `d`.
fn compacted_past_node_3() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    cluster.isolate(node(3));
    for command in ["a", "b", "c", "d"] {
        cluster.propose(node(1), command).expect("a proposal");
        cluster.settle();
    }
    cluster.step(node(1), Input::Compact(LogIndex(4))).expect("applied entries");
    assert_eq!(cluster.cores[&node(1)].first_index(), LogIndex(5));
    cluster.heal();
    cluster
}

#[test]
fn a_follower_behind_the_log_gets_a_snapshot_and_goes_on_from_it() {
    let mut cluster = compacted_past_node_3();
    cluster.ticks(10);
    assert_eq!(cluster.applied_by(node(3)), ["a", "b", "c", "d"]);
    assert_eq!(cluster.cores[&node(3)].first_index(), LogIndex(6), "the snapshot's end");
    cluster.propose(node(1), "e").expect("a proposal");
    cluster.settle();
    assert_eq!(cluster.applied_by(node(3)), ["a", "b", "c", "d", "e"]);
}

#[test]
fn a_node_restarts_from_its_snapshot() {
    let mut cluster = compacted_past_node_3();
    cluster.ticks(10);
    cluster.crash(node(3));
    cluster.start(node(3));
    cluster.propose(node(1), "e").expect("a proposal");
    cluster.ticks(10);
    assert_eq!(cluster.applied_by(node(3)), ["a", "b", "c", "d", "e"]);
}

#[test]
fn a_compacted_leader_still_restarts_with_its_log() {
    let mut cluster = compacted_past_node_3();
    cluster.crash(node(1));
    cluster.start(node(1));
    assert_eq!(cluster.log_of(node(1)), [1]);
    assert_eq!(cluster.cores[&node(1)].last_index(), LogIndex(5));
}

fn mark(index: u64, term: u64) -> SnapshotMark {
    let membership = Membership::of_voters([1, 2, 3].map(node));
    SnapshotMark { index: LogIndex(index), term: Term(term), membership }
}

fn entries(terms: &[u64]) -> Vec<Entry> {
    let entry = |(index, term): (u64, &u64)| Entry {
        term: Term(*term),
        index: LogIndex(index),
        payload: Payload::Empty,
    };
    (1..).zip(terms).map(entry).collect()
}

/// A follower of node 1 in term 4 with this log, none of it committed.
fn follower(terms: &[u64]) -> Raft {
    let restored = Restored {
        hard_state: HardState { term: Term(4), vote: None, commit: LogIndex::ZERO },
        snapshot: mark(0, 0),
        entries: entries(terms),
        applied: LogIndex::ZERO,
    };
    Raft::new(Config::new(node(3), GroupId::KV, 1), restored).expect("a valid start")
}

fn announce(core: &mut Raft, mark: SnapshotMark) {
    let message = Message { term: Term(4), body: Body::InstallSnapshot { mark } };
    core.step(Input::Message { from: node(1), message }).expect("a snapshot");
}

#[test]
fn entries_after_the_snapshot_stay_if_its_last_entry_is_in_the_log() {
    // It learns that its entries up to 2 are committed, and needs no installation.
    let mut core = follower(&[1, 2, 3]);
    announce(&mut core, mark(2, 2));
    assert_eq!(core.take_output().install_snapshot, None);
    assert_eq!((core.commit_index(), core.last_index()), (LogIndex(2), LogIndex(3)));
}

#[test]
fn a_conflicting_log_is_discarded_when_the_snapshot_is_installed() {
    let mut core = follower(&[1, 3, 3]);
    announce(&mut core, mark(2, 2));
    assert_eq!(core.take_output().install_snapshot, Some(mark(2, 2)));
    assert_eq!(core.last_index(), LogIndex(3), "not before it is installed");
    core.step(Input::SnapshotInstalled(mark(2, 2))).expect("the snapshot that was asked for");
    assert_eq!((core.commit_index(), core.last_index()), (LogIndex(2), LogIndex(2)));
    let persist = core.take_output().persist.expect("the new mark is written");
    assert_eq!(persist.truncate_from, Some(LogIndex(3)));
    assert_eq!(persist.snapshot, Some(mark(2, 2)));
    core.step(Input::Persisted(persist.sequence)).expect("the write");
    let accepted = Body::SnapshotInstalled { index: LogIndex(2) };
    let expected = (node(1), Message { term: Term(4), body: accepted });
    assert_eq!(core.take_output().messages, [expected]);
}

#[test]
fn nothing_is_handed_out_while_a_snapshot_is_installed() {
    let mut core = follower(&[1, 2]);
    announce(&mut core, mark(9, 4));
    let heartbeat = Body::Heartbeat { commit: LogIndex(2), read_round: 0 };
    let message = Message { term: Term(4), body: heartbeat };
    core.step(Input::Message { from: node(1), message }).expect("a heartbeat");
    assert_eq!(core.commit_index(), LogIndex(2));
    assert!(core.take_output().committed.is_empty());
    core.step(Input::SnapshotMissing(mark(9, 4))).expect("the snapshot that was asked for");
    assert_eq!(core.take_output().committed.len(), 2, "after it was given up");
}

/// The state machine was installed, and the node crashed before the log's mark was written.
#[test]
fn a_node_starts_with_a_state_machine_ahead_of_its_log() {
    let start = |terms: &[u64], mark: SnapshotMark| {
        let restored = Restored {
            hard_state: HardState { term: Term(4), vote: None, commit: LogIndex::ZERO },
            applied: mark.index,
            snapshot: mark,
            entries: entries(terms),
        };
        let config = Config::new(node(3), GroupId::KV, 1);
        let mut core = Raft::new(config, restored).expect("a valid start");
        let persist = core.take_output().persist.expect("the mark is written");
        let from = persist.truncate_from.map(|index| index.0);
        (core.last_index().0, persist.snapshot.map(|mark| mark.index.0), from)
    };
    assert_eq!(start(&[1, 2, 3], mark(2, 2)), (3, Some(2), None), "the rest of the log stays");
    assert_eq!(start(&[1, 3, 3], mark(2, 2)), (2, Some(2), Some(3)), "it conflicts");
    assert_eq!(start(&[1], mark(2, 2)), (2, Some(2), None), "it is behind");
    assert_eq!(start(&[], mark(2, 2)), (2, Some(2), None), "it is empty");
}

#[test]
fn a_failed_transfer_is_asked_for_again() {
    let mut cluster = compacted_past_node_3();
    let leader = cluster.cores.get_mut(&node(1)).expect("the leader");
    let mut asked = 0;
    let rejected = Body::AppendRejected {
        prev_index: LogIndex(5),
        hint_index: LogIndex(1),
        hint_term: Term(1),
    };
    let alive = Body::HeartbeatResponse { read_round: 0, promised_micros: 0 };
    for body in [rejected, alive.clone(), alive] {
        let message = Message { term: Term(1), body };
        leader.step(Input::Message { from: node(3), message }).expect("a sign of life");
        let output = leader.take_output();
        asked += output.send_snapshot.len();
        for to in output.send_snapshot {
            let outcome = SnapshotOutcome::Failed;
            leader.step(Input::SnapshotSent { to, outcome }).expect("a report");
            assert!(leader.take_output().send_snapshot.is_empty(), "not before a sign of life");
        }
    }
    assert_eq!(asked, 3);
}
