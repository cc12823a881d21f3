//! The layout of a chunk file; `docs/formats/chunk.md` says the same in words.
//!
//! ```text
//!     0  identity   magic, format, chunk, cluster, checksum; written once
//!   512  slot A     sequence, version, length, checksum of the last block, flags, checksum
//!  1024  slot B     the same; the two are written in turn
//!  4096  table      CRC32C of each full 64 KiB block
//!  8192  data
//! ```
//!
//! Pure functions of bytes.

use crc_fast::{CrcAlgorithm, Digest};
use onefold_types::limits::{CHUNK_BLOCK_BYTES, CHUNK_BYTES_MAX};
use onefold_types::{ChunkId, ChunkVersion, ClusterId};

/// What a chunk file starts with.
const MAGIC: &[u8; 8] = b"1fCHUNK\n";

/// The format that this version writes, and the newest that it reads.
pub(super) const CHUNK_FORMAT: u32 = 1;

/// Where each slot lies: in sectors of their own, so that a torn write of one leaves the other.
pub(super) const SLOT_AT: [u64; 2] = [512, 1024];

/// Where the table of checksums lies.
pub(super) const TABLE_AT: u64 = 4096;

/// Where the data starts.
pub(super) const DATA_AT: u64 = 8192;

/// Blocks in a full chunk.
pub(super) const BLOCKS_MAX: usize = (CHUNK_BYTES_MAX / CHUNK_BLOCK_BYTES) as usize;

const _: () = assert!(TABLE_AT + 4 * BLOCKS_MAX as u64 <= DATA_AT);

/// Bytes of the data that one checksum covers.
pub(super) const BLOCK: usize = CHUNK_BLOCK_BYTES as usize;

pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// A running CRC32C.
pub(super) fn digest() -> Digest {
    Digest::new(CrcAlgorithm::Crc32Iscsi)
}

/// What a running CRC32C says so far.
pub(super) fn value(digest: &Digest) -> u32 {
    u32::try_from(digest.finalize()).expect("a CRC32C has 32 bits")
}

/// Why a header is not that of the replica that it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// Not a chunk file at all, or damaged beyond telling.
    Damaged(String),
    /// A newer version wrote it.
    Newer(u32),
    /// It belongs to another cluster or another chunk.
    Foreign(String),
}

const IDENTITY_BYTES: usize = 36;

pub(super) fn encode_identity(chunk: ChunkId, cluster: ClusterId) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&CHUNK_FORMAT.to_le_bytes());
    bytes.extend_from_slice(&(BLOCK as u32).to_le_bytes());
    bytes.extend_from_slice(&chunk.0.to_le_bytes());
    bytes.extend_from_slice(&cluster.0.to_le_bytes());
    bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
    assert_eq!(bytes.len(), IDENTITY_BYTES);
    bytes
}

/// Checks that the file whose header this is belongs to this chunk of this cluster.
pub(super) fn check_identity(
    header: &[u8],
    chunk: ChunkId,
    cluster: ClusterId,
) -> Result<(), Mismatch> {
    let damaged = |reason: &str| Mismatch::Damaged(reason.to_owned());
    let identity = header.get(..IDENTITY_BYTES).ok_or_else(|| damaged("the header is cut off"))?;
    if &identity[..8] != MAGIC {
        return Err(damaged("it does not start as a chunk file does"));
    }
    // First of all, so that a flipped bit does not pass for another format: each keeps these bytes.
    if number32(identity, 32) != crc32c(&identity[..32]) {
        return Err(damaged("the header does not match its checksum"));
    }
    let format = number32(identity, 8);
    if format > CHUNK_FORMAT {
        return Err(Mismatch::Newer(format));
    }
    let (found, found_cluster) = (number64(identity, 16), number64(identity, 24));
    if found_cluster != cluster.0 {
        let found_cluster = ClusterId(found_cluster);
        return Err(Mismatch::Foreign(format!("it belongs to cluster {found_cluster}")));
    }
    if found != chunk.0 {
        return Err(Mismatch::Foreign(format!("it is a replica of chunk {found}")));
    }
    Ok(())
}

/// The state of a replica as one write recorded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Greater with each write; odd ones lie in slot A.
    pub(super) sequence: u64,
    pub(super) version: ChunkVersion,
    /// Bytes of data.
    pub(super) length: u64,
    /// CRC32C of the bytes after the last full block.
    pub(super) tail_crc: u32,
    pub(super) sealed: bool,
    /// A checksum did not match once: the replica is to be replaced.
    pub(super) damaged: bool,
}

const SLOT_BYTES: usize = 36;
const SEALED: u32 = 1;
const DAMAGED: u32 = 2;

impl Slot {
    pub(super) fn encode(&self) -> Vec<u8> {
        let flags = if self.sealed { SEALED } else { 0 } | if self.damaged { DAMAGED } else { 0 };
        let mut bytes = Vec::with_capacity(SLOT_BYTES);
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&self.version.0.to_le_bytes());
        bytes.extend_from_slice(&self.length.to_le_bytes());
        bytes.extend_from_slice(&self.tail_crc.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// The slot, if its checksum matches and its numbers make sense.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..SLOT_BYTES)?;
        if number32(bytes, 32) != crc32c(&bytes[..32]) {
            return None;
        }
        let flags = number32(bytes, 28);
        let slot = Self {
            sequence: number64(bytes, 0),
            version: ChunkVersion(number64(bytes, 8)),
            length: number64(bytes, 16),
            tail_crc: number32(bytes, 24),
            sealed: flags & SEALED != 0,
            damaged: flags & DAMAGED != 0,
        };
        (slot.sequence > 0 && slot.length <= CHUNK_BYTES_MAX).then_some(slot)
    }

    /// Where this slot lies in the file.
    pub(super) fn at(&self) -> u64 {
        SLOT_AT[((self.sequence + 1) % 2) as usize]
    }
}

/// The slots of a header that verify, newest first.
pub(super) fn slots(header: &[u8]) -> Vec<Slot> {
    let slot = |at: &u64| header.get(*at as usize..).and_then(Slot::decode);
    let mut slots: Vec<_> = SLOT_AT.iter().filter_map(slot).collect();
    slots.sort_by_key(|slot| std::cmp::Reverse(slot.sequence));
    slots
}

/// The checksums of the full blocks below `length`.
pub(super) fn table(header: &[u8], length: u64) -> Vec<u32> {
    let full = (length / CHUNK_BLOCK_BYTES) as usize;
    (0..full).map(|block| number32(header, TABLE_AT as usize + 4 * block)).collect()
}

fn number32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn number64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
