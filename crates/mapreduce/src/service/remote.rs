//! MapReduce as a client reaches it: any of some nodes will do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use onefold_transport::{CallError, Class, Method, Peers};
use tokio::time::{Instant, sleep};

use super::methods::{
    CancelMethod, ListMethod, LogsMethod, StatusMethod, SubmitMethod, SubmitRequest, from_remote,
};
use crate::api::{
    AttemptLog, JobId, JobPage, JobSpec, JobStatus, LogRequest, MapReduce, MapReduceError,
};

/// How long one node may take to answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the nodes are tried, one after the other.
const PATIENCE: Duration = Duration::from_secs(20);

/// Pause after all nodes were tried.
const PAUSE: Duration = Duration::from_millis(200);

/// A client's view of MapReduce. Every call may be made twice without harm, so each is tried again
/// elsewhere when a node does not answer.
pub struct RemoteMapReduce {
    peers: Peers,
    addresses: Vec<String>,
    /// The address that answered last.
    preferred: AtomicUsize,
}

impl RemoteMapReduce {
    /// A client of the nodes at these addresses, `host:port` of their peer ports.
    pub fn new(peers: Peers, addresses: Vec<String>) -> Self {
        Self { peers, addresses, preferred: AtomicUsize::new(0) }
    }

    async fn call<M: Method>(&self, request: &M::Request) -> Result<M::Response, MapReduceError>
    where
        M::Request: Sync,
    {
        let deadline = Instant::now() + PATIENCE;
        let count = self.addresses.len();
        let mut last = MapReduceError::unavailable("no address of a node is given");
        for turn in 0.. {
            if count == 0 || Instant::now() >= deadline {
                break;
            }
            let index = self.preferred.load(Ordering::Relaxed) % count;
            let address = &self.addresses[index];
            let call = self.peers.call_address::<M>(
                address,
                Class::Call,
                request,
                Bytes::new(),
                CALL_TIMEOUT,
            );
            last = match call.await {
                Ok((response, _)) => return Ok(response),
                Err(CallError::Remote(error)) => {
                    let error = from_remote(&error);
                    if !matches!(error, MapReduceError::Unavailable { .. }) {
                        return Err(error);
                    }
                    error
                }
                Err(error) => MapReduceError::unavailable(error),
            };
            self.preferred.store(index + 1, Ordering::Relaxed);
            if turn % count == count - 1 {
                sleep(PAUSE).await;
            }
        }
        Err(last)
    }
}

#[async_trait]
impl MapReduce for RemoteMapReduce {
    async fn submit(&self, spec: JobSpec) -> Result<JobId, MapReduceError> {
        let token = rand::random();
        self.call::<SubmitMethod>(&SubmitRequest { spec, token }).await
    }

    async fn status(&self, job: JobId) -> Result<JobStatus, MapReduceError> {
        self.call::<StatusMethod>(&job).await
    }

    async fn list(&self, before: Option<JobId>) -> Result<JobPage, MapReduceError> {
        self.call::<ListMethod>(&before).await
    }

    async fn cancel(&self, job: JobId) -> Result<(), MapReduceError> {
        self.call::<CancelMethod>(&job).await
    }

    async fn logs(&self, request: LogRequest) -> Result<Vec<AttemptLog>, MapReduceError> {
        self.call::<LogsMethod>(&request).await
    }
}
