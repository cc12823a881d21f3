//! What the namespace stores. Every value starts with a format byte, so that a later format can be
//! told from this one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use onefold_table::TableError;
use onefold_types::{ChunkId, ChunkVersion, NodeId, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::api::{CreateOptions, FileInfo, Versioning};

/// The format of all values that this version writes.
const RECORD_FORMAT: u8 = 1;

/// A directory; the root of each bucket is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct DirectoryId(pub(crate) u64);

/// A multipart upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct UploadId(pub(crate) u64);

impl UploadId {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl std::fmt::Display for UploadId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A run of bytes within a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Extent {
    /// The chunk.
    pub chunk: ChunkId,
    /// Where the run starts in the chunk's data.
    pub offset: u32,
    /// Its bytes; at least 1.
    pub length: u32,
}

impl Extent {
    /// Where the run ends in the chunk's data.
    pub fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.length)
    }
}

/// Where a file's bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Here, because they are few.
    Inline(Bytes),
    /// In chunks, in this order.
    Extents(Vec<Extent>),
}

impl Content {
    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        match self {
            Self::Inline(data) => data.len() as u64,
            Self::Extents(extents) => extents.iter().map(|extent| u64::from(extent.length)).sum(),
        }
    }

    /// The extents, none when the content is inline.
    pub fn extents(&self) -> &[Extent] {
        match self {
            Self::Inline(_) => &[],
            Self::Extents(extents) => extents,
        }
    }
}

/// A bucket. Records that end before `versioning` were written when there were no versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct BucketRecord {
    pub(crate) root: DirectoryId,
    pub(crate) created: Timestamp,
    pub(crate) versioning: Versioning,
}

impl BucketRecord {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, TableError> {
        const WHAT: &str = "bucket";
        let ((root, created), rest) =
            postcard::take_from_bytes(body(WHAT, bytes)?).map_err(|error| corrupt(WHAT, error))?;
        let versioning = if rest.is_empty() {
            Versioning::Never
        } else {
            postcard::from_bytes(rest).map_err(|error| corrupt(WHAT, error))?
        };
        Ok(Self { root, created, versioning })
    }
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Directory(DirectoryId),
    File(FileRecord),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileRecord {
    pub(crate) info: FileInfo,
    pub(crate) content: Content,
}

/// The life of a chunk: open for appends, then (fenced by a new version) being sealed, then sealed
/// for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChunkState {
    /// A writer appends through the primary.
    Open,
    /// The leader finds out which length all survivors have.
    Sealing,
    /// Its length is known and never changes.
    Sealed,
}

/// One chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRecord {
    /// Raised through the log before any lease or seal relies on it.
    pub version: ChunkVersion,
    /// Where it is in its life.
    pub state: ChunkState,
    /// The nodes whose replicas hold every acknowledged byte, ascending.
    pub replicas: Vec<NodeId>,
    /// Who orders the appends while it is open.
    pub primary: NodeId,
    /// Whose files go into it while it is open.
    pub writer: NodeId,
    /// Bytes of data once it is sealed, else zero.
    pub length: u64,
    /// The end of the last byte that a file refers to: a seal never cuts below it.
    pub committed_end: u64,
    /// Extents of files and parts that lie in it.
    pub references: u64,
    /// Since when it is sealed and without references.
    pub unreferenced_since: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UploadRecord {
    pub(crate) created: Timestamp,
    pub(crate) options: CreateOptions,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartRecord {
    pub(crate) etag: String,
    pub(crate) modified: Timestamp,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) content: Content,
}

/// Totals, and the next number to give out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// The last number given to a directory, upload or chunk. None is given twice.
    pub(crate) last_id: u64,
    pub(crate) buckets: u64,
    pub(crate) files: u64,
    pub(crate) file_bytes: u64,
    pub(crate) chunks: u64,
    /// Bytes of sealed chunks with references.
    pub(crate) live_bytes: u64,
    /// Bytes of sealed chunks without.
    pub(crate) garbage_bytes: u64,
}

/// A value that no version of this program wrote.
pub(crate) fn corrupt(what: &str, reason: impl std::fmt::Display) -> TableError {
    let file = PathBuf::from("(record of the file system's namespace)");
    TableError::Corrupt { file, reason: format!("{what}: {reason}") }
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![RECORD_FORMAT]).expect("records have no unserializable parts")
}

fn body<'a>(what: &str, bytes: &'a [u8]) -> Result<&'a [u8], TableError> {
    match bytes.split_first() {
        Some((&RECORD_FORMAT, body)) => Ok(body),
        Some((format, _)) => Err(corrupt(what, format!("unknown format {format}"))),
        None => Err(corrupt(what, "empty value")),
    }
}

pub(crate) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, TableError> {
    postcard::from_bytes(body(what, bytes)?).map_err(|error| corrupt(what, error))
}

const DIRECTORY: u8 = 0;
const FILE: u8 = 1;

impl Entry {
    pub(crate) fn encode(&self) -> Vec<u8> {
        const PLAIN: &str = "entries have no unserializable parts";
        match self {
            Self::Directory(id) => {
                postcard::to_extend(id, vec![RECORD_FORMAT, DIRECTORY]).expect(PLAIN)
            }
            Self::File(file) => {
                let head = vec![RECORD_FORMAT, FILE];
                let with_info = postcard::to_extend(&file.info, head).expect(PLAIN);
                postcard::to_extend(&file.content, with_info).expect(PLAIN)
            }
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, TableError> {
        match EntryHead::decode(bytes)? {
            EntryHead::Directory(id) => Ok(Self::Directory(id)),
            EntryHead::File(info, rest) => {
                let content = postcard::from_bytes(rest)
                    .map_err(|error| corrupt("directory entry", error))?;
                Ok(Self::File(FileRecord { info, content }))
            }
        }
    }
}

/// An entry without the content of a file, which listings do not need.
pub(crate) enum EntryHead<'a> {
    Directory(DirectoryId),
    File(FileInfo, &'a [u8]),
}

impl<'a> EntryHead<'a> {
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, TableError> {
        const WHAT: &str = "directory entry";
        match body(WHAT, bytes)?.split_first() {
            Some((&DIRECTORY, rest)) => {
                let id = postcard::from_bytes(rest).map_err(|error| corrupt(WHAT, error))?;
                Ok(Self::Directory(id))
            }
            Some((&FILE, rest)) => {
                let (info, rest) =
                    postcard::take_from_bytes(rest).map_err(|error| corrupt(WHAT, error))?;
                Ok(Self::File(info, rest))
            }
            _ => Err(corrupt(WHAT, "unknown kind")),
        }
    }
}
