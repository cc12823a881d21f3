//! The calls that the namespace's leader answers. Numbers 144 to 159.

use onefold_transport::methods;
use onefold_types::{ChunkId, NodeId};
use serde::{Deserialize, Serialize};

use crate::api::{FilesError, Usage};
use crate::chunk::ReplicaReport;
use crate::chunk::methods::At;

/// A chunkserver tells that it lives, and a part of what it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeartbeatRequest {
    pub(crate) node: NodeId,
    pub(crate) free_bytes: u64,
    pub(crate) used_bytes: u64,
    pub(crate) chunks: u64,
    /// Open chunks that writers on the node still use: their leases are renewed.
    pub(crate) writing: Vec<ChunkId>,
    /// Replicas that were found damaged and not replaced yet.
    pub(crate) damaged: Vec<ReplicaReport>,
    /// The next page of everything that the node has, from time to time.
    pub(crate) page: Option<ReportPage>,
}

/// All replicas of a node in a range of chunks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReportPage {
    /// The range starts after this chunk, or with the first.
    pub(crate) after: Option<ChunkId>,
    /// The range ends with this chunk, or with the last.
    pub(crate) through: Option<ChunkId>,
    /// By ascending chunk.
    pub(crate) replicas: Vec<ReplicaReport>,
}

/// The right to append to a new chunk through its primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    pub(crate) at: At,
    pub(crate) primary: NodeId,
}

methods! {
    /// Chunkserver to leader, about every second.
    144 pub(crate) Heartbeat "files.heartbeat" HeartbeatRequest => ();
    /// Writer's node to leader: a new chunk, please.
    145 pub(crate) Allocate "files.allocate" NodeId => Result<Grant, FilesError>;
    /// Writer's node to leader: these chunks get no more appends.
    146 pub(crate) SealChunks "files.seal" Vec<ChunkId> => ();
    /// Any node to leader.
    147 pub(crate) GetUsage "files.usage" () => Result<Usage, FilesError>;
}
