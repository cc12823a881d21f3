//! Leases.

use super::assert_broken;
use super::fixture::Story;
use crate::Promise;
use crate::history::{Action, Outcome, Refusal, Span};

fn leased() -> Story {
    let mut story = Story::new();
    story.grant(7, 5);
    story.put_with_lease("l/1", "a", 7);
    story.put_with_lease("l/2", "b", 7);
    story
}

#[test]
fn a_lease_that_ends_before_its_time_is_found() {
    for (seconds, broken) in [(4, &[Promise::LeaseTime][..]), (6, &[])] {
        let mut story = leased();
        story.wait_seconds(seconds);
        story.end_lease(7);
        story.get("l/1");
        assert_broken(&story, broken);
    }
}

#[test]
fn a_clock_that_may_be_fast_may_end_a_lease_sooner() {
    for (seconds, broken) in [(3, &[Promise::LeaseTime][..]), (4, &[])] {
        let mut story = leased();
        story.history.clock_drift_ppm = 300_000;
        story.wait_seconds(seconds);
        story.end_lease(7);
        story.get("l/1");
        assert_broken(&story, broken);
    }
}

#[test]
fn a_deletion_whose_answer_was_lost_is_no_end_of_a_lease() {
    let mut story = Story::new();
    story.grant(7, 5);
    story.put_with_lease("l/1", "a", 7);
    story.act_unknown(Action::Delete { span: Span::key("l/1"), previous: false }, true);
    story.get("l/1");
    assert_broken(&story, &[]);
}

#[test]
fn a_keep_alive_gives_the_full_time_again() {
    let mut story = leased();
    story.wait_seconds(4);
    story.keep_alive(7, 5);
    story.wait_seconds(4);
    story.end_lease(7);
    story.get("l/1");
    assert_broken(&story, &[Promise::LeaseTime]);
}

#[test]
fn a_lease_that_was_revoked_may_end_at_once() {
    let mut story = leased();
    let revoke = story.act(Action::Revoke { lease: 7 });
    story.end_lease(7);
    story.get("l/1");
    assert_broken(&story, &[]);
    story.operation(revoke).outcome = Outcome::Unknown("no answer".to_owned());
    assert_broken(&story, &[]);
}

#[test]
fn a_lease_that_is_denied_while_it_must_live_is_found() {
    let mut story = leased();
    let place = story.history.operations.len();
    story.put_with_lease("l/3", "c", 7);
    story.end_lease(7);
    story.history.operations[place].outcome = Outcome::Refused(Refusal::LeaseNotFound);
    let verdict = story.judge().expect("it can be judged");
    assert!(verdict.violations.iter().any(|violation| {
        violation.promise == Promise::LeaseTime && violation.what.contains("denied")
    }));
    let mut story = leased();
    story.keep_alive(7, 0);
    story.wait_seconds(9);
    story.end_lease(7);
    assert_broken(&story, &[Promise::LeaseTime]);
}

#[test]
fn a_lease_that_takes_some_of_its_keys_is_found() {
    let mut story = leased();
    story.wait_seconds(6);
    story.vanish("l/1");
    story.vanish("l/2");
    assert_broken(&story, &[Promise::LeaseAtomic]);
}

#[test]
fn a_lease_that_never_ends_is_found() {
    let story = leased();
    assert_broken(&story, &[Promise::LeaseEnds]);
}
