//! A closed loop of clients, and what it saw.

use std::future::Future;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::machine::KEY_BYTES;

/// Keys that the commands of a closed loop write.
const KEYS: u64 = 100_000;

/// What a run of clients saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Operations that succeeded.
    pub(crate) done: u64,
    /// Operations that failed.
    pub(crate) failed: u64,
    /// How long the run took.
    pub(crate) seconds: f64,
    /// Microseconds that one operation in two, in a hundred and in a thousand exceeds.
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p999_us: u64,
}

impl Outcome {
    fn of(mut micros: Vec<u64>, failed: u64, seconds: f64) -> Self {
        micros.sort_unstable();
        let at = |share: f64| {
            let position = (micros.len() as f64 * share) as usize;
            micros.get(position.min(micros.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        Self {
            done: micros.len() as u64,
            failed,
            seconds,
            p50_us: at(0.50),
            p99_us: at(0.99),
            p999_us: at(0.999),
        }
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.done as f64 / self.seconds
    }
}

/// Random commands of one client.
pub(crate) struct Commands {
    random: SmallRng,
    bytes: usize,
    keys: u64,
}

impl Commands {
    /// Of so many bytes, under so many keys.
    pub(crate) fn new(client: u64, bytes: usize, keys: u64) -> Self {
        Self { random: SmallRng::seed_from_u64(client), bytes: bytes.max(KEY_BYTES), keys }
    }

    /// Incompressible bytes under one of the keys.
    pub(crate) fn next(&mut self) -> Bytes {
        let mut command = vec![0; self.bytes];
        self.random.fill(command.as_mut_slice());
        let key = self.random.random_range(0..self.keys);
        command[..KEY_BYTES].copy_from_slice(&key.to_be_bytes());
        command.into()
    }
}

/// Runs `clients` clients, each with one operation under way, for `duration`.
pub(crate) async fn closed_loop<F, Fut>(
    clients: usize,
    duration: Duration,
    bytes: usize,
    operation: F,
) -> Outcome
where
    F: Fn(Bytes) -> Fut,
    Fut: Future<Output = bool>,
{
    let start = Instant::now();
    let client = async |number: usize| {
        let mut commands = Commands::new(number as u64, bytes, KEYS);
        let (mut micros, mut failed) = (Vec::new(), 0);
        while start.elapsed() < duration {
            let command = commands.next();
            let begin = Instant::now();
            if operation(command).await {
                micros.push(u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX));
            } else {
                failed += 1;
                // What fails at once must not become a busy loop.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        (micros, failed)
    };
    let outcomes = join_all((0..clients).map(client)).await;
    let seconds = start.elapsed().as_secs_f64();
    let failed = outcomes.iter().map(|(_, failed)| failed).sum();
    let micros = outcomes.into_iter().flat_map(|(micros, _)| micros).collect();
    Outcome::of(micros, failed, seconds)
}
