//! The bytes of a run: see `docs/formats/shuffle.md`.
//!
//! ```text
//! header │ blocks of partition 0 │ blocks of partition 1 │ … │ index entries │ footer
//! ```

use crc_fast::crc32_iscsi;

use crate::api::limits::RECORD_BYTES_MAX;

/// First bytes of a run, and with the version after them the whole compatibility check.
pub(super) const MAGIC: [u8; 6] = *b"1FRUN\0";
/// Version of the format.
pub(super) const VERSION: u16 = 1;
/// Bytes of the header: magic, version, number of partitions, checksum of these.
pub(super) const HEADER_BYTES: usize = 16;
/// Bytes of an index entry: offset, length, records, checksum of these and the partition's number.
pub(super) const ENTRY_BYTES: usize = 28;
/// Bytes of the footer: offset of the index, number of partitions, checksum of these.
pub(super) const FOOTER_BYTES: usize = 16;
/// Bytes before a block's data: raw length, stored length, checksum of these and the data.
pub(super) const BLOCK_HEADER_BYTES: usize = 12;
/// Raw bytes at which a block is closed.
pub(super) const BLOCK_BYTES: usize = 64 << 10;
/// Most raw bytes of a block: one almost full, and a largest record on top.
pub(super) const BLOCK_BYTES_MAX: usize = BLOCK_BYTES + 2 * RECORD_BYTES_MAX + 32;

/// Where a partition lies in its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// First byte.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) length: u64,
    /// Records.
    pub(crate) records: u64,
}

pub(super) fn encode_header(partitions: u32) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..6].copy_from_slice(&MAGIC);
    bytes[6..8].copy_from_slice(&VERSION.to_le_bytes());
    bytes[8..12].copy_from_slice(&partitions.to_le_bytes());
    seal(&mut bytes);
    bytes
}

/// The number of partitions, or why this is not the header of a run.
pub(super) fn decode_header(bytes: &[u8; HEADER_BYTES]) -> Result<u32, &'static str> {
    if bytes[..6] != MAGIC {
        return Err("it does not begin like one");
    }
    if u16::from_le_bytes([bytes[6], bytes[7]]) != VERSION {
        return Err("it has another version");
    }
    if !is_sealed(bytes) {
        return Err("its header does not match its checksum");
    }
    Ok(u32_at(bytes, 8))
}

pub(super) fn encode_entry(partition: u32, segment: Segment) -> [u8; ENTRY_BYTES] {
    let mut bytes = [0; ENTRY_BYTES];
    bytes[..8].copy_from_slice(&segment.offset.to_le_bytes());
    bytes[8..16].copy_from_slice(&segment.length.to_le_bytes());
    bytes[16..24].copy_from_slice(&segment.records.to_le_bytes());
    let crc = entry_crc(partition, &bytes);
    bytes[24..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

pub(super) fn decode_entry(partition: u32, bytes: &[u8; ENTRY_BYTES]) -> Option<Segment> {
    let valid = u32_at(bytes, 24) == entry_crc(partition, bytes);
    valid.then(|| Segment {
        offset: u64_at(bytes, 0),
        length: u64_at(bytes, 8),
        records: u64_at(bytes, 16),
    })
}

fn entry_crc(partition: u32, bytes: &[u8; ENTRY_BYTES]) -> u32 {
    // The number is covered too, so that an entry in the wrong place is detected.
    crc32_iscsi(&bytes[..24]) ^ partition.wrapping_mul(0x9e37_79b9)
}

pub(super) fn encode_footer(index_offset: u64, partitions: u32) -> [u8; FOOTER_BYTES] {
    let mut bytes = [0; FOOTER_BYTES];
    bytes[..8].copy_from_slice(&index_offset.to_le_bytes());
    bytes[8..12].copy_from_slice(&partitions.to_le_bytes());
    seal(&mut bytes);
    bytes
}

pub(super) fn decode_footer(bytes: &[u8; FOOTER_BYTES]) -> Option<(u64, u32)> {
    is_sealed(bytes).then(|| (u64_at(bytes, 0), u32_at(bytes, 8)))
}

/// What precedes a block's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockHeader {
    pub(super) raw_bytes: u32,
    pub(super) stored_bytes: u32,
    pub(super) crc: u32,
}

impl BlockHeader {
    pub(super) fn of(raw_bytes: usize, stored: &[u8]) -> Self {
        let raw_bytes = u32::try_from(raw_bytes).expect("a block is bounded");
        let stored_bytes = u32::try_from(stored.len()).expect("a block is bounded");
        let crc = block_crc(raw_bytes, stored_bytes, stored);
        Self { raw_bytes, stored_bytes, crc }
    }

    pub(super) fn encode(self) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.raw_bytes.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.stored_bytes.to_le_bytes());
        bytes[8..].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }

    /// `None` when the lengths cannot be those of a block, so that nothing is allocated for them.
    pub(super) fn decode(bytes: &[u8; BLOCK_HEADER_BYTES]) -> Option<Self> {
        let header = Self {
            raw_bytes: u32_at(bytes, 0),
            stored_bytes: u32_at(bytes, 4),
            crc: u32_at(bytes, 8),
        };
        let possible = header.raw_bytes > 0
            && header.raw_bytes as usize <= BLOCK_BYTES_MAX
            && header.stored_bytes > 0
            && header.stored_bytes <= header.raw_bytes;
        possible.then_some(header)
    }

    pub(super) fn matches(self, stored: &[u8]) -> bool {
        self.crc == block_crc(self.raw_bytes, self.stored_bytes, stored)
    }
}

fn block_crc(raw_bytes: u32, stored_bytes: u32, stored: &[u8]) -> u32 {
    crc32_iscsi(stored) ^ raw_bytes.rotate_left(16) ^ stored_bytes
}

fn seal(bytes: &mut [u8; 16]) {
    let crc = crc32_iscsi(&bytes[..12]);
    bytes[12..].copy_from_slice(&crc.to_le_bytes());
}

fn is_sealed(bytes: &[u8; 16]) -> bool {
    u32_at(bytes, 12) == crc32_iscsi(&bytes[..12])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
