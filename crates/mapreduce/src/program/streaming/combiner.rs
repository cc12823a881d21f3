//! A command as a combiner: it sees each spill once.

use std::path::PathBuf;

use super::command::{Command, working_folder};
use super::output::{LineSink, each_line, split_line};
use crate::shuffle::{Combiner, RunWriter, Sorted, partition_of};
use crate::task::{Attempt, TaskError};

/// Bytes of lines handed to the command at once.
const FEED_BYTES: usize = 64 << 10;

/// Combines by running a command.
pub(crate) struct CommandCombiner<'a> {
    attempt: &'a Attempt,
    command: &'a str,
    folder: PathBuf,
}

impl<'a> CommandCombiner<'a> {
    /// A combiner of one attempt.
    pub(crate) fn new(attempt: &'a Attempt, command: &'a str) -> Result<Self, TaskError> {
        Ok(Self { attempt, command, folder: working_folder(attempt)? })
    }
}

impl Combiner for CommandCombiner<'_> {
    fn combine(&mut self, input: &mut dyn Sorted, out: &mut RunWriter) -> Result<(), TaskError> {
        let mut sink = InOrder { partitions: self.attempt.reduces, last: None, out };
        Command::combiner(self.attempt, self.command, &self.folder).run(
            |stdin| {
                let mut lines = Vec::with_capacity(FEED_BYTES + 1024);
                while let Some((_, key, value)) = input.next()? {
                    lines.extend_from_slice(key);
                    lines.push(b'\t');
                    lines.extend_from_slice(value);
                    lines.push(b'\n');
                    if lines.len() >= FEED_BYTES {
                        if !stdin.write(&lines)? {
                            return Ok(());
                        }
                        lines.clear();
                    }
                }
                stdin.write(&lines)?;
                Ok(())
            },
            &mut sink,
        )
    }

    fn is_cheap(&self) -> bool {
        false
    }
}

/// Writes the combined records to a run, which must be in order.
struct InOrder<'a> {
    partitions: u32,
    last: Option<(u32, Vec<u8>)>,
    out: &'a mut RunWriter,
}

impl LineSink for InOrder<'_> {
    fn lines(&mut self, lines: &[u8]) -> Result<(), TaskError> {
        for line in each_line(lines) {
            let (key, value) = split_line(line);
            let partition = partition_of(key, self.partitions);
            match &mut self.last {
                Some((before, last)) => {
                    if (partition, key) < (*before, last.as_slice()) {
                        return Err(TaskError::user(format!(
                            "the combiner's output is not in the order of its input: key {:?} came \
                             after {:?}; a combiner writes each key when it is done with it, and \
                             changes no key",
                            String::from_utf8_lossy(key),
                            String::from_utf8_lossy(last)
                        )));
                    }
                    *before = partition;
                    last.clear();
                    last.extend_from_slice(key);
                }
                None => self.last = Some((partition, key.to_vec())),
            }
            self.out.push(partition, key, value)?;
        }
        Ok(())
    }
}
