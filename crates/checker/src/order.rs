//! Real time: what was known when.

use onefold_types::Revision;

use crate::chronicle::Chronicle;
use crate::findings::Findings;
use crate::history::{Action, Answer, History, Nanos, News, Operation, Outcome, Refusal};
use crate::violation::{Promise, Violation};

/// When anybody first heard of each revision.
pub(crate) struct Sightings {
    /// Times in order, each with the highest revision heard of until then.
    steps: Vec<(Nanos, Revision)>,
}

impl Sightings {
    pub(crate) fn of(history: &History) -> Self {
        let answered = history.operations.iter().filter(|operation| operation.is_about_keys());
        let answers =
            answered.filter_map(|operation| Some((operation.returned, operation.answered()?.0)));
        let messages = history.watches.iter().flat_map(|watch| &watch.streams);
        let told = messages.flat_map(|stream| &stream.messages).filter_map(|message| {
            let revision = match &message.news {
                News::Created | News::Progress => message.revision,
                News::Events { events, .. } => events.iter().map(|event| event.revision).max()?,
                News::Compacted { .. } | News::Ended(_) => return None,
            };
            Some((message.at, revision))
        });
        let mut steps: Vec<_> = answers.chain(told).collect();
        steps.sort();
        let mut highest = history.begin;
        for (_, revision) in &mut steps {
            highest = highest.max(*revision);
            *revision = highest;
        }
        Self { steps }
    }

    /// The highest revision that somebody had heard of before a moment.
    pub(crate) fn known_before(&self, moment: Nanos) -> Revision {
        let later = self.steps.partition_point(|(time, _)| *time < moment);
        later.checked_sub(1).map_or(Revision::ZERO, |last| self.steps[last].1)
    }

    /// When somebody first heard of this revision or a later one.
    pub(crate) fn first_seen(&self, revision: Revision) -> Option<Nanos> {
        let earlier = self.steps.partition_point(|(_, highest)| *highest < revision);
        self.steps.get(earlier).map(|(time, _)| *time)
    }
}

/// What was compacted when.
pub(crate) struct Compactions<'a> {
    before: Revision,
    asked: Vec<(&'a Operation, Revision)>,
}

impl<'a> Compactions<'a> {
    pub(crate) fn of(history: &'a History) -> Self {
        let asked = history.operations.iter().filter_map(|operation| match operation.action {
            Action::Compact { at } if !matches!(operation.outcome, Outcome::Refused(_)) => {
                Some((operation, at))
            }
            _ => None,
        });
        Self { before: history.compacted, asked: asked.collect() }
    }

    /// The highest revision to which history may be compacted at a moment.
    pub(crate) fn at_most(&self, moment: Nanos) -> Revision {
        let asked = self.asked.iter().filter(|(operation, _)| operation.called <= moment);
        asked.map(|(_, at)| *at).max().unwrap_or_default().max(self.before)
    }

    /// The revision to which history was compacted before a moment, by all means.
    fn at_least(&self, moment: Nanos) -> Revision {
        let done = |operation: &Operation| !operation.is_unknown() && operation.returned < moment;
        let done = self.asked.iter().filter(|(operation, _)| done(operation));
        done.map(|(_, at)| *at).max().unwrap_or_default().max(self.before)
    }
}

/// Whoever asks after something was known gets nothing older, and no refusal that denies it.
pub(crate) fn check(
    history: &History,
    chronicle: &Chronicle,
    sightings: &Sightings,
    compactions: &Compactions<'_>,
    found: &mut Findings,
) {
    for operation in &history.operations {
        match &operation.outcome {
            Outcome::Answered { revision, answer } if operation.is_about_keys() => {
                check_answer(operation, *revision, answer, chronicle, sightings, found);
                check_served(operation, compactions, found);
            }
            Outcome::Refused(refusal) => {
                check_refusal(operation, refusal, sightings, compactions, found);
            }
            Outcome::Answered { .. } | Outcome::Unknown(_) => {}
        }
    }
}

fn check_answer(
    operation: &Operation,
    revision: Revision,
    answer: &Answer,
    chronicle: &Chronicle,
    sightings: &Sightings,
    found: &mut Findings,
) {
    if revision > chronicle.end {
        let what =
            format!("revision {revision} was answered and history ends at {}", chronicle.end);
        found.add(Violation::new(Promise::Durable, what).showing(operation));
    }
    if operation.is_serializable() {
        return;
    }
    let known = sightings.known_before(operation.called);
    let is_old = if answer.wrote() { revision <= known } else { revision < known };
    if is_old {
        let what = format!("revision {known} was known when it was asked, {revision} was answered");
        found.add(Violation::new(Promise::RealTime, what).showing(operation));
    }
}

/// What is compacted is not served any more, except by a replica that may lag behind.
fn check_served(operation: &Operation, compactions: &Compactions<'_>, found: &mut Findings) {
    let Action::Range { at: Some(at), serializable: false, .. } = operation.action else { return };
    let compacted = compactions.at_least(operation.called);
    if at < compacted {
        let what = format!("revision {at} was served and {compacted} was compacted before");
        found.add(Violation::new(Promise::RefusedRightly, what).showing(operation));
    }
}

fn check_refusal(
    operation: &Operation,
    refusal: &Refusal,
    sightings: &Sightings,
    compactions: &Compactions<'_>,
    found: &mut Findings,
) {
    let known = sightings.known_before(operation.called);
    let at_most = compactions.at_most(operation.returned);
    let is_right = match (refusal, &operation.action) {
        (Refusal::Compacted, Action::Range { at: Some(at), .. }) => *at < at_most,
        (Refusal::Compacted, Action::Compact { at }) => *at <= at_most,
        (Refusal::Future, Action::Range { at: Some(_), serializable: true, .. }) => true,
        (Refusal::Future, Action::Range { at: Some(at), .. } | Action::Compact { at }) => {
            *at > known
        }
        (Refusal::Compacted | Refusal::Future, _) => false,
        // Those of leases are judged with the leases.
        (Refusal::LeaseNotFound | Refusal::Other(_), _) => true,
    };
    if !is_right {
        let what = format!(
            "the refusal is wrong: revision {known} was known, and at most {at_most} compacted"
        );
        found.add(Violation::new(Promise::RefusedRightly, what).showing(operation));
    }
}
