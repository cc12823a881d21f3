//! The calls that chunkservers answer. Numbers 128 to 143.

use onefold_transport::methods;
use onefold_types::{ChunkId, ChunkVersion, NodeId};
use serde::{Deserialize, Serialize};

use super::store::ReplicaReport;

/// A chunk and the version under which something is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct At {
    pub(crate) chunk: ChunkId,
    pub(crate) version: ChunkVersion,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CreateRequest {
    pub(crate) term: u64,
    pub(crate) at: At,
    /// Who else gets each append, when this node is the primary.
    pub(crate) secondaries: Vec<NodeId>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WriteRequest {
    pub(crate) at: At,
    pub(crate) offset: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ReadRequest {
    pub(crate) at: At,
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FenceRequest {
    pub(crate) term: u64,
    pub(crate) at: At,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SealRequest {
    pub(crate) term: u64,
    pub(crate) at: At,
    pub(crate) length: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CopyRequest {
    pub(crate) term: u64,
    pub(crate) at: At,
    pub(crate) length: u64,
    pub(crate) sources: Vec<NodeId>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DeleteRequest {
    pub(crate) term: u64,
    pub(crate) chunk: ChunkId,
}

methods! {
    /// Leader to replica: create an empty replica.
    128 pub(crate) Create "chunk.create" CreateRequest => ();
    /// Writer to primary: append the body; answers its offset once it is durable everywhere.
    129 pub(crate) Append "chunk.append" At => u64;
    /// Primary to secondary: write the body at an offset.
    130 pub(crate) Write "chunk.write" WriteRequest => ();
    /// Anyone to replica: verified bytes.
    131 pub(crate) Read "chunk.read" ReadRequest => ();
    /// Leader to replica: refuse older versions from now on; answers what is durable.
    132 pub(crate) Fence "chunk.fence" FenceRequest => ReplicaReport;
    /// Leader to replica: the chunk ends at this length.
    133 pub(crate) Seal "chunk.seal" SealRequest => ();
    /// Leader to a node without a replica: make one from those of other nodes.
    134 pub(crate) Copy "chunk.copy" CopyRequest => ();
    /// Leader to replica: remove it.
    135 pub(crate) Delete "chunk.delete" DeleteRequest => ();
    /// Leader to replica: what do you have?
    136 pub(crate) Stat "chunk.stat" ChunkId => Option<ReplicaReport>;
}
