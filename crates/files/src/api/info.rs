//! What requests carry and what answers say.

use std::collections::BTreeMap;

use onefold_types::{NodeId, Timestamp};
use serde::{Deserialize, Serialize};

use super::path::FilePath;

/// What is stored with a file besides its bytes. All of it counts towards
/// [`ATTRIBUTE_BYTES_MAX`](super::limits::ATTRIBUTE_BYTES_MAX).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// MIME type.
    pub content_type: Option<String>,
    /// Headers that are returned as they were given: `cache-control`, `content-encoding`,
    /// `x-amz-checksum-…`, …; names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The user's own metadata; names in lower case, without `x-amz-meta-`.
    pub metadata: BTreeMap<String, String>,
}

impl Attributes {
    /// Bytes of all names and values.
    pub fn size_bytes(&self) -> usize {
        let pairs = self.headers.iter().chain(&self.metadata);
        let content_type = self.content_type.as_ref().map_or(0, String::len);
        content_type + pairs.map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// Bytes.
    pub size: u64,
    /// The ETag without quotes: the MD5 in hexadecimal, or `MD5-OF-MD5S-N` after a multipart
    /// upload.
    pub etag: String,
    /// When it became visible in its present form.
    pub modified: Timestamp,
    /// What is stored with it.
    pub attributes: Attributes,
}

/// One bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketInfo {
    /// Its name.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
}

/// What must hold at the moment when a file becomes visible under its key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Nothing: a file that is there is replaced.
    #[default]
    Always,
    /// No file has the key (`If-None-Match: *`).
    IfAbsent,
    /// A file has the key, and this ETag, without quotes (`If-Match`).
    IfMatch(String),
}

/// How a file is created.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateOptions {
    /// Stored with the file.
    pub attributes: Attributes,
    /// Checked when the file becomes visible; and early, when that can save the caller's bytes.
    pub condition: Condition,
}

/// What the writer learned only while it wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishOptions {
    /// Use this ETag instead of the MD5 of the bytes.
    pub etag: Option<String>,
    /// Refuse with [`FilesError::BadDigest`](super::FilesError::BadDigest) unless the bytes have
    /// this MD5 (`Content-MD5`).
    pub expected_md5: Option<[u8; 16]>,
    /// Headers to add to the attributes, such as a checksum that came as a trailer.
    pub headers: BTreeMap<String, String>,
}

/// How a file is copied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOptions {
    /// `None` copies the source's attributes, `Some` replaces them.
    pub attributes: Option<Attributes>,
    /// On the target.
    pub condition: Condition,
    /// The source must have this ETag when it is copied.
    pub source_etag: Option<String>,
}

/// Which keys to list. Keys come in the order of their UTF-8 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListRequest {
    /// The bucket.
    pub bucket: String,
    /// Only keys that start with this.
    pub prefix: String,
    /// Keys that contain this after the prefix are rolled up into one common prefix, which ends with
    /// it. `None` and the empty string roll nothing up.
    pub delimiter: Option<String>,
    /// Only keys after this one. A common prefix equal to it is not listed again; so
    /// [`ListPage::next`] fits here, whether the page ended with a key or with a common prefix.
    pub start_after: Option<String>,
    /// Most keys and common prefixes together; at most
    /// [`PAGE_ENTRIES_MAX`](super::limits::PAGE_ENTRIES_MAX), which larger values mean too.
    pub limit: usize,
}

/// One file of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListEntry {
    /// Its key.
    pub key: String,
    /// The file.
    pub info: FileInfo,
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListPage {
    /// Files, ascending.
    pub entries: Vec<ListEntry>,
    /// Common prefixes, ascending.
    pub common_prefixes: Vec<String>,
    /// Where the next page starts (its `start_after`); `None` when this is the last.
    pub next: Option<String>,
}

/// One part of a multipart upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartInfo {
    /// 1 to [`PART_NUMBER_MAX`](super::limits::PART_NUMBER_MAX).
    pub number: u16,
    /// Bytes.
    pub size: u64,
    /// MD5 in hexadecimal.
    pub etag: String,
    /// When it was uploaded.
    pub modified: Timestamp,
    /// Headers given at the part's end, such as its checksum.
    pub headers: BTreeMap<String, String>,
}

/// One page of parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartPage {
    /// Parts, by ascending number.
    pub parts: Vec<PartInfo>,
    /// The number after which the next page starts; `None` when this is the last.
    pub next: Option<u16>,
    /// What was given when the upload was created.
    pub options: CreateOptions,
}

/// One multipart upload that is neither completed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadInfo {
    /// The key of the file to be.
    pub key: String,
    /// The upload's id.
    pub upload: String,
    /// When it was created.
    pub created: Timestamp,
}

/// One page of uploads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadPage {
    /// Uploads, by ascending key, then id.
    pub uploads: Vec<UploadInfo>,
    /// The key and the id after which the next page starts; `None` when this is the last.
    pub next: Option<(String, String)>,
}

/// Which files to split for parallel reading.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitRequest {
    /// The bucket.
    pub bucket: String,
    /// Files whose keys start with this.
    pub prefix: String,
    /// Only the file whose key is exactly `prefix`; none if there is no such file.
    pub exact: bool,
    /// The size to aim at; splits end where chunks end when that is near. At least 1.
    pub target_bytes: u64,
    /// Only files after this key.
    pub start_after: Option<String>,
    /// Most files in the page; at most [`PAGE_ENTRIES_MAX`](super::limits::PAGE_ENTRIES_MAX).
    pub limit: usize,
}

/// A range of a file, and where its bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// The file.
    pub file: FilePath,
    /// The file's ETag when it was split.
    pub etag: String,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Nodes that hold most of the bytes, best first; empty when any node is as good.
    pub hosts: Vec<NodeId>,
}

/// The splits of a page of files. Empty files have none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitPage {
    /// By file, then by offset.
    pub splits: Vec<Split>,
    /// The key after which the next page starts; `None` when this is the last.
    pub next: Option<String>,
}

/// One chunkserver as the namespace's leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerUsage {
    /// The node.
    pub node: NodeId,
    /// Whether it reported lately.
    pub alive: bool,
    /// Bytes free for chunks.
    pub free_bytes: u64,
    /// Bytes in chunks.
    pub used_bytes: u64,
    /// Replicas that it holds.
    pub chunks: u64,
}

/// What the file system holds, and how well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Buckets.
    pub buckets: u64,
    /// Files.
    pub files: u64,
    /// Bytes of all files; shared bytes count for each file.
    pub file_bytes: u64,
    /// Chunks.
    pub chunks: u64,
    /// Bytes in chunks that some file or upload uses.
    pub live_bytes: u64,
    /// Bytes in chunks that nothing uses any more and that wait for collection.
    pub garbage_bytes: u64,
    /// Chunks with fewer replicas than they should have.
    pub chunks_under_replicated: u64,
    /// Chunks without any live replica.
    pub chunks_unavailable: u64,
    /// Replicas being made now.
    pub repairs_running: u64,
    /// Chunkservers, by node.
    pub servers: Vec<ServerUsage>,
    /// Nodes that leave the cluster or have left it, and how many chunks still count on a replica
    /// there; counted up to 100,000.
    pub leaving: BTreeMap<NodeId, u64>,
}
