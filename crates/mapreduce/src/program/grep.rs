//! The built-in job `grep`: matched strings and how often they occur, as Hadoop's example of that
//! name counts them. Lines are searched one by one, without their line feed; empty matches do not
//! count.

use regex::bytes::{Regex, RegexBuilder};

use super::count_table::CountTable;
use crate::input::LineBlock;
use crate::shuffle::Collector;
use crate::task::{LineMapper, TaskError};

/// Bytes that a compiled pattern, and the states that it builds up while it searches, may take.
const PATTERN_BYTES_MAX: usize = 8 << 20;

/// Compiles a pattern.
pub(crate) fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .size_limit(PATTERN_BYTES_MAX)
        .dfa_size_limit(PATTERN_BYTES_MAX)
        .build()
}

/// Counts matches.
pub(crate) struct MatchCounter {
    pattern: Regex,
    table: CountTable,
}

impl MatchCounter {
    /// A counter that keeps about `bytes_max` bytes of distinct matches in memory.
    pub(crate) fn new(pattern: &str, bytes_max: usize) -> Result<Self, TaskError> {
        let pattern = compile(pattern).map_err(|error| TaskError::user(error.to_string()))?;
        Ok(Self { pattern, table: CountTable::new(bytes_max) })
    }
}

impl LineMapper for MatchCounter {
    fn map(&mut self, block: &LineBlock, out: &mut Collector<'_>) -> Result<(), TaskError> {
        for line in block.lines() {
            for found in self.pattern.find_iter(line).filter(|found| !found.is_empty()) {
                self.table.add(found.as_bytes());
            }
            if self.table.is_full() {
                self.table.drain(out)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Collector<'_>) -> Result<(), TaskError> {
        self.table.drain(out)
    }
}
