//! What the disk itself can do, in the same run.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

const BLOCK_BYTES: usize = 4 << 10;

/// Appends of 4 KiB, each followed by fdatasync, one after the other.
pub struct Syncs {
    pub per_second: f64,
    pub p50_us: u128,
    pub p99_us: u128,
}

/// Measures in a folder for a while. Blocks the thread.
pub fn append_and_sync(folder: &Path, duration: Duration) -> Result<Syncs> {
    let path = folder.join("disk-limit");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    let block = [0xa5; BLOCK_BYTES];
    let start = Instant::now();
    let mut micros = Vec::new();
    while start.elapsed() < duration {
        let begin = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        micros.push(begin.elapsed().as_micros());
    }
    let per_second = micros.len() as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    micros.sort_unstable();
    let at = |share: f64| micros[((micros.len() as f64 * share) as usize).min(micros.len() - 1)];
    Ok(Syncs { per_second, p50_us: at(0.5), p99_us: at(0.99) })
}
