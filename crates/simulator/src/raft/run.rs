//! Runs one seed from the first event to the proof that the group recovered.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::{checker::Violation, coverage::Coverage, sabotage::Sabotage, world::World};
use crate::trace::Trace;

/// A seed that held.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The hash of everything that happened.
    pub trace_hash: u64,
    /// How many events that was.
    pub events: u64,
    /// How many entries were committed.
    pub committed: u64,
    /// The rare branches that it took.
    pub coverage: Coverage,
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
    format!("cargo run --release --bin onefold-sim -- raft --seed {seed} --trace")
}

/// Runs a seed, with a bug put in on purpose if one is named.
///
/// # Errors
/// The first invariant that did not hold. An assertion of the core that failed counts as one.
pub fn run(seed: u64, sabotage: Option<Sabotage>, trace: Trace) -> Result<Report, Box<Failure>> {
    let outcome = catch_unwind(AssertUnwindSafe(|| run_unguarded(seed, sabotage, trace)));
    let outcome = outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a message");
        Err(Violation { invariant: "assertions of the core", detail: text.to_owned() })
    });
    outcome.map_err(|violation| Box::new(Failure { seed, violation }))
}

fn run_unguarded(seed: u64, sabotage: Option<Sabotage>, trace: Trace) -> Result<Report, Violation> {
    let mut world = World::new(seed, sabotage, trace)?;
    world.run_until(world.plan.duration)?;
    world.recover()?;
    Ok(Report {
        seed: world.seed,
        trace_hash: world.trace.hash(),
        events: world.events,
        committed: world.checker.committed_index().0,
        coverage: world.coverage,
    })
}
