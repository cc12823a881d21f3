//! Hashes by which replicas are compared, and ranges in parts.

use onefold_types::Revision;

use super::Fixture;
use crate::store::state::State;
use crate::store::{hash, range};
use crate::{DeleteRangeRequest, HashScope, PutRequest, RangePartRequest, RangeRequest};

/// Twelve revisions over three keys: overwritten, deleted, created again.
fn store() -> Fixture {
    let mut store = Fixture::new();
    for number in 0..9 {
        let key = ["a", "b", "c"][number % 3];
        store.put(PutRequest::new(key, number.to_string())).unwrap();
    }
    store.delete(DeleteRangeRequest::key("a")).unwrap();
    store.put(PutRequest::new("a", "again")).unwrap();
    store.delete(DeleteRangeRequest::key("b")).unwrap();
    store
}

fn history(store: &Fixture, until: u64) -> u32 {
    let view = store.view();
    let state = State::read(&view).unwrap();
    hash::hash(&view, &state, HashScope::History(Revision(until))).unwrap().hash
}

#[test]
fn every_revision_has_a_hash_of_its_own_that_later_ones_do_not_change() {
    let mut before = Fixture::new();
    let whole = store();
    let mut hashes = vec![history(&before, 1)];
    for number in 0..9u64 {
        let key = ["a", "b", "c"][number as usize % 3];
        before.put(PutRequest::new(key, number.to_string())).unwrap();
        let now = history(&before, 0);
        assert_eq!(history(&whole, number + 2), now, "revision {}", number + 2);
        assert!(!hashes.contains(&now), "revision {} looks like another", number + 2);
        hashes.push(now);
    }
}

#[test]
fn a_deletion_and_a_new_life_of_a_key_are_seen() {
    let whole = store();
    let hashes: Vec<u32> = (10..=13).map(|until| history(&whole, until)).collect();
    for (place, hash) in hashes.iter().enumerate() {
        assert!(!hashes[..place].contains(hash), "{hashes:?}");
    }
}

#[test]
fn how_far_compaction_has_removed_history_does_not_matter() {
    let (mut lazy, mut swept) = (store(), store());
    let untouched = history(&lazy, 13);
    for store in [&mut lazy, &mut swept] {
        store.compact(8).unwrap();
    }
    swept.sweep();
    assert!(lazy.records(b'o') > swept.records(b'o'), "something was removed");
    for until in 8..=13 {
        assert_eq!(history(&lazy, until), history(&swept, until), "revision {until}");
    }
    assert_ne!(history(&lazy, 13), untouched, "less can be read");
}

#[test]
fn the_hash_of_everything_sees_what_no_revision_does() {
    let everything = |store: &Fixture| {
        let view = store.view();
        let state = State::read(&view).unwrap();
        hash::hash(&view, &state, HashScope::Everything).unwrap().hash
    };
    let (mut one, two) = (store(), store());
    assert_eq!(everything(&one), everything(&two));
    one.compact(8).unwrap();
    assert_ne!(everything(&one), everything(&two));
}

#[test]
fn parts_of_a_range_follow_each_other_without_gaps() {
    let store = store();
    let whole = |revision: u64| {
        let revision = Revision(revision);
        store.range(&RangeRequest { revision, ..RangeRequest::prefix("") }).unwrap().kvs
    };
    for revision in [0, 5, 10, 11] {
        for (limit, bytes_max) in [(0, 0), (1, u64::MAX), (2, u64::MAX), (0, 4), (0, u64::MAX)] {
            let all = RangeRequest::prefix("");
            let mut request = RangePartRequest {
                key: all.key,
                range_end: all.range_end,
                limit,
                bytes_max,
                revision: Revision(revision),
                ..RangePartRequest::default()
            };
            let mut read = Vec::new();
            loop {
                let view = store.view();
                let part = range::part(&view, &State::read(&view).unwrap(), &request).unwrap();
                assert!(limit == 0 || part.kvs.len() as u64 <= limit);
                read.extend(part.kvs);
                let Some(next) = part.next else { break };
                request.key = next;
            }
            assert_eq!(
                read,
                whole(revision),
                "revision {revision}, {limit} records, {bytes_max} B"
            );
        }
    }
}
