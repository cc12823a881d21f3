//! Watches keep etcd's six promises: ordered, unique, reliable, atomic, resumable, bookmarkable; and
//! what they tell is true.

use std::collections::{BTreeMap, BTreeSet};

use onefold_types::Revision;

use crate::chronicle::{Chronicle, Events};
use crate::findings::Findings;
use crate::history::{Event, History, Message, News, Stream, Watch};
use crate::order::Compactions;
use crate::violation::{Promise, Unjudged, Violation};

/// Judges every watch of a history.
///
/// # Errors
/// When a watcher did not go on where it ended, so that nobody can say what it should have heard.
pub(crate) fn check(
    history: &History,
    chronicle: &Chronicle,
    compactions: &Compactions<'_>,
    found: &mut Findings,
) -> Result<(), Unjudged> {
    for watch in &history.watches {
        let mut told = Told {
            watch,
            chronicle,
            compactions,
            found,
            next: None,
            heard: BTreeSet::new(),
            stream: StreamState::default(),
        };
        for (place, stream) in watch.streams.iter().enumerate() {
            told.stream(stream, place > 0)?;
        }
        told.end();
    }
    Ok(())
}

/// What a watch was told so far.
struct Told<'a> {
    watch: &'a Watch,
    chronicle: &'a Chronicle,
    compactions: &'a Compactions<'a>,
    found: &'a mut Findings,
    /// The first revision that was not told in full; none before the watch has begun.
    next: Option<Revision>,
    /// Every event that it heard of.
    heard: BTreeSet<(Revision, String)>,
    stream: StreamState,
}

#[derive(Default)]
struct StreamState {
    /// Whether the stream goes on where another one ended.
    is_resumed: bool,
    /// Whether it told any event yet.
    has_told: bool,
    /// The revision of the last event.
    last: Revision,
    /// The revision of the last bookmark.
    bookmark: Revision,
    /// Events of a message whose other fragments are to come.
    pending: BTreeMap<Revision, Events>,
    /// The last revision of the message before, if that was told in part.
    split: Option<Revision>,
}

impl Told<'_> {
    fn stream(&mut self, stream: &Stream, is_resumed: bool) -> Result<(), Unjudged> {
        self.stream = StreamState { is_resumed, ..StreamState::default() };
        if let Some(start) = stream.start {
            match self.next {
                Some(next) if start > next => {
                    return Err(Unjudged(format!(
                        "the watcher of client {} knew all before {next} and went on at {start}",
                        self.watch.client
                    )));
                }
                _ => self.next = Some(start),
            }
        }
        for message in &stream.messages {
            self.message(message, stream);
        }
        Ok(())
    }

    fn add(&mut self, promise: Promise, what: String, stream: &Stream, message: &Message) {
        let Watch { client, span, .. } = self.watch;
        let where_from = format!(
            "client {client} watches {span:?} at node {}, from {:?} on, message at {:.6} s",
            stream.node,
            stream.start,
            message.at as f64 / 1e9
        );
        self.found.add(Violation::new(promise, what).showing(where_from).showing(short(message)));
    }

    fn message(&mut self, message: &Message, stream: &Stream) {
        match &message.news {
            News::Created => {
                // A watch from now on begins after the revision that its creation names.
                if self.next.is_none() {
                    self.next = Some(message.revision.next());
                    self.stream.bookmark = message.revision;
                }
            }
            News::Events { events, is_fragment } => {
                self.events(events, message, stream);
                if !is_fragment {
                    self.complete(message, stream);
                }
            }
            News::Progress => self.bookmark(message, stream),
            News::Compacted { oldest } => self.compacted(*oldest, message, stream),
            News::Ended(_) => {}
        }
    }

    fn events(&mut self, events: &[Event], message: &Message, stream: &Stream) {
        for event in events {
            self.place(event, message, stream);
            self.content(event, message, stream);
            let told = self.stream.pending.entry(event.revision).or_default();
            if told.insert(event.key.clone(), event.clone()).is_some() {
                let what = format!("one message tells an event twice: {event}");
                self.add(Promise::WatchUnique, what, stream, message);
            }
            self.heard.insert((event.revision, event.key.clone()));
            self.stream.last = self.stream.last.max(event.revision);
        }
    }

    /// Whether an event may come at this place of the stream.
    fn place(&mut self, event: &Event, message: &Message, stream: &Stream) {
        let revision = event.revision;
        let next = self.next.unwrap_or_default();
        if revision >= next {
            if revision < self.stream.last {
                let what = format!("{event}, after revision {}", self.stream.last);
                self.add(Promise::WatchOrdered, what, stream, message);
            }
            return;
        }
        if self.stream.split == Some(revision) {
            // The message before was found to lack it.
            return;
        }
        // It is from before what was told in full: why it is here says which promise is broken.
        let is_before_start = stream.start.is_some_and(|start| revision < start);
        let (promise, what) = if is_before_start {
            (Promise::WatchResumable, format!("{event}, before the beginning that was asked for"))
        } else if revision <= self.stream.bookmark {
            let bookmark = self.stream.bookmark;
            (Promise::WatchBookmarkable, format!("{event}, after the bookmark {bookmark}"))
        } else if self.heard.contains(&(revision, event.key.clone())) {
            (Promise::WatchUnique, format!("{event}, a second time"))
        } else {
            (Promise::WatchOrdered, format!("{event}, after revision {}", self.stream.last))
        };
        self.add(promise, what, stream, message);
    }

    /// Whether an event is told as it happened.
    fn content(&mut self, event: &Event, message: &Message, stream: &Stream) {
        if event.revision > self.chronicle.end || event.revision <= self.chronicle.begin {
            return;
        }
        let real = self.chronicle.at(event.revision).and_then(|events| events.get(&event.key));
        let Some(real) = real.filter(|real| real.record == event.record) else {
            let what = format!("history does not have it so: {event}");
            self.add(Promise::WatchTruthful, what, stream, message);
            return;
        };
        if !self.watch.span.contains(&event.key) {
            let what = format!("nobody watches that key: {event}");
            self.add(Promise::WatchTruthful, what, stream, message);
        }
        let right = if self.watch.previous { real.previous.as_ref() } else { None };
        if event.previous.as_ref() == right {
            return;
        }
        // What was before is forgotten with the revision before.
        let compacted = self.compactions.at_most(message.at);
        if event.previous.is_none() && event.revision <= compacted {
            return;
        }
        let what = format!("before {event}: told {:?}, right {right:?}", event.previous);
        self.add(Promise::WatchPrevious, what, stream, message);
    }

    /// A message is complete: everything up to its last revision has been told.
    fn complete(&mut self, message: &Message, stream: &Stream) {
        let pending = std::mem::take(&mut self.stream.pending);
        let Some((&last, _)) = pending.last_key_value() else { return };
        self.stream.split = None;
        let next = self.next.unwrap_or_default();
        let first = pending.first_key_value().map_or(last, |(first, _)| *first);
        for (revision, missing) in self.missing(next, last, &pending) {
            let is_told = pending.contains_key(&revision);
            let promise = if is_told {
                Promise::WatchAtomic
            } else if self.stream.is_resumed && !self.stream.has_told && revision < first {
                Promise::WatchResumable
            } else {
                Promise::WatchReliable
            };
            if is_told {
                self.stream.split = Some(revision);
            }
            let what = format!("the message goes to revision {last} and lacks {missing}");
            self.add(promise, what, stream, message);
        }
        self.stream.has_told = true;
        self.next = Some(next.max(last.next()));
    }

    /// Events that should have been told and were not.
    fn missing(
        &self,
        from: Revision,
        until: Revision,
        told: &BTreeMap<Revision, Events>,
    ) -> Vec<(Revision, String)> {
        let mut missing = Vec::new();
        for (revision, events) in self.chronicle.between(from, until) {
            if revision > until {
                break;
            }
            let told = told.get(&revision);
            let watched = events.values().filter(|event| self.watch.span.contains(&event.key));
            let is_told = |event: &&Event| told.is_some_and(|told| told.contains_key(&event.key));
            if let Some(event) = watched.clone().find(|event| !is_told(event)) {
                missing.push((revision, event.to_string()));
            }
        }
        missing
    }

    fn bookmark(&mut self, message: &Message, stream: &Stream) {
        let Some(next) = self.next else { return };
        let bookmark = message.revision;
        if bookmark >= next {
            for (_, missing) in self.missing(next, bookmark, &BTreeMap::new()) {
                let what = format!("the bookmark {bookmark} covers what was not told: {missing}");
                self.add(Promise::WatchBookmarkable, what, stream, message);
            }
            self.next = Some(bookmark.next());
        }
        self.stream.bookmark = self.stream.bookmark.max(bookmark);
    }

    fn compacted(&mut self, oldest: Revision, message: &Message, stream: &Stream) {
        let next = self.next.unwrap_or_default();
        let most = self.compactions.at_most(message.at);
        if oldest > most || next >= oldest {
            let what = format!(
                "{next} is refused as compacted to {oldest}, and at most {most} was compacted"
            );
            self.add(Promise::WatchResumable, what, stream, message);
        }
        // Its client knows that it missed something, and begins anew.
        self.next = Some(next.max(oldest));
    }

    /// A watch was listened to until it had told everything.
    fn end(&mut self) {
        let Some(next) = self.next else { return };
        if next <= self.chronicle.end {
            let what = format!(
                "client {} waited in vain for revision {next} of {:?}, and history goes to {}",
                self.watch.client, self.watch.span, self.chronicle.end
            );
            self.found.add(Violation::new(Promise::WatchReliable, what));
        }
    }
}

/// A message without the events that make it long.
fn short(message: &Message) -> String {
    const EVENTS_MAX: usize = 8;
    match &message.news {
        News::Events { events, is_fragment } => {
            let shown: Vec<String> = events.iter().take(EVENTS_MAX).map(Event::to_string).collect();
            let (count, shown) = (events.len(), shown.join("; "));
            format!("header {}, {count} events, fragment {is_fragment}: {shown}", message.revision)
        }
        news => format!("header {}: {news:?}", message.revision),
    }
}
