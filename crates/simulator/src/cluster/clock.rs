//! What a node believes the time to be.

use onefold_types::Timestamp;

/// Virtual time in microseconds since the beginning of the world.
pub(super) type Micros = u64;

pub(super) const MILLISECOND: Micros = 1000;
pub(super) const SECOND: Micros = 1_000_000;

const MILLION: i128 = 1_000_000;

/// The wall clocks of the world begin somewhere in the past.
const WALL_START_MS: i64 = 1_700_000_000_000;

/// The clocks of one node: a monotonic one whose rate is wrong, and a wall clock on top of it that
/// also jumps.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    /// By how many millionths it is fast.
    drift_ppm: i64,
    /// What the monotonic clock showed when the rate was set last, and the true time then.
    shown: Micros,
    since: Micros,
    wall_offset_ms: i64,
}

impl Clock {
    pub(super) fn new(now: Micros, drift_ppm: i64, wall_offset_ms: i64) -> Self {
        Self { drift_ppm, shown: SECOND, since: now, wall_offset_ms }
    }

    /// What the monotonic clock shows.
    pub(super) fn monotonic(&self, now: Micros) -> Micros {
        let passed = i128::from(now - self.since);
        self.shown + (passed * (MILLION + i128::from(self.drift_ppm)) / MILLION) as Micros
    }

    /// What the monotonic clock showed at a time that may be before the rate was set last.
    pub(super) fn shown_at(&self, time: Micros) -> Micros {
        if time >= self.since {
            self.monotonic(time)
        } else {
            self.shown.saturating_sub(self.since - time)
        }
    }

    /// What the wall clock shows.
    pub(super) fn wall(&self, now: Micros) -> Timestamp {
        let ms = WALL_START_MS + (self.monotonic(now) / MILLISECOND) as i64 + self.wall_offset_ms;
        Timestamp(ms as u64)
    }

    /// How long it takes in truth until the clock has gone on by so much.
    pub(super) fn truly(&self, duration: Micros) -> Micros {
        let truly = i128::from(duration) * MILLION / (MILLION + i128::from(self.drift_ppm));
        (truly as Micros).max(1)
    }

    /// From now on the clock is fast by this many millionths.
    pub(super) fn drift(&mut self, now: Micros, drift_ppm: i64) {
        self.shown = self.monotonic(now);
        self.since = now;
        self.drift_ppm = drift_ppm;
    }

    /// Somebody set the wall clock.
    pub(super) fn jump(&mut self, wall_offset_ms: i64) {
        self.wall_offset_ms = wall_offset_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_clock_shows_more_and_waits_less() {
        let mut clock = Clock::new(0, 100_000, 0);
        assert_eq!(clock.monotonic(10 * SECOND), 12 * SECOND);
        assert_eq!(clock.truly(11 * SECOND), 10 * SECOND);
        clock.drift(10 * SECOND, -100_000);
        assert_eq!(clock.monotonic(20 * SECOND), 21 * SECOND, "it goes on from what it showed");
        let before = clock.wall(20 * SECOND);
        clock.jump(-5000);
        assert_eq!(clock.wall(20 * SECOND).get(), before.get() - 5000);
    }
}
