//! Making sorted records fewer before they travel.

use super::run::RunWriter;
use super::varint;
use crate::task::TaskError;

/// A record of the shuffle: partition, key, value.
pub(crate) type SortedRecord<'a> = (u32, &'a [u8], &'a [u8]);

/// Records by ascending (partition, key).
pub(crate) trait Sorted: Send {
    /// The next record.
    fn next(&mut self) -> Result<Option<SortedRecord<'_>>, TaskError>;
}

/// Combines the records of equal keys (MapReduce paper, section 4.3). It may see any part of a map
/// task's output, any number of times.
pub(crate) trait Combiner: Send {
    /// Reads all the input and writes what it makes of it, in the same order of keys.
    fn combine(&mut self, input: &mut dyn Sorted, out: &mut RunWriter) -> Result<(), TaskError>;

    /// Whether it pays to combine again when spilled runs are merged.
    fn is_cheap(&self) -> bool;
}

/// Adds up the counts of a key.
#[derive(Debug, Default)]
pub(crate) struct SumCombiner;

impl Combiner for SumCombiner {
    fn combine(&mut self, input: &mut dyn Sorted, out: &mut RunWriter) -> Result<(), TaskError> {
        let mut current: Option<(u32, u64)> = None;
        let mut current_key = Vec::new();
        let mut encoded = Vec::with_capacity(varint::BYTES_MAX);
        while let Some((partition, key, value)) = input.next()? {
            let count = decode_count(value)?;
            match &mut current {
                Some((same, sum)) if *same == partition && current_key == key => {
                    *sum = sum.saturating_add(count);
                }
                _ => {
                    if let Some((partition, sum)) = current {
                        encode_count(&mut encoded, sum);
                        out.push(partition, &current_key, &encoded)?;
                    }
                    current_key.clear();
                    current_key.extend_from_slice(key);
                    current = Some((partition, count));
                }
            }
        }
        if let Some((partition, sum)) = current {
            encode_count(&mut encoded, sum);
            out.push(partition, &current_key, &encoded)?;
        }
        Ok(())
    }

    fn is_cheap(&self) -> bool {
        true
    }
}

/// The count in a value that [`encode_count`] made.
pub(crate) fn decode_count(value: &[u8]) -> Result<u64, TaskError> {
    match varint::get(value) {
        Some((count, bytes)) if bytes == value.len() => Ok(count),
        _ => Err(TaskError::Corrupt {
            origin: None,
            reason: "a count in the shuffle is not a number".to_owned(),
        }),
    }
}

/// Makes `value` the encoding of a count.
pub(crate) fn encode_count(value: &mut Vec<u8>, count: u64) {
    value.clear();
    varint::put(value, count);
}
