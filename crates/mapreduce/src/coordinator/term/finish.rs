//! The end of a job: its output completed or removed, then its final status on record.

use std::time::Duration;

use super::{Done, RETRY_PAUSE, Term, wall_clock};
use crate::api::{JobId, JobStatus, Phase, TaskKind};
use crate::coordinator::store::FencedError;
use crate::job::Outcome;

/// How long the workers have to stop writing before what they wrote is removed.
const STOP_PATIENCE: Duration = Duration::from_millis(600);

impl Term {
    /// Completes or removes the output of a job that has ended, once nothing is being renamed in it.
    pub(super) fn end_output_if_quiet(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let Some(outcome) = &job.outcome else { return };
        if job.committing > 0 {
            return;
        }
        let (output, succeeded) = (job.output.clone(), *outcome == Outcome::Succeeded);
        self.background.spawn(async move {
            if succeeded {
                output.succeed().await;
            } else {
                tokio::time::sleep(STOP_PATIENCE).await;
                while let Err(error) = output.remove().await {
                    tracing::warn!(job = %id, %error, "the output is not removed yet");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
            Done::OutputEnded(id)
        });
    }

    /// The status of a job as it is now.
    pub(super) fn present_status(&self, id: JobId) -> Option<JobStatus> {
        let active = self.jobs.get(&id)?;
        let job = self.scheduler.job(id)?;
        let mut status = active.status.clone();
        status.summary.phase = job.phase();
        status.summary.maps = job.counts(TaskKind::Map);
        status.summary.reduces = job.counts(TaskKind::Reduce);
        status.summary.started = Some(active.plan.started);
        status.input_bytes = active.plan.input_bytes;
        status.counters = job.counters().clone();
        let (failed_attempts, failures) = job.failures();
        status.failed_attempts = failed_attempts;
        status.failures = failures.cloned().collect();
        status.workers = u32::try_from(self.scheduler.workers_alive()).unwrap_or(u32::MAX);
        Some(status)
    }

    pub(super) fn write_end(&mut self, id: JobId) {
        let Some(mut status) = self.present_status(id) else { return };
        let outcome = self.jobs.get(&id).and_then(|job| job.outcome.clone());
        status.summary.phase = match outcome {
            Some(Outcome::Succeeded) => Phase::Succeeded,
            Some(Outcome::Cancelled) => Phase::Cancelled,
            Some(Outcome::Failed { reason }) => {
                status.error = Some(reason);
                Phase::Failed
            }
            None => return,
        };
        status.summary.ended = Some(wall_clock());
        tracing::info!(job = %id, phase = %status.summary.phase, "a job has ended");
        self.writes.end(&status);
    }

    /// A job cannot even start.
    pub(super) fn refuse(&mut self, id: JobId, reason: String) {
        tracing::info!(job = %id, reason, "a job cannot run");
        let cancelled = self.cancelled.contains(&id);
        let (store, epoch) = (self.context.store.clone(), self.epoch);
        self.ended.insert(id);
        self.background.spawn(async move {
            loop {
                let Ok(mut status) = store.status(id).await else {
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                };
                status.summary.phase = if cancelled { Phase::Cancelled } else { Phase::Failed };
                status.summary.ended = Some(wall_clock());
                status.error = (!cancelled).then(|| reason.clone());
                let operations = crate::coordinator::store::put_end(&status);
                match store.fenced(epoch, operations).await {
                    Ok(_) => return Done::Nothing,
                    Err(FencedError::Deposed | FencedError::Refused(_)) => return Done::Deposed,
                    Err(FencedError::Unavailable(_)) => tokio::time::sleep(RETRY_PAUSE).await,
                }
            }
        });
    }

    /// The end of a job is on record.
    pub(super) fn forget(&mut self, id: JobId) {
        self.scheduler.remove_job(id);
        self.jobs.remove(&id);
        self.cancelled.remove(&id);
        self.ended.insert(id);
        self.collect_garbage();
    }

    /// Deletes records that are not needed any more, in the background.
    pub(super) fn collect_garbage(&mut self) {
        let (store, epoch) = (self.context.store.clone(), self.epoch);
        self.background.spawn(async move {
            match store.collect_garbage(epoch).await {
                Err(FencedError::Deposed) => return Done::Deposed,
                Err(FencedError::Unavailable(error) | FencedError::Refused(error)) => {
                    tracing::debug!(%error, "records of ended jobs are deleted later");
                }
                Ok(()) => {}
            }
            Done::Nothing
        });
    }
}
