//! The built-in job `grep`: matched strings and how often they occur.

use regex::bytes::{Regex, RegexBuilder};

/// Bytes that a compiled pattern, and the states that it builds up while it searches, may take.
const PATTERN_BYTES_MAX: usize = 8 << 20;

/// Compiles a pattern.
pub(crate) fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .size_limit(PATTERN_BYTES_MAX)
        .dfa_size_limit(PATTERN_BYTES_MAX)
        .build()
}
