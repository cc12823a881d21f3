//! Runs one seed from the first event to the proof that the cluster recovered.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use onefold_checker::Looked;

use super::{
    checker::Violation,
    clock::SECOND,
    coverage::{Coverage, Faults},
    sabotage::Sabotage,
    world::World,
};
use crate::trace::Trace;

/// What seeds did, one or many.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// How many seeds held.
    pub seeds: u64,
    /// Virtual time that passed.
    pub simulated_seconds: u64,
    /// Things that happened.
    pub events: u64,
    /// Entries committed, in all groups.
    pub committed: u64,
    /// Answers of the cluster that were compared with what they should be.
    pub operations_checked: u64,
    /// What the checkers of whole stores looked at.
    pub looked: Looked,
    /// Faults injected.
    pub faults: Faults,
    /// Rare branches taken.
    pub coverage: Coverage,
}

impl Totals {
    /// Adds what other seeds did.
    pub fn merge(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.simulated_seconds += other.simulated_seconds;
        self.events += other.events;
        self.committed += other.committed;
        self.operations_checked += other.operations_checked;
        self.looked.add(&other.looked);
        self.faults.merge(&other.faults);
        self.coverage.merge(&other.coverage);
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>12}  seeds", self.seeds)?;
        writeln!(f, "{:>12}  simulated seconds", self.simulated_seconds)?;
        writeln!(f, "{:>12}  events", self.events)?;
        writeln!(f, "{:>12}  entries committed", self.committed)?;
        writeln!(f, "{:>12}  operations checked", self.operations_checked)?;
        let looked = &self.looked;
        writeln!(f, "{:>12}  of them answered by whole stores", looked.answered)?;
        writeln!(f, "{:>12}  of whole stores refused", looked.refused)?;
        writeln!(f, "{:>12}  of whole stores with an unknown outcome", looked.unknown)?;
        writeln!(f, "{:>12}  revisions replayed", looked.revisions)?;
        writeln!(f, "{:>12}  events told to watchers", looked.watch_events)?;
        writeln!(f, "{:>12}  bookmarks told to watchers", looked.watch_bookmarks)?;
        writeln!(f, "{:>12}  streams of watchers", looked.watch_streams)?;
        writeln!(f, "{:>12}  leases that ended with keys", looked.lease_ends)?;
        writeln!(f, "{:>12}  faults injected", self.faults.total())?;
        write!(f, "\nfaults\n{}\nrare branches\n{}", self.faults, self.coverage)
    }
}

/// A seed that held.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The hash of everything that happened.
    pub trace_hash: u64,
    /// What it did.
    pub totals: Totals,
}

/// A seed that did not hold.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was violated.
    pub violation: Violation,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, violation } = self;
        write!(f, "seed {seed}: {violation}\nreplay with: {}", replay_command(*seed))
    }
}

/// The command that shows every event of a seed.
pub fn replay_command(seed: u64) -> String {
    format!("cargo run --release --bin onefold-sim -- cluster --seed {seed} --trace")
}

/// Runs a seed, with a bug put in on purpose if one is named.
///
/// # Errors
/// The first invariant that did not hold. An assertion of a core that failed counts as one.
pub fn run(seed: u64, sabotage: Option<Sabotage>, trace: Trace) -> Result<Report, Box<Failure>> {
    let outcome = catch_unwind(AssertUnwindSafe(|| run_unguarded(seed, sabotage, trace)));
    let outcome = outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a message");
        Err(Violation { invariant: "assertions of the cores", detail: text.to_owned() })
    });
    outcome.map_err(|violation| Box::new(Failure { seed, violation }))
}

/// Runs a seed twice and compares what happened.
///
/// # Errors
/// The first invariant that did not hold, or that the two runs differ.
pub fn run_twice(seed: u64) -> Result<Report, Box<Failure>> {
    let first = run(seed, None, Trace::hashed())?;
    let second = run(seed, None, Trace::hashed())?;
    if first.trace_hash == second.trace_hash {
        return Ok(first);
    }
    let detail = format!("trace {:016x}, then {:016x}", first.trace_hash, second.trace_hash);
    let violation = Violation { invariant: "the same seed gives the same run", detail };
    Err(Box::new(Failure { seed, violation }))
}

fn run_unguarded(seed: u64, sabotage: Option<Sabotage>, trace: Trace) -> Result<Report, Violation> {
    let mut world = World::new(seed, sabotage, trace)?;
    world.run_until(world.plan.duration)?;
    world.recover()?;
    let committed = world.checkers.iter().map(|checker| checker.committed_index().0).sum();
    Ok(Report {
        seed,
        trace_hash: world.trace.hash(),
        totals: Totals {
            seeds: 1,
            simulated_seconds: world.now / SECOND,
            events: world.events,
            committed,
            operations_checked: world.history.checked,
            looked: world.looked,
            faults: world.faults,
            coverage: world.coverage,
        },
    })
}
