//! The layout of the namespace in its key space: one tag byte, then big-endian numbers and names, so
//! that the order of keys is the order that readers want.
//!
//! | tag | rest of the key | value |
//! | --- | --- | --- |
//! | `B` | bucket name | [`BucketRecord`](super::records::BucketRecord) |
//! | `C` | chunk | [`ChunkRecord`](super::records::ChunkRecord) |
//! | `D` | directory, entry name | file or directory |
//! | `G` | time, chunk | sealed chunks without references, since when |
//! | `N` | | [`Counters`](super::records::Counters) |
//! | `O` | chunk | chunks that are not sealed yet |
//! | `P` | upload, part number | [`PartRecord`](super::records::PartRecord) |
//! | `R` | node, chunk | replicas by node |
//! | `U` | root directory, key (escaped), upload | [`UploadRecord`](super::records::UploadRecord) |
//! | `W` | replicas, chunk | sealed chunks with fewer replicas than wanted, most endangered first |

use onefold_types::{ChunkId, NodeId, Timestamp};

use super::records::{DirectoryId, UploadId};

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
    let mut key = uploads_of(root, name);
    key.extend_from_slice(&upload.0.to_be_bytes());
    key
}

/// What the keys of all uploads of one file start with. A zero byte in the name is escaped, and the
/// name ends with a mark below every other byte, so that the order is that of names.
pub(super) fn uploads_of(root: DirectoryId, name: &str) -> Vec<u8> {
    let mut key = uploads_under(root, name);
    key.extend_from_slice(&[0, 1]);
    key
}

/// What the keys of all uploads of files whose names start with `prefix` start with.
pub(super) fn uploads_under(root: DirectoryId, prefix: &str) -> Vec<u8> {
    let mut key = key(b'U', &[root.0], b"");
    for byte in prefix.bytes() {
        key.push(byte);
        if byte == 0 {
            key.push(u8::MAX);
        }
    }
    key
}

/// The name and the upload in an upload's key.
pub(super) fn parse_upload(key: &[u8]) -> Option<(String, UploadId)> {
    let (name, upload) = key.get(9..)?.split_last_chunk::<8>()?;
    let escaped = name.strip_suffix(&[0, 1])?;
    let mut name = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(&byte) = bytes.next() {
        name.push(byte);
        if byte == 0 {
            bytes.next();
        }
    }
    Some((String::from_utf8(name).ok()?, UploadId(u64::from_be_bytes(*upload))))
}
