//! The clocks of this node: one that nobody can set, and the one that people set.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Goes on while the machine is suspended, which the monotonic clock does not on Linux.
#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: ClockId = ClockId::Monotonic;

/// Microseconds since some moment before this process started. It never goes back and nobody can
/// set it. Where the system offers it, it goes on while the machine is suspended, so that a leader that
/// wakes up does not take its lease for fresh.
pub(crate) fn monotonic_micros() -> u64 {
    let now = clock_gettime(CLOCK);
    let seconds = u64::try_from(now.tv_sec).expect("the time since boot is not negative");
    let micros = u64::try_from(now.tv_nsec).expect("nanoseconds are not negative") / 1000;
    seconds * 1_000_000 + micros
}

/// What the clock on the wall shows, in microseconds since 1970. It may be wrong, and jump.
pub(crate) fn wall_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
