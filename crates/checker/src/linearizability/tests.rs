//! The checker is checked: histories that are known to be good or bad, and brute force.

use super::{
    Operation, Register,
    RegisterInput::{self, CompareAndSwap, Delete, Get, Put, Swap},
    RegisterOutput::{self, Did, Done, Value},
    Unproven, check, simplify,
};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

type Step = Operation<RegisterInput, RegisterOutput>;

const BUDGET: usize = 100_000;

fn known(input: RegisterInput, output: RegisterOutput, called: u64, returned: u64) -> Step {
    Operation { input, output: Some(output), called, returned }
}

fn unknown(input: RegisterInput, called: u64) -> Step {
    Operation { input, output: None, called, returned: u64::MAX }
}

fn is_good(history: &[Step]) -> bool {
    let mut simple = history.to_vec();
    simplify(&mut simple);
    let (is_good, is_simple_good) = (judge(history), judge(&simple));
    assert_eq!(is_good, is_simple_good, "{history:?}");
    is_good
}

fn judge(history: &[Step]) -> bool {
    match check(&Register, history, BUDGET) {
        Ok(()) => true,
        Err(Unproven::Violated { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn nothing_happened_in_order() {
    assert!(is_good(&[]));
    assert!(is_good(&[unknown(Put(1), 5)]));
}

#[test]
fn sequential_histories_are_those_of_the_register() {
    assert!(is_good(&[
        known(Get, Value(None), 1, 2),
        known(Put(1), Done, 3, 4),
        known(Get, Value(Some(1)), 5, 6),
        known(CompareAndSwap { expected: Some(1), new: 2 }, Did(true), 7, 8),
        known(CompareAndSwap { expected: Some(1), new: 3 }, Did(false), 9, 10),
        known(Swap(4), Value(Some(2)), 11, 12),
        known(Delete, Did(true), 13, 14),
        known(Delete, Did(false), 15, 16),
    ]));
}

#[test]
fn a_stale_read_is_found() {
    let history =
        [known(Put(1), Done, 1, 2), known(Put(2), Done, 3, 4), known(Get, Value(Some(1)), 5, 6)];
    assert_eq!(check(&Register, &history, BUDGET), Err(Unproven::Violated { at: 2 }));
}

#[test]
fn a_lost_write_is_found() {
    assert!(!is_good(&[known(Put(1), Done, 1, 2), known(Get, Value(None), 3, 4)]));
}

#[test]
fn concurrent_writes_may_take_any_order_but_only_one() {
    let writes = [known(Put(1), Done, 1, 10), known(Put(2), Done, 1, 10)];
    for value in [1, 2] {
        assert!(is_good(&[&writes[..], &[known(Get, Value(Some(value)), 11, 12)]].concat()));
    }
    let both = [known(Get, Value(Some(1)), 11, 12), known(Get, Value(Some(2)), 13, 14)];
    assert!(!is_good(&[&writes[..], &both].concat()));
}

#[test]
fn readers_never_see_time_go_back() {
    let write = known(Put(1), Done, 1, 10);
    let new_then_old =
        [write.clone(), known(Get, Value(Some(1)), 2, 3), known(Get, Value(None), 4, 5)];
    let old_then_new = [write, known(Get, Value(None), 2, 3), known(Get, Value(Some(1)), 4, 5)];
    assert!(!is_good(&new_then_old));
    assert!(is_good(&old_then_new));
}

#[test]
fn an_unknown_write_may_happen_late_or_never_but_not_early_or_twice() {
    let late =
        [unknown(Put(1), 1), known(Get, Value(None), 2, 3), known(Get, Value(Some(1)), 8, 9)];
    assert!(is_good(&late));
    assert!(is_good(&[unknown(Put(1), 1), known(Get, Value(None), 8, 9)]));
    assert!(!is_good(&[known(Get, Value(Some(1)), 1, 2), unknown(Put(1), 3)]));
    let twice = [
        unknown(Put(1), 1),
        known(Get, Value(Some(1)), 2, 3),
        known(Put(2), Done, 4, 5),
        known(Get, Value(Some(1)), 6, 7),
    ];
    assert!(!is_good(&twice));
}

#[test]
fn a_chain_of_unknown_operations_can_explain_an_answer() {
    let history = [
        unknown(Put(1), 1),
        unknown(CompareAndSwap { expected: Some(1), new: 2 }, 1),
        unknown(CompareAndSwap { expected: Some(2), new: 3 }, 1),
        known(Get, Value(Some(3)), 5, 6),
    ];
    assert!(is_good(&history));
    assert!(!is_good(&history[1..]));
}

#[test]
fn a_failed_comparison_sees_an_unknown_write() {
    let history = [
        known(Put(1), Done, 1, 2),
        unknown(Put(9), 3),
        known(CompareAndSwap { expected: Some(1), new: 2 }, Did(false), 4, 5),
        known(Put(1), Done, 6, 7),
        known(Get, Value(Some(1)), 8, 9),
    ];
    assert!(is_good(&history));
    assert!(!is_good(&[&history[..1], &history[2..]].concat()));
}

#[test]
fn operations_that_touch_are_concurrent() {
    assert!(is_good(&[known(Put(1), Done, 1, 5), known(Get, Value(None), 5, 6)]));
    assert!(!is_good(&[known(Put(1), Done, 1, 4), known(Get, Value(None), 5, 6)]));
}

#[test]
fn a_used_up_budget_is_no_proof() {
    let writes = (0..40).map(|value| known(Put(value), Done, 1, 100));
    let history: Vec<_> = writes.chain([known(Get, Value(Some(99)), 101, 102)]).collect();
    let used_up = check(&Register, &history, 1000);
    assert!(matches!(used_up, Err(Unproven::BudgetUsedUp { .. })), "{used_up:?}");
}

#[test]
fn many_unknown_writes_do_not_use_up_the_budget() {
    let mut history: Vec<_> = (0..200).map(|value| unknown(Put(1000 + value), 2 * value)).collect();
    for value in 0..200 {
        history.push(known(Put(value), Done, 1000 + 10 * value, 1005 + 10 * value));
        let read = Value(Some(if value % 7 == 0 { 1000 + value } else { value }));
        history.push(known(Get, read, 1006 + 10 * value, 1009 + 10 * value));
    }
    assert!(is_good(&history));
    history.push(known(Get, Value(Some(5)), 9000, 9001));
    assert!(!is_good(&history));
}

/// Tries every order and every choice of unknown operations that happened.
fn brute_force(history: &[Step], done: u32, state: Option<u64>) -> bool {
    let is_open = |place: usize| done & (1 << place) == 0;
    let known_open = |place: &usize| is_open(*place) && history[*place].output.is_some();
    let Some(first_return) =
        (0..history.len()).filter(known_open).map(|place| history[place].returned).min()
    else {
        return true;
    };
    (0..history.len()).filter(|&place| is_open(place)).any(|place| {
        let Operation { input, output, called, .. } = &history[place];
        let (after, answer) = super::Model::apply(&Register, &state, input);
        *called <= first_return
            && output.is_none_or(|output| output == answer)
            && brute_force(history, done | 1 << place, after)
    })
}

#[test]
fn random_histories_are_judged_as_by_brute_force() {
    let mut random = SmallRng::seed_from_u64(7);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..4000 {
        let length = random.random_range(2..=6);
        let history: Vec<Step> = (0..length).map(|_| random_step(&mut random)).collect();
        let expected = brute_force(&history, 0, None);
        *if expected { &mut good } else { &mut bad } += 1;
        assert_eq!(is_good(&history), expected, "{history:?}");
    }
    assert!(good > 500 && bad > 500, "{good} good and {bad} bad histories");
}

fn random_step(random: &mut SmallRng) -> Step {
    let value = random.random_range(1..=2);
    let seen = *[None, Some(1), Some(2)].choose(random).expect("it is not empty");
    let did = random.random_bool(0.5);
    let (input, output) = match random.random_range(0..=4) {
        0 => (Get, Value(seen)),
        1 => (Put(value), Done),
        2 => (Delete, Did(did)),
        3 => (CompareAndSwap { expected: seen, new: value }, Did(did)),
        _ => (Swap(value), Value(seen)),
    };
    let called = random.random_range(0..=12);
    let returned = called + random.random_range(0..=6);
    let output = if random.random_bool(0.25) { None } else { Some(output) };
    Operation { input, output, called, returned }
}
