//! CPU time and memory of processes, from /proc.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// The kernel counts CPU time in these for user space, whatever its own tick is.
const TICKS_PER_SECOND: u64 = 100;

/// User and system time of all threads of a process, past ones included.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name stands in brackets and may hold spaces; what follows are numbers from the third on.
    let (_, rest) = stat.rsplit_once(')').context("a process name in brackets")?;
    let field = |number: usize| -> Result<u64> {
        let text = rest.split_whitespace().nth(number - 3).context("a short stat line")?;
        Ok(text.parse()?)
    };
    let ticks = field(14)? + field(15)?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Bytes of a process in memory.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    status(pid, "VmRSS:")
}

/// Of these, bytes that no file backs.
pub fn anonymous_bytes(pid: u32) -> Result<u64> {
    status(pid, "RssAnon:")
}

fn status(pid: u32, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no such field")?;
    Ok(kib.parse::<u64>()? << 10)
}

pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
