//! What the namespace's group replicates, and what it answers.

use bytes::Bytes;
use onefold_types::{ChunkId, ChunkVersion, NodeId};
use serde::{Deserialize, Serialize};

use super::records::{ChunkRecord, Content};
use crate::api::{
    Condition, CopyOptions, CreateOptions, FileInfo, FilePath, FilesError, FinishOptions,
    HeaderChanges, RemoveTarget, Removed, Setting, Version, Versioning,
};

/// The format of commands and answers that this version writes.
const COMMAND_FORMAT: u8 = 1;

/// Most chunks that one command names.
pub(crate) const COMMAND_CHUNKS_MAX: usize = 1000;

/// One change of the namespace, carried out whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    CreateBucket {
        bucket: String,
    },
    DeleteBucket {
        bucket: String,
    },
    /// Makes a file visible.
    PutFile {
        bucket: String,
        key: String,
        content: Content,
        etag: String,
        options: CreateOptions,
    },
    MakeDirectory {
        bucket: String,
        key: String,
        etag: String,
    },
    Remove {
        bucket: String,
        keys: Vec<String>,
    },
    /// Removes up to `limit` files whose keys start with `prefix`.
    RemovePrefix {
        bucket: String,
        prefix: String,
        limit: u32,
    },
    Rename {
        from: FilePath,
        to: FilePath,
        condition: Condition,
    },
    Copy {
        from: FilePath,
        to: FilePath,
        options: CopyOptions,
    },
    CreateUpload {
        bucket: String,
        key: String,
        options: CreateOptions,
    },
    PutPart {
        bucket: String,
        key: String,
        upload: String,
        number: u16,
        content: Content,
        etag: String,
        options: FinishOptions,
    },
    CompleteUpload {
        bucket: String,
        key: String,
        upload: String,
        parts: Vec<(u16, String)>,
        condition: Condition,
        options: FinishOptions,
    },
    AbortUpload {
        bucket: String,
        key: String,
        upload: String,
    },
    /// A new open chunk on these nodes, the first of which is the primary.
    Allocate {
        replicas: Vec<NodeId>,
        writer: NodeId,
    },
    /// Fences an open chunk: its version rises, so that no append counts any more.
    BeginSeal {
        chunk: ChunkId,
    },
    /// Ends the sealing that raised the version to `version`: the survivors all have `length` bytes
    /// and refuse older versions.
    FinishSeal {
        chunk: ChunkId,
        version: ChunkVersion,
        length: u64,
        survivors: Vec<NodeId>,
    },
    /// A verified copy of a sealed chunk exists on `node`; `instead_of` is forgotten.
    AddReplica {
        chunk: ChunkId,
        version: ChunkVersion,
        node: NodeId,
        instead_of: Option<NodeId>,
    },
    /// The replica on `node` of a sealed chunk is missing or corrupt. The last one is never dropped.
    DropReplica {
        chunk: ChunkId,
        version: ChunkVersion,
        node: NodeId,
    },
    /// A writer still needs these chunks although no file refers to them yet.
    Touch {
        chunks: Vec<ChunkId>,
    },
    /// Forgets up to `limit` chunks that are without references for longer than this.
    Collect {
        grace_ms: u64,
        limit: u32,
    },
    SetVersioning {
        bucket: String,
        versioning: Versioning,
    },
    SetSetting {
        bucket: String,
        setting: Setting,
        value: Option<Bytes>,
    },
    RemoveVersions {
        bucket: String,
        targets: Vec<RemoveTarget>,
    },
    CopyVersion {
        from: FilePath,
        version: Option<Version>,
        to: FilePath,
        options: CopyOptions,
    },
    ChangeHeaders {
        bucket: String,
        key: String,
        version: Option<Version>,
        expected: HeaderChanges,
        changes: HeaderChanges,
    },
}

/// What a command answers when it was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    File(FileInfo),
    Upload(String),
    /// For each key whether there was a file.
    Removed(Vec<bool>),
    /// How many files went, and whether there may be more.
    RemovedSome {
        count: u64,
        more: bool,
    },
    /// The chunk as it is now, if it exists, and whether this command changed it.
    Chunk {
        chunk: ChunkId,
        record: Option<ChunkRecord>,
        changed: bool,
    },
    /// The chunks that are gone and where their replicas were.
    Collected(Vec<(ChunkId, Vec<NodeId>)>),
    /// For each target what became of it.
    RemovedVersions(Vec<Result<Removed, FilesError>>),
}

impl Command {
    pub(crate) fn encode(&self) -> Bytes {
        encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FilesError> {
        decode("command", bytes)
    }
}

pub(crate) fn encode_answer(answer: &Result<Reply, FilesError>) -> Bytes {
    encode(answer)
}

pub(crate) fn decode_answer(bytes: &[u8]) -> Result<Reply, FilesError> {
    decode::<Result<Reply, FilesError>>("answer", bytes)?
}

fn encode<T: Serialize>(value: &T) -> Bytes {
    let bytes = postcard::to_extend(value, vec![COMMAND_FORMAT]);
    bytes.expect("commands have no unserializable parts").into()
}

fn decode<T: for<'de> Deserialize<'de>>(what: &str, bytes: &[u8]) -> Result<T, FilesError> {
    let invalid = |reason: String| FilesError::Invalid { reason };
    match bytes.split_first() {
        Some((&COMMAND_FORMAT, body)) => postcard::from_bytes(body)
            .map_err(|error| invalid(format!("the namespace's {what} does not decode: {error}"))),
        Some((format, _)) => Err(invalid(format!(
            "the namespace's {what} has format {format}, which this version does not know; \
             upgrade all nodes to one version"
        ))),
        None => Err(invalid(format!("the namespace's {what} is empty"))),
    }
}
