//! Each register's history through the search for linearizability, which knows no revisions.

use std::collections::BTreeMap;

use crate::findings::Findings;
use crate::history::{Action, Answer, Compare, History, Operation, Outcome, Record};
use crate::linearizability::{
    self, Register, RegisterInput, RegisterOutput, Unproven, check as search, simplify,
};
use crate::violation::{Promise, Unjudged, Violation};

/// Configurations that the search of one key's history may look at.
pub(crate) const CONFIGURATIONS_MAX: usize = 2_000_000;

/// Operations that are shown of a history that is not linearizable.
const SHOWN_MAX: usize = 20;

type Step = linearizability::Operation<RegisterInput, RegisterOutput>;

/// What was searched.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Searched {
    pub(crate) keys: usize,
    pub(crate) operations: usize,
}

/// Searches every register's history, each through at most `configurations_max` configurations.
///
/// # Errors
/// When a search used up its budget, or registers were used otherwise than as registers.
pub(crate) fn check(
    history: &History,
    configurations_max: usize,
    found: &mut Findings,
) -> Result<Searched, Unjudged> {
    let Some(prefix) = &history.registers else { return Ok(Searched::default()) };
    if history.base.iter().any(|record| record.key.starts_with(prefix.as_str())) {
        return Err(Unjudged("a register exists before the history begins".to_owned()));
    }
    let mut sorted = Sorted::new(prefix);
    history.operations.iter().try_for_each(|operation| sorted.single(operation))?;
    history.operations.iter().for_each(|operation| sorted.many(operation));
    let mut searched = Searched::default();
    for (key, (mut steps, operations)) in sorted.registers {
        searched.keys += 1;
        searched.operations += steps.len();
        simplify(&mut steps);
        match search(&Register, &steps, configurations_max) {
            Ok(()) => {}
            Err(error @ Unproven::BudgetUsedUp { .. }) => {
                return Err(Unjudged(format!("register {key}: {error}")));
            }
            Err(Unproven::Violated { at }) => found.add(violation(&key, at, &operations)),
        }
    }
    Ok(searched)
}

fn violation(key: &str, at: usize, operations: &[&Operation]) -> Violation {
    let stuck = operations[at];
    let what = format!("no order explains the answers of register {key}, the latest of which is");
    let mut violation = Violation::new(Promise::Linearizable, what).showing(stuck);
    let mut others: Vec<&Operation> = operations.to_vec();
    others.retain(|other| other.called <= stuck.returned && !std::ptr::eq(*other, stuck));
    others.sort_by_key(|other| other.called);
    let skipped = others.len().saturating_sub(SHOWN_MAX);
    for other in &others[skipped..] {
        violation = violation.showing(other);
    }
    violation
}

/// Operations by the register that they are about.
struct Sorted<'a> {
    prefix: &'a str,
    values: BTreeMap<&'a str, u64>,
    registers: BTreeMap<String, (Vec<Step>, Vec<&'a Operation>)>,
}

impl<'a> Sorted<'a> {
    fn new(prefix: &'a str) -> Self {
        Self { prefix, values: BTreeMap::new(), registers: BTreeMap::new() }
    }

    fn number(&mut self, value: &'a str) -> u64 {
        let next = self.values.len() as u64;
        *self.values.entry(value).or_insert(next)
    }

    fn held(&mut self, record: Option<&'a Record>) -> RegisterOutput {
        RegisterOutput::Value(record.map(|record| self.number(&record.value)))
    }

    fn add(
        &mut self,
        key: &str,
        operation: &'a Operation,
        input: RegisterInput,
        output: Option<RegisterOutput>,
    ) {
        let (called, returned) = (operation.called, operation.returned);
        let register = self.registers.entry(key.to_owned()).or_default();
        register.0.push(Step { input, output, called, returned });
        register.1.push(operation);
    }

    /// Sorts in what is about one register.
    fn single(&mut self, operation: &'a Operation) -> Result<(), Unjudged> {
        if matches!(operation.outcome, Outcome::Refused(_)) {
            return Ok(());
        }
        let answer = operation.answered().map(|(_, answer)| answer);
        let own = |key: &str| key.starts_with(self.prefix);
        match &operation.action {
            Action::Put { key, value, lease: 0, previous } if own(key) => {
                let new = self.number(value);
                let (input, output) = match (previous, answer) {
                    (false, answer) => {
                        (RegisterInput::Put(new), answer.map(|_| RegisterOutput::Done))
                    }
                    (true, Some(Answer::Put(before))) => {
                        (RegisterInput::Swap(new), Some(self.held(before.as_ref())))
                    }
                    (true, _) => (RegisterInput::Swap(new), None),
                };
                self.add(key, operation, input, output);
            }
            Action::Delete { span, .. } if own(&span.from) && span.until.is_none() => {
                let output = answer.map(|answer| RegisterOutput::Did(answer.wrote()));
                self.add(&span.from, operation, RegisterInput::Delete, output);
            }
            Action::Txn { compares, success, .. } => match (&compares[..], &success[..]) {
                ([compare], [Action::Put { key, value, lease: 0, .. }]) if own(key) => {
                    let expected = match compare {
                        Compare::Value { value, .. } => Some(self.number(value)),
                        Compare::Modified { .. } => None,
                    };
                    let input = RegisterInput::CompareAndSwap { expected, new: self.number(value) };
                    let output = answer.map(|answer| RegisterOutput::Did(answer.wrote()));
                    self.add(key, operation, input, output);
                }
                _ if touches(&operation.action, self.prefix) => return Err(misused(operation)),
                _ => {}
            },
            action if touches(action, self.prefix) => return Err(misused(operation)),
            _ => {}
        }
        Ok(())
    }

    /// Sorts in reads, of one register or of several: each of them is read.
    fn many(&mut self, operation: &'a Operation) {
        let Action::Range { span, at: None, serializable: false } = &operation.action else {
            return;
        };
        let Some((_, Answer::Range(records))) = operation.answered() else { return };
        let keys: Vec<String> =
            self.registers.keys().filter(|key| span.contains(key)).cloned().collect();
        for key in keys {
            let output = self.held(records.iter().find(|record| record.key == key));
            self.add(&key, operation, RegisterInput::Get, Some(output));
        }
    }
}

fn misused(operation: &Operation) -> Unjudged {
    Unjudged(format!("this is no operation on a register: {operation}"))
}

/// Whether a write may change a register.
fn touches(action: &Action, prefix: &str) -> bool {
    match action {
        Action::Put { key, .. } => key.starts_with(prefix),
        Action::Delete { span, .. } => span.from.starts_with(prefix) || span.contains(prefix),
        Action::Txn { success, failure, .. } => {
            success.iter().chain(failure).any(|inner| touches(inner, prefix))
        }
        _ => false,
    }
}
