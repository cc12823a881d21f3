//! Each promise of a watch, broken.

use onefold_types::{NodeId, Revision};

use super::fixture::{Story, message, put};
use super::{assert_broken, good};
use crate::Promise;
use crate::history::{Action, Event, Message, News, Span, Stream, Watch};

/// A history with a watcher that was told everything; its third revision has two events.
fn watched() -> Story {
    let mut story = Story::new();
    story.put("k1", "a");
    story.put("k1", "b");
    let success = vec![put("k1", "c", 0, false), put("k2", "d", 0, false)];
    story.act(Action::Txn { compares: Vec::new(), success, failure: Vec::new() });
    story.put("k3", "e");
    story.delete("k1");
    story.watch();
    story
}

fn watch(story: &mut Story) -> &mut Watch {
    &mut story.history.watches[0]
}

fn messages(story: &mut Story) -> &mut Vec<Message> {
    &mut story.history.watches[0].streams[0].messages
}

fn events(message: &mut Message) -> &mut Vec<Event> {
    match &mut message.news {
        News::Events { events, .. } => events,
        other => panic!("no events: {other:?}"),
    }
}

/// Breaks the stream after some messages; another node goes on with the others, from where it ended.
fn resume(story: &mut Story, after: usize) {
    let rest = messages(story).split_off(after);
    let start = Some(rest[0].revision);
    let mut all = vec![message(rest[0].at, 6, News::Created)];
    all.extend(rest);
    watch(story).streams.push(Stream { node: NodeId(2), start, messages: all });
}

#[test]
fn a_watch_that_is_told_everything_is_good() {
    let mut story = watched();
    assert_broken(&story, &[]);
    resume(&mut story, 3);
    assert_broken(&story, &[]);
    let mut story = good();
    story.watch();
    assert_broken(&story, &[]);
}

#[test]
fn events_out_of_order_are_found() {
    let mut story = watched();
    let messages = messages(&mut story);
    let later = events(&mut messages.remove(2)).clone();
    events(&mut messages[1]).splice(0..0, later);
    assert_broken(&story, &[Promise::WatchOrdered]);
}

#[test]
fn an_event_that_is_told_twice_is_found() {
    let mut story = watched();
    let again = messages(&mut story)[2].clone();
    messages(&mut story).insert(4, again);
    assert_broken(&story, &[Promise::WatchUnique]);
}

#[test]
fn an_event_that_is_left_out_is_found() {
    let mut story = watched();
    messages(&mut story).remove(2);
    assert_broken(&story, &[Promise::WatchReliable]);
}

#[test]
fn a_watch_that_falls_silent_is_found() {
    let mut story = watched();
    messages(&mut story).pop();
    assert_broken(&story, &[Promise::WatchReliable]);
}

#[test]
fn a_revision_that_is_split_is_found() {
    let mut story = watched();
    let now = story.now();
    let second = events(&mut messages(&mut story)[3]).split_off(1);
    let news = News::Events { events: second, is_fragment: false };
    messages(&mut story).insert(4, message(now, 4, news));
    assert_broken(&story, &[Promise::WatchAtomic]);
    // As fragments it may be.
    let News::Events { is_fragment, .. } = &mut messages(&mut story)[3].news else { panic!() };
    *is_fragment = true;
    assert_broken(&story, &[]);
}

#[test]
fn a_fragment_that_broke_off_is_told_again() {
    let mut story = watched();
    let whole = messages(&mut story)[3].clone();
    let first = &mut messages(&mut story)[3];
    events(first).truncate(1);
    let News::Events { is_fragment, .. } = &mut first.news else { panic!() };
    *is_fragment = true;
    messages(&mut story).insert(4, whole);
    resume(&mut story, 4);
    assert_broken(&story, &[]);
}

#[test]
fn a_gap_after_resuming_is_found() {
    let mut story = watched();
    resume(&mut story, 3);
    watch(&mut story).streams[1].messages.remove(1);
    assert_broken(&story, &[Promise::WatchResumable]);
}

#[test]
fn a_stream_that_begins_too_early_is_found() {
    let mut story = watched();
    let old = messages(&mut story)[2].clone();
    resume(&mut story, 3);
    watch(&mut story).streams[1].messages.insert(1, old);
    assert_broken(&story, &[Promise::WatchResumable]);
}

#[test]
fn a_refusal_to_resume_needs_a_compaction() {
    let mut story = watched();
    resume(&mut story, 3);
    let stream = &mut watch(&mut story).streams[1];
    let rest = stream.messages.split_off(1);
    stream.messages.push(message(u64::MAX, 6, News::Compacted { oldest: Revision(5) }));
    let start = Some(Revision(5));
    let messages = rest.into_iter().skip(1).collect();
    watch(&mut story).streams.push(Stream { node: NodeId(3), start, messages });
    assert_broken(&story, &[Promise::WatchResumable]);
    story.compact(5);
    assert_broken(&story, &[]);
}

#[test]
fn a_bookmark_that_covers_what_comes_later_is_found() {
    let mut story = watched();
    let at = messages(&mut story)[2].at;
    messages(&mut story).insert(2, message(at, 3, News::Progress));
    assert_broken(&story, &[Promise::WatchBookmarkable]);
    // One that comes after all that it covers is good.
    messages(&mut story).swap(2, 3);
    assert_broken(&story, &[]);
}

#[test]
fn a_bookmark_stands_for_what_others_watch() {
    let mut story = watched();
    watch(&mut story).span = Span::key("k3");
    let last = message(story.now(), 6, News::Progress);
    let third = messages(&mut story)[4].clone();
    *messages(&mut story) = vec![message(0, 1, News::Created), third, last];
    assert_broken(&story, &[]);
    messages(&mut story).pop();
    assert_broken(&story, &[Promise::WatchReliable]);
}

#[test]
fn an_event_that_did_not_happen_so_is_found() {
    let mut story = watched();
    let event = &mut events(&mut messages(&mut story)[4])[0];
    event.record.as_mut().expect("it is a write").value = "other".to_owned();
    assert_broken(&story, &[Promise::WatchTruthful]);
}

#[test]
fn a_wrong_record_before_is_found() {
    let mut story = watched();
    events(&mut messages(&mut story)[2])[0].previous = None;
    assert_broken(&story, &[Promise::WatchPrevious]);
    // What was before the compacted revision is forgotten.
    story.compact(4);
    let now = story.now();
    messages(&mut story).iter_mut().for_each(|message| message.at = now);
    assert_broken(&story, &[]);
    let mut story = watched();
    watch(&mut story).previous = false;
    assert_broken(&story, &[Promise::WatchPrevious]);
}

#[test]
fn a_watcher_that_skips_is_not_judged() {
    let mut story = watched();
    resume(&mut story, 3);
    watch(&mut story).streams[1].start = Some(Revision(6));
    assert!(story.judge().is_err());
}
