//! The store as its API describes it: what a request makes of a state, and what it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use onefold_types::Revision;

use crate::history::{Action, Answer, Compare, Event, NO_END, Record, Span};

/// What the store holds at one revision.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    records: BTreeMap<String, Record>,
    attached: BTreeMap<u64, BTreeSet<String>>,
}

/// What a request does at a revision. Its events are in the order of keys.
#[derive(Debug)]
pub(crate) struct Effect {
    pub(crate) answer: Answer,
    pub(crate) events: Vec<Event>,
}

impl State {
    pub(crate) fn new(records: &[Record]) -> Self {
        let mut state = Self::default();
        records.iter().for_each(|record| state.set(&record.key, Some(record.clone())));
        state
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Record> {
        self.records.get(key)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    pub(crate) fn in_span<'a>(&'a self, span: &'a Span) -> impl Iterator<Item = &'a Record> {
        let from = Bound::Included(span.from.as_str());
        let until = match &span.until {
            Some(until) if until == NO_END => Bound::Unbounded,
            Some(until) if *until > span.from => Bound::Excluded(until.as_str()),
            Some(_) | None => Bound::Included(span.from.as_str()),
        };
        let records = self.records.range::<str, _>((from, until)).map(|(_, record)| record);
        records.filter(|record| span.contains(&record.key))
    }

    /// The keys that hang on a lease.
    pub(crate) fn attached(&self, lease: u64) -> Option<&BTreeSet<String>> {
        self.attached.get(&lease)
    }

    pub(crate) fn apply<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>) {
        for event in events {
            self.set(&event.key, event.record.clone());
        }
    }

    fn set(&mut self, key: &str, record: Option<Record>) {
        if let Some(lease) = record.as_ref().map(|record| record.lease).filter(|lease| *lease > 0) {
            self.attached.entry(lease).or_default().insert(key.to_owned());
        }
        let lease = record.as_ref().map_or(0, |record| record.lease);
        let before = match record {
            Some(record) => self.records.insert(key.to_owned(), record),
            None => self.records.remove(key),
        };
        if let Some(old) = before.map(|before| before.lease).filter(|old| *old != lease)
            && let Some(keys) = self.attached.get_mut(&old)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.attached.remove(&old);
            }
        }
    }

    /// What a request about keys does if it writes at `revision` on top of this state.
    pub(crate) fn evaluate(&self, action: &Action, revision: Revision) -> Effect {
        let mut attempt = Attempt { state: self, revision, changed: BTreeMap::new() };
        let answer = attempt.answer(action);
        let event = |(key, record): (String, Option<Record>)| Event {
            revision,
            previous: self.get(&key).cloned(),
            key,
            record,
        };
        Effect { answer, events: attempt.changed.into_iter().map(event).collect() }
    }
}

/// A request in the middle of its execution.
struct Attempt<'a> {
    state: &'a State,
    revision: Revision,
    changed: BTreeMap<String, Option<Record>>,
}

impl Attempt<'_> {
    fn get(&self, key: &str) -> Option<&Record> {
        self.changed.get(key).map_or_else(|| self.state.get(key), Option::as_ref)
    }

    fn range(&self, span: &Span) -> Vec<Record> {
        let mut records: BTreeMap<&str, &Record> =
            self.state.in_span(span).map(|record| (record.key.as_str(), record)).collect();
        for (key, record) in self.changed.iter().filter(|(key, _)| span.contains(key)) {
            match record {
                Some(record) => records.insert(key, record),
                None => records.remove(key.as_str()),
            };
        }
        records.into_values().cloned().collect()
    }

    fn answer(&mut self, action: &Action) -> Answer {
        match action {
            Action::Range { span, .. } => Answer::Range(self.range(span)),
            Action::Put { key, value, lease, previous } => {
                let before = self.get(key).cloned();
                let record = Record {
                    key: key.clone(),
                    value: value.clone(),
                    created: before.as_ref().map_or(self.revision, |before| before.created),
                    modified: self.revision,
                    version: before.as_ref().map_or(0, |before| before.version) + 1,
                    lease: *lease,
                };
                self.changed.insert(key.clone(), Some(record));
                Answer::Put(before.filter(|_| *previous))
            }
            Action::Delete { span, previous } => {
                let records = self.range(span);
                for record in &records {
                    self.changed.insert(record.key.clone(), None);
                }
                let deleted = records.len() as u64;
                Answer::Delete { deleted, previous: if *previous { records } else { Vec::new() } }
            }
            Action::Txn { compares, success, failure } => {
                let succeeded = compares.iter().all(|compare| self.holds(compare));
                let branch = if succeeded { success } else { failure };
                let answers = branch.iter().map(|action| self.answer(action)).collect();
                Answer::Txn { succeeded, answers }
            }
            Action::Compact { .. }
            | Action::Grant { .. }
            | Action::Revoke { .. }
            | Action::KeepAlive { .. } => Answer::Done,
        }
    }

    /// All comparisons look at what was before the request, also those of transactions within it.
    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::Value { key, value } => {
                self.state.get(key).is_some_and(|record| record.value == *value)
            }
            Compare::Modified { key, at } => {
                self.state.get(key).map_or(Revision::ZERO, |record| record.modified) == *at
            }
        }
    }
}
