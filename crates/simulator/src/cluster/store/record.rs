//! What clients and watchers of one group saw, and what its log made of it.

use std::collections::BTreeMap;

use onefold_checker::{
    Looked,
    history::{
        Action, Copy, Event, History, Nanos, Operation, Outcome, Reading, Record, Refusal, Watch,
    },
    judge,
};
use onefold_kv::core::{self, Change};
use onefold_table::View;
use onefold_types::{NodeId, Revision};

use super::{
    super::{
        checker::{Checked, Violation, ensure},
        clock::Micros,
        history::OpId,
    },
    words::{self, Answered},
};

/// The revision of an empty store.
const REVISION_FIRST: Revision = Revision(1);

/// Whoever compacts without being asked, among the clients.
const NOBODY: u64 = u64::MAX;

/// A time of the world for the checkers.
pub(in super::super) fn nanos(time: Micros) -> Nanos {
    time * 1000
}

/// Everything that is known of one group.
#[derive(Debug, Default)]
pub(in super::super) struct Account {
    /// Operations that are over.
    operations: Vec<Operation>,
    /// Those that are not.
    begun: BTreeMap<OpId, Operation>,
    pub(in super::super) watches: Vec<Watch>,
    /// What each revision changed, as the first replica told that applied it.
    chronicle: BTreeMap<Revision, Vec<Event>>,
    compacted: Revision,
    /// What the store holds by that, for clients that know a lot.
    pub(in super::super) known: BTreeMap<String, Record>,
    /// Leases that were granted.
    pub(in super::super) leases: Vec<u64>,
}

impl Account {
    /// The newest revision.
    pub(in super::super) fn end(&self) -> Revision {
        self.chronicle.last_key_value().map_or(REVISION_FIRST, |(revision, _)| *revision)
    }

    pub(in super::super) fn begins(&mut self, op: OpId, action: Action, now: Micros) {
        let (called, client) = (nanos(now), u64::from(op.client));
        let outcome = Outcome::Unknown("it never ended".to_owned());
        let node = NodeId(0);
        let operation = Operation { client, node, called, returned: Nanos::MAX, action, outcome };
        self.begun.insert(op, operation);
    }

    /// What an operation asked for.
    pub(in super::super) fn action(&self, op: OpId) -> Option<&Action> {
        self.begun.get(&op).map(|operation| &operation.action)
    }

    pub(in super::super) fn ends(&mut self, op: OpId, node: NodeId, outcome: Outcome, now: Micros) {
        let Some(mut operation) = self.begun.remove(&op) else { return };
        operation.returned = nanos(now);
        operation.node = node;
        operation.outcome = outcome;
        self.operations.push(operation);
    }

    /// A client has an answer.
    pub(in super::super) fn answered(
        &mut self,
        op: OpId,
        node: NodeId,
        answered: Answered,
        now: Micros,
    ) {
        let outcome = match answered {
            Ok((revision, answer)) => Outcome::Answered { revision, answer },
            Err(refusal) => Outcome::Refused(refusal),
        };
        self.ends(op, node, outcome, now);
    }

    /// A client gave up.
    pub(in super::super) fn given_up(
        &mut self,
        op: OpId,
        node: NodeId,
        is_refused: bool,
        now: Micros,
    ) {
        let why = "nobody answered".to_owned();
        let outcome = match is_refused {
            true => Outcome::Refused(Refusal::Other(why)),
            false => Outcome::Unknown(why),
        };
        self.ends(op, node, outcome, now);
    }

    /// A replica has committed something.
    pub(in super::super) fn committed(
        &mut self,
        group: usize,
        id: NodeId,
        changes: Vec<Change>,
    ) -> Checked {
        for (revision, events) in changes {
            let events: Vec<Event> = events.iter().map(words::event).collect();
            if let Some(known) = self.chronicle.get(&revision) {
                ensure(*known == events, "equal events at equal revisions", || {
                    format!("g{group} n{id} at {revision}: {events:?}, not {known:?}")
                })?;
                continue;
            }
            for event in &events {
                match &event.record {
                    Some(record) => self.known.insert(event.key.clone(), record.clone()),
                    None => self.known.remove(&event.key),
                };
            }
            self.chronicle.insert(revision, events);
        }
        Ok(())
    }

    /// A replica's history begins with this revision now: whether somebody asked for it or not, that
    /// may be so from now on.
    pub(in super::super) fn compacted(&mut self, at: Revision, now: Micros) {
        if at <= self.compacted {
            return;
        }
        self.compacted = at;
        self.operations.push(Operation {
            client: NOBODY,
            node: NodeId(0),
            called: nanos(now),
            returned: nanos(now),
            action: Action::Compact { at },
            outcome: Outcome::Unknown("nobody needs to have asked".to_owned()),
        });
    }

    /// Judges everything. `replicas` are views of what each holds at the end.
    pub(in super::super) fn judge(
        mut self,
        group: usize,
        replicas: &[(NodeId, impl View)],
        clock_drift_ppm: u64,
    ) -> Result<Looked, Violation> {
        let failed = |id: NodeId| {
            move |error: onefold_kv::KvError| Violation {
                invariant: "states can be read",
                detail: format!("g{group} n{id}: {error}"),
            }
        };
        let end = self.end();
        let events = self.chronicle.values().flatten().cloned().collect();
        let from = REVISION_FIRST.next();
        let mut readings = vec![Reading { node: NodeId(0), from, until: end, events }];
        let mut copies = Vec::new();
        for (id, view) in replicas {
            let (revision, compacted) = core::revisions(view).map_err(failed(*id))?;
            let from = compacted.max(REVISION_FIRST).next();
            let events = core::events(view, from).map_err(failed(*id))?;
            let events = events.iter().map(words::event).collect();
            readings.push(Reading { node: *id, from, until: end, events });
            let all = core::read(view, &everything()).map_err(failed(*id))?;
            let hashed = core::hash_history(view).map_err(failed(*id))?;
            copies.push(Copy {
                node: *id,
                revision,
                records: all.kvs.iter().map(words::record).collect(),
                hash: Some((hashed.compacted, hashed.hash)),
            });
        }
        self.operations.extend(std::mem::take(&mut self.begun).into_values());
        let history = History {
            begin: REVISION_FIRST,
            base: Vec::new(),
            compacted: Revision::ZERO,
            end,
            operations: self.operations,
            watches: self.watches,
            readings,
            copies,
            accounts: None,
            registers: None,
            clock_drift_ppm,
        };
        let verdict = judge(&history).map_err(|error| Violation {
            invariant: "histories can be judged",
            detail: format!("g{group}: {error}"),
        })?;
        match verdict.violations.first() {
            None => Ok(verdict.looked),
            Some(violation) => Err(Violation {
                invariant: violation.promise.name(),
                detail: format!("g{group}: {violation}"),
            }),
        }
    }
}

fn everything() -> onefold_kv::RangeRequest {
    onefold_kv::RangeRequest::prefix("")
}
