//! The output folder of a job in the file system.
//!
//! ```text
//! OUTPUT/_temporary/JOB/part-r-00000.5.1     an attempt's file
//! OUTPUT/part-r-00000                        committed, by renaming
//! OUTPUT/_SUCCESS                            all of it is complete
//! ```

use std::sync::Arc;
use std::time::Duration;

use onefold_files::{
    Condition, CreateOptions, ErrorKind, FilePath, FileSystem, FilesError, FinishOptions,
    ListRequest,
};

use crate::api::{JobId, MapReduceError, TaskName};
use crate::job::AttemptId;
use crate::task::{final_name, temporary_name};

/// Pause before something is tried again that the file system could not do.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Where a job writes.
#[derive(Clone)]
pub(crate) struct OutputFolder {
    files: Arc<dyn FileSystem>,
    bucket: String,
    /// Ends in `/`.
    folder: String,
    job: JobId,
}

/// How committing an output file ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Committed {
    /// It has its final name.
    Yes,
    /// Neither it nor the attempt's file exists.
    Lost,
}

impl OutputFolder {
    /// The folder that a job's output path means.
    pub(crate) fn new(
        files: Arc<dyn FileSystem>,
        output: &str,
        job: JobId,
    ) -> Result<Self, MapReduceError> {
        let path: FilePath = output.parse()?;
        let folder = path.key().trim_end_matches('/');
        if folder.is_empty() {
            return Err(MapReduceError::invalid(format!(
                "the output {output} is a bucket; name a folder in it, as in {output}/counts"
            )));
        }
        let folder = format!("{folder}/");
        Ok(Self { files, bucket: path.bucket().to_owned(), folder, job })
    }

    /// Whether anything is stored at the output path, other than by this job itself.
    pub(crate) async fn exists(&self) -> Result<bool, MapReduceError> {
        match self.files.stat(&self.bucket, self.folder.trim_end_matches('/')).await {
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == ErrorKind::NoSuchKey => {}
            Err(error) => return Err(error.into()),
        }
        let request = ListRequest {
            bucket: self.bucket.clone(),
            prefix: self.folder.clone(),
            limit: 2,
            ..ListRequest::default()
        };
        let page = self.files.list(request).await?;
        Ok(page.entries.iter().any(|entry| entry.key != self.temporary()))
    }

    /// Whether two jobs would write into each other's output.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.bucket == other.bucket
            && (self.folder.starts_with(&other.folder) || other.folder.starts_with(&self.folder))
    }

    /// Whether a path, or anything that a prefix means, lies in this folder.
    pub(super) fn contains(&self, bucket: &str, key: &str) -> bool {
        self.bucket == bucket && format!("{key}/").starts_with(&self.folder)
    }

    /// Reserves the folder for the job.
    pub(super) async fn create(&self) -> Result<(), MapReduceError> {
        Ok(self.files.make_directory(&self.bucket, &self.temporary()).await?)
    }

    /// Takes the reservation back.
    pub(super) async fn give_back(&self) -> Result<(), FilesError> {
        self.files.remove(&self.bucket, &self.temporary()).await.map(|_| ())
    }

    /// Removes everything in the folder.
    pub(super) async fn remove(&self) -> Result<(), FilesError> {
        self.files.remove(&self.bucket, self.folder.trim_end_matches('/')).await?;
        self.files.remove_tree(&self.bucket, &self.folder).await.map(|_| ())
    }

    /// The bucket.
    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The folder of the attempts' files; ends in `/`.
    pub(crate) fn temporary(&self) -> String {
        format!("{}_temporary/{}/", self.folder, self.job)
    }

    /// Gives an attempt's file its final name, and takes the time that this needs. It may have been
    /// done before.
    pub(super) async fn commit(&self, task: TaskName, attempt: AttemptId) -> Committed {
        loop {
            match self.try_commit(task, attempt).await {
                Ok(committed) => return committed,
                Err(error) => {
                    tracing::warn!(job = %self.job, %task, %error, "an output file is not committed");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    async fn try_commit(
        &self,
        task: TaskName,
        attempt: AttemptId,
    ) -> Result<Committed, FilesError> {
        let from = format!("{}{}", self.temporary(), temporary_name(task, attempt));
        let to = format!("{}{}", self.folder, final_name(task));
        let (from, to) = (FilePath::new(&self.bucket, &from)?, FilePath::new(&self.bucket, &to)?);
        match self.files.rename(&from, &to, Condition::Always).await {
            Ok(()) => Ok(Committed::Yes),
            Err(error) if error.kind() == ErrorKind::NoSuchKey => {
                match self.files.stat(&self.bucket, to.key()).await {
                    Ok(_) => Ok(Committed::Yes),
                    Err(error) if error.kind() == ErrorKind::NoSuchKey => Ok(Committed::Lost),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Marks the output as complete, and takes the time that this needs.
    pub(super) async fn succeed(&self) {
        while let Err(error) = self.try_succeed().await {
            tracing::warn!(job = %self.job, %error, "the output is not marked as complete");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn try_succeed(&self) -> Result<(), FilesError> {
        let marker = format!("{}_SUCCESS", self.folder);
        let writer = self.files.create(&self.bucket, &marker, CreateOptions::default()).await?;
        writer.finish(FinishOptions::default()).await?;
        let temporary = format!("{}_temporary/", self.folder);
        self.files.remove_tree(&self.bucket, &temporary).await.map(|_| ())
    }
}
