//! The job: which task runs where, and what becomes of it. Pure and deterministic.
//!
//! ```text
//!  heartbeats ─►┌───────────┐─► replies: work, what to stop, what to forget
//!        time ─►│ Scheduler │─► actions: records to keep, outputs to commit, ends of jobs
//!               └─┬───────┬─┘
//!              Workers   Job, Job, …
//! ```
//!
//! A task becomes *done* by the first attempt that reports success (MapReduce paper, section 3.3).
//! What is done is recorded durably; an output file is committed, by renaming it, only after its
//! attempt is on record. So two attempts at a task, even under two coordinators, leave one result.
//!
//! What this room must never do: look at a clock, draw a random number, or do any I/O. Its driver is
//! the coordinator.

mod names;
mod pending;
mod schedule;
mod scheduler;
mod task;
mod workers;

#[cfg(test)]
mod purity;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

pub(crate) use names::{AttemptId, WorkerId};
pub(crate) use schedule::{Action, Job, MapSource, Outcome, Report};
pub(crate) use scheduler::{AttemptName, AttemptReport, Heartbeat, Instructions, Scheduler, Work};
pub(crate) use task::TaskRecord;
