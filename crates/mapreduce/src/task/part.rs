//! An output file in the making.

use bytes::Bytes;

use super::attempt::Attempt;
use super::error::TaskError;
use super::files::{OutputFile, TaskFiles};
use crate::api::TaskName;
use crate::job::AttemptId;

/// Bytes gathered before they go to the file system.
const WRITE_BYTES: usize = 1 << 20;

/// Writes an output file in large pieces.
pub(crate) struct Part<'a> {
    file: Box<dyn OutputFile + 'a>,
    buffer: Vec<u8>,
    attempt: &'a Attempt,
    bytes: u64,
}

impl<'a> Part<'a> {
    /// Starts the file of an attempt.
    pub(crate) fn create(
        attempt: &'a Attempt,
        files: &'a dyn TaskFiles,
    ) -> Result<Self, TaskError> {
        let file = files.create(&temporary_name(attempt.task, attempt.attempt))?;
        Ok(Self { file, buffer: Vec::with_capacity(WRITE_BYTES), attempt, bytes: 0 })
    }

    /// The buffer to append to; [`Self::flush_if_full`] is to be called every few kilobytes.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Sends the buffer on when it is full.
    pub(crate) fn flush_if_full(&mut self) -> Result<(), TaskError> {
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    /// Completes the file; its bytes.
    pub(crate) fn finish(mut self) -> Result<u64, TaskError> {
        self.flush()?;
        self.file.finish()?;
        Ok(self.bytes)
    }

    fn flush(&mut self) -> Result<(), TaskError> {
        self.attempt.stop.check()?;
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.bytes += self.buffer.len() as u64;
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(WRITE_BYTES));
        self.file.write(Bytes::from(full))?;
        self.attempt.stop.note_activity();
        Ok(())
    }
}

/// The name that an attempt's output has until it is committed.
pub(crate) fn temporary_name(task: TaskName, attempt: AttemptId) -> String {
    format!("{}.{attempt}", final_name(task))
}

/// The name of a task's output file.
pub(crate) fn final_name(task: TaskName) -> String {
    format!("part-{task}")
}
