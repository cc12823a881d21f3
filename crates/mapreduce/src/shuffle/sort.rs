//! The sort buffer: what a mapper emitted since the last spill.

use super::combine::{Sorted, SortedRecord};
use super::read::key_prefix;
use crate::task::TaskError;

/// Where a record is, with what decides most comparisons.
#[derive(Clone, Copy)]
struct Entry {
    prefix: u64,
    partition: u32,
    offset: u32,
    key_bytes: u32,
    value_bytes: u32,
}

/// Most bytes that a buffer may be given: offsets have 32 bits, and one largest record may lie on
/// top.
pub(super) const SORT_BYTES_MAX: usize = 1 << 30;

/// Records in one piece of memory, sorted through an index.
pub(super) struct SortBuffer {
    arena: Vec<u8>,
    entries: Vec<Entry>,
    bytes_max: usize,
}

impl SortBuffer {
    /// A buffer for `bytes_max` bytes of records and index.
    pub(super) fn new(bytes_max: usize) -> Self {
        let bytes_max = bytes_max.min(SORT_BYTES_MAX);
        Self { arena: Vec::new(), entries: Vec::new(), bytes_max }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a record; false when it does not fit any more. An empty buffer takes any record.
    pub(super) fn push(&mut self, partition: u32, key: &[u8], value: &[u8]) -> bool {
        let bytes = key.len() + value.len() + size_of::<Entry>();
        let used = self.arena.len() + self.entries.len() * size_of::<Entry>();
        if !self.is_empty() && used + bytes > self.bytes_max {
            return false;
        }
        let narrow = |number: usize| u32::try_from(number).expect("records and buffer are bounded");
        self.entries.push(Entry {
            prefix: key_prefix(key),
            partition,
            offset: narrow(self.arena.len()),
            key_bytes: narrow(key.len()),
            value_bytes: narrow(value.len()),
        });
        self.arena.extend_from_slice(key);
        self.arena.extend_from_slice(value);
        true
    }

    /// Sorts, and gives the records out. The buffer is to be cleared afterwards.
    pub(super) fn sorted(&mut self) -> SortedRecords<'_> {
        let arena = &self.arena;
        self.entries.sort_unstable_by(|a, b| {
            (a.partition, a.prefix)
                .cmp(&(b.partition, b.prefix))
                .then_with(|| key_of(arena, a).cmp(key_of(arena, b)))
                .then(a.offset.cmp(&b.offset))
                // Only records without a byte share an offset with another; they were first.
                .then(a.value_bytes.cmp(&b.value_bytes))
        });
        SortedRecords { buffer: self, next: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.arena.clear();
        self.entries.clear();
        // One huge record must not keep its memory for the rest of the task.
        self.arena.shrink_to(self.bytes_max);
    }
}

fn key_of<'a>(arena: &'a [u8], entry: &Entry) -> &'a [u8] {
    &arena[entry.offset as usize..][..entry.key_bytes as usize]
}

/// The records of a buffer in order.
pub(super) struct SortedRecords<'a> {
    buffer: &'a SortBuffer,
    next: usize,
}

impl Sorted for SortedRecords<'_> {
    fn next(&mut self) -> Result<Option<SortedRecord<'_>>, TaskError> {
        let Some(entry) = self.buffer.entries.get(self.next) else { return Ok(None) };
        self.next += 1;
        let record = &self.buffer.arena[entry.offset as usize..];
        let (key, rest) = record.split_at(entry.key_bytes as usize);
        Ok(Some((entry.partition, key, &rest[..entry.value_bytes as usize])))
    }
}
