//! The machine's own limits, in the same run.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use onefold_bench_common::{disk, loopback};

/// How long each limit is measured.
const DURATION: Duration = Duration::from_secs(2);

/// Measures and prints what the disk and the network can do.
///
/// # Errors
///
/// The folder cannot be written to.
pub(crate) fn print(folder: &Path) -> Result<()> {
    let syncs = disk::append_and_sync(folder, DURATION)?;
    println!(
        "the disk alone: {:.0} appends of 4 KiB with fdatasync per s, p50 {:.2} ms, p99 {:.2} ms",
        syncs.per_second,
        syncs.p50_us as f64 / 1e3,
        syncs.p99_us as f64 / 1e3
    );
    let trips = loopback::round_trips(DURATION)?;
    println!(
        "loopback alone: {:.0} round trips of one byte per s, p50 {:.3} ms, p99 {:.3} ms",
        trips.per_second,
        trips.p50_us as f64 / 1e3,
        trips.p99_us as f64 / 1e3
    );
    Ok(())
}
