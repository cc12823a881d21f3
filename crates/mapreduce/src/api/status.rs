//! What is known about a job.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use onefold_types::{NodeId, Timestamp};
use serde::{Deserialize, Serialize};

use super::error::MapReduceError;
use super::limits::COUNTERS_MAX;

/// One job; later jobs have greater numbers. Shown as `job-000017`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job-{:06}", self.0)
    }
}

impl FromStr for JobId {
    type Err = MapReduceError;

    fn from_str(text: &str) -> Result<Self, MapReduceError> {
        let digits = text.strip_prefix("job-").unwrap_or(text);
        digits.parse().map(Self).map_err(|_| {
            MapReduceError::invalid(format!("{text:?} is not a job; jobs are named job-NUMBER"))
        })
    }
}

/// Whether a task maps or reduces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskKind {
    /// Reads a split.
    Map,
    /// Merges one partition.
    Reduce,
}

/// One task of a job. Shown as `m-00003` or `r-00000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskName {
    /// What it does.
    pub kind: TaskKind,
    /// Its number among the job's tasks of that kind, from 0.
    pub index: u32,
}

impl TaskName {
    /// The map task with that number.
    pub const fn map(index: u32) -> Self {
        Self { kind: TaskKind::Map, index }
    }

    /// The reduce task with that number.
    pub const fn reduce(index: u32) -> Self {
        Self { kind: TaskKind::Reduce, index }
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            TaskKind::Map => 'm',
            TaskKind::Reduce => 'r',
        };
        write!(f, "{kind}-{:05}", self.index)
    }
}

impl FromStr for TaskName {
    type Err = MapReduceError;

    fn from_str(text: &str) -> Result<Self, MapReduceError> {
        let parsed = text.split_once('-').and_then(|(kind, index)| {
            let index = index.parse().ok()?;
            match kind {
                "m" => Some(Self::map(index)),
                "r" => Some(Self::reduce(index)),
                _ => None,
            }
        });
        parsed.ok_or_else(|| {
            MapReduceError::invalid(format!("{text:?} is not a task; tasks are m-NUMBER, r-NUMBER"))
        })
    }
}

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Accepted; its input is being split.
    Preparing,
    /// Map tasks run.
    Mapping,
    /// Reduce tasks run.
    Reducing,
    /// The output is complete and marked with `_SUCCESS`.
    Succeeded,
    /// It failed; the status says why.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl Phase {
    /// Whether nothing more will happen.
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preparing => "preparing",
            Self::Mapping => "mapping",
            Self::Reducing => "reducing",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        })
    }
}

/// How far the tasks of one kind are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCounts {
    /// All of them.
    pub total: u32,
    /// Finished ones. It can fall: map output that was lost is made again.
    pub done: u32,
    /// Tasks with at least one attempt under way.
    pub running: u32,
    /// Share of the work done, tasks under way included, in thousandths.
    pub permille: u32,
}

/// Named sums over the tasks that count towards the result: group, then name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters(pub BTreeMap<String, BTreeMap<String, u64>>);

impl Counters {
    /// The group of the counters that every job has.
    pub const TASK: &'static str = "task";

    /// Adds to a counter, which is created if need be and there are fewer than
    /// [`COUNTERS_MAX`](super::limits::COUNTERS_MAX).
    pub fn add(&mut self, group: &str, name: &str, amount: u64) {
        if let Some(value) = self.0.get_mut(group).and_then(|names| names.get_mut(name)) {
            *value = value.saturating_add(amount);
        } else if self.len() < COUNTERS_MAX {
            self.0.entry(group.to_owned()).or_default().insert(name.to_owned(), amount);
        }
    }

    /// Adds all counters of another set.
    pub fn merge(&mut self, other: &Self) {
        for (group, names) in &other.0 {
            for (name, &amount) in names {
                self.add(group, name, amount);
            }
        }
    }

    /// Takes back what a [`merge`](Self::merge) of the same counters added.
    pub(crate) fn subtract(&mut self, other: &Self) {
        for (group, names) in &other.0 {
            for (name, &amount) in names {
                if let Some(value) = self.0.get_mut(group).and_then(|own| own.get_mut(name)) {
                    *value = value.saturating_sub(amount);
                }
            }
        }
    }

    /// The value of a counter; 0 when nobody added to it.
    pub fn get(&self, group: &str, name: &str) -> u64 {
        self.0.get(group).and_then(|names| names.get(name)).copied().unwrap_or(0)
    }

    /// The number of counters.
    pub fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// Whether there is no counter.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptFailure {
    /// The task.
    pub task: TaskName,
    /// The attempt at it, as in the names of logs.
    pub attempt: String,
    /// Where it ran.
    pub node: NodeId,
    /// What went wrong, with the last lines of standard error when there are any.
    pub reason: String,
}

/// What every listing shows of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSummary {
    /// The job.
    pub job: JobId,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub phase: Phase,
    /// Its map tasks.
    pub maps: TaskCounts,
    /// Its reduce tasks.
    pub reduces: TaskCounts,
    /// When it was submitted.
    pub submitted: Timestamp,
    /// When its first task could run.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

/// All that is known of a job; at most about two seconds old while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// What listings show.
    pub summary: JobSummary,
    /// Where the output is or will be.
    pub output: String,
    /// Bytes of input of all map tasks.
    pub input_bytes: u64,
    /// Sums over the finished tasks.
    pub counters: Counters,
    /// Attempts that failed so far.
    pub failed_attempts: u32,
    /// The first ones of these and the latest.
    pub failures: Vec<AttemptFailure>,
    /// Workers that are alive.
    pub workers: u32,
    /// Why the job failed.
    pub error: Option<String>,
}

impl JobStatus {
    /// Share of the whole job that is done, in thousandths.
    pub fn permille(&self) -> u32 {
        let summary = &self.summary;
        match (summary.phase, summary.reduces.total) {
            (Phase::Succeeded, _) => 1000,
            (_, 0) => summary.maps.permille,
            _ => (summary.maps.permille * 2 + summary.reduces.permille) / 3,
        }
    }
}

/// What one attempt wrote to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptLog {
    /// The task.
    pub task: TaskName,
    /// The attempt at it.
    pub attempt: String,
    /// Where it ran.
    pub node: NodeId,
    /// Its beginning and its end, when it was long.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_as_they_are_shown() {
        let job = JobId(17);
        assert_eq!(job.to_string(), "job-000017");
        assert_eq!(job.to_string().parse(), Ok(job));
        assert_eq!("17".parse(), Ok(job));
        assert!("seventeen".parse::<JobId>().is_err());
        for task in [TaskName::map(3), TaskName::reduce(123_456)] {
            assert_eq!(task.to_string().parse(), Ok(task));
        }
        assert!("x-1".parse::<TaskName>().is_err());
    }

    #[test]
    fn counters_are_bounded() {
        let mut counters = Counters::default();
        for number in 0..2 * COUNTERS_MAX {
            counters.add("many", &number.to_string(), 1);
        }
        counters.add("many", "0", 1);
        assert_eq!((counters.len(), counters.get("many", "0")), (COUNTERS_MAX, 2));
    }

    #[test]
    fn counters_add_up_and_saturate() {
        let mut sum = Counters::default();
        sum.add("a", "b", u64::MAX);
        let mut other = Counters::default();
        other.add("a", "b", 1);
        other.add("a", "c", 2);
        sum.merge(&other);
        assert_eq!((sum.get("a", "b"), sum.get("a", "c"), sum.len()), (u64::MAX, 2, 2));
    }
}
