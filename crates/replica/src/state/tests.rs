//! The apply core over a table in memory: nothing but entries decides, and snapshots are whole.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use onefold_raft::{Entry, Membership, Payload, SnapshotMark};
use onefold_table::{KeyRange, MemoryTable, Order, Space, SpaceView, Table, TableError, View};
use onefold_types::{GroupId, LogIndex, NodeId, SessionId, Term, Timestamp};

use super::*;
use crate::{Apply, SessionTag, StateMachine};

/// `k v` puts, `k` deletes; answers the index.
struct Pairs;

impl StateMachine for Pairs {
    fn apply(&mut self, context: &mut Apply<'_, '_>, command: &Bytes) -> Result<Bytes, TableError> {
        match String::from_utf8_lossy(command).split_once(' ') {
            Some((key, value)) => context.table.put(key.to_owned(), value.to_owned()),
            None => context.table.delete(command.clone()),
        }
        Ok(context.index.to_string().into())
    }

    fn restored(&mut self, _: &SpaceView) -> Result<(), TableError> {
        Ok(())
    }
}

fn open(table: &Arc<dyn Table>) -> GroupState {
    let space = Space::new(table.clone(), GroupId::KV);
    let formed = Membership::of_voters([NodeId(1), NodeId(2)]);
    let generations = Generations::open(GroupId::KV, space, &formed).expect("a good table");
    GroupState::open(Arc::new(generations), Box::new(Pairs)).expect("a good table")
}

fn memory() -> Arc<dyn Table> {
    Arc::new(MemoryTable::new())
}

fn entry(index: u64, payload: Payload) -> Entry {
    Entry { term: Term(1), index: LogIndex(index), payload }
}

fn command(index: u64, session: Option<SessionTag>, text: &str) -> Entry {
    let sealed = seal_command(Timestamp(index), session, text.as_bytes()).expect("a small command");
    entry(index, Payload::Command(sealed))
}

/// Commands of all kinds; with sessions, retries and a change of members.
fn entries(count: u64) -> Vec<Entry> {
    let tag = |index: u64| {
        let sequence = index / 4;
        SessionTag { session: SessionId(index % 2), sequence, acknowledged_below: sequence / 2 }
    };
    (1..=count)
        .map(|index| match index % 7 {
            0 => entry(index, Payload::Empty),
            1 => command(index, Some(tag(index)), &format!("{} {}", index % 100, index)),
            2 => command(index, Some(tag(index - 1)), "a retry or not"),
            3 if index % 50 == 3 => {
                let voters = (1..=index % 5 + 1).map(NodeId);
                entry(index, Payload::Membership(Box::new(Membership::of_voters(voters))))
            }
            4 => command(index, None, &(index % 30).to_string()),
            _ => command(index, None, &format!("{index} {}", "v".repeat(index as usize % 60))),
        })
        .collect()
}

fn apply(state: &mut GroupState, entries: &[Entry], bytes_max: usize) -> Vec<Checkpoint> {
    let mut entries = VecDeque::from(entries.to_vec());
    let mut checkpoints = Vec::new();
    while !entries.is_empty() {
        let applied = state.apply(&mut entries, bytes_max).expect("memory does not fail");
        assert_eq!((applied.index, applied.hash), (state.applied(), state.hash()));
        checkpoints.extend(applied.checkpoints);
    }
    checkpoints
}

fn content(table: &Arc<dyn Table>) -> Vec<(Bytes, Bytes)> {
    let pairs: Result<Vec<_>, _> = table.scan(KeyRange::all(), Order::Ascending).collect();
    pairs.expect("memory does not fail")
}

fn applied(count: u64) -> (Arc<dyn Table>, GroupState) {
    let table = memory();
    let mut state = open(&table);
    apply(&mut state, &entries(count), 1 << 20);
    (table, state)
}

#[test]
fn rounds_of_any_size_and_restarts_give_the_same_table_and_hash() {
    let entries = entries(3000);
    let runs = [1, 500, 1 << 20].map(|bytes_max| {
        let table = memory();
        let mut checkpoints = Vec::new();
        for part in entries.chunks(if bytes_max == 500 { 77 } else { 3000 }) {
            checkpoints.extend(apply(&mut open(&table), part, bytes_max));
        }
        (content(&table), checkpoints, open(&table).hash())
    });
    assert_eq!(runs[0].1.iter().map(|it| it.index.get()).collect::<Vec<_>>(), [1024, 2048]);
    assert_eq!(runs[0], runs[1]);
    assert_eq!(runs[1], runs[2]);
}

#[test]
fn whatever_differs_in_one_entry_differs_in_the_hash_from_then_on() {
    let good = entries(100);
    let with = |at: u64, other: Entry| {
        let mut entries = good.clone();
        entries[at as usize - 1] = other;
        let mut state = open(&memory());
        apply(&mut state, &entries, 1 << 20);
        state.hash()
    };
    let tag = SessionTag { session: SessionId(9), sequence: 1, acknowledged_below: 1 };
    let later = seal_command(Timestamp(51), None, b"50 x").expect("a small command");
    let members = |voters: &[u64]| {
        let voters = voters.iter().copied().map(NodeId);
        entry(50, Payload::Membership(Box::new(Membership::of_voters(voters))))
    };
    let hashes = [
        with(50, command(50, None, "50 x")),
        with(50, command(50, None, "50 y")),
        with(50, command(50, None, "51 x")),
        with(50, command(50, None, "50")),
        with(50, command(50, None, "51")),
        with(50, command(50, Some(tag), "50 x")),
        with(50, command(50, Some(SessionTag { sequence: 2, ..tag }), "50 x")),
        with(50, entry(50, Payload::Command(later))),
        with(50, entry(50, Payload::Empty)),
        with(50, members(&[1])),
        with(50, members(&[2])),
    ];
    let distinct: std::collections::BTreeSet<_> = hashes.iter().collect();
    assert_eq!(distinct.len(), hashes.len());
}

/// Moves everything after a position, in pieces of some bytes.
fn transfer(export: &Export, staging: &mut Staging) {
    while staging.staged().is_none() {
        let (piece, _) = export.piece(staging.position(), 300).expect("memory does not fail");
        staging.piece(&piece).expect("it is the next piece");
    }
}

#[test]
fn a_snapshot_gives_the_same_state_which_goes_on_alike() {
    let all = entries(600);
    let (_, mut leader) = applied(500);
    let export = leader.generations().export().expect("memory does not fail");
    // What comes later is not in it.
    apply(&mut leader, &all[500..], 1 << 20);
    let table = memory();
    let mut follower = open(&table);
    apply(&mut follower, &all[..20], 1 << 20);
    let mut staging = follower.generations().stage(export.mark().clone(), 7).expect("a good table");
    transfer(&export, &mut staging);
    assert_eq!(follower.applied(), LogIndex(20), "not before it is installed");
    let replaced = follower.install(&staging.staged().expect("all of it is there"));
    let replaced = replaced.expect("memory does not fail").expect("it is ahead");
    while follower.generations().wipe(replaced, 10).expect("memory does not fail") {}
    assert_eq!(follower.mark(), *export.mark());
    apply(&mut follower, &all[500..], 1 << 20);
    assert_eq!(follower.hash(), leader.hash());
    let (own, theirs) = (follower.generations().export(), leader.generations().export());
    let whole = |export: Result<Export, crate::HostError>| {
        let export = export.expect("memory does not fail");
        export.piece(&Position::default(), 1 << 20).expect("memory does not fail").0
    };
    assert_eq!(whole(own), whole(theirs));
    assert_eq!(open(&table).hash(), leader.hash(), "after a restart");
}

#[test]
fn a_transfer_goes_on_after_any_number_of_restarts_without_a_piece_twice() {
    let (_, leader) = applied(500);
    let export = leader.generations().export().expect("memory does not fail");
    let table = memory();
    let mark = export.mark().clone();
    let mut sent = 0;
    drop(open(&table).generations().stage(mark.clone(), 7).expect("memory does not fail"));
    let fresh = open(&table).generations().interrupted().expect("memory does not fail");
    assert!(fresh.is_none(), "nothing came");
    let mut staging = open(&table).generations().stage(mark, 7).expect("memory does not fail");
    while staging.staged().is_none() {
        let (piece, next) = export.piece(staging.position(), 300).expect("memory does not fail");
        assert_eq!(piece.number, sent);
        staging.piece(&piece).expect("it is the next piece");
        sent += 1;
        assert_eq!(*staging.position(), next);
        let again = open(&table).generations().interrupted().expect("memory does not fail");
        staging = again.expect("a piece came");
        assert_eq!((staging.transfer(), staging.mark()), (7, export.mark()));
    }
    assert!(sent > 20, "{sent} pieces");
    let mut follower = open(&table);
    let staged = staging.staged().expect("all of it is there");
    follower.install(&staged).expect("memory does not fail").expect("it is ahead");
    assert_eq!(follower.hash(), leader.hash());
    let left = follower.generations().interrupted().expect("memory does not fail");
    assert!(left.is_none(), "it is the state now");
}

#[test]
fn wrong_pieces_are_refused_and_change_nothing() {
    let (_, leader) = applied(300);
    let export = leader.generations().export().expect("memory does not fail");
    let table = memory();
    let state = open(&table);
    let mut staging = state.generations().stage(export.mark().clone(), 7).expect("a good table");
    let (first, after) = export.piece(staging.position(), 300).expect("memory does not fail");
    staging.piece(&first).expect("it is the first piece");
    let (second, _) = export.piece(&after, 300).expect("memory does not fail");
    let (third, _) = export.piece(&after, 600).expect("memory does not fail");
    let before = content(&table);

    let mut damaged = second.body.to_vec();
    damaged[20] ^= 1;
    let damaged = Piece { body: damaged.into(), ..second.clone() };
    let refused = staging.piece(&damaged).expect_err("a bit flipped");
    assert!(matches!(refused, PieceError::Damaged { number: 1 }), "{refused}");

    let skipping = Piece { number: 2, ..third };
    let refused = staging.piece(&skipping).expect_err("piece 1 is missing");
    assert!(matches!(refused, PieceError::OutOfOrder { wanted: 1, number: 2 }), "{refused}");

    let repeated = Piece { number: 1, ..first.clone() };
    let refused = staging.piece(&repeated).expect_err("its keys are there");
    assert!(matches!(refused, PieceError::Malformed { .. }), "{refused}");

    let cut = second.body.slice(..second.body.len() - 1);
    let crc32c = pairs::crc32c(&cut);
    let refused = staging.piece(&Piece { body: cut, crc32c, ..second.clone() });
    let refused = refused.expect_err("it is cut within a pair");
    assert!(matches!(refused, PieceError::Malformed { .. }), "{refused}");

    let ended = Piece { end: Some(SnapshotTotal::default()), ..second.clone() };
    let refused = staging.piece(&ended).expect_err("the total is another");
    assert!(matches!(refused, PieceError::WrongTotal { .. }), "{refused}");

    assert_eq!(content(&table), before);
    staging.piece(&first).expect("its answer was lost");
    assert_eq!(content(&table), before);
    transfer(&export, &mut staging);
}

#[test]
fn a_key_that_no_state_has_is_refused() {
    let (table, leader) = applied(10);
    let export = leader.generations().export().expect("memory does not fail");
    // In the generation, beside the two parts that a state has.
    let mut batch = onefold_table::Batch::new();
    batch.put([&leader.generations().current().prefix()[..], b"z"].concat(), "x");
    leader.generations().space().write(batch).expect("memory does not fail");
    let strange = leader.generations().export().expect("memory does not fail");
    drop(table);
    let state = open(&memory());
    let mut staging = state.generations().stage(export.mark().clone(), 7).expect("a good table");
    let (piece, _) = strange.piece(&Position::default(), 1 << 20).expect("memory does not fail");
    staging.piece(&piece).expect_err("z is neither the host's nor the state machine's");
}

#[test]
fn a_snapshot_of_something_else_than_was_announced_is_never_staged() {
    let (_, leader) = applied(100);
    let export = leader.generations().export().expect("memory does not fail");
    let state = open(&memory());
    let announced = SnapshotMark { index: LogIndex(101), ..export.mark().clone() };
    let mut staging = state.generations().stage(announced, 7).expect("a good table");
    let (piece, _) = export.piece(&Position::default(), 1 << 20).expect("memory does not fail");
    let refused = staging.piece(&piece).expect_err("it is of index 100");
    assert!(matches!(refused, PieceError::WrongMark { .. }), "{refused}");
    assert!(staging.staged().is_none());
}

#[test]
fn a_snapshot_that_is_not_ahead_is_not_installed() {
    let (_, leader) = applied(100);
    let export = leader.generations().export().expect("memory does not fail");
    let (_, mut state) = applied(100);
    let hash = state.hash();
    let mut staging = state.generations().stage(export.mark().clone(), 7).expect("a good table");
    transfer(&export, &mut staging);
    let staged = staging.staged().expect("all of it is there");
    assert_eq!(state.install(&staged).expect("memory does not fail"), None);
    assert_eq!((state.applied(), state.hash()), (LogIndex(100), hash));
}

#[test]
fn a_discarded_state_begins_with_nothing_also_after_a_restart_and_a_snapshot_makes_it_whole() {
    let (_, leader) = applied(500);
    let (table, mut state) = applied(400);
    let wrong = state.discard().expect("memory does not fail");
    while state.generations().wipe(wrong, 10).expect("memory does not fail") {}
    for state in [state, open(&table)] {
        assert_eq!((state.applied(), state.hash()), (LogIndex::ZERO, StateHash::default()));
        assert_eq!(state.mark().membership, state.generations().formed());
        assert_eq!(state.view().scan(KeyRange::all(), Order::Ascending).count(), 0);
    }
    let mut state = open(&table);
    let export = leader.generations().export().expect("memory does not fail");
    let mut staging = state.generations().stage(export.mark().clone(), 8).expect("a good table");
    transfer(&export, &mut staging);
    let staged = staging.staged().expect("all of it is there");
    state.install(&staged).expect("memory does not fail").expect("it is ahead");
    assert_eq!(state.hash(), leader.hash());
}
