//! An attempt at a reduce task, once its input is here.

use super::attempt::Attempt;
use super::error::TaskError;
use super::files::TaskFiles;
use super::part::Part;
use crate::api::Program;
use crate::program::streaming;
use crate::shuffle::{Merge, Source, decode_count, merge_passes};

/// Records between two notes of progress.
const PROGRESS_RECORDS: u64 = 4096;

/// Bytes of `key<TAB>value` lines handed to a command at once.
const FEED_BYTES: usize = 64 << 10;

/// Reduces one partition: `sources` are its segments by ascending map task, `records` the number of
/// records in them. The result is the attempt's output file.
pub(crate) fn run_reduce(
    attempt: &Attempt,
    sources: Vec<Source>,
    records: u64,
    files: &dyn TaskFiles,
) -> Result<(), TaskError> {
    attempt.stop.check()?;
    let sources =
        merge_passes(sources, attempt.limits.merge_ways, &attempt.scratch, &attempt.stop)?;
    let merge = Merge::open(sources, attempt.task.index, attempt.stop.clone())?;
    let mut input = Input { attempt, merge, read: 0, records };
    let mut part = Part::create(attempt, files)?;
    match &attempt.spec.program {
        Program::WordCount | Program::Grep { .. } => reduce_by_sum(&mut input, &mut part)?,
        Program::Streaming { reducer: Some(command), .. } => {
            reduce_by_command(&mut input, command, &mut part)?;
        }
        Program::Streaming { reducer: None, .. } => pass_on(&mut input, &mut part)?,
    }
    attempt.count("reduce_input_records", input.read);
    let bytes = part.finish()?;
    attempt.count("output_bytes", bytes);
    Ok(())
}

struct Input<'a> {
    attempt: &'a Attempt,
    merge: Merge,
    read: u64,
    records: u64,
}

impl Input<'_> {
    fn advance(&mut self) -> Result<(), TaskError> {
        self.merge.advance()?;
        self.read += 1;
        if self.read.is_multiple_of(PROGRESS_RECORDS) {
            self.attempt.note_progress(self.read, self.records);
        }
        Ok(())
    }
}

fn reduce_by_sum(input: &mut Input<'_>, part: &mut Part<'_>) -> Result<(), TaskError> {
    let mut groups = 0;
    let mut digits = Vec::new();
    while let Some((key, _)) = input.merge.peek() {
        let start = part.buffer().len();
        part.buffer().extend_from_slice(key);
        let end = part.buffer().len();
        let mut sum = 0_u64;
        while let Some((key, value)) = input.merge.peek() {
            if key != &part.buffer()[start..end] {
                break;
            }
            sum = sum.saturating_add(decode_count(value)?);
            input.advance()?;
        }
        part.buffer().push(b'\t');
        append_decimal(part.buffer(), &mut digits, sum);
        part.buffer().push(b'\n');
        part.flush_if_full()?;
        groups += 1;
    }
    input.attempt.count("reduce_input_groups", groups);
    input.attempt.count("output_records", groups);
    Ok(())
}

fn append_decimal(out: &mut Vec<u8>, digits: &mut Vec<u8>, mut number: u64) {
    digits.clear();
    loop {
        digits.push(b'0' + (number % 10) as u8);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend(digits.iter().rev());
}

fn pass_on(input: &mut Input<'_>, part: &mut Part<'_>) -> Result<(), TaskError> {
    while let Some((key, value)) = input.merge.peek() {
        append_line(part.buffer(), key, value);
        part.flush_if_full()?;
        input.advance()?;
    }
    input.attempt.count("output_records", input.read);
    Ok(())
}

fn append_line(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    out.extend_from_slice(key);
    out.push(b'\t');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn reduce_by_command(
    input: &mut Input<'_>,
    command: &str,
    part: &mut Part<'_>,
) -> Result<(), TaskError> {
    let attempt = input.attempt;
    let folder = streaming::working_folder(attempt)?;
    let mut sink = streaming::Verbatim::new(part);
    streaming::Command::reducer(attempt, command, &folder).run(
        |stdin| {
            let mut lines = Vec::with_capacity(FEED_BYTES + 1024);
            while let Some((key, value)) = input.merge.peek() {
                append_line(&mut lines, key, value);
                if lines.len() >= FEED_BYTES {
                    if !stdin.write(&lines)? {
                        return Ok(());
                    }
                    lines.clear();
                }
                input.advance()?;
            }
            stdin.write(&lines)?;
            Ok(())
        },
        &mut sink,
    )?;
    attempt.count("output_records", sink.lines());
    Ok(())
}
