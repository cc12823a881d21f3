//! MapReduce over the files of a cluster.
#![expect(dead_code, reason = "the parts are put together step by step")]

mod api;
mod input;
mod job;
mod local;
mod program;
mod shuffle;
mod task;

pub use api::{
    AttemptFailure, AttemptLog, Counters, JobId, JobPage, JobSpec, JobStatus, JobSummary,
    LogRequest, MapReduce, MapReduceError, Phase, Program, ShippedFile, TaskCounts, TaskKind,
    TaskName, limits, wait,
};
pub use local::{LocalOptions, run_local};
