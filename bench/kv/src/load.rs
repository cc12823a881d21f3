//! Clients with operations under way: closed loops, and arrivals at a rate.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::fleet::{Fleet, TURN_MAX};
use crate::statistics::{Meter, Outcome};
use crate::wire::{Event, Operation, Wire};

/// Bytes of a key: its number in decimal digits.
const KEY_BYTES: usize = 8;
/// Longest wait for the next answer of any client, and for the last ones.
const PATIENCE: Duration = Duration::from_secs(30);
/// Failures after which there is nothing to measure.
const FAILURES_MAX: u64 = 10_000;
/// How often what failed is written again while servers are filled.
const FILLING_PASSES_MAX: usize = 20;
/// Rest before that, since it is an overload that makes writes fail.
const FILLING_PAUSE: Duration = Duration::from_secs(2);

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Put,
    Get {
        serializable: bool,
    },
    /// So many linearizable gets in a hundred operations, else puts.
    Mixed {
        get_percent: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Create,
    Put,
    Get { serializable: bool },
}

/// The next operation of a client.
struct Next {
    key: u32,
    what: What,
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
    /// The least bytes of an answer that is what was asked for.
    answer_bytes_min: Vec<usize>,
    /// Whether a client's operation brought as much.
    is_whole: Vec<bool>,
    /// The key of each client's operation.
    keys: Vec<u32>,
    failed: u64,
    failures_max: u64,
    failed_keys: Vec<u32>,
    last_answer: Instant,
}

impl Clients {
    fn new(count: usize, value_bytes: usize) -> Self {
        Self {
            random: SmallRng::seed_from_u64(count as u64),
            value: vec![0; value_bytes],
            begun: vec![Instant::now(); count],
            idle: (0..count).rev().collect(),
            answer_bytes_min: vec![0; count],
            is_whole: vec![false; count],
            keys: vec![0; count],
            failed: 0,
            failures_max: FAILURES_MAX,
            failed_keys: Vec::new(),
            last_answer: Instant::now(),
        }
    }

    fn are_busy(&self) -> bool {
        self.idle.len() < self.begun.len()
    }

    /// Starts an operation of a client on its connection; its time counts from `begun`.
    fn start<W: Wire>(
        &mut self,
        fleet: &mut Fleet<W>,
        client: usize,
        begun: Instant,
        operation: impl FnOnce(&mut SmallRng, &mut [u8]) -> Next,
    ) -> Result<()> {
        let next = operation(&mut self.random, &mut self.value);
        self.keys[client] = next.key;
        let (key, value) = (&key(next.key), self.value.as_slice());
        let operation = match next.what {
            What::Create => Operation::Create { key, value },
            What::Put => Operation::Put { key, value },
            What::Get { serializable } => Operation::Get { key, serializable },
        };
        self.begun[client] = begun;
        self.answer_bytes_min[client] =
            if matches!(next.what, What::Get { .. }) { value.len() } else { 0 };
        self.is_whole[client] = false;
        let link = client % fleet.len();
        fleet.wire(link).request(client as u32, operation)
    }

    /// Writes these keys with random values, and waits for all answers.
    fn write<W: Wire>(
        &mut self,
        fleet: &mut Fleet<W>,
        mut keys: impl Iterator<Item = u32>,
        what: What,
    ) -> Result<()> {
        loop {
            while let Some(client) = self.idle.pop() {
                let Some(key) = keys.next() else {
                    self.idle.push(client);
                    break;
                };
                self.start(fleet, client, Instant::now(), |random, value| {
                    random.fill(value);
                    Next { key, what }
                })?;
            }
            if !self.are_busy() {
                return Ok(());
            }
            self.turn(fleet, TURN_MAX, |_| {})?;
        }
    }

    /// Waits for answers; gives the microseconds of those that succeeded to `on_success`.
    fn turn<W: Wire>(
        &mut self,
        fleet: &mut Fleet<W>,
        wait_max: Duration,
        mut on_success: impl FnMut(u32),
    ) -> Result<()> {
        fleet.turn(wait_max, &mut |_, token, event| {
            let client = token as usize;
            match event {
                Event::Message(message) => {
                    self.is_whole[client] = message.len() >= self.answer_bytes_min[client];
                }
                Event::End { succeeded } => {
                    self.last_answer = Instant::now();
                    if succeeded && self.is_whole[client] {
                        let elapsed = self.last_answer - self.begun[client];
                        on_success(u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX));
                    } else {
                        self.failed += 1;
                        self.failed_keys.push(self.keys[client]);
                    }
                    self.idle.push(client);
                }
            }
        })?;
        let failures_max = self.failures_max;
        ensure!(self.failed <= failures_max, "more than {failures_max} operations failed");
        if self.are_busy() && self.last_answer.elapsed() > PATIENCE {
            bail!("no answer for {PATIENCE:?}");
        }
        Ok(())
    }
}

/// Writes each key once, in an order that is not theirs; what fails is written again.
///
/// # Errors
///
/// A connection broke, or keys could not be written however often.
pub(crate) fn fill<W: Wire>(fleet: &mut Fleet<W>, load: Load) -> Result<()> {
    let mut clients = Clients::new(load.clients, load.value_bytes);
    clients.failures_max = u64::from(load.keys);
    clients.write(fleet, scattered(load.keys), What::Create)?;
    for pass in 0..FILLING_PASSES_MAX {
        let failed = std::mem::take(&mut clients.failed_keys);
        if failed.is_empty() {
            return Ok(());
        }
        // A failed write may have happened: then ZooKeeper refuses to create, else to put.
        let what = if pass % 2 == 0 { What::Put } else { What::Create };
        std::thread::sleep(FILLING_PAUSE);
        clients.last_answer = Instant::now();
        clients.write(fleet, failed.into_iter(), what)?;
    }
    let failed = clients.failed_keys.len();
    ensure!(failed == 0, "{failed} of {} keys could not be written", load.keys);
    Ok(())
}

/// All numbers below a count, each once, far from the last.
fn scattered(count: u32) -> impl Iterator<Item = u32> {
    // A step that shares no factor with the count comes by every number.
    let shares_a_factor = |step: u64| {
        let (mut a, mut b) = (step, u64::from(count));
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a > 1
    };
    let step = (u64::from(count) * 61 / 100..).find(|&step| !shares_a_factor(step)).unwrap_or(1);
    (0..u64::from(count)).map(move |at| (at * step % u64::from(count)) as u32)
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
    measure(fleet, &mut clients, load, server_cpu, |fleet, clients, end, on_success| {
        while Instant::now() < end {
            while let Some(client) = clients.idle.pop() {
                clients.start(fleet, client, Instant::now(), action.on(load.keys))?;
            }
            clients.turn(fleet, TURN_MAX, &mut *on_success)?;
        }
        Ok(())
    })
}

/// Starts operations at random times, so many a second, whatever came of the earlier ones. Times
/// count from when an operation was due, so that one that had to wait for a free client is not
/// faster for it.
///
/// # Errors
///
/// A connection broke, or too many operations failed.
pub(crate) fn open_loop<W: Wire>(
    fleet: &mut Fleet<W>,
    load: Load,
    action: Action,
    per_second: f64,
    server_cpu: impl Fn() -> Result<Duration>,
) -> Result<Outcome> {
    let mut clients = Clients::new(load.clients, load.value_bytes);
    let mut due = Instant::now();
    measure(fleet, &mut clients, load, server_cpu, |fleet, clients, end, on_success| {
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            while due <= now
                && let Some(client) = clients.idle.pop()
            {
                clients.start(fleet, client, due, action.on(load.keys))?;
                // The times between independent arrivals are distributed exponentially.
                let share: f64 = clients.random.random_range(f64::EPSILON..1.0);
                due += Duration::from_secs_f64(-share.ln() / per_second);
            }
            let wait = due.saturating_duration_since(Instant::now()).min(TURN_MAX);
            let wait = if clients.idle.is_empty() { TURN_MAX } else { wait };
            clients.turn(fleet, wait, &mut *on_success)?;
        }
    })
}

/// Takes the microseconds of what succeeded.
type OnSuccess<'a> = &'a mut dyn FnMut(u32);

/// Warms up, measures, and waits for what is still under way.
fn measure<W: Wire>(
    fleet: &mut Fleet<W>,
    clients: &mut Clients,
    load: Load,
    server_cpu: impl Fn() -> Result<Duration>,
    mut run: impl FnMut(&mut Fleet<W>, &mut Clients, Instant, OnSuccess<'_>) -> Result<()>,
) -> Result<Outcome> {
    run(fleet, clients, Instant::now() + load.warm_up, &mut |_| {})?;
    let mut micros = Vec::new();
    let meter = Meter::start(server_cpu)?;
    run(fleet, clients, meter.started() + load.duration, &mut |latency| micros.push(latency))?;
    let mut outcome = meter.stop(micros)?;
    while clients.are_busy() {
        clients.turn(fleet, TURN_MAX, |_| {})?;
    }
    outcome.failed = clients.failed;
    Ok(outcome)
}

impl Action {
    /// An operation of this kind on one of so many keys.
    fn on(self, keys: u32) -> impl FnOnce(&mut SmallRng, &mut [u8]) -> Next {
        move |random, value| {
            let what = match self {
                Self::Put => What::Put,
                Self::Get { serializable } => What::Get { serializable },
                Self::Mixed { get_percent } if random.random_ratio(get_percent, 100) => {
                    What::Get { serializable: false }
                }
                Self::Mixed { .. } => What::Put,
            };
            if what == What::Put {
                // Incompressible, as a disk must not win by compressing.
                random.fill(value);
            }
            Next { key: random.random_range(0..keys), what }
        }
    }
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

    #[test]
    fn scattered_numbers_come_once_each() {
        for count in [1, 2, 10, 99, 1000] {
            let mut numbers: Vec<u32> = scattered(count).collect();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..count).collect::<Vec<_>>());
        }
    }
}
