//! What failures lead to: another attempt, elsewhere or later, or the end of the job.

use super::{AttemptId, Job, Outcome, WorkerId};
use crate::api::limits::{ATTEMPTS_FAILED_MAX, FAILURES_KEPT_MAX, FETCH_FAILURES_MAX};
use crate::api::{AttemptFailure, TaskKind, TaskName};

/// Attempts at one task that may fail, the cluster's own failures included.
const FAILURES_MAX: u32 = 12;

/// How much longer a task waits after each failure that is not the user's.
const RETRY_DELAY_MS: u64 = 1000;

impl Job {
    /// An output file is gone before it had its final name: the task is to be done again.
    pub(crate) fn commit_failed(&mut self, task: TaskName, attempt: AttemptId, reason: String) {
        let Some(done) = self.done_by(task, attempt) else { return };
        if done.committed {
            return;
        }
        let worker = done.worker;
        self.undo(task);
        self.note_failure(task, attempt, worker, reason, false);
    }

    /// The output of a map task could not be fetched.
    pub(super) fn fetch_failed(&mut self, map: u32, attempt: AttemptId, reason: &str) {
        let Some(state) = self.maps.get_mut(map as usize) else { return };
        if state.done.as_ref().is_none_or(|done| done.attempt != attempt) {
            return;
        }
        state.fetch_failures += 1;
        let fetch_failures = state.fetch_failures;
        self.undo(TaskName::map(map));
        if fetch_failures >= FETCH_FAILURES_MAX {
            let task = TaskName::map(map);
            self.end(Outcome::Failed {
                reason: format!(
                    "the output of {task} could not be fetched {fetch_failures} times: {reason}"
                ),
            });
        }
    }

    /// An attempt failed.
    pub(super) fn fail(
        &mut self,
        task: TaskName,
        attempt: AttemptId,
        worker: WorkerId,
        reason: String,
        by_user: bool,
    ) {
        self.finish_attempt(task, attempt);
        if self.task_mut(task).done.is_none() {
            self.note_failure(task, attempt, worker, reason, by_user);
        }
    }

    fn note_failure(
        &mut self,
        task: TaskName,
        attempt: AttemptId,
        worker: WorkerId,
        reason: String,
        by_user: bool,
    ) {
        let state = self.task_mut(task);
        state.failed += 1;
        state.failed_by_user += u32::from(by_user);
        state.failed_on.insert(worker.node);
        let (failed, failed_by_user) = (state.failed, state.failed_by_user);
        let is_idle = state.done.is_none() && state.running.is_empty();
        self.failed_attempts += 1;
        if self.failures.len() == FAILURES_KEPT_MAX {
            self.failures.remove(FAILURES_KEPT_MAX / 2);
        }
        self.failures.push_back(AttemptFailure {
            task,
            attempt: attempt.to_string(),
            node: worker.node,
            reason: reason.clone(),
        });
        if failed_by_user >= ATTEMPTS_FAILED_MAX || failed >= FAILURES_MAX {
            self.end(Outcome::Failed {
                reason: format!(
                    "task {task} failed {failed} times; the last time on node {}: {reason}",
                    worker.node
                ),
            });
        } else if by_user {
            self.make_pending_if_idle(task);
        } else if is_idle {
            let not_before = self.now + RETRY_DELAY_MS * u64::from(failed);
            self.unqueue(task);
            match task.kind {
                TaskKind::Map => self.pending_maps.delay(task.index, not_before),
                TaskKind::Reduce => self.pending_reduces.delay(task.index, not_before),
            }
        }
    }
}
