//! Tells histories: a store that does everything right, and the means to spoil what it did.

use onefold_types::{NodeId, Revision};

use crate::history::{
    Action, Answer, Compare, Copy, Event, History, Message, Nanos, News, Operation, Outcome,
    Reading, Record, Span, Stream, Watch,
};
use crate::state::State;
use crate::{Unjudged, Verdict, judge};

const STEP: Nanos = 1_000_000;
const SECOND: Nanos = 1_000_000_000;

/// A history in the making. Each operation takes one step of time, one after the other.
pub(super) struct Story {
    pub(super) history: History,
    state: State,
    revision: Revision,
    now: Nanos,
    /// Set while operations happen at the same time: the time at which they are called.
    together: Option<Nanos>,
}

impl Story {
    pub(super) fn new() -> Self {
        let begin = Revision(1);
        let reading = |node| Reading {
            node: NodeId(node),
            from: begin.next(),
            until: begin,
            events: Vec::new(),
        };
        let copy = |node| Copy {
            node: NodeId(node),
            revision: begin,
            records: Vec::new(),
            hash: Some((Revision(1), 1)),
        };
        let history = History {
            begin,
            end: begin,
            readings: vec![reading(1), reading(2)],
            copies: vec![copy(1), copy(2)],
            registers: Some("r/".to_owned()),
            ..History::default()
        };
        Self { history, state: State::default(), revision: begin, now: STEP, together: None }
    }

    pub(super) fn judge(&self) -> Result<Verdict, Unjudged> {
        judge(&self.history)
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn now(&self) -> Nanos {
        self.now
    }

    pub(super) fn wait_seconds(&mut self, seconds: u64) {
        self.now += seconds * SECOND;
    }

    /// Lets everything that `tell` does overlap.
    pub(super) fn together(&mut self, tell: impl FnOnce(&mut Self)) {
        self.together = Some(self.now);
        tell(self);
        self.together = None;
        for operation in &mut self.history.operations {
            operation.returned = operation.returned.max(self.now);
        }
        self.now += STEP;
    }

    pub(super) fn operation(&mut self, place: usize) -> &mut Operation {
        &mut self.history.operations[place]
    }

    fn commit(&mut self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        self.revision = self.revision.next();
        self.state.apply(&events);
        for reading in &mut self.history.readings {
            reading.events.extend(events.iter().cloned());
            reading.until = self.revision;
        }
        self.history.end = self.revision;
        for copy in &mut self.history.copies {
            copy.revision = self.revision;
            copy.records = self.state.all().cloned().collect();
        }
    }

    fn add(&mut self, action: Action, outcome: Outcome) -> usize {
        let called = self.together.unwrap_or(self.now);
        let returned = self.now + STEP / 2;
        self.now += STEP;
        let node = NodeId(1);
        self.history.operations.push(Operation {
            client: 1,
            node,
            called,
            returned,
            action,
            outcome,
        });
        self.history.operations.len() - 1
    }

    /// Does what is asked, and answers rightly.
    pub(super) fn act(&mut self, action: Action) -> usize {
        let effect = self.state.evaluate(&action, self.revision.next());
        self.commit(effect.events);
        let outcome = Outcome::Answered { revision: self.revision, answer: effect.answer };
        self.add(action, outcome)
    }

    /// Does something, or not, and answers nothing.
    pub(super) fn act_unknown(&mut self, action: Action, happens: bool) -> usize {
        let effect = self.state.evaluate(&action, self.revision.next());
        if happens {
            self.commit(effect.events);
        }
        self.add(action, Outcome::Unknown("the connection broke".to_owned()))
    }

    pub(super) fn put(&mut self, key: &str, value: &str) {
        self.act(put(key, value, 0, false));
    }

    pub(super) fn swap(&mut self, key: &str, value: &str) {
        self.act(put(key, value, 0, true));
    }

    pub(super) fn put_with_lease(&mut self, key: &str, value: &str, lease: u64) {
        self.act(put(key, value, lease, false));
    }

    pub(super) fn put_unknown(&mut self, key: &str, value: &str, happens: bool) {
        self.act_unknown(put(key, value, 0, false), happens);
    }

    pub(super) fn get(&mut self, key: &str) -> usize {
        self.act(Action::Range { span: Span::key(key), at: None, serializable: false })
    }

    /// Reads at an older revision, from what history says of it.
    pub(super) fn get_at(&mut self, key: &str, at: u64) -> usize {
        let mut then = State::default();
        let events = self.history.readings[0].events.iter();
        then.apply(events.filter(|event| event.revision <= Revision(at)));
        let action =
            Action::Range { span: Span::key(key), at: Some(Revision(at)), serializable: false };
        let answer = then.evaluate(&action, self.revision.next()).answer;
        let revision = self.revision;
        self.add(action, Outcome::Answered { revision, answer })
    }

    pub(super) fn delete(&mut self, key: &str) -> usize {
        self.act(Action::Delete { span: Span::key(key), previous: false })
    }

    pub(super) fn compare_and_swap(&mut self, key: &str, expected: &str, value: &str) -> usize {
        self.act(Action::Txn {
            compares: vec![Compare::Value { key: key.to_owned(), value: expected.to_owned() }],
            success: vec![put(key, value, 0, false)],
            failure: vec![Action::Range { span: Span::key(key), at: None, serializable: false }],
        })
    }

    pub(super) fn compact(&mut self, at: u64) -> usize {
        self.act(Action::Compact { at: Revision(at) })
    }

    pub(super) fn grant(&mut self, lease: u64, ttl_seconds: u64) -> usize {
        let answer = Answer::Granted { lease, ttl_seconds };
        let revision = self.revision;
        self.add(Action::Grant { ttl_seconds }, Outcome::Answered { revision, answer })
    }

    pub(super) fn keep_alive(&mut self, lease: u64, ttl_seconds: u64) -> usize {
        let answer = Answer::KeptAlive { ttl_seconds };
        let revision = self.revision;
        self.add(Action::KeepAlive { lease }, Outcome::Answered { revision, answer })
    }

    /// Ends a lease; the next operation is the first to see it.
    pub(super) fn end_lease(&mut self, lease: u64) {
        let keys: Vec<String> = self.state.attached(lease).into_iter().flatten().cloned().collect();
        let revision = self.revision.next();
        let event = |key: String| Event { revision, key, record: None, previous: None };
        self.commit(keys.into_iter().map(event).collect());
    }

    /// Removes keys that nobody asked to remove.
    pub(super) fn vanish(&mut self, key: &str) {
        let revision = self.revision.next();
        let event = Event { revision, key: key.to_owned(), record: None, previous: None };
        self.commit(vec![event]);
    }

    /// Writes what nobody asked for.
    pub(super) fn appear(&mut self, key: &str, value: &str) {
        let effect = self.state.evaluate(&put(key, value, 0, false), self.revision.next());
        self.commit(effect.events);
    }

    /// A watcher of everything to whom everything was told rightly, a message for each revision.
    pub(super) fn watch(&mut self) -> &mut Watch {
        let reading = &self.history.readings[0];
        let mut state = State::default();
        let mut messages = vec![message(self.now, 1, News::Created)];
        for revision in 2..=self.revision.get() {
            let now = reading.events.iter().filter(|event| event.revision.get() == revision);
            let events: Vec<Event> = now
                .map(|event| Event { previous: state.get(&event.key).cloned(), ..event.clone() })
                .collect();
            state.apply(&events);
            messages.push(message(self.now, revision, News::Events { events, is_fragment: false }));
        }
        let stream = Stream { node: NodeId(1), start: None, messages };
        self.history.watches.push(Watch {
            client: 9,
            span: Span::everything(),
            previous: true,
            streams: vec![stream],
        });
        self.history.watches.last_mut().expect("it was just pushed")
    }
}

pub(super) fn message(at: Nanos, revision: u64, news: News) -> Message {
    Message { at, revision: Revision(revision), news }
}

pub(super) fn put(key: &str, value: &str, lease: u64, previous: bool) -> Action {
    Action::Put { key: key.to_owned(), value: value.to_owned(), lease, previous }
}

/// The answer of a read that found this value, written once at a revision.
pub(super) fn answered_value(revision: Revision, key: &str, value: &str, written: u64) -> Outcome {
    let record = Record {
        key: key.to_owned(),
        value: value.to_owned(),
        created: Revision(written),
        modified: Revision(written),
        version: 1,
        lease: 0,
    };
    Outcome::Answered { revision, answer: Answer::Range(vec![record]) }
}
