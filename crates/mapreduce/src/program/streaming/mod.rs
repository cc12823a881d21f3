//! Executables in the conventions of Hadoop Streaming: lines on standard input, lines
//! `key<TAB>value` on standard output, log and counters on standard error.
//!
//! A command runs in a process group of its own and in a fresh folder. When its first process ends,
//! or the attempt is stopped, the whole group is killed.

mod combiner;
mod command;
mod environment;
mod output;
mod reporter;

pub(crate) use combiner::CommandCombiner;
pub(crate) use command::{Command, working_folder};
pub(crate) use output::{LineSink, MapLines, Verbatim};
