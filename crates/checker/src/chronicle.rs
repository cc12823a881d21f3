//! The history of the store itself: every revision with its events, put together from what the
//! nodes told afterwards.

use std::collections::BTreeMap;

use onefold_types::{NodeId, Revision};

use crate::findings::Findings;
use crate::history::{Event, History, Reading, Record};
use crate::state::State;
use crate::violation::{Promise, Unjudged, Violation};

/// The events of one revision by their keys, each with the record before it.
pub(crate) type Events = BTreeMap<String, Event>;

/// Every revision after `begin` up to `end`.
#[derive(Debug)]
pub(crate) struct Chronicle {
    pub(crate) begin: Revision,
    pub(crate) end: Revision,
    revisions: BTreeMap<Revision, Events>,
}

impl Chronicle {
    /// Puts the readings together, and finds where they contradict each other or themselves.
    ///
    /// # Errors
    /// When a revision was not read back.
    pub(crate) fn compile(history: &History, found: &mut Findings) -> Result<Self, Unjudged> {
        check_coverage(history)?;
        let mut told: BTreeMap<Revision, (NodeId, Events)> = BTreeMap::new();
        for reading in &history.readings {
            for (revision, events) in by_revision(reading) {
                told.entry(revision).or_insert_with(|| (reading.node, events));
            }
        }
        for reading in &history.readings {
            compare(reading, &told, found);
        }
        let inside = |revision: &Revision| *revision > history.begin && *revision <= history.end;
        let revisions = told.into_iter().filter(|(revision, _)| inside(revision));
        let mut chronicle = Self {
            begin: history.begin,
            end: history.end,
            revisions: revisions.map(|(revision, (_, events))| (revision, events)).collect(),
        };
        chronicle.check(State::new(&history.base), found);
        Ok(chronicle)
    }

    /// The events of a revision; none if nobody told any.
    pub(crate) fn at(&self, revision: Revision) -> Option<&Events> {
        self.revisions.get(&revision)
    }

    /// The revisions of a stretch, both ends included.
    pub(crate) fn between(
        &self,
        from: Revision,
        until: Revision,
    ) -> impl Iterator<Item = (Revision, &Events)> {
        // An empty stretch has its end before its beginning.
        let until = until.max(from);
        let range = self.revisions.range(from..=until);
        range.map(|(revision, events)| (*revision, events))
    }

    /// Notes what was before each event, and finds what no store can have done.
    fn check(&mut self, mut state: State, found: &mut Findings) {
        let mut expected = self.begin.next();
        for (&revision, events) in &mut self.revisions {
            if revision != expected {
                found.add(Violation::new(
                    Promise::Durable,
                    format!(
                        "revision {expected} is missing: the next one in history is {revision}"
                    ),
                ));
            }
            expected = revision.next();
            for event in events.values_mut() {
                event.previous = state.get(&event.key).cloned();
                if !follows(event) {
                    let before = format!("before it: {:?}", event.previous);
                    let what = format!("history holds what cannot follow: {event}");
                    let violation = Violation::new(Promise::WellFormed, what);
                    found.add(violation.showing(before));
                }
            }
            state.apply(events.values());
        }
        if expected <= self.end {
            found.add(Violation::new(
                Promise::Durable,
                format!("revisions {expected} to {} are missing from history", self.end),
            ));
        }
    }
}

/// Whether an event can come after the record before it.
fn follows(event: &Event) -> bool {
    match (&event.record, &event.previous) {
        (None, previous) => previous.is_some(),
        (Some(record), previous) => {
            let (created, version) = match previous {
                Some(before) => (before.created, before.version + 1),
                None => (event.revision, 1),
            };
            (record.created, record.version) == (created, version)
                && record.modified == event.revision
        }
    }
}

fn check_coverage(history: &History) -> Result<(), Unjudged> {
    let mut stretches: Vec<_> = history.readings.iter().map(|r| (r.from, r.until)).collect();
    stretches.sort();
    let mut covered = history.begin;
    for (from, until) in stretches {
        if from <= covered.next() {
            covered = covered.max(until);
        }
    }
    if covered < history.end {
        let (covered, end) = (covered.next(), history.end);
        return Err(Unjudged(format!("revisions {covered} to {end} were not read back")));
    }
    Ok(())
}

fn by_revision(reading: &Reading) -> BTreeMap<Revision, Events> {
    let mut revisions: BTreeMap<Revision, Events> = BTreeMap::new();
    for event in &reading.events {
        let events = revisions.entry(event.revision).or_default();
        events.insert(event.key.clone(), event.clone());
    }
    revisions
}

/// What an event says, without what was before.
fn said(events: &Events) -> Vec<(&str, Option<&Record>)> {
    events.iter().map(|(key, event)| (key.as_str(), event.record.as_ref())).collect()
}

/// Compares one reading with what all of them together say.
fn compare(reading: &Reading, told: &BTreeMap<Revision, (NodeId, Events)>, found: &mut Findings) {
    let own = by_revision(reading);
    let none = Events::new();
    if reading.until < reading.from {
        return;
    }
    for (revision, (node, events)) in told.range(reading.from..=reading.until) {
        let here = own.get(revision).unwrap_or(&none);
        if said(here) != said(events) {
            found.add(
                Violation::new(
                    Promise::NodesAgree,
                    format!(
                        "nodes {node} and {} tell revision {revision} differently",
                        reading.node
                    ),
                )
                .showing(format!("node {node}: {:?}", said(events)))
                .showing(format!("node {}: {:?}", reading.node, said(here))),
            );
        }
    }
}
