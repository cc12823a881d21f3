//! From emitted records to one map output: sort, combine, spill, merge.

use std::path::{Path, PathBuf};

use super::combine::{Combiner, Sorted};
use super::merge::{Merge, merge_passes};
use super::partition::partition_of;
use super::read::{Source, SourceBytes};
use super::run::{Run, RunWriter};
use super::sort::SortBuffer;
use crate::api::limits::{MERGE_WAYS_MAX, RECORD_BYTES_MAX, SORT_BYTES_DEFAULT};
use crate::task::{Stop, TaskError};

/// Bounds of a [`Collector`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct CollectorLimits {
    /// Bytes sorted in memory.
    pub(crate) sort_bytes: usize,
    /// Runs merged at once.
    pub(crate) merge_ways: usize,
}

impl Default for CollectorLimits {
    fn default() -> Self {
        Self { sort_bytes: SORT_BYTES_DEFAULT, merge_ways: MERGE_WAYS_MAX }
    }
}

/// Collects what a mapper emits.
pub(crate) struct Collector<'a> {
    partitions: u32,
    buffer: SortBuffer,
    combiner: Option<Box<dyn Combiner + 'a>>,
    scratch: PathBuf,
    limits: CollectorLimits,
    stop: Stop,
    runs: Vec<Run>,
    /// Records emitted.
    pub(crate) emitted_records: u64,
    /// Their bytes.
    pub(crate) emitted_bytes: u64,
    spilled_records: u64,
}

impl<'a> Collector<'a> {
    /// A collector that spills into the folder `scratch`, which exists.
    pub(crate) fn new(
        partitions: u32,
        combiner: Option<Box<dyn Combiner + 'a>>,
        scratch: &Path,
        limits: CollectorLimits,
        stop: Stop,
    ) -> Self {
        Self {
            partitions,
            buffer: SortBuffer::new(limits.sort_bytes),
            combiner,
            scratch: scratch.to_owned(),
            limits,
            stop,
            runs: Vec::new(),
            emitted_records: 0,
            emitted_bytes: 0,
            spilled_records: 0,
        }
    }

    /// Takes a record.
    pub(crate) fn emit(&mut self, key: &[u8], value: &[u8]) -> Result<(), TaskError> {
        if key.len().max(value.len()) > RECORD_BYTES_MAX {
            return Err(TaskError::RecordTooLong {
                what: "a key or value that was emitted".to_owned(),
            });
        }
        self.emitted_records += 1;
        self.emitted_bytes += (key.len() + value.len()) as u64;
        let partition = partition_of(key, self.partitions);
        if self.buffer.push(partition, key, value) {
            return Ok(());
        }
        self.spill()?;
        assert!(self.buffer.push(partition, key, value), "an empty buffer takes any record");
        Ok(())
    }

    /// Completes the map output as a file at `path`. Answers it and the number of records that were
    /// written to runs on the way.
    pub(crate) fn finish(mut self, path: &Path) -> Result<(Run, u64), TaskError> {
        if !self.buffer.is_empty() || self.runs.is_empty() {
            self.spill()?;
        }
        // The buffer's memory is free for the merge.
        self.buffer = SortBuffer::new(0);
        if let [run] = self.runs.as_slice() {
            std::fs::rename(run.path(), path)
                .map_err(|source| TaskError::disk("rename", run.path(), source))?;
            return Ok((Run::open(path)?, self.spilled_records));
        }
        let mut out = RunWriter::create(path, self.partitions)?;
        for partition in 0..self.partitions {
            self.merge_partition(partition, &mut out)?;
        }
        for run in self.runs {
            run.delete();
        }
        Ok((out.finish()?, self.spilled_records))
    }

    fn merge_partition(&mut self, partition: u32, out: &mut RunWriter) -> Result<(), TaskError> {
        let mut sources = Vec::with_capacity(self.runs.len());
        for run in &self.runs {
            let segment = run.segment(partition)?;
            if segment.length > 0 {
                let file = run.file().clone();
                let bytes =
                    SourceBytes::File { file, offset: segment.offset, length: segment.length };
                sources.push(Source { bytes, origin: None });
            }
        }
        let sources = merge_passes(sources, self.limits.merge_ways, &self.scratch, &self.stop)?;
        let mut merge = Merge::open(sources, partition, self.stop.clone())?;
        match &mut self.combiner {
            Some(combiner) if combiner.is_cheap() => combiner.combine(&mut merge, out),
            _ => pass_on(&mut merge, out),
        }
    }

    fn spill(&mut self) -> Result<(), TaskError> {
        let path = self.scratch.join(format!("spill-{}", self.runs.len()));
        let mut writer = RunWriter::create(&path, self.partitions)?;
        let mut records = self.buffer.sorted();
        match &mut self.combiner {
            Some(combiner) => combiner.combine(&mut records, &mut writer)?,
            None => pass_on(&mut records, &mut writer)?,
        }
        self.spilled_records += writer.records();
        self.runs.push(writer.finish()?);
        self.buffer.clear();
        Ok(())
    }
}

fn pass_on(input: &mut dyn Sorted, out: &mut RunWriter) -> Result<(), TaskError> {
    while let Some((partition, key, value)) = input.next()? {
        out.push(partition, key, value)?;
    }
    Ok(())
}
