//! MapReduce over the files of a cluster, or of one machine.
//!
//! ```text
//! api          what a job is, what is known of it, what can be asked
//! service      the interface on a node and from outside; what a node runs
//! coordinator  who decides: elected through kv, its state in kv
//!   job        … by a pure scheduler
//! worker       who works: slots, attempts, map output for others
//!   task       … one attempt at a time: split → lines → mapper → runs; runs → reducer → part file
//!   input · program · shuffle
//! local        the same job in one process, without a cluster
//! ```
//!
//! The model is that of the MapReduce paper (Dean and Ghemawat, OSDI 2004), with Hadoop's names and
//! Hadoop Streaming's conventions. A user's guide is `docs/mapreduce.md`; map output on disk and on
//! the wire is described in `docs/formats/shuffle.md`.
//!
//! What this room must never do: show output that is not complete under a final name, count an
//! input record twice or not at all because something was executed again, or hold more in memory
//! than its stated bounds.

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
