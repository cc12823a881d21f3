//! How far the job is, for people.

use super::{Job, Task};
use crate::api::{AttemptFailure, Counters, Phase, TaskCounts, TaskKind};

impl Job {
    /// Where the job is, as long as it has not ended.
    pub(crate) fn phase(&self) -> Phase {
        match self.kind_to_run() {
            TaskKind::Map => Phase::Mapping,
            TaskKind::Reduce => Phase::Reducing,
        }
    }

    /// How far the tasks of a kind are.
    pub(crate) fn counts(&self, kind: TaskKind) -> TaskCounts {
        let tasks = match kind {
            TaskKind::Map => &self.maps,
            TaskKind::Reduce => &self.reduces,
        };
        let total = tasks.len() as u32;
        let sum: u64 = tasks.iter().map(|task| u64::from(task.permille())).sum();
        let is_running = |task: &&Task| task.done.is_none() && !task.running.is_empty();
        TaskCounts {
            total,
            done: tasks.iter().filter(|task| task.done.is_some()).count() as u32,
            running: tasks.iter().filter(is_running).count() as u32,
            permille: sum.checked_div(u64::from(total)).map_or(1000, |mean| mean as u32),
        }
    }

    /// Sums over the tasks that are done.
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Attempts that failed, and the first and the latest of them.
    pub(crate) fn failures(&self) -> (u32, impl Iterator<Item = &AttemptFailure>) {
        (self.failed_attempts, self.failures.iter())
    }
}
