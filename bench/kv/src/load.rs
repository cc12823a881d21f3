//! Closed loops of clients: each has one operation under way.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use onefold_bench_common::process;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::fleet::Fleet;
use crate::statistics::Outcome;
use crate::wire::{Event, Operation, Wire};

/// Bytes of a key: its number in decimal digits.
const KEY_BYTES: usize = 8;
/// Longest wait for the next answer of any client, and for the last ones.
const PATIENCE: Duration = Duration::from_secs(30);
/// Failures after which there is nothing to measure.
const FAILURES_MAX: u64 = 10_000;
/// Longest wait for a socket, so that the end of a run is seen.
const TURN_MAX: Duration = Duration::from_millis(20);

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Put,
    Get { serializable: bool },
}

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) clients: usize,
    /// Keys that are used, from 0.
    pub(crate) keys: u32,
    pub(crate) value_bytes: usize,
    /// How long it runs before it is measured.
    pub(crate) warm_up: Duration,
    /// How long it is measured.
    pub(crate) duration: Duration,
}

/// The key of a number.
pub(crate) fn key(number: u32) -> [u8; KEY_BYTES] {
    let mut key = [b'0'; KEY_BYTES];
    let mut rest = number;
    for digit in key.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// Operations under way.
struct Clients {
    random: SmallRng,
    value: Vec<u8>,
    begun: Vec<Instant>,
    /// Clients with nothing under way.
    idle: Vec<usize>,
    /// Whether a client's operation brought as much as it should.
    is_whole: Vec<bool>,
    failed: u64,
    last_answer: Instant,
}

impl Clients {
    fn new(count: usize, value_bytes: usize) -> Self {
        Self {
            random: SmallRng::seed_from_u64(count as u64),
            value: vec![0; value_bytes],
            begun: vec![Instant::now(); count],
            idle: (0..count).rev().collect(),
            is_whole: vec![false; count],
            failed: 0,
            last_answer: Instant::now(),
        }
    }

    fn are_busy(&self) -> bool {
        self.idle.len() < self.begun.len()
    }

    /// Starts the next operation of a client on its connection.
    fn start<W: Wire>(
        &mut self,
        fleet: &mut Fleet<W>,
        client: usize,
        action: Action,
        number: u32,
    ) -> Result<()> {
        let key = key(number);
        let operation = match action {
            Action::Put => {
                // Incompressible, as a disk must not win by compressing.
                self.random.fill(self.value.as_mut_slice());
                Operation::Put { key: &key, value: &self.value }
            }
            Action::Get { serializable } => Operation::Get { key: &key, serializable },
        };
        self.begun[client] = Instant::now();
        self.is_whole[client] = false;
        let link = client % fleet.len();
        fleet.wire(link).request(client as u32, operation)
    }

    /// Waits for answers; gives the microseconds of those that succeeded to `on_success`.
    fn turn<W: Wire>(
        &mut self,
        fleet: &mut Fleet<W>,
        answer_bytes_min: usize,
        mut on_success: impl FnMut(u32),
    ) -> Result<()> {
        fleet.turn(TURN_MAX, &mut |_, token, event| {
            let client = token as usize;
            match event {
                Event::Message(message) => {
                    self.is_whole[client] = message.len() >= answer_bytes_min;
                }
                Event::End { succeeded } => {
                    self.last_answer = Instant::now();
                    if succeeded && self.is_whole[client] {
                        let elapsed = self.last_answer - self.begun[client];
                        on_success(u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX));
                    } else {
                        self.failed += 1;
                    }
                    self.idle.push(client);
                }
            }
        })?;
        ensure!(self.failed <= FAILURES_MAX, "more than {FAILURES_MAX} operations failed");
        if self.are_busy() && self.last_answer.elapsed() > PATIENCE {
            bail!("no answer for {PATIENCE:?}");
        }
        Ok(())
    }
}

/// The least bytes of an answer that is what was asked for.
fn answer_bytes_min(action: Action, value_bytes: usize) -> usize {
    if action == Action::Put { 0 } else { value_bytes }
}

/// Writes each key once.
///
/// # Errors
///
/// A connection broke, or an operation failed.
pub(crate) fn fill<W: Wire>(fleet: &mut Fleet<W>, load: Load) -> Result<()> {
    let mut clients = Clients::new(load.clients, load.value_bytes);
    let mut keys = 0..load.keys;
    loop {
        while let Some(client) = clients.idle.pop() {
            let Some(number) = keys.next() else {
                clients.idle.push(client);
                break;
            };
            clients.start(fleet, client, Action::Put, number)?;
        }
        if !clients.are_busy() {
            break;
        }
        clients.turn(fleet, 0, |_| {})?;
    }
    ensure!(clients.failed == 0, "{} of {} keys were not written", clients.failed, load.keys);
    Ok(())
}

/// Keeps every client busy with operations on random keys; `server_cpu` reads what the servers took.
///
/// # Errors
///
/// A connection broke, or too many operations failed.
pub(crate) fn closed_loop<W: Wire>(
    fleet: &mut Fleet<W>,
    load: Load,
    action: Action,
    server_cpu: impl Fn() -> Result<Duration>,
) -> Result<Outcome> {
    let mut clients = Clients::new(load.clients, load.value_bytes);
    let bytes_min = answer_bytes_min(action, load.value_bytes);
    let client_cpu = || process::cpu_time(std::process::id());
    run_until(fleet, &mut clients, load, action, Instant::now() + load.warm_up, |_| {})?;
    let (start, server, client) = (Instant::now(), server_cpu()?, client_cpu()?);
    let mut micros = Vec::new();
    let end = start + load.duration;
    run_until(fleet, &mut clients, load, action, end, |latency| micros.push(latency))?;
    let mut outcome = Outcome {
        done: micros.len() as u64,
        elapsed: start.elapsed(),
        server_cpu: server_cpu()? - server,
        client_cpu: client_cpu()? - client,
        ..Outcome::default()
    };
    while clients.are_busy() {
        clients.turn(fleet, bytes_min, |_| {})?;
    }
    outcome.failed = clients.failed;
    outcome.set_latencies(micros);
    Ok(outcome)
}

fn run_until<W: Wire>(
    fleet: &mut Fleet<W>,
    clients: &mut Clients,
    load: Load,
    action: Action,
    end: Instant,
    mut on_success: impl FnMut(u32),
) -> Result<()> {
    let bytes_min = answer_bytes_min(action, load.value_bytes);
    while Instant::now() < end {
        while let Some(client) = clients.idle.pop() {
            let number = clients.random.random_range(0..load.keys);
            clients.start(fleet, client, action, number)?;
        }
        clients.turn(fleet, bytes_min, &mut on_success)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_numbers_in_order() {
        assert_eq!(&key(0), b"00000000");
        assert_eq!(&key(99_999), b"00099999");
        assert!(key(1_234_567) < key(1_234_568));
    }
}
