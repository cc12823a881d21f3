//! Clients that hang keys on leases, keep them alive for a while, and let them go.

use std::time::Duration;

use onefold_checker::history::{Action, Answer};
use rand::Rng;
use tokio_util::sync::CancellationToken;

use super::session::Session;

/// Times to live that are asked for, in seconds; 2 s is the shortest that is granted.
const TTL_SECONDS: std::ops::RangeInclusive<u64> = 1..=4;
const KEYS_MAX: u64 = 3;
const KEEP_ALIVES_MAX: u32 = 8;
const REST_MAX: Duration = Duration::from_millis(1_500);

/// A client of leases.
pub struct LeaseClient {
    pub session: Session,
    pub prefix: String,
}

impl LeaseClient {
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.session.rest(REST_MAX).await;
            let ttl_seconds = self.session.random.random_range(TTL_SECONDS);
            let grant = Action::Grant { ttl_seconds };
            let Some((_, Answer::Granted { lease, .. })) = self.session.ask(grant).await else {
                continue;
            };
            self.attach(lease).await;
            for _ in 0..self.session.random.random_range(0..=KEEP_ALIVES_MAX) {
                if stop.is_cancelled() {
                    return;
                }
                self.session.rest(REST_MAX).await;
                self.session.perform(Action::KeepAlive { lease }).await;
                if self.session.random.random_ratio(1, 4) {
                    self.attach(lease).await;
                }
            }
            if self.session.random.random_ratio(1, 4) {
                self.session.perform(Action::Revoke { lease }).await;
            }
        }
    }

    /// Hangs some keys on a lease. Nobody deletes them: only the lease's end does.
    async fn attach(&mut self, lease: u64) {
        for _ in 0..self.session.random.random_range(1..=KEYS_MAX) {
            let value = self.session.fresh_value();
            let key = format!("{}{value}", self.prefix);
            self.session.perform(Action::Put { key, value, lease, previous: false }).await;
        }
    }
}
