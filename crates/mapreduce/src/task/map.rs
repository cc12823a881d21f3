//! An attempt at a map task.

use std::path::Path;

use super::attempt::Attempt;
use super::error::TaskError;
use super::files::TaskFiles;
use super::part::Part;
use crate::api::Program;
use crate::input::{FileRange, LineBlocks, MapInput};
use crate::program::grep::MatchCounter;
use crate::program::streaming::{self, CommandCombiner, MapLines};
use crate::program::wordcount::WordCounter;
use crate::shuffle::{Collector, Combiner, SumCombiner};

/// Native code that sees whole lines.
pub(crate) trait LineMapper {
    /// Maps some lines.
    fn map(
        &mut self,
        block: &crate::input::LineBlock,
        out: &mut Collector<'_>,
    ) -> Result<(), TaskError>;

    /// There are no more lines.
    fn finish(&mut self, out: &mut Collector<'_>) -> Result<(), TaskError>;
}

/// Maps a split. The result lies in the file `output` for the reducers, or, in a job without
/// reducers, in the attempt's output file.
pub(crate) fn run_map<'a>(
    attempt: &'a Attempt,
    input: &MapInput,
    files: &'a dyn TaskFiles,
    output: &Path,
) -> Result<(), TaskError> {
    attempt.stop.check()?;
    if attempt.reduces == 0 {
        return run_map_only(attempt, input, files);
    }
    let combiner: Option<Box<dyn Combiner + '_>> = match &attempt.spec.program {
        Program::WordCount | Program::Grep { .. } => Some(Box::new(SumCombiner)),
        Program::Streaming { combiner: Some(command), .. } => {
            Some(Box::new(CommandCombiner::new(attempt, command)?))
        }
        Program::Streaming { combiner: None, .. } => None,
    };
    let limits = attempt.limits.collector();
    let stop = attempt.stop.clone();
    let mut collector = Collector::new(attempt.reduces, combiner, &attempt.scratch, limits, stop);
    match &attempt.spec.program {
        Program::WordCount => {
            let mut mapper = WordCounter::new(attempt.limits.count_bytes);
            map_natively(attempt, input, files, &mut mapper, &mut collector)?;
        }
        Program::Grep { pattern } => {
            let mut mapper = MatchCounter::new(pattern, attempt.limits.count_bytes)?;
            map_natively(attempt, input, files, &mut mapper, &mut collector)?;
        }
        Program::Streaming { mapper, .. } => {
            let mut sink = MapLines::new(&mut collector);
            map_by_command(attempt, input, files, mapper, &mut sink)?;
        }
    }
    let (records, bytes) = (collector.emitted_records, collector.emitted_bytes);
    attempt.count("map_output_records", records);
    attempt.count("map_output_bytes", bytes);
    let (run, spilled) = collector.finish(output)?;
    attempt.count("spilled_records", spilled);
    attempt.count("map_output_stored_bytes", run.bytes());
    Ok(())
}

fn run_map_only(
    attempt: &Attempt,
    input: &MapInput,
    files: &dyn TaskFiles,
) -> Result<(), TaskError> {
    let Program::Streaming { mapper, .. } = &attempt.spec.program else {
        unreachable!("a valid job without reducers runs commands");
    };
    let mut part = Part::create(attempt, files)?;
    let mut sink = streaming::Verbatim::new(&mut part);
    map_by_command(attempt, input, files, mapper, &mut sink)?;
    attempt.count("map_output_records", sink.lines());
    let bytes = part.finish()?;
    attempt.count("output_bytes", bytes);
    Ok(())
}

fn map_natively(
    attempt: &Attempt,
    input: &MapInput,
    files: &dyn TaskFiles,
    mapper: &mut dyn LineMapper,
    out: &mut Collector<'_>,
) -> Result<(), TaskError> {
    let mut reading = Reading::new(attempt, input);
    for range in &input.ranges {
        let mut blocks = LineBlocks::open(files, range)?;
        while let Some(block) = blocks.next()? {
            reading.note(range, &block)?;
            mapper.map(&block, out)?;
        }
        reading.end(range);
    }
    mapper.finish(out)
}

/// Runs the command once for each range, so that it can tell from its environment which file it
/// reads.
fn map_by_command(
    attempt: &Attempt,
    input: &MapInput,
    files: &dyn TaskFiles,
    command: &str,
    sink: &mut dyn streaming::LineSink,
) -> Result<(), TaskError> {
    let folder = streaming::working_folder(attempt)?;
    let mut reading = Reading::new(attempt, input);
    for range in &input.ranges {
        let mut blocks = LineBlocks::open(files, range)?;
        let command = streaming::Command::mapper(attempt, command, &folder, range);
        let reading = &mut reading;
        command.run(
            move |stdin| {
                while let Some(block) = blocks.next()? {
                    reading.note(range, &block)?;
                    if !stdin.write(&block.bytes)? {
                        break;
                    }
                }
                reading.end(range);
                Ok(())
            },
            sink,
        )?;
    }
    Ok(())
}

/// How much of a split has been read.
struct Reading<'a> {
    attempt: &'a Attempt,
    total: u64,
    /// Bytes of the ranges before the present one.
    before: u64,
}

impl<'a> Reading<'a> {
    fn new(attempt: &'a Attempt, input: &MapInput) -> Self {
        Self { attempt, total: input.bytes(), before: 0 }
    }

    fn note(&self, range: &FileRange, block: &crate::input::LineBlock) -> Result<(), TaskError> {
        self.attempt.stop.check()?;
        self.attempt.count("map_input_records", block.count());
        self.attempt.count("map_input_bytes", block.bytes.len() as u64);
        let within = (block.offset - range.offset).min(range.length);
        self.attempt.note_progress(self.before + within, self.total);
        Ok(())
    }

    fn end(&mut self, range: &FileRange) {
        self.before += range.length;
        self.attempt.note_progress(self.before, self.total);
    }
}
