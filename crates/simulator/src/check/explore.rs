//! The search, level by level.

use std::{collections::HashSet, fmt, panic};

use super::{
    bug::Bug,
    scope::Scope,
    state::State,
    table::{Hash128, Trusting},
    trace,
    universe::{Choice, Sums, Universe},
};
use crate::raft::Violation;

/// How far a search has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Steps from the first state.
    pub depth: u32,
    /// States that are reached in that many steps and not in fewer.
    pub frontier: usize,
    /// Different states so far.
    pub states: usize,
    /// Steps that were taken from them, those that change nothing not counted.
    pub transitions: u64,
}

/// How a search ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// No state is left that was not looked at: the whole scope holds.
    Exhausted,
    /// Everything within the depth was looked at, and holds.
    DepthReached,
    /// There was no room for more states. Nothing is said about those not looked at: this is not
    /// a pass.
    BudgetEnded,
    /// An invariant does not hold.
    Violated(Counterexample),
}

/// A shortest way to a violation.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// What does not hold.
    pub violation: Violation,
    /// What happened, one line a step.
    pub steps: Vec<String>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in (1..).zip(&self.steps) {
            writeln!(f, "{number:>3}. {step}")?;
        }
        write!(f, "{}", self.violation)
    }
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// How far it came. The states of the frontier are known, and are checked, but the steps from
    /// them were not taken, unless the outcome says otherwise.
    pub reached: Level,
    /// Different states of single servers.
    pub servers: usize,
    /// Different messages.
    pub messages: usize,
    /// Different logs.
    pub logs: usize,
}

/// How a state was reached first: from which state, by what.
#[derive(Clone, Copy)]
struct Origin {
    parent: u32,
    choice: u32,
}

/// Looks at everything that can happen in a scope within `depth` steps.
///
/// Some 50 bytes are needed for each of `states_max` states, and some 60 for each state of the two
/// widest levels. `on_level` is told of each level that was completed.
pub fn run(
    scope: &Scope,
    bug: Option<Bug>,
    depth: u32,
    states_max: usize,
    mut on_level: impl FnMut(Level),
) -> Report {
    // Failed assertions of the core are findings here, told in the report.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let mut search = Search::new(scope, bug, states_max);
    let outcome = search.run(depth, &mut on_level);
    panic::set_hook(hook);
    let [servers, messages, logs] = search.universe.sizes();
    Report { outcome, reached: search.level, servers, messages, logs }
}

struct Search {
    universe: Universe,
    states_max: usize,
    seen: HashSet<Hash128, Trusting>,
    /// By the number of the state: states are numbered as they are found.
    origins: Vec<Origin>,
    /// The states of the level, packed; the first of them has this number.
    frontier: Vec<u8>,
    frontier_first: u32,
    level: Level,
}

impl Search {
    fn new(scope: &Scope, bug: Option<Bug>, states_max: usize) -> Self {
        Self {
            universe: Universe::new(scope.clone(), bug),
            states_max: states_max.min(u32::MAX as usize),
            seen: HashSet::default(),
            origins: Vec::new(),
            frontier: Vec::new(),
            frontier_first: 0,
            level: Level { frontier: 1, ..Level::default() },
        }
    }

    /// Finds the state in which the scope begins.
    fn begin(&mut self) -> Result<(), Violation> {
        let first = self.universe.first_state()?;
        let mut packed = Vec::new();
        let sums = self.universe.sums(&first);
        self.find(&first, &sums, Origin { parent: 0, choice: 0 }, &mut packed);
        self.frontier = packed;
        Ok(())
    }

    fn run(&mut self, depth: u32, on_level: &mut impl FnMut(Level)) -> Outcome {
        if let Err(violation) = self.begin() {
            let steps = vec!["before the search: server 1 is elected".to_owned()];
            return Outcome::Violated(Counterexample { violation, steps });
        }
        while self.level.depth < depth {
            if let Some(outcome) = self.next_level() {
                return outcome;
            }
            on_level(self.level);
            if self.level.frontier == 0 {
                return Outcome::Exhausted;
            }
        }
        Outcome::DepthReached
    }

    /// Takes every step from every state of the level; an outcome if the search ends by it.
    fn next_level(&mut self) -> Option<Outcome> {
        let frontier = std::mem::take(&mut self.frontier);
        let mut rest = frontier.as_slice();
        let mut found = Vec::new();
        let found_first = self.origins.len() as u32;
        for parent in self.frontier_first..found_first {
            let state = State::unpack(&mut rest);
            let sums = self.universe.sums(&state);
            for choice in self.universe.choices(&state) {
                let next = match self.universe.next(&state, choice) {
                    None => continue,
                    Some(Ok(next)) => next,
                    Some(Err(violation)) => {
                        let found = self.counterexample(parent, choice, violation);
                        return Some(Outcome::Violated(found));
                    }
                };
                self.level.transitions += 1;
                let sums = self.universe.sums_of_next(&state, &sums, &next);
                self.find(&next, &sums, Origin { parent, choice: choice.pack() }, &mut found);
            }
            if self.origins.len() > self.states_max {
                return Some(Outcome::BudgetEnded);
            }
        }
        self.frontier = found;
        self.frontier_first = found_first;
        self.level.depth += 1;
        self.level.frontier = self.origins.len() - found_first as usize;
        None
    }

    /// Keeps a state unless it was seen before.
    fn find(&mut self, state: &State, sums: &Sums, origin: Origin, packed: &mut Vec<u8>) {
        if self.seen.insert(Universe::hash(state, sums)) {
            self.origins.push(origin);
            state.pack(packed);
            self.level.states += 1;
        }
    }

    fn counterexample(
        &mut self,
        last: u32,
        choice: Choice,
        violation: Violation,
    ) -> Counterexample {
        let mut choices = vec![choice];
        let mut number = last;
        while number != 0 {
            let origin = self.origins[number as usize];
            choices.push(Choice::unpack(origin.choice));
            number = origin.parent;
        }
        choices.reverse();
        let steps = trace::tell(&mut self.universe, &choices);
        Counterexample { violation, steps }
    }
}
