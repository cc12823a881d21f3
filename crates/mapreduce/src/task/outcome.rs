//! From a task's input to what its worker reports.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::attempt::Attempt;
use super::error::TaskError;
use super::files::TaskFiles;
use super::map::run_map;
use super::reduce::run_reduce;
use crate::api::limits::REASON_BYTES_MAX;
use crate::input::MapInput;
use crate::job::{MapSource, Report};
use crate::shuffle::Source;

/// What a task works on.
pub(crate) enum TaskInput<'a> {
    /// A split, and where the map output goes.
    Map {
        /// The split.
        input: &'a MapInput,
        /// The file for the reducers.
        output: &'a Path,
    },
    /// The segments of one partition.
    Reduce {
        /// By ascending map task.
        segments: Vec<Source>,
        /// Records in them.
        records: u64,
    },
}

/// Makes an attempt, and says how it ended. `sources` are the map outputs that a reduce reads.
pub(crate) fn carry_out(
    attempt: &Attempt,
    input: TaskInput<'_>,
    files: &dyn TaskFiles,
    sources: &[MapSource],
) -> Report {
    let result = catch_unwind(AssertUnwindSafe(|| match input {
        TaskInput::Map { input, output } => run_map(attempt, input, files, output),
        TaskInput::Reduce { segments, records } => run_reduce(attempt, segments, records, files),
    }));
    match result {
        Ok(Ok(())) => Report::Succeeded { counters: attempt.lock_counters().clone() },
        Ok(Err(error)) => report_of(error, sources),
        // The panic itself is in the node's log.
        Err(_) => Report::Failed { reason: "the task panicked".to_owned(), by_user: false },
    }
}

fn shortened(mut reason: String) -> String {
    if reason.len() > REASON_BYTES_MAX {
        let end = (0..=REASON_BYTES_MAX).rev().find(|&at| reason.is_char_boundary(at));
        reason.truncate(end.unwrap_or(0));
        reason.push('…');
    }
    reason
}

/// What an error means for the job.
pub(crate) fn report_of(error: TaskError, sources: &[MapSource]) -> Report {
    let reason = shortened(error.to_string());
    let by_user = match error {
        TaskError::Stopped => return Report::Stopped,
        TaskError::Fetch { map, .. } | TaskError::Corrupt { origin: Some(map), .. } => {
            let source = usize::try_from(map).ok().and_then(|map| sources.get(map));
            if let Some(source) = source {
                return Report::FetchFailed { map, attempt: source.attempt, reason };
            }
            false
        }
        TaskError::Corrupt { origin: None, .. } | TaskError::Disk { .. } => false,
        TaskError::Files(error) => !error.is_retryable(),
        TaskError::TimedOut { .. } | TaskError::RecordTooLong { .. } | TaskError::User { .. } => {
            true
        }
    };
    Report::Failed { reason, by_user }
}
