//! Why an attempt at a task does not succeed.

use std::io;
use std::path::{Path, PathBuf};

use onefold_files::FilesError;
use thiserror::Error;

use crate::api::limits::RECORD_BYTES_MAX;

/// The end of an attempt, other than success.
#[derive(Debug, Error)]
pub(crate) enum TaskError {
    /// It was told to stop; nobody is interested in it any more.
    #[error("stopped")]
    Stopped,
    /// It made no progress for longer than the job allows.
    #[error("no progress for {seconds} s: nothing read, written or reported; it was killed")]
    TimedOut {
        /// The job's task timeout.
        seconds: u64,
    },
    /// Shuffled data does not match its checksums.
    #[error("{reason}")]
    Corrupt {
        /// The map task that made the data; none for what the attempt wrote itself.
        origin: Option<u32>,
        /// What does not match.
        reason: String,
    },
    /// Map output could not be fetched.
    #[error("the output of map task {map} could not be fetched: {reason}")]
    Fetch {
        /// The map task.
        map: u32,
        /// Why not.
        reason: String,
    },
    /// A line, key or value exceeds its bound.
    #[error("{what} is longer than {} MiB, the most that a record may have", RECORD_BYTES_MAX >> 20)]
    RecordTooLong {
        /// Which one.
        what: String,
    },
    /// The user's code failed.
    #[error("{reason}")]
    User {
        /// How, with the last lines of its standard error.
        reason: String,
    },
    /// The file system refused.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The worker's own disk refused.
    #[error("cannot {action} {}: {source}; check the disk that holds the data folder", path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl TaskError {
    pub(crate) fn disk(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Disk { action, path: path.to_owned(), source }
    }

    pub(crate) fn user(reason: impl Into<String>) -> Self {
        Self::User { reason: reason.into() }
    }
}
