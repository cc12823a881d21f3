//! What is kept of jobs in the system keyspace, and under which keys.
//!
//! ```text
//! mapreduce/coordinator             the elected node; its create revision is the epoch
//! mapreduce/next                    the number of the next job
//! mapreduce/token/TOKEN             the job that a submission became
//! mapreduce/spec/JOB                what was submitted
//! mapreduce/state/JOB               the status as of lately, and for good once the job has ended
//! mapreduce/active/JOB              exists until the job has ended; says whether to cancel it
//! mapreduce/plan/JOB                the splits are complete
//! mapreduce/split/JOB/INDEX         what a map task reads
//! mapreduce/done/JOB/TASK           which attempt is the task's result
//! mapreduce/garbage/JOB             the job's plan, splits and results are to be deleted
//! ```
//!
//! A value is a byte for the version of its format and the record as postcard.

use bytes::Bytes;
use onefold_types::{NodeId, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::api::{JobId, JobSpec, MapReduceError, TaskKind, TaskName};

/// Version of all records' format.
const VERSION: u8 = 1;

/// The elected coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CoordinatorRecord {
    /// Where it is.
    pub(super) node: NodeId,
}

/// A job as it was submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SpecRecord {
    pub(super) spec: JobSpec,
    /// Tells a submission from another one of the same content.
    pub(super) token: u64,
    pub(super) submitted: Timestamp,
}

/// A job that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ActiveRecord {
    /// Whether its user gave it up.
    pub(super) cancel: bool,
}

/// The tasks of a job whose input was split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PlanRecord {
    pub(super) maps: u32,
    pub(super) reduces: u32,
    pub(super) input_bytes: u64,
    pub(super) started: Timestamp,
}

/// A record as a value.
pub(super) fn encode<T: Serialize>(record: &T) -> Bytes {
    let bytes = postcard::to_extend(record, vec![VERSION]).expect("plain data serializes");
    bytes.into()
}

/// A value as the record that it should be.
pub(super) fn decode<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, MapReduceError> {
    let shown = String::from_utf8_lossy(key);
    let Some((&version, rest)) = value.split_first() else {
        return Err(MapReduceError::internal(format!("the record {shown} is empty")));
    };
    if version != VERSION {
        return Err(MapReduceError::internal(format!(
            "the record {shown} has format {version}, this node knows {VERSION}; upgrade the node"
        )));
    }
    postcard::from_bytes(rest).map_err(|error| {
        MapReduceError::internal(format!("the record {shown} is damaged: {error}"))
    })
}

pub(super) const COORDINATOR: &str = "mapreduce/coordinator";
pub(super) const NEXT: &str = "mapreduce/next";
pub(super) const ACTIVE: &str = "mapreduce/active/";
pub(super) const STATE: &str = "mapreduce/state/";
pub(super) const GARBAGE: &str = "mapreduce/garbage/";

pub(super) fn token_key(token: u64) -> String {
    format!("mapreduce/token/{token:016x}")
}

pub(super) fn spec_key(job: JobId) -> String {
    format!("mapreduce/spec/{:016x}", job.0)
}

pub(super) fn state_key(job: JobId) -> String {
    format!("{STATE}{:016x}", job.0)
}

pub(super) fn active_key(job: JobId) -> String {
    format!("{ACTIVE}{:016x}", job.0)
}

pub(super) fn garbage_key(job: JobId) -> String {
    format!("{GARBAGE}{:016x}", job.0)
}

pub(super) fn plan_key(job: JobId) -> String {
    format!("mapreduce/plan/{:016x}", job.0)
}

pub(super) fn splits_prefix(job: JobId) -> String {
    format!("mapreduce/split/{:016x}/", job.0)
}

pub(super) fn split_key(job: JobId, index: u32) -> String {
    format!("{}{index:08x}", splits_prefix(job))
}

pub(super) fn done_prefix(job: JobId) -> String {
    format!("mapreduce/done/{:016x}/", job.0)
}

pub(super) fn done_key(job: JobId, task: TaskName) -> String {
    let kind = match task.kind {
        TaskKind::Map => 'm',
        TaskKind::Reduce => 'r',
    };
    format!("{}{kind}{:08x}", done_prefix(job), task.index)
}

/// The job that a key with a prefix is about.
pub(super) fn job_of(key: &[u8], prefix: &str) -> Option<JobId> {
    let digits = std::str::from_utf8(key.strip_prefix(prefix.as_bytes())?).ok()?;
    u64::from_str_radix(digits, 16).ok().map(JobId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_like_jobs_and_tasks() {
        let jobs = [JobId(1), JobId(9), JobId(10), JobId(u64::MAX)];
        assert!(jobs.map(state_key).is_sorted());
        assert_eq!(job_of(state_key(JobId(77)).as_bytes(), STATE), Some(JobId(77)));
        let tasks = [TaskName::map(9), TaskName::map(10), TaskName::reduce(0)];
        assert!(tasks.map(|task| done_key(JobId(1), task)).is_sorted());
    }

    #[test]
    fn records_of_another_format_are_refused() {
        let mut value = encode(&ActiveRecord { cancel: true }).to_vec();
        let read = |value: &[u8]| decode::<ActiveRecord>(b"key", value);
        assert_eq!(read(&value), Ok(ActiveRecord { cancel: true }));
        value[0] = 9;
        assert!(read(&value).is_err_and(|error| error.to_string().contains("format 9")));
        assert!(read(&[]).is_err());
        assert!(read(&[VERSION]).is_err());
    }
}
