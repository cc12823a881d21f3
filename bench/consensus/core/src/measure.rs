//! What is measured, how, and how it is summed up.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};

/// One point of the growth curve.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Entries proposed at once.
    pub(crate) batch: usize,
    /// Bytes of each entry.
    pub(crate) entry_bytes: usize,
    /// Entries in a measured run, a multiple of `batch`.
    pub(crate) entries: u64,
}

/// What one run of one contender gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Entries committed and handed out on all three replicas, per second of wall time.
    pub(crate) per_second: f64,
    /// CPU time of the whole process per entry, in nanoseconds.
    pub(crate) cpu_nanos: f64,
}

/// CPU time that this process has used.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Runs from `start` to `finish`.
pub(crate) struct Stopwatch {
    wall: Instant,
    cpu: Duration,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self { wall: Instant::now(), cpu: cpu_time() }
    }

    pub(crate) fn finish(self, entries: u64) -> Run {
        let wall = self.wall.elapsed().as_secs_f64();
        let cpu = (cpu_time() - self.cpu).as_nanos() as f64;
        Run { per_second: entries as f64 / wall, cpu_nanos: cpu / entries as f64 }
    }
}

/// A command as a client would bring it: bytes of its own, allocated for it.
pub(crate) fn command(shape: Shape, number: u64) -> Vec<u8> {
    let mut command = vec![0x5a; shape.entry_bytes];
    let number = number.to_le_bytes();
    let len = number.len().min(command.len());
    command[..len].copy_from_slice(&number[..len]);
    command
}

/// What a state machine that does nothing does with an entry; keeps the work from being optimised
/// away and shows at the end that all replicas saw the same commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Commands handed out.
    pub(crate) commands: u64,
    /// The sum of their first bytes.
    pub(crate) sum: u64,
}

impl Applied {
    pub(crate) fn apply(&mut self, command: &Bytes) {
        self.commands += 1;
        self.sum = self.sum.wrapping_add(u64::from(command.first().copied().unwrap_or_default()));
    }
}

/// Median, least and greatest.
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (values[0], values[values.len() - 1]);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            (values[middle - 1] + values[middle]) / 2.0
        };
        Self { median, min, max }
    }
}
