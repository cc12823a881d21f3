//! The user's code: built-in jobs and executables.

pub(crate) mod grep;
