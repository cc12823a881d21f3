//! Why a chunk replica cannot do something.

use std::io;
use std::path::Path;

use onefold_types::{ChunkId, ChunkVersion, NodeId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::api::FilesError;

/// An error of one replica. It travels between nodes as it is.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum ChunkError {
    /// This node has no such replica.
    #[error("node {node} holds no replica of chunk {chunk}")]
    NotFound {
        /// The chunk.
        chunk: ChunkId,
        /// The node asked.
        node: NodeId,
    },
    /// The replica, or the caller, is behind: it has another version than the other side.
    #[error("chunk {chunk} on node {node} has version {found}, the request is for {asked}")]
    Stale {
        /// The chunk.
        chunk: ChunkId,
        /// The node asked.
        node: NodeId,
        /// The replica's version.
        found: ChunkVersion,
        /// The request's version.
        asked: ChunkVersion,
    },
    /// The replica takes no appends (any more).
    #[error("chunk {chunk} on node {node} takes no appends: {reason}")]
    NotWritable {
        /// The chunk.
        chunk: ChunkId,
        /// The node asked.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// The bytes do not fit into the chunk any more.
    #[error("chunk {chunk} is full")]
    Full {
        /// The chunk.
        chunk: ChunkId,
    },
    /// The range reaches beyond what the replica has.
    #[error("chunk {chunk} on node {node} has {length} bytes, {asked} were asked for")]
    OutOfRange {
        /// The chunk.
        chunk: ChunkId,
        /// The node asked.
        node: NodeId,
        /// The replica's length.
        length: u64,
        /// The end of the range.
        asked: u64,
    },
    /// Bytes or bookkeeping on disk do not match their checksum.
    #[error("chunk {chunk} on node {node} is corrupt: {reason}")]
    Corrupt {
        /// The chunk.
        chunk: ChunkId,
        /// The node that holds the replica.
        node: NodeId,
        /// What does not match.
        reason: String,
    },
    /// The disk is full.
    #[error("node {node} has no space for chunk {chunk}")]
    NoSpace {
        /// The chunk.
        chunk: ChunkId,
        /// The node asked.
        node: NodeId,
    },
    /// The disk or file system failed.
    #[error("node {node} cannot access chunk {chunk}: {reason}")]
    Io {
        /// The chunk.
        chunk: ChunkId,
        /// The node asked.
        node: NodeId,
        /// What the system said, and where.
        reason: String,
    },
    /// Another node did not answer, or not in time.
    #[error("chunk {chunk}: node {node} did not answer: {reason}")]
    Unreachable {
        /// The chunk.
        chunk: ChunkId,
        /// The node asked.
        node: NodeId,
        /// What happened.
        reason: String,
    },
    /// The file is intact, but another cluster's, another chunk's or a newer version's.
    #[error("chunk {chunk} on node {node} is not this node's to use: {reason}")]
    Foreign {
        /// The chunk.
        chunk: ChunkId,
        /// The node asked.
        node: NodeId,
        /// Whose the file is, and what to do.
        reason: String,
    },
    /// A message of a leader that was deposed.
    #[error("node {node} obeys the leader of term {current}, not the one of term {asked}")]
    Deposed {
        /// The node asked.
        node: NodeId,
        /// The newest term that the node knows.
        current: u64,
        /// The request's term.
        asked: u64,
    },
}

impl From<ChunkError> for FilesError {
    fn from(error: ChunkError) -> Self {
        let reason = error.to_string();
        match error {
            ChunkError::Corrupt { chunk, node, reason } => Self::Corrupt { chunk, node, reason },
            ChunkError::NoSpace { .. } => Self::NoSpace { reason },
            _ => Self::Unavailable { reason },
        }
    }
}

impl ChunkError {
    pub(super) fn io(chunk: ChunkId, node: NodeId, path: &Path, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { chunk, node }
            }
            io::ErrorKind::NotFound => Self::NotFound { chunk, node },
            _ => Self::Io { chunk, node, reason: format!("{}: {error}", path.display()) },
        }
    }
}
