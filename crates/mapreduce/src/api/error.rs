//! What can go wrong when jobs are submitted and asked about.

use onefold_files::FilesError;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::status::JobId;

/// An error of MapReduce. It travels between processes unchanged. What goes wrong *within* a job is
/// not an error of the call: it is in the job's status.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum MapReduceError {
    /// The job can never run as it is described.
    #[error("the job cannot run: {reason}")]
    Invalid {
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// Nothing is stored under an input path.
    #[error("the input {path} does not exist; check the path with `onefold fs ls`")]
    NoInput {
        /// The path.
        path: String,
    },
    /// Something is stored under the output path.
    #[error("the output {path} exists already; choose another path, or overwrite it on purpose")]
    OutputExists {
        /// The path.
        path: String,
    },
    /// No such job, or it ended so long ago that it was forgotten.
    #[error("there is no job {job}; the last 1,000 are kept")]
    NoSuchJob {
        /// The job asked for.
        job: JobId,
    },
    /// The job has ended and cannot be cancelled any more.
    #[error("job {job} has ended already")]
    JobEnded {
        /// The job.
        job: JobId,
    },
    /// A bound on concurrent work is reached.
    #[error("too many jobs are under way ({active}); wait for one to end, or cancel one")]
    Overloaded {
        /// Jobs that have not ended.
        active: usize,
    },
    /// Not enough nodes answer. Trying again may succeed.
    #[error("MapReduce cannot answer now: {reason}; try again")]
    Unavailable {
        /// What is missing.
        reason: String,
    },
    /// The file system refused.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A bug or a broken disk.
    #[error("internal error of MapReduce: {reason}")]
    Internal {
        /// What happened.
        reason: String,
    },
}

impl MapReduceError {
    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid { reason: reason.into() }
    }

    pub(crate) fn internal(reason: impl ToString) -> Self {
        Self::Internal { reason: reason.to_string() }
    }

    pub(crate) fn unavailable(reason: impl ToString) -> Self {
        Self::Unavailable { reason: reason.to_string() }
    }

    /// Whether the same call may succeed later without anything being changed by a person.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Overloaded { .. } => true,
            Self::Files(error) => error.is_retryable(),
            _ => false,
        }
    }
}
