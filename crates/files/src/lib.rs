//! The file system of Onefold: GFS with its single master, its undefined regions and its cost of
//! small files taken away.
//!
//! ```text
//! s3 · mapreduce · cli     see only `FileSystem`, `FileWriter`, `FileReader` of api/
//! ───────────────────────────────────────────────────────────────────────────────────────────
//! remote/                  for clients: any node does the work
//! local/                   on a node: write/ and read.rs between callers' bytes and chunks
//! namespace/ · commands    what files there are and where their bytes lie: a Raft group (pure)
//! master/                  its leader's work: place, seal, repair, collect (plan.rs is pure)
//! chunk/                   replicas on each node's disk, appends, fences (appends.rs is pure)
//! ```
//!
//! Concepts are in `docs/files/concepts.md`, the format of chunk files in `docs/formats/chunk.md`.
//!
//! What this room must never do: show a file before all its bytes are durable on every in-sync
//! replica, change a byte that was acknowledged, or hand out a byte whose checksum it has not
//! verified.

mod api;
mod chunk;
mod commands;
mod etag;
mod local;
mod master;
mod namespace;
mod read;
mod remote;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod write;

pub use api::{
    Attributes, BucketInfo, ByteStream, Condition, CopyOptions, CreateOptions, ErrorKind, FileInfo,
    FilePath, FileReader, FileSystem, FileWriter, FilesError, FinishOptions, HeaderChanges,
    ListEntry, ListPage, ListRequest, PartInfo, PartPage, RangeSource, RemoveCondition,
    RemoveTarget, Removed, ServerUsage, Setting, Split, SplitPage, SplitRequest, UploadInfo,
    UploadPage, Usage, VERSION_HEADER, Version, VersionEntry, VersionPage, VersionedFiles,
    Versioning, VersionsRequest, limits, lock, validate_bucket_name, validate_key,
};
pub use chunk::{ChunkError, StoreError};
pub use local::{FilesConfig, FilesNode, LocalFiles};
pub use namespace::{ChunkRecord, ChunkState, Content, Extent, Namespace};
pub use remote::RemoteFiles;
