//! Random commands on the store and on the model: same answers, same states, same history.

use bytes::Bytes;
use onefold_types::Revision;
use proptest::collection::vec;
use proptest::prelude::*;

use super::Fixture;
use super::model::Model;
use crate::store::command::{Answer, Command};
use crate::store::{check, counts};
use crate::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, Event, KeySpan, KvError,
    LeaseGrantRequest, LeaseId, Operation, PutRequest, RangeRequest, SortOrder, SortTarget,
    TxnRequest,
};

/// One step of a run.
#[derive(Clone, Debug)]
enum Step {
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Range(RangeRequest),
    /// Compacts to this share of the way from the compacted to the current revision.
    Compact(u8),
    Sweep(u32),
    Grant(LeaseId),
    Revoke(LeaseId),
    Restart,
}

fn key() -> impl Strategy<Value = Bytes> {
    // Few keys, so that they meet; zero and 0xff bytes, because they are the edges of the order.
    let keys: [&'static [u8]; 7] = [b"a", b"a\0", b"a\0b", b"ab", b"b", b"\0", b"\xff"];
    proptest::sample::select(keys.to_vec()).prop_map(Bytes::from_static)
}

fn span() -> impl Strategy<Value = (Bytes, Bytes)> {
    prop_oneof![
        4 => key().prop_map(|key| (key, Bytes::new())),
        3 => (key(), key()),
        1 => key().prop_map(|key| (key, Bytes::from_static(&[0]))),
        1 => Just((Bytes::from_static(&[0]), Bytes::from_static(&[0]))),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    proptest::sample::select(&["", "x", "y", "zz"][..]).prop_map(Bytes::from)
}

fn lease() -> impl Strategy<Value = LeaseId> {
    (1..4_i64).prop_map(LeaseId)
}

fn rarely<T: Clone + std::fmt::Debug + 'static>(
    some: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Option<T>> {
    prop_oneof![5 => Just(None), 1 => some.prop_map(Some)].boxed()
}

fn put() -> impl Strategy<Value = PutRequest> {
    let flags = (any::<bool>(), rarely(Just(())), rarely(Just(())));
    (key(), value(), rarely(lease()), flags).prop_map(|(key, value, lease, flags)| {
        let (prev_kv, ignore_value, ignore_lease) = flags;
        let (ignore_value, ignore_lease) = (ignore_value.is_some(), ignore_lease.is_some());
        PutRequest {
            key,
            value: if ignore_value { Bytes::new() } else { value },
            lease: lease.filter(|_| !ignore_lease).unwrap_or_default(),
            prev_kv,
            ignore_value,
            ignore_lease,
        }
    })
}

fn delete() -> impl Strategy<Value = DeleteRangeRequest> {
    (span(), any::<bool>()).prop_map(|((key, range_end), prev_kv)| DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

fn range() -> impl Strategy<Value = RangeRequest> {
    let orders = [SortOrder::None, SortOrder::Ascend, SortOrder::Descend];
    let targets = [
        SortTarget::Key,
        SortTarget::Version,
        SortTarget::Create,
        SortTarget::Mod,
        SortTarget::Value,
    ];
    let revision = || (0..40_u64).prop_map(Revision);
    let bounds = (rarely(revision()), rarely(revision()), rarely(revision()), rarely(revision()));
    let sort =
        (proptest::sample::select(orders.to_vec()), proptest::sample::select(targets.to_vec()));
    let flags = (rarely(Just(())), rarely(Just(())));
    (span(), 0..5_u64, rarely(revision()), sort, bounds, flags).prop_map(
        |((key, range_end), limit, revision, (sort_order, sort_target), bounds, flags)| {
            RangeRequest {
                key,
                range_end,
                limit,
                revision: revision.unwrap_or_default(),
                sort_order,
                sort_target,
                serializable: false,
                keys_only: flags.0.is_some(),
                count_only: flags.1.is_some(),
                min_mod_revision: bounds.0,
                max_mod_revision: bounds.1,
                min_create_revision: bounds.2,
                max_create_revision: bounds.3,
            }
        },
    )
}

fn compare() -> impl Strategy<Value = Compare> {
    let results = [
        CompareResult::Equal,
        CompareResult::Greater,
        CompareResult::Less,
        CompareResult::NotEqual,
    ];
    let number = -1..20_i64;
    let target = prop_oneof![
        (-1..4_i64).prop_map(CompareTarget::Version),
        number.clone().prop_map(CompareTarget::CreateRevision),
        number.prop_map(CompareTarget::ModRevision),
        value().prop_map(CompareTarget::Value),
        (-1..4_i64).prop_map(|id| CompareTarget::Lease(LeaseId(id))),
    ];
    (span(), proptest::sample::select(results.to_vec()), target)
        .prop_map(|((key, range_end), result, target)| Compare { result, target, key, range_end })
}

fn operation() -> impl Strategy<Value = Operation> {
    let leaf = prop_oneof![
        2 => range().prop_map(Operation::Range),
        3 => put().prop_map(Operation::Put),
        1 => delete().prop_map(Operation::DeleteRange),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        (vec(compare(), 0..2), vec(inner.clone(), 0..3), vec(inner, 0..3)).prop_map(
            |(compare, success, failure)| Operation::Txn(TxnRequest { compare, success, failure }),
        )
    })
}

fn txn() -> impl Strategy<Value = TxnRequest> {
    let branch = || vec(operation(), 0..4);
    (vec(compare(), 0..3), branch(), branch()).prop_map(|(compare, success, failure)| TxnRequest {
        compare,
        success,
        failure,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => put().prop_map(Step::Put),
        3 => delete().prop_map(Step::Delete),
        6 => txn().prop_map(Step::Txn),
        6 => range().prop_map(Step::Range),
        1 => any::<u8>().prop_map(Step::Compact),
        2 => (1..6_u32).prop_map(Step::Sweep),
        2 => lease().prop_map(Step::Grant),
        1 => lease().prop_map(Step::Revoke),
        1 => Just(Step::Restart),
    ]
}

/// Runs one step on both and compares what they answer.
fn run(mut store: Fixture, model: &mut Model, step: &Step) -> Fixture {
    match step {
        Step::Put(request) => assert_eq!(store.put(request.clone()), model.put(request)),
        Step::Delete(request) => assert_eq!(store.delete(request.clone()), model.delete(request)),
        Step::Txn(request) => {
            let wanted = match check::txn(request) {
                Ok(()) => model.txn(request),
                Err(error) => Err(error),
            };
            assert_eq!(store.txn(request.clone()), wanted);
        }
        Step::Range(request) => assert_eq!(store.range(request), model.range(request)),
        Step::Compact(share) => {
            let way = model.revision() - model.compacted;
            let to = model.compacted + way * u64::from(*share) / 255;
            assert_eq!(store.compact(to), model.compact(to));
        }
        Step::Sweep(events_max) => {
            store.apply(&Command::Sweep { events_max: *events_max }).unwrap();
        }
        Step::Grant(id) => {
            let request = LeaseGrantRequest { id: *id, ttl_seconds: 10 };
            let is_new = model.leases.insert(*id);
            match store.apply(&Command::LeaseGrant(request)) {
                Ok(Answer::LeaseGrant(response)) => assert!(is_new && response.id == *id),
                Err(error) => assert!(!is_new && error == KvError::LeaseExists { id: *id }),
                Ok(other) => panic!("a grant was answered with {other:?}"),
            }
        }
        Step::Revoke(id) => {
            let answer = match store.apply(&Command::LeaseRevoke(*id)) {
                Ok(Answer::LeaseRevoke(response)) => Ok(response.header.revision.get()),
                Err(error) => Err(error),
                Ok(other) => panic!("a revocation was answered with {other:?}"),
            };
            assert_eq!(answer, model.revoke(*id));
        }
        Step::Restart => return store.restarted(),
    }
    assert_eq!(store.revision(), model.revision());
    store
}

/// Every readable revision, by every kind of span.
fn same_states(store: &Fixture, model: &Model) {
    let ends: [&'static [u8]; 4] = [b"", b"\0", b"b", b"a\0"];
    for revision in model.compacted.max(1)..=model.revision() {
        for key in [&b"\0"[..], b"a", b"a\0b"] {
            for range_end in ends {
                let request = RangeRequest {
                    key: Bytes::from_static(key),
                    range_end: Bytes::from_static(range_end),
                    revision: Revision(revision),
                    ..RangeRequest::default()
                };
                assert_eq!(store.range(&request), model.range(&request), "at {revision}");
            }
        }
    }
}

/// What watchers from every revision on are told.
fn same_history(store: &Fixture, model: &Model) {
    let everything = KeySpan::From(Bytes::from_static(&[0]));
    for from in 1..=model.revision() + 1 {
        let found = store.history(everything.clone(), from, usize::MAX);
        if from < model.compacted {
            assert!(matches!(found, Err(KvError::Compacted { .. })), "from {from}: {found:?}");
            continue;
        }
        let found = found.unwrap();
        let wanted = model.events.range(from..).flat_map(|(revision, events)| {
            // What was superseded by the compacted revision itself may be gone.
            events
                .iter()
                .filter(move |event| *revision > model.compacted || !is_gone_at(events, event))
        });
        let wanted: Vec<Event> = wanted.cloned().collect();
        let forget = |events: &[Event]| -> Vec<Event> {
            events
                .iter()
                .cloned()
                .map(|mut event| {
                    if event.kv.mod_revision.get() <= model.compacted {
                        event.prev_kv = None;
                    }
                    event
                })
                .collect()
        };
        assert_eq!(forget(&found.events), forget(&wanted), "from {from}");
        assert_eq!(found.next.get(), from.max(model.revision() + 1));
    }
}

/// What the store says of its room is what its records take.
pub(super) fn same_usage(store: &Fixture) {
    use onefold_table::{KeyRange, Order, View};
    let usage = crate::store::state::State::read(&store.view()).unwrap().usage;
    let bytes = |kinds: &[u8]| -> usize {
        let view = store.view();
        let of = |kind: &u8| -> usize {
            let scan = view.scan(KeyRange::prefix(&[*kind]), Order::Ascending);
            scan.map(|pair| pair.unwrap()).map(|(key, value)| key.len() + value.len()).sum()
        };
        kinds.iter().map(of).sum()
    };
    assert_eq!(usage.keys, store.records(b'c') as u64);
    let everything = KeySpan::From(Bytes::from_static(&[0]));
    assert_eq!(counts::count(&store.view(), &everything).unwrap(), usage.keys);
    assert_eq!(usage.live_bytes, bytes(b"clk") as u64);
    assert_eq!(usage.history_bytes, bytes(b"oh") as u64);
}

/// Whether a later event of the same revision deleted what this one wrote.
fn is_gone_at(events: &[Event], event: &Event) -> bool {
    let written = &event.kv;
    events.iter().any(|later| later.prev_kv.as_ref() == Some(written))
}

proptest! {
    #[test]
    fn the_store_does_what_the_model_does(steps in vec(step(), 1..40)) {
        let mut store = Fixture::new();
        let mut model = Model::new();
        for step in &steps {
            store = run(store, &mut model, step);
            same_usage(&store);
        }
        same_states(&store, &model);
        store.sweep();
        same_states(&store, &model);
        same_usage(&store);
        same_history(&store, &model);
        prop_assert_eq!(store.records(b'o'), model.superseded());
        let events = model.events.range(model.compacted..).map(|(_, events)| events.len());
        prop_assert_eq!(store.records(b'h'), events.sum::<usize>());
        prop_assert_eq!(store.records(b'c'), model.revisions[&model.revision()].len());
        let attached = model.revisions[&model.revision()].values();
        prop_assert_eq!(store.records(b'k'), attached.filter(|kv| kv.lease.is_some()).count());
        prop_assert_eq!(store.records(b'l'), model.leases.len());
    }

    #[test]
    fn watchers_hear_live_what_history_tells_later(steps in vec(step(), 1..30)) {
        let mut store = Fixture::new();
        let mut model = Model::new();
        let mut live = Vec::new();
        for step in steps.iter().filter(|step| !matches!(step, Step::Compact(_) | Step::Restart)) {
            store = run(store, &mut model, step);
            for round in store.heard.lock().unwrap().drain(..) {
                for revision in round.revisions {
                    prop_assert_eq!(revision.revision.get(), live.len() as u64 + 2);
                    live.push(revision.events);
                }
            }
        }
        let everything = KeySpan::From(Bytes::from_static(&[0]));
        let told = store.history(everything, 1, usize::MAX).unwrap();
        prop_assert_eq!(told.events, live.concat());
    }

    #[test]
    fn a_round_of_many_commands_is_the_same_as_many_rounds(steps in vec(step(), 1..20)) {
        let commands: Vec<Command> = steps.iter().filter_map(|step| match step {
            Step::Put(request) => Some(Command::Put(request.clone())),
            Step::Delete(request) => Some(Command::DeleteRange(request.clone())),
            Step::Txn(request) => Some(Command::Txn(request.clone())),
            Step::Grant(id) => Some(Command::LeaseGrant(LeaseGrantRequest {
                id: *id,
                ttl_seconds: 10,
            })),
            Step::Revoke(id) => Some(Command::LeaseRevoke(*id)),
            Step::Sweep(events_max) => Some(Command::Sweep { events_max: *events_max }),
            Step::Compact(to) => Some(Command::Compact(Revision(u64::from(*to) % 8))),
            Step::Range(_) | Step::Restart => None,
        }).collect();
        let mut one = Fixture::new();
        let mut many = Fixture::new();
        let outcomes = one.apply_round(&commands);
        for (command, outcome) in commands.iter().zip(outcomes) {
            prop_assert_eq!(many.apply(command), outcome);
        }
        let pairs = |store: &Fixture| -> Vec<(Bytes, Bytes)> {
            use onefold_table::{KeyRange, Order, View};
            store.view().scan(KeyRange::all(), Order::Ascending).map(|pair| pair.unwrap()).collect()
        };
        prop_assert_eq!(pairs(&one), pairs(&many));
    }

    #[test]
    fn pages_of_any_size_make_the_whole_range(
        steps in vec(put(), 1..20), bytes_max in 0..8_usize, revision in 0..4_u64,
    ) {
        let mut store = Fixture::new();
        for put in steps {
            let _ = store.put(put);
        }
        let revision = Revision(revision.min(store.revision()));
        let whole = RangeRequest { revision, ..RangeRequest::prefix(Bytes::new()) };
        let whole_kvs = store.range(&whole).unwrap().kvs;
        let mut request = whole;
        let mut kvs = Vec::new();
        loop {
            let page = store.page(&request, bytes_max).unwrap();
            kvs.extend(page.response.kvs);
            if !page.cut {
                break;
            }
            let last: &crate::KeyValue = kvs.last().unwrap();
            request.key = [&last.key[..], b"\0"].concat().into();
        }
        prop_assert_eq!(kvs, whole_kvs);
    }
}
