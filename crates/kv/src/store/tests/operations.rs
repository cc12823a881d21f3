//! Puts, deletions, ranges and compaction, case by case, as etcd's documents promise them.

use bytes::Bytes;
use onefold_types::Revision;

use super::Fixture;
use crate::limits::KEY_BYTES_MAX;
use crate::store::command::Command;
use crate::{
    DeleteRangeRequest, KeySpan, KvError, LeaseId, PutRequest, RangeRequest, SortOrder, SortTarget,
};

fn store_of(pairs: &[(&'static str, &'static str)]) -> Fixture {
    let mut store = Fixture::new();
    for (key, value) in pairs {
        store.put(PutRequest::new(*key, *value)).unwrap();
    }
    store
}

#[test]
fn an_empty_store_is_at_revision_one_and_the_first_put_makes_two() {
    let mut store = Fixture::new();
    assert_eq!(store.range(&RangeRequest::key("a")).unwrap().header.revision, Revision(1));
    let response = store.put(PutRequest::new("a", "1")).unwrap();
    assert_eq!(response.header.revision, Revision(2));
}

#[test]
fn a_key_counts_its_versions_from_each_creation() {
    let mut store = store_of(&[("a", "1"), ("a", "2")]);
    let kv = store.range(&RangeRequest::key("a")).unwrap().kvs.remove(0);
    assert_eq!((kv.version, kv.create_revision, kv.mod_revision), (2, Revision(2), Revision(3)));
    store.delete(DeleteRangeRequest::key("a")).unwrap();
    store.put(PutRequest::new("a", "3")).unwrap();
    let kv = store.range(&RangeRequest::key("a")).unwrap().kvs.remove(0);
    assert_eq!((kv.version, kv.create_revision, kv.mod_revision), (1, Revision(5), Revision(5)));
}

#[test]
fn a_deletion_of_nothing_makes_no_revision() {
    let mut store = store_of(&[("a", "1")]);
    let response = store.delete(DeleteRangeRequest::key("b")).unwrap();
    assert_eq!((response.deleted, response.header.revision), (0, Revision(2)));
    assert_eq!(store.heard.lock().unwrap().last().unwrap().revisions, []);
}

#[test]
fn one_deletion_of_many_keys_makes_one_revision() {
    let mut store = store_of(&[("a", "1"), ("b", "2"), ("c", "3")]);
    let request = DeleteRangeRequest { prev_kv: true, ..DeleteRangeRequest::prefix("") };
    let response = store.delete(request).unwrap();
    assert_eq!((response.deleted, response.header.revision), (3, Revision(5)));
    let keys: Vec<&Bytes> = response.prev_kvs.iter().map(|kv| &kv.key).collect();
    assert_eq!(keys, ["a", "b", "c"]);
    assert_eq!(store.pairs(&RangeRequest::prefix("")), []);
}

#[test]
fn the_past_stays_readable() {
    let mut store = store_of(&[("a", "1"), ("b", "1"), ("a", "2")]);
    store.delete(DeleteRangeRequest::key("a")).unwrap();
    let at = |revision| RangeRequest { revision: Revision(revision), ..RangeRequest::prefix("") };
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(store.pairs(&at(2)), [pair("a", "1")]);
    assert_eq!(store.pairs(&at(3)), [pair("a", "1"), pair("b", "1")]);
    assert_eq!(store.pairs(&at(4)), [pair("a", "2"), pair("b", "1")]);
    assert_eq!(store.pairs(&at(5)), [pair("b", "1")]);
}

#[test]
fn a_range_finds_one_of_many_old_versions() {
    let mut store = Fixture::new();
    for round in 0..50 {
        for key in ["a", "b", "c"] {
            store.put(PutRequest::new(key, format!("{key}{round}"))).unwrap();
        }
    }
    for round in [0, 7, 8, 9, 30, 49_u64] {
        let request =
            RangeRequest { revision: Revision(4 + 3 * round), ..RangeRequest::prefix("") };
        let wanted = ["a", "b", "c"].map(|key| (key.to_owned(), format!("{key}{round}")));
        assert_eq!(store.pairs(&request), wanted);
    }
}

#[test]
fn what_was_compacted_is_gone_and_the_rest_is_not() {
    let mut store = store_of(&[("a", "1"), ("a", "2"), ("a", "3")]);
    store.compact(3).unwrap();
    let at = |revision| RangeRequest { revision: Revision(revision), ..RangeRequest::key("a") };
    let compacted =
        |requested| KvError::Compacted { requested: Revision(requested), compacted: Revision(3) };
    assert_eq!(store.range(&at(2)), Err(compacted(2)));
    assert_eq!(store.pairs(&at(3)), [("a".to_owned(), "2".to_owned())]);
    assert_eq!(store.compact(3), Err(compacted(3)));
    let future = KvError::FutureRevision { requested: Revision(9), current: Revision(4) };
    assert_eq!(store.compact(9), Err(future));
    store.sweep();
    assert_eq!(store.pairs(&at(3)), [("a".to_owned(), "2".to_owned())]);
    assert_eq!(store.records(b'o'), 1, "the version of revision 2 is removed");
}

#[test]
fn a_sweep_takes_bounded_steps_and_survives_a_restart_between_them() {
    let mut store = Fixture::new();
    for value in 0..20 {
        store.put(PutRequest::new("a", value.to_string())).unwrap();
    }
    store.compact(21).unwrap();
    let before = store.records(b'o');
    store.apply(&Command::Sweep { events_max: 5 }).unwrap();
    assert!(before - store.records(b'o') <= 5);
    let mut store = store.restarted();
    store.sweep();
    assert_eq!(store.records(b'o'), 0);
    assert_eq!(store.records(b'h'), 1, "the compacted revision's own event stays");
}

#[test]
fn revisions_beyond_the_present_are_refused() {
    let store = store_of(&[("a", "1")]);
    let request = RangeRequest { revision: Revision(3), ..RangeRequest::key("a") };
    let future = KvError::FutureRevision { requested: Revision(3), current: Revision(2) };
    assert_eq!(store.range(&request), Err(future));
}

#[test]
fn a_put_may_keep_value_or_lease_of_a_key_that_exists() {
    let mut store = store_of(&[("a", "1")]);
    let keep = |key: &'static str| PutRequest { ignore_value: true, ..PutRequest::new(key, "") };
    store.put(keep("a")).unwrap();
    assert_eq!(store.pairs(&RangeRequest::key("a")), [("a".to_owned(), "1".to_owned())]);
    assert_eq!(store.put(keep("b")), Err(KvError::KeyNotFound));
    let both = PutRequest { ignore_value: true, ..PutRequest::new("a", "2") };
    assert_eq!(store.put(both), Err(KvError::ValueProvided));
    let both = PutRequest { ignore_lease: true, lease: LeaseId(1), ..PutRequest::new("a", "2") };
    assert_eq!(store.put(both), Err(KvError::LeaseProvided));
}

#[test]
fn keys_that_no_table_holds_are_refused_by_the_store() {
    let mut store = Fixture::new();
    assert_eq!(store.put(PutRequest::new("", "1")), Err(KvError::EmptyKey));
    let long = vec![0; KEY_BYTES_MAX];
    store.put(PutRequest::new(long.clone(), "1")).unwrap();
    store.put(PutRequest::new(long, "2")).unwrap();
    let too_long = vec![0; KEY_BYTES_MAX + 1];
    let error = KvError::KeyTooLong { bytes: KEY_BYTES_MAX + 1 };
    assert_eq!(store.put(PutRequest::new(too_long, "1")), Err(error));
}

#[test]
fn a_range_end_before_the_start_means_no_keys() {
    let mut store = store_of(&[("a", "1"), ("b", "2")]);
    let request = RangeRequest { range_end: "a".into(), ..RangeRequest::key("b") };
    assert_eq!(store.range(&request).unwrap().count, 0);
    let request = DeleteRangeRequest { range_end: "a".into(), ..DeleteRangeRequest::key("b") };
    assert_eq!(store.delete(request).unwrap().deleted, 0);
}

#[test]
fn the_first_created_key_is_found_among_many() {
    // How locks and elections find their holder.
    let mut store = Fixture::new();
    for number in (0..3000).rev() {
        store.put(PutRequest::new(format!("lock/{number:05}"), "")).unwrap();
    }
    let request = RangeRequest {
        limit: 1,
        sort_order: SortOrder::Ascend,
        sort_target: SortTarget::Create,
        ..RangeRequest::prefix("lock/")
    };
    let response = store.range(&request).unwrap();
    assert_eq!(response.kvs[0].key, "lock/02999");
    assert_eq!((response.count, response.more), (3000, true));
}

#[test]
fn events_of_one_revision_are_never_split() {
    let mut store = store_of(&[("a", "1"), ("b", "2"), ("c", "3")]);
    store.delete(DeleteRangeRequest::prefix("")).unwrap();
    store.put(PutRequest::new("d", "4")).unwrap();
    let everything = KeySpan::From("a".into());
    let first = store.history(everything.clone(), 5, 1).unwrap();
    assert_eq!((first.events.len(), first.next), (3, Revision(6)));
    let second = store.history(everything, first.next.get(), 1).unwrap();
    assert_eq!((second.events.len(), second.next), (1, Revision(7)));
}

#[test]
fn two_replicas_that_apply_the_same_hold_the_same() {
    let commands = [
        Command::Put(PutRequest::new("a", "1")),
        Command::LeaseGrant(crate::LeaseGrantRequest { id: LeaseId::NONE, ttl_seconds: 5 }),
        Command::LeaseGrant(crate::LeaseGrantRequest { id: LeaseId::NONE, ttl_seconds: 5 }),
        Command::DeleteRange(DeleteRangeRequest::key("a")),
    ];
    let mut one = Fixture::new();
    let mut other = Fixture::new();
    for command in &commands {
        assert_eq!(one.apply(command), other.apply(command));
        other = other.restarted();
    }
}
