//! Leases, case by case.

use onefold_types::Term;

use super::Fixture;
use crate::limits::{LEASE_TTL_SECONDS_MAX, LEASE_TTL_SECONDS_MIN};
use crate::store::LeaseChange;
use crate::store::command::{Answer, Command};
use crate::store::lease;
use crate::store::stored::StoredLease;
use crate::{
    DeleteRangeRequest, KvError, LeaseGrantRequest, LeaseGrantResponse, LeaseId, PutRequest,
    RangeRequest,
};

fn grant(store: &mut Fixture, id: i64, ttl_seconds: i64) -> Result<LeaseGrantResponse, KvError> {
    let request = LeaseGrantRequest { id: LeaseId(id), ttl_seconds };
    match store.apply(&Command::LeaseGrant(request))? {
        Answer::LeaseGrant(response) => Ok(response),
        other => panic!("a grant was answered with {other:?}"),
    }
}

fn attach(store: &mut Fixture, key: &'static str, lease: i64) -> Result<(), KvError> {
    let request = PutRequest { lease: LeaseId(lease), ..PutRequest::new(key, "v") };
    store.put(request).map(|_| ())
}

fn expire(store: &mut Fixture, id: i64, term: u64) -> bool {
    let command = Command::LeaseExpire { id: LeaseId(id), term: Term(term) };
    store.apply(&command).unwrap() == (Answer::LeaseExpire { ended: true })
}

#[test]
fn a_revoked_lease_takes_its_keys_in_one_revision() {
    let mut store = Fixture::new();
    grant(&mut store, 7, 10).unwrap();
    attach(&mut store, "a", 7).unwrap();
    attach(&mut store, "b", 7).unwrap();
    store.put(PutRequest::new("c", "stays")).unwrap();
    store.apply(&Command::LeaseRevoke(LeaseId(7))).unwrap();
    assert_eq!(store.pairs(&RangeRequest::prefix("")), [("c".to_owned(), "stays".to_owned())]);
    assert_eq!(store.revision(), 5);
    let gone = store.apply(&Command::LeaseRevoke(LeaseId(7)));
    assert_eq!(gone, Err(KvError::LeaseNotFound { id: LeaseId(7) }));
}

#[test]
fn a_lease_without_keys_ends_without_a_revision() {
    let mut store = Fixture::new();
    grant(&mut store, 7, 10).unwrap();
    store.apply(&Command::LeaseRevoke(LeaseId(7))).unwrap();
    assert_eq!(store.revision(), 1);
}

#[test]
fn a_key_belongs_to_the_lease_of_its_last_put() {
    let mut store = Fixture::new();
    grant(&mut store, 1, 10).unwrap();
    grant(&mut store, 2, 10).unwrap();
    attach(&mut store, "a", 1).unwrap();
    attach(&mut store, "a", 2).unwrap();
    store.apply(&Command::LeaseRevoke(LeaseId(1))).unwrap();
    assert_eq!(store.pairs(&RangeRequest::key("a")).len(), 1);
    store.put(PutRequest::new("a", "free")).unwrap();
    store.apply(&Command::LeaseRevoke(LeaseId(2))).unwrap();
    assert_eq!(store.pairs(&RangeRequest::key("a")).len(), 1);
}

#[test]
fn a_deleted_key_leaves_its_lease() {
    let mut store = Fixture::new();
    grant(&mut store, 1, 10).unwrap();
    attach(&mut store, "a", 1).unwrap();
    store.delete(DeleteRangeRequest::key("a")).unwrap();
    store.put(PutRequest::new("a", "new")).unwrap();
    store.apply(&Command::LeaseRevoke(LeaseId(1))).unwrap();
    assert_eq!(store.pairs(&RangeRequest::key("a")).len(), 1);
}

#[test]
fn a_lease_must_exist_before_keys_are_attached() {
    let mut store = Fixture::new();
    let missing = Err(KvError::LeaseNotFound { id: LeaseId(9) });
    assert_eq!(attach(&mut store, "a", 9), missing);
    assert_eq!(store.revision(), 1);
}

#[test]
fn times_to_live_are_bounded_and_ids_unique() {
    let mut store = Fixture::new();
    assert_eq!(grant(&mut store, 1, 0).unwrap().ttl_seconds, LEASE_TTL_SECONDS_MIN);
    assert_eq!(grant(&mut store, 1, 5), Err(KvError::LeaseExists { id: LeaseId(1) }));
    let ttl_seconds = LEASE_TTL_SECONDS_MAX + 1;
    let too_large = Err(KvError::LeaseTtlTooLarge { ttl_seconds });
    assert_eq!(grant(&mut store, 2, ttl_seconds), too_large);
    let chosen = grant(&mut store, 0, 5).unwrap().id;
    let other = grant(&mut store, 0, 5).unwrap().id;
    assert!(chosen.0 > 0 && other.0 > 0 && chosen != other);
}

#[test]
fn only_the_newest_leader_expires_leases() {
    let mut store = Fixture::new();
    grant(&mut store, 1, 5).unwrap();
    attach(&mut store, "a", 1).unwrap();
    store.apply(&Command::Lead(Term(3))).unwrap();
    store.apply(&Command::Lead(Term(4))).unwrap();
    store.apply(&Command::Lead(Term(3))).unwrap();
    assert!(!expire(&mut store, 1, 3), "the old leader's clock counts no more");
    assert_eq!(store.pairs(&RangeRequest::key("a")).len(), 1);
    assert!(expire(&mut store, 1, 4));
    assert_eq!(store.pairs(&RangeRequest::key("a")).len(), 0);
    assert!(!expire(&mut store, 1, 4), "it is gone already");
}

#[test]
fn only_the_newest_leader_notes_the_time_of_leases() {
    let mut store = Fixture::new();
    grant(&mut store, 1, 100).unwrap();
    store.apply(&Command::Lead(Term(4))).unwrap();
    let mut note = |term, left_seconds| {
        let left = vec![(LeaseId(1), left_seconds), (LeaseId(2), 5)];
        store.apply(&Command::LeaseCheckpoint { term: Term(term), left }).unwrap();
        lease::all(&store.view()).unwrap()
    };
    let stored = |left_seconds| (LeaseId(1), StoredLease { ttl_seconds: 100, left_seconds });
    assert_eq!(note(3, 50), [stored(0)]);
    assert_eq!(note(4, 50), [stored(50)]);
    assert_eq!(note(4, 500), [stored(100)], "never more than was granted");
    assert_eq!(note(4, 0), [stored(0)]);
}

#[test]
fn the_lessor_hears_of_every_lease() {
    let mut store = Fixture::new();
    grant(&mut store, 1, 5).unwrap();
    store.apply(&Command::LeaseRevoke(LeaseId(1))).unwrap();
    let heard = store.heard.lock().unwrap();
    let changes: Vec<LeaseChange> = heard.iter().flat_map(|round| round.leases.clone()).collect();
    let granted = LeaseChange::Granted { id: LeaseId(1), ttl_seconds: 5 };
    assert_eq!(changes, [granted, LeaseChange::Ended(LeaseId(1))]);
}
