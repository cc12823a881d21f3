//! The calls between nodes (256 to 263) and of clients (264 to 319).

use onefold_transport::{RemoteCode, RemoteError, methods};
use serde::{Deserialize, Serialize};

use crate::api::{AttemptLog, JobId, JobPage, JobSpec, JobStatus, LogRequest, MapReduceError};
use crate::coordinator::HeartbeatReply;
use crate::job::Heartbeat;
use crate::worker::{FetchRequest, FetchResponse};

methods! {
    /// From a worker to the coordinator.
    256 pub(crate) HeartbeatMethod "mapreduce.heartbeat" Heartbeat => HeartbeatReply;
    /// From a reducer to the worker that has a map output; the bytes travel in the body.
    257 pub(crate) FetchMethod "mapreduce.fetch" FetchRequest => FetchResponse;
    /// From any node to each worker.
    258 pub(crate) NodeLogsMethod "mapreduce.node_logs" LogRequest => Vec<AttemptLog>;
    /// From a client to any node.
    264 pub(crate) SubmitMethod "mapreduce.submit" SubmitRequest => JobId;
    /// From a client to any node.
    265 pub(crate) StatusMethod "mapreduce.status" JobId => JobStatus;
    /// From a client to any node.
    266 pub(crate) ListMethod "mapreduce.list" Option<JobId> => JobPage;
    /// From a client to any node.
    267 pub(crate) CancelMethod "mapreduce.cancel" JobId => ();
    /// From a client to any node.
    268 pub(crate) LogsMethod "mapreduce.logs" LogRequest => Vec<AttemptLog>;
}

/// A job, and what tells its submission from another one of the same job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SubmitRequest {
    pub(crate) spec: JobSpec,
    pub(crate) token: u64,
}

/// An error on its way to the caller.
pub(super) fn to_remote(error: MapReduceError) -> RemoteError {
    let code = match &error {
        MapReduceError::Invalid { .. } => RemoteCode::Invalid,
        MapReduceError::NoInput { .. } | MapReduceError::NoSuchJob { .. } => RemoteCode::NotFound,
        MapReduceError::OutputExists { .. } => RemoteCode::AlreadyExists,
        MapReduceError::JobEnded { .. } | MapReduceError::Files(_) => RemoteCode::Conflict,
        MapReduceError::Overloaded { .. } => RemoteCode::Overloaded,
        MapReduceError::Unavailable { .. } => RemoteCode::Unavailable,
        MapReduceError::Internal { .. } => RemoteCode::Internal,
    };
    RemoteError::new(code, error.to_string()).with_detail(&error)
}

/// An error as it arrived.
pub(super) fn from_remote(error: &RemoteError) -> MapReduceError {
    error.detail().unwrap_or_else(|| match error.code {
        RemoteCode::Unavailable | RemoteCode::Overloaded | RemoteCode::DeadlineExceeded => {
            MapReduceError::unavailable(error)
        }
        _ => MapReduceError::internal(error),
    })
}
