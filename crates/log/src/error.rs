//! Why a log can't be opened or written.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use onefold_types::{GroupId, LogIndex};

use crate::format::LOG_FORMAT;

/// Why a log can't be opened or written. Clones share the system's error, since one failed sync
/// fails many appends.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// The system refused an access.
    #[error("cannot use {path}: {source}; check that it exists, is writable and the disk is well")]
    Io {
        /// What was accessed.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Another process has the log open.
    #[error("log {0} is in use by another process; stop that one or choose another data folder")]
    InUse(PathBuf),
    /// There are files that are not those of a log.
    #[error(
        "{0} does not belong to a log of Onefold; \
         move it away, or choose an empty or new folder for the log"
    )]
    Foreign(PathBuf),
    /// Another version of the program wrote the log.
    #[error(
        "log file {path} has format {found}, this program reads format {LOG_FORMAT}; start it with \
         the version of the program that wrote it"
    )]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The log, or a file of it, was made for another data folder. Nothing was changed.
    #[error(
        "log file {path} belongs to data folder {found:016x}, not to this one, {expected:016x}: \
         with another node's votes and entries this one must not go on. Put the folders and files \
         back to where they were made, or remove this node from the cluster and let the machine \
         join as a new node on an empty data folder"
    )]
    OtherOwner {
        /// The file.
        path: PathBuf,
        /// The number of the data folder that it was made for.
        found: u64,
        /// The number of the data folder that it was opened for.
        expected: u64,
    },
    /// A file is damaged in a place that was acknowledged. Nothing was changed or repaired.
    #[error(
        "log file {file} is damaged at byte {offset}: {reason}. Acknowledged entries or votes may \
         be lost, so this replica must not go on, and an older copy of the folder would not know \
         them either: remove this node from the cluster and let the machine join as a new node on \
         an empty data folder; the other nodes hold the data"
    )]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Where the damage begins.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// A file of the log is gone.
    #[error(
        "log file {0} is missing. Acknowledged entries or votes may be lost, so this replica must \
         not go on: bring that very file back, or remove this node from the cluster and let the \
         machine join as a new node on an empty data folder; the other nodes hold the data"
    )]
    Missing(PathBuf),
    /// There is no space for another segment file. Nothing was written; the log itself is intact.
    #[error("no space on the disk for log file {path} of {bytes} bytes; free space on that disk")]
    DiskFull {
        /// The file that could not be created.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// One append is larger than a log takes.
    #[error("an append of {bytes} bytes is too large; at most {bytes_max} are possible")]
    TooLarge {
        /// Its size in the log.
        bytes: u64,
        /// The greatest possible size.
        bytes_max: u64,
    },
    /// An entry does not follow the ones before it. Nothing of its append was written.
    #[error(
        "entry {index} of group {group} does not fit: the log holds entries after {after} up to \
         {last}; an earlier append of the group must have failed"
    )]
    OutOfOrder {
        /// The group.
        group: GroupId,
        /// The entry's index.
        index: LogIndex,
        /// The group's snapshot mark.
        after: LogIndex,
        /// The group's last entry.
        last: LogIndex,
    },
    /// A write or sync failed before. What is on disk is in doubt until the log is opened again; a
    /// sync is never retried, since the system may have dropped what it could not write.
    #[error("the log takes no more writes: {0}; check the disk and start the node again")]
    Poisoned(Arc<LogError>),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

impl LogError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source: Arc::new(source) }
    }

    /// The error of something new that could not be created.
    pub(crate) fn disk_full_or_io(path: &Path, bytes: u64, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path: path.to_owned(), bytes }
            }
            _ => Self::io(path)(error),
        }
    }

    pub(crate) fn corrupt(file: &Path, offset: u64, reason: impl Into<String>) -> Self {
        Self::Corrupt { file: file.to_owned(), offset, reason: reason.into() }
    }

    /// The error that later appends get after this one.
    pub(crate) fn poisoned(&self) -> Self {
        match self {
            Self::Poisoned(_) => self.clone(),
            cause => Self::Poisoned(Arc::new(cause.clone())),
        }
    }
}
