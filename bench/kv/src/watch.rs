//! Fan-out: one key, many watchers, and how fast its puts reach all of them.
//!
//! A put is over when its event has reached every watcher; so many puts are kept under way, so
//! that what is measured is what the servers can deliver and not how far they fall behind.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Args;
use onefold_bench_common::NODES;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::contenders::{Contender, PAUSE, Servers, Turns, count};
use crate::etcd;
use crate::fleet::{Fleet, TURN_MAX};
use crate::grpc::{Call, Connection};
use crate::report::{Page, Table};
use crate::statistics::{Meter, Outcome};
use crate::wire::{Event, Operation, Wire};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    servers: Servers,
    /// Watchers, one table each.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000", value_parser = count)]
    watchers: Vec<usize>,
    /// Watchers on one stream; each stream has a connection of its own.
    #[arg(long, default_value_t = 10, value_parser = count)]
    watchers_per_stream: usize,
    /// Puts that are kept under way, one table each.
    #[arg(long, value_delimiter = ',', default_value = "1,4", value_parser = count)]
    puts_under_way: Vec<usize>,
    #[command(flatten)]
    turns: Turns,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
}

const KEY: &[u8] = b"watched!";
/// The connection that puts.
const WRITER: usize = 0;
/// Longest wait for a watcher to exist, or for an event.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures the fan-out of each server.
pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    println!(
        "values of {} bytes to one key; {} watchers on a stream, a connection for each stream, \
         spread over the members; {}\n\
         operations are events that reached a watcher; latencies are from a put to its last watcher",
        arguments.bytes, arguments.watchers_per_stream, arguments.turns
    );
    let contenders = arguments.servers.start_etcd_api().await?;
    let mut page = Page::default();
    for &watchers in &arguments.watchers {
        for &under_way in &arguments.puts_under_way {
            let title = format!("{watchers} watchers, {under_way} puts under way");
            let mut table = Table::new(title);
            for _ in 0..arguments.turns.rounds {
                for contender in &contenders {
                    let outcome = turn(contender, &arguments, watchers, under_way).await?;
                    table.add(&contender.name, outcome);
                    tokio::time::sleep(PAUSE).await;
                }
            }
            page.add(table);
        }
    }
    page.print();
    Ok(())
}

async fn turn(
    contender: &Contender,
    arguments: &Arguments,
    watchers: usize,
    under_way: usize,
) -> Result<Outcome> {
    let leader = contender.members.wait_for_leader().await?;
    let streams = watchers.div_ceil(arguments.watchers_per_stream);
    let addresses = contender.members.clients();
    // The writer's first, at the leader.
    let order = (0..=streams).map(|at| addresses[(leader + at) % NODES].as_str());
    let mut fleet = Fleet::connect(order)?;
    let mut fan_out = FanOut::new(watchers, arguments.bytes);
    fan_out.watch(&mut fleet, arguments.watchers_per_stream)?;
    fan_out.run(&mut fleet, under_way, Instant::now() + arguments.turns.warm_up())?;
    fan_out.events = 0;
    fan_out.micros.clear();
    let meter = Meter::start(|| contender.members.cpu_time())?;
    fan_out.run(&mut fleet, under_way, meter.started() + arguments.turns.duration())?;
    let outcome = meter.stop(fan_out.micros)?;
    // Counted are events, of which each put makes as many as there are watchers.
    Ok(Outcome { done: fan_out.events, ..outcome })
}

/// A put on its way to the watchers.
struct Put {
    begun: Instant,
    /// Watchers that it has reached.
    reached: usize,
}

struct FanOut {
    watchers: usize,
    random: SmallRng,
    value: Vec<u8>,
    /// Puts that have not reached all watchers, oldest first.
    puts: VecDeque<Put>,
    /// Puts that have reached all watchers.
    over: usize,
    /// How many events came to each watcher, by stream and by number on its stream.
    came: Vec<Vec<usize>>,
    events: u64,
    /// Of each put that reached all watchers.
    micros: Vec<u32>,
    last_event: Instant,
}

impl FanOut {
    fn new(watchers: usize, value_bytes: usize) -> Self {
        Self {
            watchers,
            random: SmallRng::seed_from_u64(watchers as u64),
            value: vec![0; value_bytes],
            puts: VecDeque::new(),
            over: 0,
            came: Vec::new(),
            events: 0,
            micros: Vec::new(),
            last_event: Instant::now(),
        }
    }

    /// Creates all watchers and waits until the servers confirm them.
    fn watch(&mut self, fleet: &mut Fleet<Connection>, per_stream: usize) -> Result<()> {
        let mut message = Vec::new();
        for link in 1..fleet.len() {
            let watchers = per_stream.min(self.watchers - (link - 1) * per_stream);
            self.came.push(vec![0; watchers]);
            for number in 0..watchers {
                message.clear();
                // Numbers start at 1, for 0 leaves the choice to the server.
                etcd::watch_create(KEY, number as u64 + 1, &mut message);
                let connection = fleet.wire(link);
                if number == 0 {
                    connection.start(link as u32, Call::Stream, etcd::WATCH, &message)?;
                } else {
                    connection.send(link as u32, &message);
                }
            }
        }
        let (start, mut created, mut broken) = (Instant::now(), 0, None);
        while created < self.watchers {
            ensure!(start.elapsed() < PATIENCE, "{created} watchers within {PATIENCE:?}");
            fleet.turn(TURN_MAX, &mut |_, _, event| match event {
                Event::Message(message) => match etcd::watch_response(message) {
                    Ok(response) if response.is_created => created += 1,
                    Ok(_) => broken = Some("a watcher was refused".to_owned()),
                    Err(error) => broken = Some(error.to_string()),
                },
                Event::End { .. } => broken = Some("a watch stream ended".to_owned()),
            })?;
            if let Some(broken) = broken {
                bail!(broken);
            }
        }
        Ok(())
    }

    /// Keeps puts under way until a time.
    fn run(&mut self, fleet: &mut Fleet<Connection>, under_way: usize, end: Instant) -> Result<()> {
        while Instant::now() < end {
            while self.puts.len() < under_way {
                self.random.fill(self.value.as_mut_slice());
                self.puts.push_back(Put { begun: Instant::now(), reached: 0 });
                let put = Operation::Put { key: KEY, value: &self.value };
                fleet.wire(WRITER).request(0, put)?;
            }
            let mut broken = Ok(());
            fleet.turn(TURN_MAX, &mut |link, _, event| {
                let taken = self.take(link, event);
                if taken.is_err() {
                    broken = taken;
                }
            })?;
            broken?;
            ensure!(self.last_event.elapsed() < PATIENCE, "no event for {PATIENCE:?}");
        }
        Ok(())
    }

    fn take(&mut self, link: usize, event: Event<'_>) -> Result<()> {
        match event {
            Event::Message(_) if link == WRITER => {}
            Event::End { succeeded } if link == WRITER => {
                // Its event will never come, and the puts' count would be wrong from here on.
                ensure!(succeeded, "a put failed");
            }
            Event::Message(message) => {
                let response = etcd::watch_response(message)?;
                ensure!(!response.is_canceled, "a watcher was canceled");
                let number = usize::try_from(response.watch)?.wrapping_sub(1);
                self.last_event = Instant::now();
                for _ in 0..response.events {
                    self.arrived(link - 1, number)?;
                }
            }
            Event::End { .. } => bail!("a watch stream ended"),
        }
        Ok(())
    }

    /// One more event came to a watcher; events come in the order of the puts.
    fn arrived(&mut self, stream: usize, number: usize) -> Result<()> {
        let came = self.came.get_mut(stream).and_then(|stream| stream.get_mut(number));
        let Some(came) = came else { bail!("an event for no watcher") };
        let put = self.puts.get_mut(came.wrapping_sub(self.over));
        let Some(put) = put else { bail!("an event of no put") };
        *came += 1;
        put.reached += 1;
        self.events += 1;
        while let Some(put) = self.puts.front().filter(|put| put.reached == self.watchers) {
            let micros = (self.last_event - put.begun).as_micros();
            self.micros.push(u32::try_from(micros).unwrap_or(u32::MAX));
            self.puts.pop_front();
            self.over += 1;
        }
        Ok(())
    }
}
