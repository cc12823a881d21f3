//! The clocks by which leases are measured: any offset, and a rate within the promised drift.

use onefold_raft::Lease;

use super::plan::MICROS_PER_UNIT;
use crate::random::Random;

const MILLION: u64 = 1_000_000;

/// One process's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// What it showed at a time, and how fast it has been since, in millionths of true time.
    shown: u64,
    since: u64,
    rate: u64,
}

impl Clock {
    /// The clock of a process that starts now.
    pub(crate) fn start(now: u64, lease: Option<Lease>, random: &mut Random) -> Self {
        let shown = random.within(0..=MILLION);
        Self { shown, since: now, rate: draw_rate(lease, random) }
    }

    /// What it shows, in microseconds.
    pub(crate) fn micros(&self, now: u64) -> u64 {
        self.shown + (now - self.since) * MICROS_PER_UNIT * self.rate / MILLION
    }

    /// Runs at another rate from now on.
    pub(crate) fn change_rate(&mut self, now: u64, lease: Option<Lease>, random: &mut Random) {
        *self = Self { shown: self.micros(now), since: now, rate: draw_rate(lease, random) };
    }
}

/// Two rates that are within half the drift of the true one differ by less than the drift.
fn draw_rate(lease: Option<Lease>, random: &mut Random) -> u64 {
    let half = lease.map_or(0, |lease| u64::from(lease.drift_ppm) / 2);
    random.pick(&[MILLION - half, MILLION, MILLION + half])
}
