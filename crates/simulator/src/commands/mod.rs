//! The worlds that the command line runs.

pub(crate) mod check;
pub(crate) mod cluster;
pub(crate) mod raft;

use std::{
    fmt,
    io::{self, Write},
    time::{Duration, SystemTime},
};

/// Time between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// Prints a line; whoever reads it may have stopped reading.
fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn seed_from_clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as u64
}
