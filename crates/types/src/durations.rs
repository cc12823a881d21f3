//! How long something took, counted in buckets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of the buckets in seconds: each twice the one before, from a millisecond on.
/// These are etcd's for its disk, so that its dashboards work unchanged.
pub const BUCKET_BOUNDS_SECONDS: [f64; 14] = [
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096,
    8.192,
];

/// Counts durations. Counting is three relaxed additions at most.
#[derive(Debug, Default)]
pub struct DurationHistogram {
    buckets: [AtomicU64; BUCKET_BOUNDS_SECONDS.len() + 1],
    sum_nanoseconds: AtomicU64,
}

impl DurationHistogram {
    /// Counts one duration.
    pub fn add(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BUCKET_BOUNDS_SECONDS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// What was counted until now.
    pub fn counts(&self) -> DurationCounts {
        DurationCounts {
            buckets: self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed)),
            sum: Duration::from_nanos(self.sum_nanoseconds.load(Ordering::Relaxed)),
        }
    }
}

/// What a [`DurationHistogram`] had counted at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DurationCounts {
    /// Durations up to the bound of each bucket and above the one before; the last bucket has none.
    pub buckets: [u64; BUCKET_BOUNDS_SECONDS.len() + 1],
    /// All of them together.
    pub sum: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_first_bucket_whose_bound_it_does_not_pass() {
        let histogram = DurationHistogram::default();
        for microseconds in [10, 1_000, 1_001, 9_000_000] {
            histogram.add(Duration::from_micros(microseconds));
        }
        let counts = histogram.counts();
        assert_eq!(counts.buckets[..3], [2, 1, 0]);
        assert_eq!(counts.buckets[14], 1, "longer than every bound");
        assert_eq!(counts.buckets.iter().sum::<u64>(), 4);
        assert_eq!(counts.sum, Duration::from_micros(9_002_011));
    }
}
