//! Carrying out one attempt at one task, on a thread that may block.

mod error;

pub(crate) use error::TaskError;
