//! A job in one process, without a cluster: the same scheduler, tasks and shuffle over the files of
//! the machine.

mod files;
mod plan;
mod run;

#[cfg(test)]
mod tests;

pub use run::{LocalOptions, run_local};
