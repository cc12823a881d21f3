//! The checkers are checked: a history that is good, and for each promise one that breaks it.

mod answers;
mod fixture;
mod leases;
mod nodes;
mod watches;

use fixture::Story;

use crate::findings::Findings;
use crate::{Promise, Unjudged, registers};

/// A history in which everything happens and nothing is wrong.
fn good() -> Story {
    let mut story = Story::new();
    story.put("r/1", "a");
    story.swap("r/1", "b");
    story.compare_and_swap("r/1", "b", "c");
    story.compare_and_swap("r/1", "x", "d");
    story.get("r/1");
    story.delete("r/1");
    story.get_at("r/1", 3);
    story.compact(3);
    story.grant(7, 2);
    story.put_with_lease("l/1", "e", 7);
    story.put_with_lease("l/2", "f", 7);
    story.wait_seconds(3);
    story.end_lease(7);
    story.put_unknown("r/2", "g", true);
    story.put_unknown("r/2", "h", false);
    story.get("r/2");
    story
}

#[test]
fn a_good_history_is_found_good() {
    let story = good();
    let verdict = story.judge().expect("it can be judged");
    assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
    let looked = verdict.looked;
    assert_eq!((looked.unknown, looked.unknown_executed), (2, 1));
    assert_eq!((looked.lease_ends, looked.registers, looked.copies), (1, 2, 2));
    assert_eq!(looked.revisions, 8);
}

#[test]
fn a_history_that_was_not_read_back_is_not_judged() {
    let mut story = good();
    story.history.readings[0].until = story.history.begin;
    story.history.readings.truncate(1);
    assert!(story.judge().is_err());
    let mut story = good();
    story.history.copies.clear();
    assert!(story.judge().is_err());
}

#[test]
fn values_that_two_operations_write_are_not_judged() {
    let mut story = good();
    story.put("r/3", "a");
    assert!(story.judge().is_err());
}

#[test]
fn a_used_up_budget_is_not_a_pass() {
    let mut story = Story::new();
    // All of them overlap, and the last read fits to none of the orders.
    story.together(|story| (0..40).for_each(|n| story.put("r/1", &format!("v{n}"))));
    let read = story.get("r/1");
    story.operation(read).outcome = fixture::answered_value(story.revision(), "r/1", "v0", 2);
    let searched = registers::check(&story.history, 1_000, &mut Findings::default());
    let Err(Unjudged(reason)) = searched else { panic!("nothing was proven") };
    assert!(reason.contains("nothing is proven"), "{reason}");
}

/// Asserts that exactly the given promises are broken.
#[track_caller]
fn assert_broken(story: &Story, expected: &[Promise]) {
    let verdict = story.judge().expect("it can be judged");
    let mut broken: Vec<Promise> = verdict.violations.iter().map(|v| v.promise).collect();
    broken.sort();
    broken.dedup();
    assert_eq!(broken, expected, "{:#?}", verdict.violations);
}
