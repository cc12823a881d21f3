//! The files of a job as a task sees them: plain, blocking, and the same in a cluster and locally.

use std::ops::Range;

use bytes::Bytes;

use super::error::TaskError;
use crate::input::FileRange;

/// Where a task reads its input and writes its output.
pub(crate) trait TaskFiles: Send + Sync {
    /// Opens the file of a range, which must still have the range's ETag.
    fn open(&self, range: &FileRange) -> Result<Box<dyn InputFile + '_>, TaskError>;

    /// Creates a file for output, under a name of its own that no other attempt uses.
    fn create(&self, name: &str) -> Result<Box<dyn OutputFile + '_>, TaskError>;
}

/// A file to read.
pub(crate) trait InputFile: Send {
    /// Bytes.
    fn size(&self) -> u64;

    /// The bytes of a range, cut to the file's size.
    fn read<'a>(&self, range: Range<u64>) -> Box<dyn Pieces + 'a>
    where
        Self: 'a;
}

/// Bytes in order.
pub(crate) trait Pieces: Send {
    /// The next piece; `None` after the last.
    fn next(&mut self) -> Result<Option<Bytes>, TaskError>;
}

/// A file to write. Dropping it is giving it up.
pub(crate) trait OutputFile: Send {
    /// Appends.
    fn write(&mut self, bytes: Bytes) -> Result<(), TaskError>;

    /// Makes it durable under its name.
    fn finish(self: Box<Self>) -> Result<(), TaskError>;
}
