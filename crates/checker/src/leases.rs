//! Leases: they live as long as they were granted, and then end whole.

use std::collections::BTreeMap;

use crate::findings::Findings;
use crate::history::{Action, Answer, History, Nanos, Operation, Outcome, Refusal};
use crate::order::Sightings;
use crate::replay::{LeaseEnd, Replayed};
use crate::violation::{Promise, Violation};

const NANOS_PER_SECOND: Nanos = 1_000_000_000;
const PPM: u128 = 1_000_000;

/// What clients know of one lease.
#[derive(Default)]
struct Known<'a> {
    /// Grants and keep-alives that were acknowledged, with the seconds that they gave, and the time
    /// which that is by the fastest clock.
    renewals: Vec<(&'a Operation, u64, Nanos)>,
    /// When somebody first asked to end it.
    revoked: Option<Nanos>,
}

impl Known<'_> {
    /// The renewal that lets the lease live beyond a moment, of those that `counts` accepts.
    fn alive_at(
        &self,
        moment: Nanos,
        counts: impl Fn(&Operation) -> bool,
    ) -> Option<&(&Operation, u64, Nanos)> {
        if self.revoked.is_some_and(|revoked| revoked <= moment) {
            return None;
        }
        let until = |(operation, _, least): &(&Operation, u64, Nanos)| {
            operation.called.saturating_add(*least)
        };
        self.renewals.iter().find(|renewal| counts(renewal.0) && until(renewal) > moment)
    }
}

/// Judges every end of a lease, and every answer that says that there is none.
pub(crate) fn check(
    history: &History,
    replayed: &Replayed,
    sightings: &Sightings,
    found: &mut Findings,
) {
    let known = known(history);
    for end in &replayed.lease_ends {
        check_end(end, &known, sightings, found);
    }
    for operation in &history.operations {
        if let Some(lease) = denied(operation)
            && let Some(known) = known.get(&lease)
            // Only what was acknowledged before the question can be held against the answer.
            && let Some((renewal, ttl, _)) =
                known.alive_at(operation.returned, |renewal| renewal.returned < operation.called)
        {
            let what = format!("lease {lease} was denied within {ttl} s of its renewal");
            let violation = Violation::new(Promise::LeaseTime, what);
            found.add(violation.showing(renewal).showing(operation));
        }
    }
    for record in replayed.state.all().filter(|record| record.lease > 0) {
        let what = format!("{} still hangs on lease {} at the end", record.key, record.lease);
        found.add(Violation::new(Promise::LeaseEnds, what));
    }
}

fn check_end(
    end: &LeaseEnd,
    known: &BTreeMap<u64, Known<'_>>,
    sightings: &Sightings,
    found: &mut Findings,
) {
    // It ended when somebody saw that, or earlier.
    let Some(seen) = sightings.first_seen(end.revision) else { return };
    let Some(known) = known.get(&end.lease) else {
        let what = format!("lease {} ended and was never granted", end.lease);
        found.add(Violation::new(Promise::Caused, what));
        return;
    };
    if let Some((renewal, ttl, _)) = known.alive_at(seen, |_| true) {
        let what = format!(
            "lease {} ended at revision {}, seen at {:.6} s, within {ttl} s of its renewal",
            end.lease,
            end.revision,
            seen as f64 / 1e9
        );
        found.add(Violation::new(Promise::LeaseTime, what).showing(renewal));
    }
}

fn known(history: &History) -> BTreeMap<u64, Known<'_>> {
    let least = |ttl_seconds: u64| {
        let nanos = u128::from(ttl_seconds) * u128::from(NANOS_PER_SECOND);
        let least = nanos * PPM / (PPM + u128::from(history.clock_drift_ppm));
        Nanos::try_from(least).unwrap_or(Nanos::MAX)
    };
    let mut leases: BTreeMap<u64, Known<'_>> = BTreeMap::new();
    for operation in &history.operations {
        match (&operation.action, operation.answered()) {
            (Action::Grant { .. }, Some((_, Answer::Granted { lease, ttl_seconds }))) => {
                let renewals = &mut leases.entry(*lease).or_default().renewals;
                renewals.push((operation, *ttl_seconds, least(*ttl_seconds)));
            }
            (Action::KeepAlive { lease }, Some((_, Answer::KeptAlive { ttl_seconds: 1.. }))) => {
                let Some((_, Answer::KeptAlive { ttl_seconds })) = operation.answered() else {
                    continue;
                };
                let renewals = &mut leases.entry(*lease).or_default().renewals;
                renewals.push((operation, *ttl_seconds, least(*ttl_seconds)));
            }
            (Action::Revoke { lease }, _) => {
                let revoked = &mut leases.entry(*lease).or_default().revoked;
                *revoked = Some(revoked.map_or(operation.called, |r| r.min(operation.called)));
            }
            _ => {}
        }
    }
    leases
}

/// The lease of which an answer says that it does not exist.
fn denied(operation: &Operation) -> Option<u64> {
    match (&operation.action, &operation.outcome) {
        (
            Action::KeepAlive { lease },
            Outcome::Answered { answer: Answer::KeptAlive { ttl_seconds: 0 }, .. },
        )
        | (
            Action::Put { lease, .. } | Action::Revoke { lease } | Action::KeepAlive { lease },
            Outcome::Refused(Refusal::LeaseNotFound),
        ) => Some(*lease),
        _ => None,
    }
}
