//! Answers, revisions and real time.

use onefold_types::Revision;

use super::fixture::{Story, answered_value, put};
use super::{assert_broken, good};
use crate::Promise;
use crate::history::{Accounts, Action, Answer, Outcome, Refusal, Span};

#[test]
fn a_stale_read_is_not_linearizable_and_not_in_real_time() {
    let mut story = Story::new();
    story.put("r/1", "a");
    story.put("r/1", "b");
    let read = story.get("r/1");
    story.operation(read).outcome = answered_value(Revision(2), "r/1", "a", 2);
    assert_broken(&story, &[Promise::Linearizable, Promise::RealTime]);
    story.operation(read).action =
        Action::Range { span: Span::key("r/1"), at: None, serializable: true };
    assert_broken(&story, &[]);
}

#[test]
fn a_read_that_mislabels_what_it_saw_cannot_be_replayed() {
    let mut story = Story::new();
    story.put("r/1", "a");
    story.put("r/1", "b");
    let read = story.get("r/1");
    story.operation(read).outcome = answered_value(Revision(3), "r/1", "a", 2);
    assert_broken(&story, &[Promise::Linearizable, Promise::Replayable]);
}

#[test]
fn a_wrong_version_cannot_be_replayed() {
    let mut story = Story::new();
    story.put("r/1", "a");
    story.swap("r/1", "b");
    let swap = story.history.operations.len() - 1;
    let Outcome::Answered { answer: Answer::Put(Some(before)), .. } =
        &mut story.operation(swap).outcome
    else {
        panic!("a swap answers with what was before")
    };
    before.version = 2;
    assert_broken(&story, &[Promise::Replayable]);
}

#[test]
fn a_transaction_that_took_the_other_branch_is_found() {
    let mut story = Story::new();
    story.put("r/1", "a");
    let txn = story.compare_and_swap("r/1", "a", "b");
    story.operation(txn).outcome = Outcome::Answered {
        revision: Revision(3),
        answer: Answer::Txn { succeeded: false, answers: vec![Answer::Range(Vec::new())] },
    };
    // It says that it wrote nothing, and it did.
    assert_broken(&story, &[Promise::Linearizable, Promise::Replayable, Promise::Caused]);
}

#[test]
fn an_acknowledged_write_that_history_lacks_is_lost() {
    let mut story = good();
    let place = story.history.operations.len();
    story.put("r/1", "z");
    for reading in &mut story.history.readings {
        reading.events.pop();
    }
    story.history.end = Revision(story.revision().get() - 1);
    for reading in &mut story.history.readings {
        reading.until = story.history.end;
    }
    for copy in &mut story.history.copies {
        copy.records.retain(|record| record.key != "r/1");
        copy.revision = story.history.end;
    }
    assert!(story.operation(place).answered().is_some());
    assert_broken(&story, &[Promise::Durable]);
}

#[test]
fn a_revision_that_history_skips_is_lost() {
    let mut story = good();
    for reading in &mut story.history.readings {
        reading.events.retain(|event| event.revision != Revision(3));
    }
    let verdict = story.judge().expect("it can be judged");
    assert!(verdict.violations.iter().any(|v| v.promise == Promise::Durable));
}

#[test]
fn a_revision_is_given_to_one_request() {
    let mut story = Story::new();
    story.put("k", "a");
    story.act_unknown(put("k", "b", 0, false), false);
    story.operation(1).outcome =
        Outcome::Answered { revision: Revision(2), answer: Answer::Put(None) };
    assert_broken(&story, &[Promise::RevisionUnique, Promise::RealTime]);
}

#[test]
fn a_write_that_is_executed_twice_is_found() {
    let mut story = Story::new();
    story.put("k", "a");
    story.appear("k", "a");
    assert_broken(&story, &[Promise::ExecutedOnce]);
    let mut story = Story::new();
    story.put_unknown("k", "a", true);
    story.appear("k", "a");
    assert_broken(&story, &[Promise::ExecutedOnce]);
}

#[test]
fn what_nobody_asked_for_is_found() {
    let mut story = Story::new();
    story.put("k", "a");
    story.appear("k", "b");
    assert_broken(&story, &[Promise::Caused]);
    let mut story = Story::new();
    story.put("k", "a");
    story.vanish("k");
    assert_broken(&story, &[Promise::Caused]);
}

#[test]
fn a_deletion_whose_answer_was_lost_explains_what_vanished() {
    let mut story = Story::new();
    story.put("k", "a");
    story.act_unknown(Action::Delete { span: Span::key("k"), previous: false }, true);
    assert_broken(&story, &[]);
    // But not what had vanished before it was asked for.
    let mut story = Story::new();
    story.put("k", "a");
    story.vanish("k");
    story.get("other");
    story.act_unknown(Action::Delete { span: Span::key("k"), previous: false }, false);
    assert_broken(&story, &[Promise::Caused]);
}

#[test]
fn what_was_refused_must_not_happen() {
    let mut story = Story::new();
    story.put_unknown("k", "a", true);
    story.operation(0).outcome = Outcome::Refused(Refusal::Other("too large".to_owned()));
    assert_broken(&story, &[Promise::Caused]);
}

#[test]
fn an_unknown_write_does_all_or_nothing() {
    let mut story = Story::new();
    let both = Action::Txn {
        compares: Vec::new(),
        success: vec![put("a", "1", 0, false), put("b", "2", 0, false)],
        failure: Vec::new(),
    };
    story.act_unknown(both, false);
    story.appear("a", "1");
    assert_broken(&story, &[Promise::Replayable]);
}

#[test]
fn an_unknown_write_does_not_happen_before_it_is_asked() {
    let mut story = Story::new();
    story.appear("k", "a");
    story.get("k");
    story.put_unknown("k", "a", false);
    assert_broken(&story, &[Promise::RealTime]);
}

#[test]
fn refusals_have_their_reason() {
    let refused = |at, refusal| {
        let mut story = good();
        let read = story.get_at("r/1", 2);
        story.operation(read).action =
            Action::Range { span: Span::key("r/1"), at: Some(Revision(at)), serializable: false };
        story.operation(read).outcome = Outcome::Refused(refusal);
        story
    };
    assert_broken(&refused(2, Refusal::Compacted), &[]);
    assert_broken(&refused(3, Refusal::Compacted), &[Promise::RefusedRightly]);
    assert_broken(&refused(3, Refusal::Future), &[Promise::RefusedRightly]);
    assert_broken(&refused(99, Refusal::Future), &[]);
}

#[test]
fn what_is_compacted_is_not_served() {
    let mut story = good();
    story.get_at("r/1", 2);
    assert_broken(&story, &[Promise::RefusedRightly]);
}

#[test]
fn a_sum_that_is_not_kept_is_found() {
    let transfer = |story: &mut Story, a: &str, b: &str| {
        let success = vec![put("a/1", a, 0, false), put("a/2", b, 0, false)];
        story.act(Action::Txn { compares: Vec::new(), success, failure: Vec::new() });
    };
    let mut story = Story::new();
    story.history.accounts = Some(Accounts { span: Span::prefix("a/"), total: 100, count: 2 });
    transfer(&mut story, "50:1", "50:2");
    transfer(&mut story, "30:3", "70:4");
    assert_broken(&story, &[]);
    transfer(&mut story, "30:5", "80:6");
    assert_broken(&story, &[Promise::SumKept]);
}
