//! Clients that are gone before their answer comes, and watchers that never read.

use std::time::Duration;

use onefold_checker::history::{Action, Compare, Span};
use onefold_types::Revision;
use rand::Rng;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::session::Session;
use super::watcher::{WatchStream, Wish};

/// Longest rest between two requests.
const REST_MAX: Duration = Duration::from_millis(250);
/// How long a client waits for an answer before it is gone with its connection, in microseconds.
const STAY_US: std::ops::Range<u64> = 100..20_000;
const KEYS: u64 = 4;

/// Watches that one silent watcher holds open.
const SILENT_WATCHES: usize = 24;
/// How long it holds them, in milliseconds.
const HOLD_MS: std::ops::Range<u64> = 2_000..30_000;
/// How long a stream may take to open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(4);

/// A client that hangs up on its requests.
pub struct VanishingClient {
    pub session: Session,
    pub prefix: String,
}

impl VanishingClient {
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.session.rest(REST_MAX).await;
            let action = self.draw();
            let stay = Duration::from_micros(self.session.random.random_range(STAY_US));
            self.session.vanish(action, stay).await;
        }
    }

    fn draw(&mut self) -> Action {
        let key = self.key();
        match self.session.random.random_range(0..10) {
            0..5 => self.put(key),
            5..7 => Action::Delete { span: Span::key(key), previous: false },
            _ => {
                let other = self.key();
                let mut success = vec![self.put(key.clone())];
                if other != key {
                    success.push(self.put(other));
                }
                let compares = vec![Compare::Modified { key, at: Revision::ZERO }];
                let failure =
                    vec![Action::Delete { span: Span::prefix(&self.prefix), previous: false }];
                Action::Txn { compares, success, failure }
            }
        }
    }

    fn key(&mut self) -> String {
        format!("{}{}", self.prefix, self.session.random.random_range(0..KEYS))
    }

    fn put(&mut self, key: String) -> Action {
        Action::Put { key, value: self.session.fresh_value(), lease: 0, previous: false }
    }
}

/// A client that watches everything and never reads what it is told. What it costs the nodes must not
/// cost the others anything.
pub struct SilentWatcher {
    pub session: Session,
    pub begin: Revision,
}

impl SilentWatcher {
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let Some((_, channel)) = self.session.connect_anywhere().await else { continue };
            let start = Some(self.begin.next());
            let wish = Wish { span: Span::everything(), start, previous: true, fragment: false };
            let mut held = Vec::new();
            for _ in 0..SILENT_WATCHES {
                let open = WatchStream::open(channel.clone(), &wish);
                if let Ok(Ok(stream)) = timeout(OPEN_TIMEOUT, open).await {
                    held.push(stream);
                }
            }
            let hold = Duration::from_millis(self.session.random.random_range(HOLD_MS));
            tokio::select! {
                () = sleep_until(Instant::now() + hold) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}
