//! The user's code: the built-in jobs and executables.
//!
//! What this room must never do: trust user code. What a command writes is bytes of any kind and
//! length, and it may end, or not end, in any way.

mod count_table;
pub(crate) mod grep;
pub(crate) mod streaming;
pub(crate) mod wordcount;
