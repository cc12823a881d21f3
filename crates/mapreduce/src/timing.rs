//! How often things happen. Tests use a faster clockwork.

use std::time::Duration;

use crate::api::limits::{HEARTBEAT_INTERVAL, WORKER_TIMEOUT};

/// Intervals and timeouts of coordinators and workers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// Between two reports of a worker.
    pub(crate) heartbeat: Duration,
    /// Silence after which a worker counts as dead.
    pub(crate) worker_timeout: Duration,
    /// Between two looks at who is elected.
    pub(crate) election_poll: Duration,
    /// Time to live of the coordinator's lease.
    pub(crate) lease_seconds: i64,
    /// How long a new coordinator listens before it gives work out.
    pub(crate) hold: Duration,
    /// Between two records of a job's progress.
    pub(crate) status: Duration,
    /// How long a reducer tries to get at a map output.
    pub(crate) fetch_patience: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: HEARTBEAT_INTERVAL,
            worker_timeout: WORKER_TIMEOUT,
            election_poll: Duration::from_millis(500),
            lease_seconds: 3,
            hold: Duration::from_secs(1),
            status: Duration::from_secs(1),
            fetch_patience: Duration::from_secs(4),
        }
    }
}
