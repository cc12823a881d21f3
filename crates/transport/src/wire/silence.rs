//! Signs of life.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::End;
use crate::Limits;

/// What moved on one connection.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Bytes read.
    received: AtomicU64,
    /// Times that a full socket took bytes again, which shows that the other side acknowledges.
    drained: AtomicU64,
    /// Frames written.
    sent: AtomicU64,
}

impl Activity {
    pub(crate) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn drained(&self) {
        self.drained.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, frames: usize) {
        self.sent.fetch_add(frames as u64, Ordering::Relaxed);
    }
}

/// What happened since the tick before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tick {
    pub(crate) received: bool,
    pub(crate) sent: bool,
}

/// Calls `on_tick` once in each ping interval, and returns when it says so or when the other side
/// gave no sign of life for the silence timeout.
///
/// It counts intervals instead of reading a clock: a process that was stopped for a while does not
/// take its own absence for the other side's.
pub(crate) async fn watch_silence(
    activity: &Activity,
    limits: &Limits,
    mut on_tick: impl FnMut(Tick) -> Result<(), End>,
) -> End {
    let interval = limits.ping_interval.max(Duration::from_millis(1));
    let ticks_max = limits.silence_timeout.div_duration_f64(interval).ceil().max(2.0) as u64;
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (mut received, mut drained, mut sent) = (0, 0, 0);
    let mut silent_ticks = 0;
    loop {
        tokio::time::sleep(interval).await;
        let now = (read(&activity.received), read(&activity.drained), read(&activity.sent));
        let alive = now.0 != received || now.1 != drained;
        silent_ticks = if alive { 0 } else { silent_ticks + 1 };
        if silent_ticks >= ticks_max {
            return End::Silent;
        }
        let tick = Tick { received: now.0 != received, sent: now.2 != sent };
        (received, drained, sent) = now;
        if let Err(end) = on_tick(tick) {
            return end;
        }
    }
}
