//! Streams that end when there is no leader, for clients that ask for it.

use std::future;
use std::time::Duration;

use tokio::time::{self, Instant, Interval};

use crate::ClusterView;

/// How often to look.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// After how many looks without a leader in a row a stream ends, as in etcd.
const CHECKS_FAILED_MAX: u32 = 3;

/// Looks for the leader now and then.
pub(crate) struct LeaderCheck {
    clock: Option<Interval>,
    failed: u32,
}

impl LeaderCheck {
    /// Looks only if the client requires a leader.
    pub(crate) fn new(is_required: bool) -> Self {
        let clock = || time::interval_at(Instant::now() + CHECK_INTERVAL, CHECK_INTERVAL);
        Self { clock: is_required.then(clock), failed: 0 }
    }

    /// Waits until there has been no leader for too long. Dropping the future loses nothing.
    pub(crate) async fn lost(&mut self, cluster: &dyn ClusterView) {
        let Some(clock) = &mut self.clock else { return future::pending().await };
        while self.failed < CHECKS_FAILED_MAX {
            clock.tick().await;
            self.failed = if cluster.leader().is_none() { self.failed + 1 } else { 0 };
        }
    }
}
