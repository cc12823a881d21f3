//! Batches: the records of one append, with one checksum. A batch is there whole or not at all.
//!
//! A batch says which batches were certainly durable when it was written. That tells a torn write
//! from damage: a batch that can't be read was acknowledged if a later one says that it was
//! durable.

use std::ops::Range;

use super::{Reader, Record, crc32c};

/// Checksum, body length, number, newest durable number.
pub(crate) const BATCH_HEADER_BYTES: usize = 4 + 4 + 8 + 8;

/// What a batch begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    checksum: u32,
    pub(crate) body_bytes: u32,
    /// The batch's number: one more than that of the batch before, across segments.
    pub(crate) number: u64,
    /// The newest batch that was durable when this one was written.
    pub(crate) durable: u64,
}

impl BatchHeader {
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        Some(Self {
            checksum: reader.u32()?,
            body_bytes: reader.u32()?,
            number: reader.u64()?,
            durable: reader.u64()?,
        })
    }

    /// Bytes of header and body.
    pub(crate) fn batch_bytes(self) -> usize {
        BATCH_HEADER_BYTES + self.body_bytes as usize
    }
}

/// The batch at the start of `bytes`: its header and its body. Nothing if it is not a valid batch.
pub(crate) fn decode_batch(bytes: &[u8]) -> Option<(BatchHeader, &[u8])> {
    let header = BatchHeader::decode(bytes)?;
    let batch = bytes.get(..header.batch_bytes())?;
    (crc32c(&batch[4..]) == header.checksum).then(|| (header, &batch[BATCH_HEADER_BYTES..]))
}

/// Looks in what follows an unreadable batch for one that says that batch `number` was durable.
pub(crate) fn find_confirmation(bytes: &[u8], number: u64) -> Option<usize> {
    /// Most batches that one segment can hold after the unreadable one.
    const NUMBERS_MAX: u64 = u32::MAX as u64;
    (0..bytes.len()).find(|&offset| {
        let rest = &bytes[offset..];
        let Some(header) = BatchHeader::decode(rest) else {
            return false;
        };
        // Cheap conditions first: a checksum at every byte would take long.
        let confirms = header.durable >= number
            && header.number > header.durable
            && header.number - number <= NUMBERS_MAX;
        confirms && decode_batch(rest).is_some()
    })
}

/// Puts batches one behind the other into a buffer.
#[derive(Debug, Default)]
pub(crate) struct BatchWriter {
    bytes: Vec<u8>,
}

impl BatchWriter {
    /// Adds a batch. Answers where its records begin in the buffer, for `records` in order.
    pub(crate) fn push<'a>(
        &mut self,
        number: u64,
        durable: u64,
        records: impl IntoIterator<Item = Record<'a>>,
        mut placed: impl FnMut(Record<'a>, Range<usize>),
    ) {
        let start = self.bytes.len();
        self.bytes.resize(start + BATCH_HEADER_BYTES, 0);
        for record in records {
            let record_start = self.bytes.len();
            record.encode(&mut self.bytes);
            placed(record, record_start..self.bytes.len());
        }
        let body_bytes = self.bytes.len() - start - BATCH_HEADER_BYTES;
        let body_bytes = u32::try_from(body_bytes).expect("an append is smaller than 4 GiB");
        let batch = &mut self.bytes[start..];
        batch[4..8].copy_from_slice(&body_bytes.to_le_bytes());
        batch[8..16].copy_from_slice(&number.to_le_bytes());
        batch[16..24].copy_from_slice(&durable.to_le_bytes());
        let checksum = crc32c(&batch[4..]);
        batch[..4].copy_from_slice(&checksum.to_le_bytes());
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
