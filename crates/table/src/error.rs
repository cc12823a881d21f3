//! Why a table can't be opened, read or written.

use std::io;
use std::path::PathBuf;

use crate::fjall_table::TABLE_FORMAT;
use crate::view::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// Why a table can't be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The system refused an access.
    #[error("cannot use {path}: {source}; check that it exists, is writable and has free space")]
    Io {
        /// What was accessed.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has the table open.
    #[error("table {0} is in use by another process; stop that one or choose another data folder")]
    InUse(PathBuf),
    /// The folder holds files, but none that say that it is a table.
    #[error("{0} is not empty and not a table of Onefold; choose an empty or new folder")]
    Foreign(PathBuf),
    /// A newer program wrote the table.
    #[error(
        "table {path} has format {found}, this program reads formats up to {TABLE_FORMAT}; \
         start it with the newer program that wrote it"
    )]
    Newer {
        /// The table's folder.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A file of the table is damaged. Nothing was changed or repaired.
    #[error(
        "table file {file} is damaged: {reason}. If other nodes hold the data as well, delete the \
         folder of the table and start the node again: it gets what was in it from them"
    )]
    Corrupt {
        /// The damaged file; the table's folder when no single file can be named.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A write or sync failed before; the state on disk is in doubt until the table is opened
    /// again.
    #[error(
        "table {path} takes no more writes after a failure ({reason}); \
         check the disk and start the node again"
    )]
    Stopped {
        /// The table's folder.
        path: PathBuf,
        /// The failure.
        reason: String,
    },
    /// A key is longer than a table can hold.
    #[error("a key of {bytes} bytes is too long; at most {KEY_BYTES_MAX} are possible")]
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A value is longer than a table can hold.
    #[error("a value of {bytes} bytes is too long; at most {VALUE_BYTES_MAX} are possible")]
    ValueTooLong {
        /// Its length.
        bytes: usize,
    },
}
