//! MapReduce as any node answers for it: everything is in kv, so no node is special.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use onefold_files::FileSystem;
use onefold_transport::{Class, Peers};
use onefold_types::{NodeId, Timestamp};

use super::methods::NodeLogsMethod;
use crate::api::limits::LOGS_ANSWER_BYTES_MAX;
use crate::api::{
    AttemptLog, JobId, JobPage, JobSpec, JobStatus, LogRequest, MapReduce, MapReduceError,
};
use crate::coordinator::{OutputFolder, Store, check_overwrite, find_files};
use crate::worker::Worker;

/// How long a node may take to answer with its logs.
const LOGS_TIMEOUT: Duration = Duration::from_secs(3);

/// Nodes asked for logs at once.
const LOGS_NODES: usize = 16;

/// The interface on a node.
#[derive(Clone)]
pub(super) struct LocalMapReduce {
    pub(super) node: NodeId,
    pub(super) store: Store,
    pub(super) files: Arc<dyn FileSystem>,
    pub(super) peers: Peers,
    pub(super) worker: Worker,
}

impl LocalMapReduce {
    /// Accepts a job under a token that its caller has drawn.
    pub(super) async fn submit_as(
        &self,
        spec: JobSpec,
        token: u64,
    ) -> Result<JobId, MapReduceError> {
        spec.validate()?;
        if let Some(job) = self.store.submitted(token).await? {
            // Its caller did not get the answer. By now the output may exist.
            return Ok(job);
        }
        for input in &spec.input {
            find_files(self.files.as_ref(), input).await?;
        }
        // The coordinator looks again; this look tells the user at once.
        let output = OutputFolder::new(self.files.clone(), &spec.output, JobId::default())?;
        if spec.overwrite {
            check_overwrite(&spec, &output)?;
        } else if output.exists().await? {
            return Err(MapReduceError::OutputExists { path: spec.output.clone() });
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        self.store.submit(&spec, token, now).await
    }

    async fn logs_of(&self, node: NodeId, request: LogRequest) -> Vec<AttemptLog> {
        if node == self.node {
            return self.worker.logs(request).await;
        }
        let call = self.peers.call::<NodeLogsMethod>(
            node,
            Class::Call,
            &request,
            Bytes::new(),
            LOGS_TIMEOUT,
        );
        match call.await {
            Ok((logs, _)) => logs,
            Err(error) => {
                tracing::debug!(%node, %error, "no logs from this node");
                Vec::new()
            }
        }
    }
}

#[async_trait]
impl MapReduce for LocalMapReduce {
    async fn submit(&self, spec: JobSpec) -> Result<JobId, MapReduceError> {
        self.submit_as(spec, rand::random()).await
    }

    async fn status(&self, job: JobId) -> Result<JobStatus, MapReduceError> {
        self.store.status(job).await
    }

    async fn list(&self, before: Option<JobId>) -> Result<JobPage, MapReduceError> {
        self.store.list(before).await
    }

    async fn cancel(&self, job: JobId) -> Result<(), MapReduceError> {
        self.store.cancel(job).await
    }

    async fn logs(&self, request: LogRequest) -> Result<Vec<AttemptLog>, MapReduceError> {
        self.store.status(request.job).await?;
        let mut nodes: BTreeSet<NodeId> = self.peers.addresses().into_keys().collect();
        nodes.insert(self.node);
        let mut answers = futures::stream::iter(nodes)
            .map(|node| self.logs_of(node, request))
            .buffered(LOGS_NODES);
        let (mut logs, mut bytes) = (Vec::new(), 0);
        while let Some(of_node) = answers.next().await {
            for log in of_node {
                bytes += log.text.len();
                if bytes <= LOGS_ANSWER_BYTES_MAX {
                    logs.push(log);
                }
            }
        }
        logs.sort_by(|a, b| (a.task, &a.attempt).cmp(&(b.task, &b.attempt)));
        Ok(logs)
    }
}
