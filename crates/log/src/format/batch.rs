//! Batches: the records of one append. A batch is there whole or not at all.
//!
//! Two things tell a torn write, which was never acknowledged, from damage to one that was:
//!
//! - A batch says which batches were certainly durable when it was written. One that can't be read
//!   was acknowledged if a later one says that it was durable.
//! - A disk writes a sector as a whole or not at all, and what was not written yet is zeros. A batch
//!   therefore says how many of its sectors are zeros of its own: one that can't be read although no
//!   further sector of it is missing was written whole, and changed later.

use std::ops::Range;

use super::{Reader, Record, crc32c};

/// Checksum, body length, number, newest durable number, checksum of the body, sectors of zeros.
pub(crate) const BATCH_HEADER_BYTES: usize = 4 + 4 + 8 + 8 + 4 + 4;
/// Batches begin at multiples of this, so that a header never lies in two sectors.
pub(crate) const BATCH_ALIGNMENT: usize = 32;
/// What a disk writes as a whole or not at all, at least.
pub(crate) const SECTOR_BYTES: usize = 512;

const ZERO_SECTOR: [u8; SECTOR_BYTES] = [0; SECTOR_BYTES];

/// Which segment of whose log a batch stands in. It is part of a header's checksum, as is the
/// place: a copy of a batch that turns up anywhere else is not taken for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) owner: u64,
    pub(crate) segment: u64,
}

/// What a batch begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) body_bytes: u32,
    /// The batch's number: one more than that of the batch before, across segments.
    pub(crate) number: u64,
    /// The newest batch that was durable when this one was written.
    pub(crate) durable: u64,
    body_checksum: u32,
    /// Pieces of the batch, cut where the file's sectors begin, that are nothing but zeros.
    zero_sectors: u32,
}

impl BatchHeader {
    /// The header that stands at an offset of a segment; nothing if there is no valid one.
    pub(crate) fn decode(bytes: &[u8], origin: Origin, offset: u64) -> Option<Self> {
        let bytes = bytes.get(..BATCH_HEADER_BYTES)?;
        let mut reader = Reader::new(bytes);
        let checksum = reader.u32()?;
        let header = Self {
            body_bytes: reader.u32()?,
            number: reader.u64()?,
            durable: reader.u64()?,
            body_checksum: reader.u32()?,
            zero_sectors: reader.u32()?,
        };
        (header_checksum(&bytes[4..], origin, offset) == checksum).then_some(header)
    }

    fn encode(self, origin: Origin, offset: u64) -> [u8; BATCH_HEADER_BYTES] {
        let mut bytes = [0; BATCH_HEADER_BYTES];
        bytes[4..8].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.durable.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.body_checksum.to_le_bytes());
        bytes[28..].copy_from_slice(&self.zero_sectors.to_le_bytes());
        let checksum = header_checksum(&bytes[4..], origin, offset);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Bytes of header and body.
    pub(crate) fn batch_bytes(self) -> usize {
        BATCH_HEADER_BYTES + self.body_bytes as usize
    }

    /// Bytes up to where the next batch begins.
    pub(crate) fn padded_bytes(self) -> usize {
        self.batch_bytes().next_multiple_of(BATCH_ALIGNMENT)
    }

    /// Whether this is the body that was written behind the header.
    pub(crate) fn fits(self, body: &[u8]) -> bool {
        body.len() == self.body_bytes as usize && crc32c(body) == self.body_checksum
    }
}

fn header_checksum(fields: &[u8], origin: Origin, offset: u64) -> u32 {
    let mut input = [0; 3 * 8 + BATCH_HEADER_BYTES - 4];
    input[..8].copy_from_slice(&origin.owner.to_le_bytes());
    input[8..16].copy_from_slice(&origin.segment.to_le_bytes());
    input[16..24].copy_from_slice(&offset.to_le_bytes());
    input[24..].copy_from_slice(fields);
    crc32c(&input)
}

/// How many pieces of what stands at an offset, cut where sectors begin, are nothing but zeros.
fn zero_sectors(bytes: &[u8], offset: u64) -> u32 {
    let into_sector = (offset % SECTOR_BYTES as u64) as usize;
    let (first, rest) = bytes.split_at(bytes.len().min(SECTOR_BYTES - into_sector));
    let pieces = std::iter::once(first).chain(rest.chunks(SECTOR_BYTES));
    let zeros = pieces.filter(|piece| **piece == ZERO_SECTOR[..piece.len()]);
    u32::try_from(zeros.count()).expect("a batch is smaller than 4 GiB")
}

/// What stands where a batch is looked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reading<'a> {
    /// A batch: its header and its body.
    Batch(BatchHeader, &'a [u8]),
    /// A batch of which at least one sector never reached the disk, or nothing at all.
    Missing,
    /// Bytes that no write of this log can have left, whole or torn.
    Damaged(&'static str),
}

/// Looks at an offset of a segment's bytes, where the batch of this number should stand.
pub(crate) fn batch_at(segment: &[u8], origin: Origin, offset: usize, number: u64) -> Reading<'_> {
    let rest = &segment[offset..];
    let Some(header_bytes) = rest.get(..BATCH_HEADER_BYTES) else {
        return Reading::Missing;
    };
    let Some(header) = BatchHeader::decode(header_bytes, origin, offset as u64) else {
        let is_missing = *header_bytes == ZERO_SECTOR[..BATCH_HEADER_BYTES];
        let damaged = Reading::Damaged("its header was changed after it was written");
        return if is_missing { Reading::Missing } else { damaged };
    };
    if header.number != number {
        return Reading::Damaged("another batch stands in its place");
    }
    let Some(batch) = rest.get(..header.batch_bytes()) else {
        return Reading::Damaged("it is longer than its segment");
    };
    let body = &batch[BATCH_HEADER_BYTES..];
    if !header.fits(body) {
        let is_torn = zero_sectors(batch, offset as u64) > header.zero_sectors;
        let damaged = Reading::Damaged("its contents were changed after they were written");
        return if is_torn { Reading::Missing } else { damaged };
    }
    let padding = rest.get(batch.len()..header.padded_bytes()).unwrap_or_default();
    if padding.iter().any(|&byte| byte != 0) {
        return Reading::Damaged("the padding behind it was changed after it was written");
    }
    Reading::Batch(header, body)
}

/// Looks behind an unreadable batch for one that says that batch `number` was durable.
pub(crate) fn find_confirmation(
    segment: &[u8],
    origin: Origin,
    offset: usize,
    number: u64,
) -> Option<usize> {
    let places = (offset..segment.len()).step_by(BATCH_ALIGNMENT);
    places.into_iter().find(|&place| {
        let header = BatchHeader::decode(&segment[place..], origin, place as u64);
        header.is_some_and(|header| header.durable >= number)
    })
}

/// Puts batches one behind the other into a buffer.
#[derive(Debug, Default)]
pub(crate) struct BatchWriter {
    bytes: Vec<u8>,
}

impl BatchWriter {
    /// Adds a batch; the buffer will be written to `offset` of a segment. Tells where each record
    /// stands in the buffer.
    pub(crate) fn push<'a>(
        &mut self,
        origin: Origin,
        offset: u64,
        (number, durable): (u64, u64),
        records: impl IntoIterator<Item = Record<'a>>,
        mut placed: impl FnMut(Record<'a>, Range<usize>),
    ) {
        let start = self.bytes.len();
        let place = offset + start as u64;
        assert_eq!(place % BATCH_ALIGNMENT as u64, 0, "batches are padded");
        self.bytes.resize(start + BATCH_HEADER_BYTES, 0);
        for record in records {
            let record_start = self.bytes.len();
            record.encode(&mut self.bytes);
            placed(record, record_start..self.bytes.len());
        }
        let body = &self.bytes[start + BATCH_HEADER_BYTES..];
        let body_bytes = u32::try_from(body.len()).expect("an append is smaller than 4 GiB");
        let body_checksum = crc32c(body);
        // Numbers begin at 1, so that the piece with the header is never one of zeros.
        let mut header =
            BatchHeader { body_bytes, number, durable, body_checksum, zero_sectors: 0 };
        self.bytes[start..start + BATCH_HEADER_BYTES]
            .copy_from_slice(&header.encode(origin, place));
        header.zero_sectors = zero_sectors(&self.bytes[start..], place);
        if header.zero_sectors > 0 {
            self.bytes[start..start + BATCH_HEADER_BYTES]
                .copy_from_slice(&header.encode(origin, place));
        }
        self.bytes.resize(start + header.padded_bytes(), 0);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Empties the buffer; keeps at most `capacity` bytes of memory for the next batches.
    pub(crate) fn clear(&mut self, capacity: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(capacity);
    }
}
