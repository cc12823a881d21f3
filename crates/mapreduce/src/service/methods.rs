//! The calls between nodes (256 to 263) and of clients (264 to 319).

use onefold_transport::{Method, MethodId, RemoteCode, RemoteError};
use serde::{Deserialize, Serialize};

use crate::api::{AttemptLog, JobId, JobPage, JobSpec, JobStatus, LogRequest, MapReduceError};
use crate::coordinator::HeartbeatReply;
use crate::job::Heartbeat;
use crate::worker::{FetchRequest, FetchResponse};

macro_rules! method {
    ($(#[$doc:meta])* $name:ident = $id:literal, $text:literal, $request:ty => $response:ty) => {
        $(#[$doc])*
        pub(crate) struct $name;

        impl Method for $name {
            const ID: MethodId = MethodId($id);
            const NAME: &'static str = $text;
            type Request = $request;
            type Response = $response;
        }
    };
}

method!(
    /// From a worker to the coordinator.
    HeartbeatMethod = 256, "mapreduce.heartbeat", Heartbeat => HeartbeatReply
);
method!(
    /// From a reducer to the worker that has a map output; the bytes travel in the body.
    FetchMethod = 257, "mapreduce.fetch", FetchRequest => FetchResponse
);
method!(
    /// From any node to each worker.
    NodeLogsMethod = 258, "mapreduce.node_logs", LogRequest => Vec<AttemptLog>
);
method!(
    /// From a client to any node.
    SubmitMethod = 264, "mapreduce.submit", SubmitRequest => JobId
);
method!(
    /// From a client to any node.
    StatusMethod = 265, "mapreduce.status", JobId => JobStatus
);
method!(
    /// From a client to any node.
    ListMethod = 266, "mapreduce.list", Option<JobId> => JobPage
);
method!(
    /// From a client to any node.
    CancelMethod = 267, "mapreduce.cancel", JobId => ()
);
method!(
    /// From a client to any node.
    LogsMethod = 268, "mapreduce.logs", LogRequest => Vec<AttemptLog>
);

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
