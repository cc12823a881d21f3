//! Replays history revision by revision, and compares each answer with what it must have been.
//!
//! Together with [`order`](crate::order) this is strict serializability: the revisions are the
//! order, each answer is the one that this order gives, and real time agrees with it.

use std::collections::{BTreeMap, HashMap};

use onefold_types::Revision;

use crate::chronicle::{Chronicle, Events};
use crate::findings::Findings;
use crate::history::{Action, Event, History, Operation, Outcome};
use crate::order::Sightings;
use crate::state::State;
use crate::violation::{Promise, Unjudged, Violation};

/// That a lease ended and took its keys along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseEnd {
    pub(crate) lease: u64,
    pub(crate) revision: Revision,
}

/// What came out of a replay.
pub(crate) struct Replayed {
    /// The state at the end.
    pub(crate) state: State,
    /// Leases that ended with keys.
    pub(crate) lease_ends: Vec<LeaseEnd>,
    /// Operations whose outcome was unknown and that history shows to have happened.
    pub(crate) unknown_executed: usize,
    /// Those that history does not show.
    pub(crate) open: Vec<Operation>,
}

/// Replays the whole history.
///
/// # Errors
/// When an operation reads what lies before the history.
pub(crate) fn replay(
    history: &History,
    chronicle: &Chronicle,
    sightings: &Sightings,
    found: &mut Findings,
) -> Result<Replayed, Unjudged> {
    let mut replay = Replay::new(history, sightings)?;
    replay.judge_reads(history.begin, found);
    for (revision, events) in chronicle.between(history.begin.next(), history.end) {
        replay.explain(revision, events, found);
        replay.state.apply(events.values());
        check_sum(history, &replay.state, revision, events, found);
        replay.judge_reads(revision, found);
    }
    // What is left was acknowledged at revisions that history does not have.
    for (revision, owner) in replay.owners.values().flatten().map(|o| (o.answered(), o)) {
        let what = match revision {
            Some((revision, _)) => format!("history has no revision {revision}"),
            None => "history does not have it".to_owned(),
        };
        found.add(Violation::new(Promise::Durable, what).showing(owner));
    }
    let unknown = history.operations.iter().enumerate().filter(|(_, o)| o.is_unknown());
    let (executed, open): (Vec<_>, Vec<_>) =
        unknown.partition(|(place, _)| replay.executed.contains_key(place));
    Ok(Replayed {
        unknown_executed: executed.len(),
        open: open.into_iter().map(|(_, operation)| operation.clone()).collect(),
        lease_ends: replay.lease_ends,
        state: replay.state,
    })
}

struct Replay<'a> {
    operations: &'a [Operation],
    sightings: &'a Sightings,
    state: State,
    /// What was acknowledged to have made each revision.
    owners: BTreeMap<Revision, Vec<&'a Operation>>,
    /// What was answered from the state of each revision and wrote nothing.
    reads: BTreeMap<Revision, Vec<&'a Operation>>,
    /// Who writes which value.
    writers: HashMap<&'a str, usize>,
    /// Operations with unknown outcomes that may delete something, in the order of their calls.
    deleters: Vec<usize>,
    /// The revision of each operation that history shows.
    executed: BTreeMap<usize, Revision>,
    lease_ends: Vec<LeaseEnd>,
}

impl<'a> Replay<'a> {
    fn new(history: &'a History, sightings: &'a Sightings) -> Result<Self, Unjudged> {
        let mut owners: BTreeMap<Revision, Vec<&Operation>> = BTreeMap::new();
        let mut reads: BTreeMap<Revision, Vec<&Operation>> = BTreeMap::new();
        let mut writers = HashMap::new();
        let mut deleters = Vec::new();
        for (place, operation) in history.operations.iter().enumerate() {
            note_values(&operation.action, place, &mut writers)?;
            if operation.is_unknown() && deletes(&operation.action) {
                deleters.push(place);
            }
            let Some((revision, answer)) = operation.answered() else { continue };
            if !operation.is_about_keys() {
                continue;
            }
            if answer.wrote() {
                owners.entry(revision).or_default().push(operation);
                continue;
            }
            let at = match operation.action {
                Action::Range { at, .. } => at.unwrap_or(revision),
                _ => revision,
            };
            if at < history.begin {
                return Err(Unjudged(format!("it reads before the history begins: {operation}")));
            }
            reads.entry(at).or_default().push(operation);
        }
        deleters.sort_by_key(|&place| history.operations[place].called);
        Ok(Self {
            operations: &history.operations,
            sightings,
            state: State::new(&history.base),
            owners,
            reads,
            writers,
            deleters,
            executed: BTreeMap::new(),
            lease_ends: Vec::new(),
        })
    }

    /// Compares answers that wrote nothing with the state at their revision.
    fn judge_reads(&mut self, revision: Revision, found: &mut Findings) {
        for operation in self.reads.remove(&revision).unwrap_or_default() {
            let Some((_, answer)) = operation.answered() else { continue };
            let effect = self.state.evaluate(&operation.action, revision.next());
            if *answer != effect.answer {
                let what = format!("at revision {revision} the answer is another one");
                let right = format!("right: {:?}", effect.answer);
                found.add(
                    Violation::new(Promise::Replayable, what).showing(operation).showing(right),
                );
            }
        }
    }

    /// Finds out who made a revision, and whether it was made rightly.
    fn explain(&mut self, revision: Revision, events: &Events, found: &mut Findings) {
        let owners = self.owners.remove(&revision).unwrap_or_default();
        if let [one, other, ..] = owners[..] {
            let what = format!("two requests were told that they made revision {revision}");
            let violation = Violation::new(Promise::RevisionUnique, what);
            found.add(violation.showing(one).showing(other));
        }
        if let Some(owner) = owners.first() {
            self.judge_owner(owner, revision, events, found);
        }
        let mut written = events.values().filter_map(|event| event.record.as_ref());
        if let Some(record) = written.next() {
            self.judge_writer(&record.value, revision, events, owners.first().copied(), found);
        } else if owners.is_empty() {
            self.judge_deletion(revision, events, found);
        }
    }

    fn judge_owner(
        &self,
        owner: &Operation,
        revision: Revision,
        events: &Events,
        found: &mut Findings,
    ) {
        let effect = self.state.evaluate(&owner.action, revision);
        if !effect.events.iter().eq(events.values()) {
            let what = format!("revision {revision} was acknowledged and history has it otherwise");
            let violation = Violation::new(Promise::Durable, what).showing(owner);
            found.add(violation.showing(told(events)));
        } else if owner.answered().is_some_and(|(_, answer)| *answer != effect.answer) {
            let what = format!("at revision {revision} the answer is another one");
            let right = format!("right: {:?}", effect.answer);
            found.add(Violation::new(Promise::Replayable, what).showing(owner).showing(right));
        }
    }

    /// Who wrote this value must be who made the revision, once.
    fn judge_writer(
        &mut self,
        value: &str,
        revision: Revision,
        events: &Events,
        owner: Option<&Operation>,
        found: &mut Findings,
    ) {
        let Some(&place) = self.writers.get(value) else {
            let what = format!("nobody wrote {value:?}, which revision {revision} has");
            found.add(Violation::new(Promise::Caused, what).showing(told(events)));
            return;
        };
        let writer = &self.operations[place];
        if let Some(before) = self.executed.insert(place, revision) {
            let what = format!("it was executed at revisions {before} and {revision}");
            found.add(Violation::new(Promise::ExecutedOnce, what).showing(writer));
            return;
        }
        match &writer.outcome {
            Outcome::Answered { revision: told_so, answer } => {
                let is_owner = owner.is_some_and(|owner| std::ptr::eq(owner, writer));
                if !is_owner && answer.wrote() {
                    let what = format!("it was told {told_so} and is at {revision} too or instead");
                    found.add(Violation::new(Promise::ExecutedOnce, what).showing(writer));
                } else if !is_owner {
                    let what = format!("it wrote nothing, by its answer, and made {revision}");
                    found.add(Violation::new(Promise::Caused, what).showing(writer));
                }
            }
            Outcome::Refused(_) => {
                let what = format!("it was refused and made revision {revision}");
                found.add(Violation::new(Promise::Caused, what).showing(writer));
            }
            Outcome::Unknown(_) => self.judge_unknown(writer, revision, events, found),
        }
    }

    /// An operation whose answer was lost did all or nothing, and not before it was asked.
    fn judge_unknown(
        &self,
        operation: &Operation,
        revision: Revision,
        events: &Events,
        found: &mut Findings,
    ) {
        if !self.does(operation, revision, events) {
            let what = format!("revision {revision} is not what this request makes of it");
            let violation = Violation::new(Promise::Replayable, what).showing(operation);
            found.add(violation.showing(told(events)));
        }
        let known = self.sightings.known_before(operation.called);
        if revision <= known {
            let what = format!("revision {known} was known before {revision} was asked for");
            found.add(Violation::new(Promise::RealTime, what).showing(operation));
        }
    }

    fn does(&self, operation: &Operation, revision: Revision, events: &Events) -> bool {
        self.state.evaluate(&operation.action, revision).events.iter().eq(events.values())
    }

    /// A revision that only deletes and that nobody was told to have made: a lease ended, or a
    /// deletion's answer was lost.
    fn judge_deletion(&mut self, revision: Revision, events: &Events, found: &mut Findings) {
        let leases: Vec<u64> =
            events.values().filter_map(|event| event.previous.as_ref()).map(|r| r.lease).collect();
        let lease = leases.first().copied().filter(|lease| *lease > 0);
        let lease = lease.filter(|lease| leases.iter().all(|other| other == lease));
        let attached = lease.and_then(|lease| self.state.attached(lease));
        let place = self.deleters.iter().position(|&place| {
            let operation = &self.operations[place];
            self.does(operation, revision, events)
                && self.sightings.known_before(operation.called) < revision
        });
        if let (Some(lease), Some(attached)) = (lease, attached)
            && attached.iter().eq(events.keys())
        {
            // Where a deletion may have done the same, nobody knows which of them it was.
            if place.is_none() {
                self.lease_ends.push(LeaseEnd { lease, revision });
            }
            return;
        }
        if let Some(place) = place {
            self.executed.insert(self.deleters.remove(place), revision);
            return;
        }
        let (promise, what) = match (lease, attached) {
            (Some(lease), Some(attached)) => {
                let keys = attached.len();
                let what = format!("revision {revision} takes some of the {keys} keys of {lease}");
                (Promise::LeaseAtomic, what)
            }
            _ => (Promise::Caused, format!("nobody asked for what revision {revision} deletes")),
        };
        found.add(Violation::new(promise, what).showing(told(events)));
    }
}

fn told(events: &Events) -> String {
    let lines: Vec<String> = events.values().map(Event::to_string).collect();
    format!("history: {}", lines.join("; "))
}

/// Notes who writes which values, each of which must be written by one operation only.
fn note_values<'a>(
    action: &'a Action,
    place: usize,
    writers: &mut HashMap<&'a str, usize>,
) -> Result<(), Unjudged> {
    match action {
        Action::Put { value, .. } => match writers.insert(value, place) {
            Some(other) if other != place => {
                Err(Unjudged(format!("two operations write the value {value:?}")))
            }
            _ => Ok(()),
        },
        Action::Txn { success, failure, .. } => {
            success.iter().chain(failure).try_for_each(|inner| note_values(inner, place, writers))
        }
        _ => Ok(()),
    }
}

fn deletes(action: &Action) -> bool {
    match action {
        Action::Delete { .. } => true,
        Action::Txn { success, failure, .. } => success.iter().chain(failure).any(deletes),
        _ => false,
    }
}

/// Amounts that move between accounts keep their sum at every revision.
fn check_sum(
    history: &History,
    state: &State,
    revision: Revision,
    events: &Events,
    found: &mut Findings,
) {
    let Some(accounts) = &history.accounts else { return };
    if !events.keys().any(|key| accounts.span.contains(key)) {
        return;
    }
    let amount = |value: &str| value.split(':').next().and_then(|text| text.parse::<i64>().ok());
    let amounts: Vec<_> =
        state.in_span(&accounts.span).map(|record| amount(&record.value)).collect();
    let sum: Option<i64> = amounts.iter().copied().sum();
    if amounts.len() == accounts.count && sum != Some(accounts.total) {
        let what = format!("at revision {revision} the sum is {sum:?}, not {}", accounts.total);
        found.add(Violation::new(Promise::SumKept, what).showing(told(events)));
    }
}
