//! MapReduce over the files of a cluster.

mod api;
mod coordinator;
mod input;
mod job;
mod local;
mod program;
mod service;
mod shuffle;
mod task;
mod timing;
mod worker;

pub use api::{
    AttemptFailure, AttemptLog, Counters, JobId, JobPage, JobSpec, JobStatus, JobSummary,
    LogRequest, MapReduce, MapReduceError, Phase, Program, ShippedFile, TaskCounts, TaskKind,
    TaskName, limits, wait,
};
pub use local::{LocalOptions, run_local};
pub use service::{MapReduceNode, RemoteMapReduce};
