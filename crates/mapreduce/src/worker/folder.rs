//! The worker's folder.
//!
//! ```text
//! jobs/job-000017/out/m-00003-5.1.run     map output
//! jobs/job-000017/m-00003-5.1/            scratch of a running attempt
//! logs/job-000017/m-00003-5.1.log         standard error of an attempt's commands
//! ```
//!
//! Below `jobs` nothing outlives the worker's process; logs do, up to a bound.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use onefold_types::NodeId;

use crate::api::limits::LOGS_BYTES_MAX;
use crate::api::{AttemptLog, JobId, MapReduceError, TaskName};
use crate::job::{AttemptId, AttemptName};

/// Paths in a worker's folder.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Makes the folder ready for a new life of the worker.
    pub(super) fn open(root: &Path) -> Result<Self, MapReduceError> {
        let unusable = |error: io::Error| {
            MapReduceError::internal(format!(
                "the folder {} cannot be used: {error}; check its permissions and the disk",
                root.display()
            ))
        };
        // Commands may know it by its absolute path only.
        fs::create_dir_all(root).map_err(unusable)?;
        let folder = Self { root: root.canonicalize().map_err(unusable)? };
        super::orphans::kill_below(&folder.jobs());
        match fs::remove_dir_all(folder.jobs()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(error)),
            _ => {}
        }
        fs::create_dir_all(folder.jobs()).map_err(unusable)?;
        fs::create_dir_all(folder.logs()).map_err(unusable)?;
        Ok(folder)
    }

    fn jobs(&self) -> PathBuf {
        self.root.join("jobs")
    }

    fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    fn job(&self, job: JobId) -> PathBuf {
        self.jobs().join(job.to_string())
    }

    /// The scratch folder of an attempt.
    pub(super) fn scratch(&self, name: AttemptName) -> PathBuf {
        self.job(name.job).join(format!("{}-{}", name.task, name.attempt))
    }

    /// Where the output of an attempt at a map task is.
    pub(super) fn map_output(&self, job: JobId, map: u32, attempt: AttemptId) -> PathBuf {
        self.outputs(job).join(format!("{}-{attempt}.run", TaskName::map(map)))
    }

    /// The folder of a job's map outputs.
    pub(super) fn outputs(&self, job: JobId) -> PathBuf {
        self.job(job).join("out")
    }

    /// Removes all files of a job but its logs.
    pub(super) fn remove_job(&self, job: JobId) {
        match fs::remove_dir_all(self.job(job)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%job, %error, "the files of an ended job are not removed");
            }
            _ => {}
        }
    }

    /// Keeps what an attempt's commands wrote to standard error.
    pub(super) fn keep_log(&self, name: AttemptName, text: &str) -> io::Result<()> {
        let folder = self.logs().join(name.job.to_string());
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("{}-{}.log", name.task, name.attempt)), text)?;
        self.bound_logs(name.job)
    }

    /// Removes the logs of the oldest jobs, beyond the bound.
    fn bound_logs(&self, present: JobId) -> io::Result<()> {
        let mut jobs: Vec<(JobId, PathBuf, u64)> = Vec::new();
        for entry in fs::read_dir(self.logs())? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(job) = name.and_then(|name| name.parse().ok()) else { continue };
            let mut bytes = 0;
            for log in fs::read_dir(&path)? {
                bytes += log?.metadata()?.len();
            }
            jobs.push((job, path, bytes));
        }
        jobs.sort_by_key(|(job, ..)| *job);
        let mut total: u64 = jobs.iter().map(|(_, _, bytes)| bytes).sum();
        for (job, path, bytes) in jobs {
            if total <= LOGS_BYTES_MAX || job == present {
                break;
            }
            fs::remove_dir_all(path)?;
            total -= bytes;
        }
        Ok(())
    }

    /// The logs of a job's attempts, up to so many bytes of text.
    pub(super) fn read_logs(
        &self,
        node: NodeId,
        job: JobId,
        task: Option<TaskName>,
        bytes_max: usize,
    ) -> Vec<AttemptLog> {
        let Ok(entries) = fs::read_dir(self.logs().join(job.to_string())) else {
            return Vec::new();
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let mut logs = Vec::new();
        let mut bytes = 0;
        for path in paths {
            let name = path.file_stem().and_then(|name| name.to_str());
            let parsed = name.and_then(|name| {
                let (task, attempt) = name.rsplit_once('-')?;
                Some((task.parse::<TaskName>().ok()?, attempt.to_owned()))
            });
            let Some((of, attempt)) = parsed else { continue };
            if task.is_some_and(|task| task != of) {
                continue;
            }
            let Ok(text) = fs::read_to_string(&path) else { continue };
            bytes += text.len();
            if bytes > bytes_max {
                break;
            }
            logs.push(AttemptLog { task: of, attempt, node, text });
        }
        logs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(job: u64, map: u32) -> AttemptName {
        let attempt = AttemptId { epoch: 5, number: 1 };
        AttemptName { job: JobId(job), task: TaskName::map(map), attempt }
    }

    #[test]
    fn logs_are_found_by_job_and_task_and_outlive_a_restart() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(root.path()).expect("a usable folder");
        folder.keep_log(name(1, 0), "zero").expect("a log");
        folder.keep_log(name(1, 1), "one").expect("a log");
        folder.keep_log(name(2, 0), "other").expect("a log");
        fs::create_dir_all(folder.outputs(JobId(1))).expect("a folder");
        let folder = Folder::open(root.path()).expect("a usable folder");
        assert!(!folder.outputs(JobId(1)).exists());
        let read = |task| folder.read_logs(NodeId(3), JobId(1), task, 1000);
        let texts =
            |logs: Vec<AttemptLog>| logs.into_iter().map(|log| log.text).collect::<Vec<_>>();
        assert_eq!(texts(read(None)), ["zero", "one"]);
        assert_eq!(read(None)[0].attempt, "5.1");
        assert_eq!(texts(read(Some(TaskName::map(1)))), ["one"]);
        assert_eq!(texts(folder.read_logs(NodeId(3), JobId(1), None, 5)), ["zero"]);
    }
}
