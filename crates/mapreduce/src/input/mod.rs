//! What map tasks read: splits, and the lines in them.
//!
//! What this room must never do: give a line to two splits, or to none.

mod lines;
mod split;

pub(crate) use lines::{LineBlock, LineBlocks};
pub(crate) use split::{FileRange, MapInput, SplitPlanner};
