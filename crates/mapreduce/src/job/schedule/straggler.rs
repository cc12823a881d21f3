//! Backup attempts for tasks that hold up the end (MapReduce paper, section 3.6).

use super::{Job, WorkerId};
use crate::api::TaskKind;

/// No backup is started for an attempt younger than this.
const BACKUP_AGE_MS_MIN: u64 = 10_000;

/// A straggler has taken this many times the median of the finished tasks (MapReduce paper,
/// section 3.6).
const BACKUP_AGE_MEDIANS: u64 = 2;

impl Job {
    /// A task whose only attempt, on another node, takes suspiciously long.
    pub(super) fn straggler(&self, kind: TaskKind, worker: WorkerId) -> Option<u32> {
        let tasks = match kind {
            TaskKind::Map => &self.maps,
            TaskKind::Reduce => &self.reduces,
        };
        let oldest = tasks.iter().enumerate().filter(|(_, task)| task.done.is_none());
        let oldest = oldest.filter_map(|(index, task)| {
            let mut running = task.running.values();
            let (only, None) = (running.next()?, running.next()) else { return None };
            (only.worker.node != worker.node).then_some((only.since, index as u32))
        });
        let (since, index) = oldest.min()?;
        let age = self.now.saturating_sub(since);
        if age < BACKUP_AGE_MS_MIN {
            return None;
        }
        let mut durations: Vec<u64> = self.durations[kind as usize].iter().copied().collect();
        if durations.is_empty() {
            return None;
        }
        let middle = durations.len() / 2;
        let (_, median, _) = durations.select_nth_unstable(middle);
        (age > BACKUP_AGE_MEDIANS * *median).then_some(index)
    }
}
