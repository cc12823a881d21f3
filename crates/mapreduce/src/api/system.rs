//! The one seam between MapReduce and everything above it.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::error::MapReduceError;
use super::spec::JobSpec;
use super::status::{AttemptLog, JobId, JobStatus, JobSummary, TaskName};

/// Which logs to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRequest {
    /// The job.
    pub job: JobId,
    /// Only this task's.
    pub task: Option<TaskName>,
}

/// One page of jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobPage {
    /// The latest jobs first.
    pub jobs: Vec<JobSummary>,
    /// The job before which the next page starts; `None` when this is the last.
    pub next: Option<JobId>,
}

/// MapReduce, wherever it runs. Any node answers.
#[async_trait]
pub trait MapReduce: Send + Sync {
    /// Accepts a job durably. It runs whether or not the caller stays.
    ///
    /// # Errors
    /// `Invalid`, `NoInput`, `OutputExists`, `Overloaded`, `Unavailable`, `Files`.
    async fn submit(&self, spec: JobSpec) -> Result<JobId, MapReduceError>;

    /// How a job stands.
    ///
    /// # Errors
    /// `NoSuchJob`, `Unavailable`.
    async fn status(&self, job: JobId) -> Result<JobStatus, MapReduceError>;

    /// Jobs, the latest first, those before `before` only; at most 100 in a page.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn list(&self, before: Option<JobId>) -> Result<JobPage, MapReduceError>;

    /// Asks for a job to be cancelled. Its attempts are killed and its output so far removed soon
    /// afterwards; the status shows when.
    ///
    /// # Errors
    /// `NoSuchJob`, `JobEnded`, `Unavailable`.
    async fn cancel(&self, job: JobId) -> Result<(), MapReduceError>;

    /// What the attempts of a job wrote to standard error, from all nodes that answer.
    ///
    /// # Errors
    /// `NoSuchJob`, `Unavailable`.
    async fn logs(&self, request: LogRequest) -> Result<Vec<AttemptLog>, MapReduceError>;
}

/// Waits until a job has ended, and shows `progress` each status on the way. Failures to ask are
/// tolerated for half a minute at a stretch.
///
/// # Errors
/// `NoSuchJob`; `Unavailable` when nobody answered for that long.
pub async fn wait(
    system: &dyn MapReduce,
    job: JobId,
    mut progress: impl FnMut(&JobStatus) + Send,
) -> Result<JobStatus, MapReduceError> {
    const INTERVAL: Duration = Duration::from_millis(250);
    const PATIENCE: Duration = Duration::from_secs(30);
    let mut answered = tokio::time::Instant::now();
    loop {
        match system.status(job).await {
            Ok(status) => {
                progress(&status);
                if status.summary.phase.is_ended() {
                    return Ok(status);
                }
                answered = tokio::time::Instant::now();
            }
            Err(error) if error.is_retryable() && answered.elapsed() < PATIENCE => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
