//! Transactions, case by case.

use onefold_types::Revision;

use super::Fixture;
use crate::limits::{TXN_LEVELS_MAX, TXN_OPERATIONS_LIMIT};
use crate::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, KvError, Operation,
    OperationResponse, PutRequest, RangeRequest, TxnRequest,
};

fn put(key: &'static str, value: &'static str) -> Operation {
    Operation::Put(PutRequest::new(key, value))
}

fn delete(key: &'static str, range_end: &'static str) -> Operation {
    let request =
        DeleteRangeRequest { range_end: range_end.into(), ..DeleteRangeRequest::key(key) };
    Operation::DeleteRange(request)
}

fn get(key: &'static str) -> Operation {
    Operation::Range(RangeRequest::key(key))
}

fn always(success: Vec<Operation>) -> TxnRequest {
    TxnRequest { success, ..TxnRequest::default() }
}

fn nested(success: Vec<Operation>, failure: Vec<Operation>) -> Operation {
    Operation::Txn(TxnRequest { compare: Vec::new(), success, failure })
}

#[test]
fn a_create_if_absent_is_won_once() {
    let mut store = Fixture::new();
    let create = TxnRequest {
        compare: vec![Compare::absent("lock")],
        success: vec![put("lock", "mine")],
        failure: vec![get("lock")],
    };
    assert!(store.txn(create.clone()).unwrap().succeeded);
    let second = store.txn(create).unwrap();
    assert!(!second.succeeded);
    assert_eq!(second.header.revision, Revision(2), "a branch that only reads makes no revision");
    match &second.responses[0] {
        OperationResponse::Range(response) => assert_eq!(response.kvs[0].value, "mine"),
        other => panic!("a range was answered with {other:?}"),
    }
}

#[test]
fn all_of_a_transaction_is_one_revision_in_order() {
    let mut store = Fixture::new();
    let request = always(vec![put("b", "1"), put("a", "1"), get("a")]);
    let response = store.txn(request).unwrap();
    assert_eq!(response.header.revision, Revision(2));
    match &response.responses[2] {
        OperationResponse::Range(range) => assert_eq!(range.kvs[0].mod_revision, Revision(2)),
        other => panic!("a range was answered with {other:?}"),
    }
    let heard = store.heard.lock().unwrap();
    let events = &heard[0].revisions[0].events;
    let keys: Vec<_> = events.iter().map(|event| event.kv.key.clone()).collect();
    assert_eq!(keys, ["b", "a"]);
}

#[test]
fn conditions_see_the_state_before_the_transaction_even_within() {
    let mut store = Fixture::new();
    let inner = TxnRequest {
        compare: vec![Compare::absent("a")],
        success: vec![put("inner", "saw nothing")],
        failure: vec![put("inner", "saw a")],
    };
    store.txn(always(vec![put("a", "1"), Operation::Txn(inner)])).unwrap();
    let wanted = [("inner".to_owned(), "saw nothing".to_owned())];
    assert_eq!(store.pairs(&RangeRequest::key("inner")), wanted);
}

#[test]
fn a_condition_over_a_span_must_hold_for_each_key() {
    let mut store = Fixture::new();
    store.put(PutRequest::new("p/a", "1")).unwrap();
    store.put(PutRequest::new("p/b", "2")).unwrap();
    let over = |target, result| TxnRequest {
        compare: vec![Compare { range_end: "p0".into(), ..Compare::new("p/", result, target) }],
        ..TxnRequest::default()
    };
    let newer = over(CompareTarget::ModRevision(1), CompareResult::Greater);
    assert!(store.txn(newer).unwrap().succeeded);
    let newer = over(CompareTarget::ModRevision(2), CompareResult::Greater);
    assert!(!store.txn(newer).unwrap().succeeded);
}

#[test]
fn the_value_of_a_key_that_does_not_exist_compares_with_nothing() {
    let mut store = Fixture::new();
    for result in [CompareResult::Equal, CompareResult::NotEqual, CompareResult::Less] {
        let compare = vec![Compare::new("a", result, CompareTarget::Value("".into()))];
        let request = TxnRequest { compare, ..TxnRequest::default() };
        assert!(!store.txn(request).unwrap().succeeded, "{result:?}");
    }
}

#[test]
fn a_key_is_written_once_in_each_branch() {
    let cases = [
        (vec![put("a", "1"), put("a", "2")], false),
        (vec![put("b", "1"), delete("a", "c")], false),
        (vec![put("b", "1"), delete("a", "\0")], false),
        (vec![delete("a", "c"), delete("b", "")], true),
        (vec![put("a", "1"), nested(vec![put("a", "2")], vec![])], false),
        (vec![nested(vec![put("a", "1")], vec![put("a", "2")])], true),
        (vec![nested(vec![put("a", "1")], vec![]), nested(vec![], vec![put("a", "2")])], false),
        (vec![nested(vec![delete("a", "")], vec![]), put("a", "1")], false),
    ];
    for (operations, is_allowed) in cases {
        let mut store = Fixture::new();
        let answer = store.txn(always(operations.clone()));
        if is_allowed {
            answer.unwrap();
        } else {
            assert_eq!(answer, Err(KvError::DuplicateKey), "{operations:?}");
            assert_eq!(store.revision(), 1);
        }
    }
}

#[test]
fn a_key_put_and_deleted_by_two_inner_transactions_leaves_both_events() {
    let mut store = Fixture::new();
    let first = nested(vec![put("a", "1")], vec![]);
    let second = nested(vec![delete("a", "")], vec![]);
    store.txn(always(vec![first, second])).unwrap();
    assert_eq!(store.pairs(&RangeRequest::key("a")), []);
    let span = crate::KeySpan::One("a".into());
    let told = store.history(span, 2, usize::MAX).unwrap().events;
    assert_eq!(told.len(), 2);
    assert_eq!(told[1].prev_kv.as_ref(), Some(&told[0].kv));
    assert_eq!(told, store.heard.lock().unwrap()[0].revisions[0].events);
}

#[test]
fn operations_are_counted_over_all_levels() {
    let puts = |count: usize, prefix: &str| -> Vec<Operation> {
        let put = |number| Operation::Put(PutRequest::new(format!("{prefix}{number}"), ""));
        (0..count).map(put).collect()
    };
    let mut store = Fixture::new();
    store.txn(always(puts(TXN_OPERATIONS_LIMIT, "a"))).unwrap();
    let too_many = Err(KvError::TooManyOperations);
    assert_eq!(store.txn(always(puts(TXN_OPERATIONS_LIMIT + 1, "b"))), too_many);
    let deep = |inner: usize| always(vec![nested(puts(inner, "c"), vec![])]);
    store.txn(deep(TXN_OPERATIONS_LIMIT - 1)).unwrap();
    assert_eq!(store.txn(deep(TXN_OPERATIONS_LIMIT)), too_many);
    assert_eq!(deep(7).operations(), 8, "its own, and those within");
    let levels = |count: usize| {
        (1..count).fold(always(vec![]), |inner, _| always(vec![Operation::Txn(inner)]))
    };
    store.txn(levels(TXN_LEVELS_MAX)).unwrap();
    assert_eq!(store.txn(levels(TXN_LEVELS_MAX + 1)), too_many);
}

#[test]
fn a_fault_in_the_branch_that_runs_leaves_nothing_behind() {
    let mut store = Fixture::new();
    let late = Operation::Range(RangeRequest { revision: Revision(99), ..RangeRequest::key("a") });
    let future = KvError::FutureRevision { requested: Revision(99), current: Revision(1) };
    assert_eq!(store.txn(always(vec![put("a", "1"), late.clone()])), Err(future));
    assert_eq!(store.pairs(&RangeRequest::key("a")), []);
    let unused =
        TxnRequest { success: vec![put("a", "1")], failure: vec![late], ..TxnRequest::default() };
    store.txn(unused).unwrap();
}

#[test]
fn an_answer_too_large_for_the_log_leaves_nothing_behind() {
    let mut store = Fixture::new();
    for number in 0..9 {
        store.put(PutRequest::new(format!("big/{number}"), vec![7; 1 << 20])).unwrap();
    }
    let everything = Operation::Range(RangeRequest::prefix("big/"));
    let answer = store.txn(always(vec![put("a", "1"), everything]));
    assert_eq!(answer, Err(KvError::AnswerTooLarge));
    assert_eq!(store.pairs(&RangeRequest::key("a")), []);
    let request = DeleteRangeRequest { prev_kv: true, ..DeleteRangeRequest::prefix("big/") };
    assert_eq!(store.delete(request), Err(KvError::AnswerTooLarge));
    assert_eq!(store.range(&RangeRequest::prefix("big/")).unwrap().count, 9);
    assert_eq!(store.delete(DeleteRangeRequest::prefix("big/")).unwrap().deleted, 9);
}
