//! What users of MapReduce see: what a job is, what is known about it, and what can be asked.

mod error;
pub mod limits;
mod spec;
mod status;
mod system;

pub use error::MapReduceError;
pub use spec::{JobSpec, Program, ShippedFile};
pub use status::{
    AttemptFailure, AttemptLog, Counters, JobId, JobStatus, JobSummary, Phase, TaskCounts,
    TaskKind, TaskName,
};
pub use system::{JobPage, LogRequest, MapReduce, wait};
