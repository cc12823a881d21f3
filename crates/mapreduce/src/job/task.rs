//! One task: its attempts and its result.

use std::collections::{BTreeMap, BTreeSet};

use onefold_types::NodeId;
use serde::{Deserialize, Serialize};

use super::names::{AttemptId, WorkerId};
use crate::api::{Counters, TaskName};

/// The durable fact that an attempt is a task's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskRecord {
    /// The task.
    pub(crate) task: TaskName,
    /// The attempt.
    pub(crate) attempt: AttemptId,
    /// Where it ran; map output is there.
    pub(crate) worker: WorkerId,
    /// What it counted.
    pub(crate) counters: Counters,
}

/// An attempt under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    pub(super) worker: WorkerId,
    pub(super) since: u64,
    pub(super) permille: u32,
}

/// The attempt that is a task's result.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) attempt: AttemptId,
    pub(super) worker: WorkerId,
    pub(super) counters: Counters,
    /// Whether it is on record.
    pub(super) recorded: bool,
    /// Whether its output file has its final name.
    pub(super) committed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Task {
    pub(super) done: Option<Done>,
    pub(super) running: BTreeMap<AttemptId, Running>,
    /// Attempts that are over, so that a report that comes twice counts once.
    pub(super) ended: BTreeSet<AttemptId>,
    /// The number of the last attempt that this coordinator started.
    pub(super) last_number: u32,
    /// Attempts that failed through the user's code or data.
    pub(super) failed_by_user: u32,
    /// Attempts that failed for any reason.
    pub(super) failed: u32,
    pub(super) failed_on: BTreeSet<NodeId>,
    /// How often the output turned out to be unreadable.
    pub(super) fetch_failures: u32,
}

impl Task {
    /// Share of the task that is done, in thousandths.
    pub(super) fn permille(&self) -> u32 {
        match self.done {
            Some(_) => 1000,
            None => self.running.values().map(|running| running.permille).max().unwrap_or(0),
        }
    }
}
