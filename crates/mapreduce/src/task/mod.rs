//! Carrying out one attempt at one task, on a thread that may block.
//!
//! ```text
//! split ─ lines ─ mapper ─ collector ─ map output     │     segments ─ merge ─ reducer ─ part file
//! ```
//!
//! What this room must never do: make anything visible. An attempt leaves a file that only its own
//! name leads to; whether it becomes the task's result is decided elsewhere.

mod attempt;
mod error;
mod files;
mod log;
mod map;
mod outcome;
mod part;
mod reduce;
mod stop;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use attempt::{Attempt, TaskLimits};
pub(crate) use error::TaskError;
pub(crate) use files::{InputFile, OutputFile, Pieces, TaskFiles};
pub(crate) use log::Log;
pub(crate) use map::LineMapper;
pub(crate) use outcome::{TaskInput, carry_out, report_of};
pub(crate) use part::{Part, final_name, temporary_name};
pub(crate) use stop::Stop;
