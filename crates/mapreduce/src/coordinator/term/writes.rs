//! Writing records: one transaction at a time, each with all that has come together meanwhile.

use onefold_kv::Operation;
use tokio::time::Instant;

use super::{Done, RETRY_PAUSE, Term};
use crate::api::{JobId, JobStatus, TaskName};
use crate::coordinator::store::{FencedError, put_done, put_end, put_status};
use crate::job::{AttemptId, TaskRecord};

/// Operations in one transaction.
const BATCH_OPERATIONS: usize = 100;

/// Bytes in one transaction.
const BATCH_BYTES: usize = 768 << 10;

/// What is to be done when something is durable.
pub(super) enum Note {
    /// Nothing.
    None,
    /// Tell the job.
    Recorded { job: JobId, task: TaskName, attempt: AttemptId },
    /// Forget the job.
    Ended(JobId),
}

/// Records that are to be written, in order. There is at most one of each task and a few of each
/// job, so it is as bounded as these are.
#[derive(Default)]
pub(super) struct Writes {
    waiting: std::collections::VecDeque<(Vec<Operation>, Note)>,
    is_writing: bool,
}

impl Writes {
    pub(super) fn record(&mut self, job: JobId, record: TaskRecord) {
        let note = Note::Recorded { job, task: record.task, attempt: record.attempt };
        self.waiting.push_back((vec![put_done(job, &record)], note));
    }

    pub(super) fn status(&mut self, status: &JobStatus) {
        self.waiting.push_back((vec![put_status(status)], Note::None));
    }

    pub(super) fn end(&mut self, status: &JobStatus) {
        let note = Note::Ended(status.summary.job);
        self.waiting.push_back((put_end(status), note));
    }

    /// Whether all that was handed over is written or being written.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    fn next_batch(&mut self) -> (Vec<Operation>, Vec<Note>) {
        let (mut operations, mut notes) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        while let Some((next, _)) = self.waiting.front() {
            let next_bytes: usize = next.iter().map(size_of_operation).sum();
            let is_full = operations.len() + next.len() > BATCH_OPERATIONS
                || bytes + next_bytes > BATCH_BYTES;
            let writes_twice =
                next.iter().any(|next| operations.iter().any(|o| is_same_key(o, next)));
            if !operations.is_empty() && (is_full || writes_twice) {
                break;
            }
            let (next, note) = self.waiting.pop_front().expect("it has a front");
            bytes += next_bytes;
            operations.extend(next);
            notes.push(note);
        }
        (operations, notes)
    }
}

fn size_of_operation(operation: &Operation) -> usize {
    match operation {
        Operation::Put(put) => put.key.len() + put.value.len(),
        _ => 0,
    }
}

/// A transaction writes no key twice.
fn is_same_key(a: &Operation, b: &Operation) -> bool {
    matches!((a, b), (Operation::Put(a), Operation::Put(b)) if a.key == b.key)
}

impl Term {
    /// Starts the next transaction, if none is under way.
    pub(super) fn write(&mut self) {
        if self.writes.is_writing {
            return;
        }
        let (operations, notes) = self.writes.next_batch();
        if operations.is_empty() {
            return;
        }
        self.writes.is_writing = true;
        let (store, epoch) = (self.context.store.clone(), self.epoch);
        self.background.spawn(async move {
            loop {
                match store.fenced(epoch, operations.clone()).await {
                    Ok(_) => return Done::Written(notes),
                    Err(FencedError::Deposed) => return Done::Deposed,
                    Err(FencedError::Refused(error)) => {
                        tracing::error!(%error, "job records are refused; giving up coordinating");
                        return Done::Deposed;
                    }
                    Err(FencedError::Unavailable(error)) => {
                        tracing::debug!(%error, "job records cannot be written yet");
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                }
            }
        });
    }

    pub(super) fn take_notes(&mut self, notes: Vec<Note>) {
        self.writes.is_writing = false;
        for note in notes {
            match note {
                Note::None => {}
                Note::Recorded { job, task, attempt } => {
                    if let Some(job) = self.scheduler.job_mut(job) {
                        job.recorded(task, attempt);
                    }
                }
                Note::Ended(job) => self.forget(job),
            }
        }
    }

    /// Writes how the jobs stand, now and then.
    pub(super) fn report_progress(&mut self) {
        if Instant::now() < self.status_due || !self.writes.is_idle() {
            return;
        }
        self.status_due = Instant::now() + self.context.timing.status;
        let jobs: Vec<JobId> = self.jobs.keys().copied().collect();
        for id in jobs {
            if let Some(status) = self.status(id) {
                self.writes.status(&status);
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.status = status;
                }
            }
        }
    }

    /// A job's status, if it has changed and is not the final one.
    fn status(&self, id: JobId) -> Option<JobStatus> {
        let active = self.jobs.get(&id)?;
        if active.outcome.is_some() {
            return None;
        }
        let status = self.present_status(id)?;
        (status != active.status).then_some(status)
    }
}
