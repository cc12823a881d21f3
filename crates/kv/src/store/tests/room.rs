//! The quota, and the history that is given up by itself.

use onefold_types::{Revision, Term};

use super::Fixture;
use crate::store::command::{Command, Retention};
use crate::store::state::State;
use crate::store::usage::Usage;
use crate::{
    Compare, DeleteRangeRequest, KvError, LeaseGrantRequest, LeaseId, Operation, PutRequest,
    RangeRequest, TxnRequest,
};

const QUOTA_BYTES: u64 = 16_000;
const NO_SPACE: KvError = KvError::NoSpace { quota_bytes: QUOTA_BYTES };

fn set_quota(store: &mut Fixture, quota_bytes: u64) {
    store.apply(&Command::SetQuota { quota_bytes }).unwrap();
}

fn put(store: &mut Fixture, key: &str) -> Result<(), KvError> {
    store.put(PutRequest::new(key.to_owned(), vec![b'v'; 200])).map(|_| ())
}

fn usage(store: &Fixture) -> Usage {
    State::read(&store.view()).unwrap().usage
}

/// A store that has refused to grow.
fn full() -> Fixture {
    let mut store = Fixture::new();
    set_quota(&mut store, QUOTA_BYTES);
    let mut number = 0;
    while put(&mut store, &format!("key {number:02}")) != Err(NO_SPACE) {
        number += 1;
    }
    assert!(usage(&store).is_full && usage(&store).bytes() <= QUOTA_BYTES);
    store
}

#[test]
fn a_full_store_refuses_growth_without_a_revision() {
    let mut store = full();
    let revision = store.revision();
    assert_eq!(put(&mut store, "x"), Err(NO_SPACE));
    let grant = LeaseGrantRequest { id: LeaseId(1), ttl_seconds: 10 };
    assert_eq!(store.apply(&Command::LeaseGrant(grant)), Err(NO_SPACE));
    let puts = vec![Operation::Put(PutRequest::new("x", "v"))];
    let txn = TxnRequest { success: puts.clone(), ..TxnRequest::default() };
    assert_eq!(store.txn(txn), Err(NO_SPACE));
    let within = Operation::Txn(TxnRequest { success: puts.clone(), ..TxnRequest::default() });
    assert_eq!(
        store.txn(TxnRequest { success: vec![within], ..Default::default() }),
        Err(NO_SPACE)
    );
    assert_eq!(store.revision(), revision);
    // Only the branch that runs counts.
    let compare = vec![Compare::absent("x")];
    let txn = TxnRequest { compare, success: Vec::new(), failure: puts };
    assert!(store.txn(txn).unwrap().succeeded);
}

#[test]
fn deletion_and_compaction_make_room_and_growth_goes_on_by_itself() {
    let mut store = full();
    store.delete(DeleteRangeRequest::prefix("key 0")).unwrap();
    assert_eq!(put(&mut store, "x"), Err(NO_SPACE), "the history still has what was deleted");
    store.compact(store.revision()).unwrap();
    assert_eq!(put(&mut store, "x"), Err(NO_SPACE));
    store.sweep();
    assert!(!usage(&store).is_full);
    put(&mut store, "x").unwrap();
}

#[test]
fn leases_end_in_a_full_store() {
    let mut store = Fixture::new();
    set_quota(&mut store, QUOTA_BYTES);
    store
        .apply(&Command::LeaseGrant(LeaseGrantRequest { id: LeaseId(1), ttl_seconds: 9 }))
        .unwrap();
    store.apply(&Command::Lead(Term(1))).unwrap();
    store.put(PutRequest { lease: LeaseId(1), ..PutRequest::new("leased", "v") }).unwrap();
    while put(&mut store, "x").is_ok() {}
    store.apply(&Command::LeaseExpire { id: LeaseId(1), term: Term(1) }).unwrap();
    assert_eq!(store.pairs(&RangeRequest::key("leased")), []);
}

#[test]
fn a_greater_quota_ends_the_refusal() {
    let mut store = full();
    set_quota(&mut store, 2 * QUOTA_BYTES);
    assert!(!usage(&store).is_full);
    put(&mut store, "x").unwrap();
    set_quota(&mut store, 0);
    for number in 0..100 {
        put(&mut store, &format!("many {number}")).unwrap();
    }
}

#[test]
fn a_store_is_full_in_its_next_life_too() {
    let mut store = full().restarted();
    assert_eq!(put(&mut store, "x"), Err(NO_SPACE));
}

#[test]
fn retention_gives_up_what_is_old_enough_by_the_time_of_the_log() {
    let mut store = Fixture::new();
    // The fixture's clock goes on by a millisecond with each command.
    let retain = Command::Retain(Retention::Age { millis: 50, revisions_min: 10 });
    for _ in 0..100 {
        put(&mut store, "x").unwrap();
        store.apply(&retain).unwrap();
    }
    let state = State::read(&store.view()).unwrap();
    let kept = state.revision.get() - state.compacted.get();
    assert!((25..=30).contains(&kept), "two commands a revision: {kept} revisions in 50 ms");
    let few = Command::Retain(Retention::Revisions(3));
    store.apply(&few).unwrap();
    store.apply(&few).unwrap();
    let state = State::read(&store.view()).unwrap();
    assert_eq!(state.compacted, Revision(state.revision.get() - 3));
}

#[test]
fn the_newest_revisions_stay_however_old_they_are() {
    let mut store = Fixture::new();
    for _ in 0..20 {
        put(&mut store, "x").unwrap();
    }
    for _ in 0..100 {
        store.apply(&Command::Retain(Retention::Age { millis: 5, revisions_min: 10 })).unwrap();
    }
    let state = State::read(&store.view()).unwrap();
    assert_eq!(state.compacted, Revision(state.revision.get() - 10));
}
