//! Making one attempt: its folder, its input, its thread, its log.

use std::sync::Arc;

use onefold_transport::Peers;
use tokio::runtime::Handle;

use super::fetch::{Fetch, blocking};
use super::files::ClusterFiles;
use super::folder::Folder;
use crate::coordinator::{OutputFolder, WorkOrderInput};
use crate::job::{AttemptName, MapSource, Report, WorkerId};
use crate::shuffle::Source;
use crate::task::{Attempt, TaskError, TaskInput, carry_out, report_of};
use crate::timing::Timing;

/// What attempts share.
#[derive(Clone)]
pub(super) struct Workshop {
    pub(super) me: WorkerId,
    pub(super) folder: Folder,
    pub(super) files: Arc<dyn onefold_files::FileSystem>,
    pub(super) peers: Peers,
    pub(super) timing: Timing,
}

impl Workshop {
    /// Makes an attempt and says how it ended.
    pub(super) async fn make(
        self,
        name: AttemptName,
        attempt: Arc<Attempt>,
        input: WorkOrderInput,
    ) -> Report {
        let (workshop, prepared) = (self.clone(), attempt.clone());
        let report = match blocking(move || workshop.prepare(&prepared)).await {
            Ok(files) => self.carry_out(attempt.clone(), input, files).await,
            Err(error) => report_of(error, &[]),
        };
        let folder = self.folder.clone();
        let tidied = tokio::task::spawn_blocking(move || tidy(&folder, name, &attempt));
        if let Err(error) = tidied.await {
            tracing::warn!(%error, "an attempt's folder is not removed");
        }
        report
    }

    fn prepare(&self, attempt: &Attempt) -> Result<ClusterFiles, TaskError> {
        let outputs = self.folder.outputs(attempt.job);
        for folder in [&attempt.scratch, &outputs] {
            std::fs::create_dir_all(folder)
                .map_err(|source| TaskError::disk("create", folder, source))?;
        }
        let output = OutputFolder::new(self.files.clone(), &attempt.spec.output, attempt.job)
            .map_err(|error| TaskError::user(error.to_string()))?;
        Ok(ClusterFiles {
            files: self.files.clone(),
            runtime: Handle::current(),
            bucket: output.bucket().to_owned(),
            temporary: output.temporary(),
        })
    }

    async fn carry_out(
        &self,
        attempt: Arc<Attempt>,
        input: WorkOrderInput,
        files: ClusterFiles,
    ) -> Report {
        let index = attempt.task.index;
        let output = self.folder.map_output(attempt.job, index, attempt.attempt);
        let made = match input {
            WorkOrderInput::Map(split) => {
                tokio::task::spawn_blocking(move || {
                    let input = TaskInput::Map { input: &split, output: &output };
                    carry_out(&attempt, input, &files, &[])
                })
                .await
            }
            WorkOrderInput::Reduce(sources) => {
                let (segments, records) = match self.fetch(attempt.clone(), &sources).await {
                    Ok(fetched) => fetched,
                    Err(error) => return report_of(error, &sources),
                };
                tokio::task::spawn_blocking(move || {
                    let input = TaskInput::Reduce { segments, records };
                    carry_out(&attempt, input, &files, &sources)
                })
                .await
            }
        };
        made.unwrap_or(Report::Stopped)
    }

    async fn fetch(
        &self,
        attempt: Arc<Attempt>,
        sources: &[MapSource],
    ) -> Result<(Vec<Source>, u64), TaskError> {
        let (folder, peers) = (self.folder.clone(), self.peers.clone());
        let fetch = Fetch::open(attempt, self.me, folder, peers, self.timing.fetch_patience);
        fetch.await?.run(sources).await
    }
}

/// Keeps the log of an attempt, and removes its scratch folder.
fn tidy(folder: &Folder, name: AttemptName, attempt: &Attempt) {
    let text = attempt.lock_log().text();
    if !text.is_empty()
        && let Err(error) = folder.keep_log(name, &text)
    {
        tracing::warn!(attempt = attempt.name(), %error, "a log is not kept");
    }
    if let Err(error) = std::fs::remove_dir_all(&attempt.scratch) {
        tracing::debug!(attempt = attempt.name(), %error, "a scratch folder is not removed");
    }
}
