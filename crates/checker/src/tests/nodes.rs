//! Nodes that disagree.

use onefold_types::Revision;

use super::{assert_broken, good};
use crate::Promise;

#[test]
fn a_node_that_holds_another_value_is_found() {
    let mut story = good();
    story.history.copies[1].records[0].value = "other".to_owned();
    assert_broken(&story, &[Promise::NodesAgree]);
}

#[test]
fn a_node_that_lacks_a_key_is_found() {
    let mut story = good();
    story.history.copies[1].records.pop();
    assert_broken(&story, &[Promise::NodesAgree]);
}

#[test]
fn nodes_whose_hashes_differ_are_found() {
    let mut story = good();
    story.history.copies[1].hash = Some((Revision(1), 2));
    assert_broken(&story, &[Promise::NodesAgree]);
    // Those of other stretches cannot be compared.
    story.history.copies[1].hash = Some((Revision(3), 2));
    assert_broken(&story, &[]);
}

#[test]
fn a_node_that_tells_another_history_is_found() {
    let mut story = good();
    story.history.readings[1].events.remove(2);
    assert_broken(&story, &[Promise::NodesAgree]);
}

#[test]
fn versions_that_do_not_count_are_found() {
    let mut story = good();
    for reading in &mut story.history.readings {
        let record = reading.events[1].record.as_mut().expect("it is a write");
        record.version = 7;
    }
    let verdict = story.judge().expect("it can be judged");
    assert!(verdict.violations.iter().any(|v| v.promise == Promise::WellFormed));
}
