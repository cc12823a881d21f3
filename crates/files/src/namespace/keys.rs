//! The layout of the namespace in its key space: one tag byte, then big-endian numbers and names, so
//! that the order of keys is the order that readers want.
//!
//! | tag | rest of the key | value |
//! | --- | --- | --- |
//! | `B` | bucket name | [`BucketRecord`](super::records::BucketRecord) |
//! | `C` | chunk | [`ChunkRecord`](super::records::ChunkRecord) |
//! | `D` | directory, entry name | file or directory |
//! | `G` | time, chunk | sealed chunks without references, since when |
//! | `L` | root directory, key (escaped) | where in `V` the key's null version is |
//! | `N` | | [`Counters`](super::records::Counters) |
//! | `O` | chunk | chunks that are not sealed yet |
//! | `P` | upload, part number | [`PartRecord`](super::records::PartRecord) |
//! | `R` | node, chunk | replicas by node |
//! | `S` | root directory, setting | a setting of the bucket, as it was given |
//! | `U` | root directory, key (escaped), upload | [`UploadRecord`](super::records::UploadRecord) |
//! | `V` | root directory, key (escaped), sequence (inverted) | [`VersionRecord`](super::versions::VersionRecord) |
//! | `W` | replicas, chunk | sealed chunks with fewer replicas than wanted, most endangered first |

use onefold_types::{ChunkId, NodeId, Timestamp};

use super::records::{DirectoryId, UploadId};
use crate::api::Setting;

pub(super) const COUNTERS: &[u8] = b"N";

fn key(tag: u8, numbers: &[u64], name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + 8 * numbers.len() + name.len());
    key.push(tag);
    for number in numbers {
        key.extend_from_slice(&number.to_be_bytes());
    }
    key.extend_from_slice(name);
    key
}

pub(super) fn bucket(name: &str) -> Vec<u8> {
    key(b'B', &[], name.as_bytes())
}

/// What all buckets' keys start with.
pub(super) fn buckets() -> Vec<u8> {
    key(b'B', &[], b"")
}

pub(super) fn entry(directory: DirectoryId, name: &[u8]) -> Vec<u8> {
    key(b'D', &[directory.0], name)
}

/// The bytes of an entry's key before its name.
pub(super) const ENTRY_NAME_AT: usize = 9;

pub(super) fn chunk(chunk: ChunkId) -> Vec<u8> {
    key(b'C', &[chunk.0], b"")
}

pub(super) fn open_chunk(chunk: ChunkId) -> Vec<u8> {
    key(b'O', &[chunk.0], b"")
}

pub(super) fn open_chunks() -> Vec<u8> {
    key(b'O', &[], b"")
}

pub(super) fn garbage(since: Timestamp, chunk: ChunkId) -> Vec<u8> {
    key(b'G', &[since.0, chunk.0], b"")
}

pub(super) fn garbage_until(since: Timestamp) -> (Vec<u8>, Vec<u8>) {
    (key(b'G', &[], b""), key(b'G', &[since.0], b""))
}

pub(super) fn replica(node: NodeId, chunk: ChunkId) -> Vec<u8> {
    key(b'R', &[node.0, chunk.0], b"")
}

pub(super) fn replicas(node: NodeId) -> Vec<u8> {
    key(b'R', &[node.0], b"")
}

pub(super) fn wanting(replicas: usize, chunk: ChunkId) -> Vec<u8> {
    key(b'W', &[replicas as u64, chunk.0], b"")
}

/// What the keys of all chunks with this number of replicas start with.
pub(super) fn wanting_with(replicas: usize) -> Vec<u8> {
    key(b'W', &[replicas as u64], b"")
}

/// The chunk at the end of a key that ends with one.
pub(super) fn trailing_chunk(key: &[u8]) -> Option<ChunkId> {
    let (_, last) = key.split_last_chunk::<8>()?;
    Some(ChunkId(u64::from_be_bytes(*last)))
}

pub(super) fn part(upload: UploadId, number: u16) -> Vec<u8> {
    key(b'P', &[upload.0], &number.to_be_bytes())
}

pub(super) fn parts(upload: UploadId) -> Vec<u8> {
    key(b'P', &[upload.0], b"")
}

pub(super) fn upload(root: DirectoryId, name: &str, upload: UploadId) -> Vec<u8> {
    let mut key = whole_name(b'U', root, name);
    key.extend_from_slice(&upload.0.to_be_bytes());
    key
}

/// What the keys of all uploads of files whose names start with `prefix` start with.
pub(super) fn uploads_under(root: DirectoryId, prefix: &str) -> Vec<u8> {
    begun_name(b'U', root, prefix.as_bytes())
}

pub(super) fn version(root: DirectoryId, name: &str, sequence: u64) -> Vec<u8> {
    let mut key = versions_of(root, name);
    key.extend_from_slice(&(u64::MAX - sequence).to_be_bytes());
    key
}

/// What the keys of all versions of one file start with.
pub(super) fn versions_of(root: DirectoryId, name: &str) -> Vec<u8> {
    whole_name(b'V', root, name)
}

/// What the keys of all versions of files whose names start with `prefix` start with; also the least
/// key of a version of a file whose name is not less than it.
pub(super) fn versions_under(root: DirectoryId, prefix: &str) -> Vec<u8> {
    versions_under_bytes(root, prefix.as_bytes())
}

pub(super) fn versions_under_bytes(root: DirectoryId, prefix: &[u8]) -> Vec<u8> {
    begun_name(b'V', root, prefix)
}

/// The name and the sequence in a version's key.
pub(super) fn parse_version(key: &[u8]) -> Option<(String, u64)> {
    let (name, inverted) = parse_name(key)?;
    Some((name, u64::MAX - inverted))
}

pub(super) fn null_version(root: DirectoryId, name: &str) -> Vec<u8> {
    whole_name(b'L', root, name)
}

pub(super) fn setting(root: DirectoryId, setting: Setting) -> Vec<u8> {
    key(b'S', &[root.0], &[setting as u8])
}

/// What the keys of all settings of a bucket start with.
pub(super) fn settings(root: DirectoryId) -> Vec<u8> {
    key(b'S', &[root.0], b"")
}

/// A key for one name. A zero byte in the name is escaped, and the name ends with a mark below every
/// other byte, so that the order is that of names whatever follows.
fn whole_name(tag: u8, root: DirectoryId, name: &str) -> Vec<u8> {
    let mut key = begun_name(tag, root, name.as_bytes());
    key.extend_from_slice(&[0, 1]);
    key
}

/// What the keys of all names that start with `prefix` start with.
fn begun_name(tag: u8, root: DirectoryId, prefix: &[u8]) -> Vec<u8> {
    let mut key = key(tag, &[root.0], b"");
    for &byte in prefix {
        key.push(byte);
        if byte == 0 {
            key.push(u8::MAX);
        }
    }
    key
}

/// The name and the upload in an upload's key.
pub(super) fn parse_upload(key: &[u8]) -> Option<(String, UploadId)> {
    let (name, upload) = parse_name(key)?;
    Some((name, UploadId(upload)))
}

/// The name and the number behind it.
fn parse_name(key: &[u8]) -> Option<(String, u64)> {
    let (name, number) = key.get(9..)?.split_last_chunk::<8>()?;
    let escaped = name.strip_suffix(&[0, 1])?;
    let mut name = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(&byte) = bytes.next() {
        name.push(byte);
        if byte == 0 {
            bytes.next();
        }
    }
    Some((String::from_utf8(name).ok()?, u64::from_be_bytes(*number)))
}
