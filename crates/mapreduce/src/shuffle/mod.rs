//! The shuffle: from what mappers emit, in any order, to what reducers read, grouped by key.
//!
//! ```text
//!  map task                                              reduce task p
//!  emit ─ sort buffer ─ spill ─ run ┐                    ┌ segment p of map 0 ┐
//!                       spill ─ run ┼─ merge ─ map ══════┼ segment p of map 1 ┼─ merge ─ groups
//!                       spill ─ run ┘          output    └ segment p of map 2 ┘
//! ```
//!
//! Order is (partition, key bytes, order of emission), and between runs the order of the runs: so a
//! reducer sees the values of a key in the same order whenever and wherever its task runs.
//!
//! What this room must never do: hold more than its stated buffers in memory, or hand out a record
//! whose block it has not verified.

mod collect;
mod combine;
mod format;
mod merge;
mod partition;
mod read;
mod run;
mod sort;
mod varint;

#[cfg(test)]
mod tests;

pub(crate) use collect::{Collector, CollectorLimits};
pub(crate) use combine::{Combiner, Sorted, SumCombiner, decode_count, encode_count};
pub(crate) use merge::{Merge, merge_passes};
pub(crate) use partition::partition_of;
pub(crate) use read::{Source, SourceBytes};
pub(crate) use run::{Run, RunWriter};
