//! The border to fjall: its errors and panics become ours.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::verify;
use crate::TableError;

/// Runs calls into fjall. A panic or a failed write stops the table for good: what is in memory may
/// then differ from what is on disk.
#[derive(Clone)]
pub(super) struct Guard {
    path: PathBuf,
    stopped: Arc<OnceLock<String>>,
}

impl Guard {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), stopped: Arc::new(OnceLock::new()) }
    }

    /// Runs a call that reads.
    pub(super) fn run<T>(&self, call: impl FnOnce() -> fjall::Result<T>) -> Result<T, TableError> {
        self.check()?;
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.translate(error)),
            Err(panic) => {
                let reason = panic_text(&*panic);
                self.stop(reason.clone());
                Err(self.corrupt(reason))
            }
        }
    }

    /// Runs a call that writes: any failure stops the table.
    pub(super) fn run_write<T>(
        &self,
        call: impl FnOnce() -> fjall::Result<T>,
    ) -> Result<T, TableError> {
        self.run(call).inspect_err(|error| self.stop(error.to_string()))
    }

    /// Lets no further call through. Only the first reason is kept.
    pub(super) fn stop(&self, reason: String) {
        let _ = self.stopped.set(reason);
    }

    /// An error that names the damaged file, if it can be found.
    pub(super) fn corrupt(&self, reason: String) -> TableError {
        let file = verify::damaged_file(&self.path).unwrap_or_else(|| self.path.clone());
        TableError::Corrupt { file, reason }
    }

    fn check(&self) -> Result<(), TableError> {
        match self.stopped.get() {
            None => Ok(()),
            Some(reason) => {
                Err(TableError::Stopped { path: self.path.clone(), reason: reason.clone() })
            }
        }
    }

    fn translate(&self, error: fjall::Error) -> TableError {
        use fjall::{Error, LsmError};
        match error {
            Error::Locked => TableError::InUse(self.path.clone()),
            Error::Poisoned => TableError::Stopped {
                path: self.path.clone(),
                reason: "an earlier write or a compaction failed".to_owned(),
            },
            Error::Io(source) | Error::Storage(LsmError::Io(source)) => self.translate_io(source),
            damage => self.corrupt(damage.to_string()),
        }
    }

    /// A file that ends too early or is gone is damage, not a system that refuses.
    fn translate_io(&self, source: std::io::Error) -> TableError {
        use std::io::ErrorKind;
        match source.kind() {
            ErrorKind::UnexpectedEof
            | ErrorKind::InvalidData
            | ErrorKind::InvalidInput
            | ErrorKind::NotFound => self.corrupt(source.to_string()),
            _ => TableError::Io { path: self.path.clone(), source },
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "the storage engine failed without a reason".to_owned())
}
