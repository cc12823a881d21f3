//! Collects what is wrong, up to a bound.

use crate::violation::Violation;

/// Most violations that are told: one defect can break a promise a million times.
const VIOLATIONS_MAX: usize = 50;

/// What was found so far.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) violations: Vec<Violation>,
}

impl Findings {
    pub(crate) fn add(&mut self, violation: Violation) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(violation);
        }
    }
}
