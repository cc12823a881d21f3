//! Latencies of one run, and medians of several.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use onefold_bench_common::process;

/// What one run saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Operations that succeeded while it was measured.
    pub(crate) done: u64,
    /// Operations that failed, at any time.
    pub(crate) failed: u64,
    /// How long was measured.
    pub(crate) elapsed: Duration,
    /// CPU time of all members together.
    pub(crate) server_cpu: Duration,
    /// CPU time of this program.
    pub(crate) client_cpu: Duration,
    /// Milliseconds that one operation in two, in a hundred and in a thousand exceeds.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
}

impl Outcome {
    /// Sets the latencies from those of all operations, in microseconds.
    fn set_latencies(&mut self, mut micros: Vec<u32>) {
        micros.sort_unstable();
        let at = |share: f64| {
            let position = (micros.len() as f64 * share) as usize;
            let position = position.min(micros.len().saturating_sub(1));
            micros.get(position).map_or(f64::NAN, |&micros| f64::from(micros) / 1e3)
        };
        (self.p50_ms, self.p99_ms, self.p999_ms) = (at(0.5), at(0.99), at(0.999));
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.done as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn server_micros(&self) -> f64 {
        self.server_cpu.as_secs_f64() * 1e6 / self.done as f64
    }

    pub(crate) fn client_micros(&self) -> f64 {
        self.client_cpu.as_secs_f64() * 1e6 / self.done as f64
    }
}

/// Wall time and CPU time of the time that is measured.
pub(crate) struct Meter<F> {
    server_cpu: F,
    start: Instant,
    server_before: Duration,
    client_before: Duration,
}

impl<F: Fn() -> Result<Duration>> Meter<F> {
    /// Starts now; the function gives what the servers have taken so far.
    ///
    /// # Errors
    ///
    /// A server has ended.
    pub(crate) fn start(server_cpu: F) -> Result<Self> {
        let (server_before, client_before) = (server_cpu()?, client_cpu()?);
        Ok(Self { server_cpu, start: Instant::now(), server_before, client_before })
    }

    /// When it started.
    pub(crate) fn started(&self) -> Instant {
        self.start
    }

    /// The outcome of operations that took so many microseconds each.
    ///
    /// # Errors
    ///
    /// A server has ended.
    pub(crate) fn stop(self, micros: Vec<u32>) -> Result<Outcome> {
        let mut outcome = Outcome {
            done: micros.len() as u64,
            elapsed: self.start.elapsed(),
            server_cpu: (self.server_cpu)()? - self.server_before,
            client_cpu: client_cpu()? - self.client_before,
            ..Outcome::default()
        };
        outcome.set_latencies(micros);
        Ok(outcome)
    }
}

fn client_cpu() -> Result<Duration> {
    process::cpu_time(std::process::id())
}

/// The median of some measurements, the least and the greatest of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    least: f64,
    greatest: f64,
}

impl Summary {
    /// Of at least one value.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Self {
            median: f64::midpoint(low, high),
            least: values[0],
            greatest: values[values.len() - 1],
        }
    }
}

/// As `median (least–greatest)` with the precision that is asked for.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(0);
        write!(f, "{:.digits$} ({:.digits$}–{:.digits$})", self.median, self.least, self.greatest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        assert_eq!(format!("{:.1}", Summary::of([3.0, 1.0, 2.0])), "2.0 (1.0–3.0)");
        assert_eq!(format!("{}", Summary::of([4.0, 1.0])), "2 (1–4)");
    }

    #[test]
    fn percentiles_are_of_the_operations() {
        let mut outcome = Outcome::default();
        outcome.set_latencies((1..=1000).rev().map(|ms| ms * 1000).collect());
        assert_eq!((outcome.p50_ms, outcome.p99_ms, outcome.p999_ms), (501.0, 991.0, 1000.0));
    }
}
