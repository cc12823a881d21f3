//! The calls that chunkservers answer. Numbers 128 to 143.

use onefold_transport::{Method, MethodId};
use onefold_types::{ChunkId, ChunkVersion, NodeId};
use serde::{Deserialize, Serialize};

use super::store::ReplicaReport;

macro_rules! method {
    ($(#[$doc:meta])* $name:ident, $id:expr, $text:expr, $request:ty => $response:ty) => {
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
pub(crate) use method;

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

method!(
    /// Leader to replica: create an empty replica.
    Create, 128, "chunk.create", CreateRequest => ()
);
method!(
    /// Writer to primary: append the body; answers its offset once it is durable everywhere.
    Append, 129, "chunk.append", At => u64
);
method!(
    /// Primary to secondary: write the body at an offset.
    Write, 130, "chunk.write", WriteRequest => ()
);
method!(
    /// Anyone to replica: verified bytes.
    Read, 131, "chunk.read", ReadRequest => ()
);
method!(
    /// Leader to replica: refuse older versions from now on; answers what is durable.
    Fence, 132, "chunk.fence", FenceRequest => ReplicaReport
);
method!(
    /// Leader to replica: the chunk ends at this length.
    Seal, 133, "chunk.seal", SealRequest => ()
);
method!(
    /// Leader to a node without a replica: make one from those of other nodes.
    Copy, 134, "chunk.copy", CopyRequest => ()
);
method!(
    /// Leader to replica: remove it.
    Delete, 135, "chunk.delete", DeleteRequest => ()
);
method!(
    /// Leader to replica: what do you have?
    Stat, 136, "chunk.stat", ChunkId => Option<ReplicaReport>
);
