//! Keep-alives of many leases.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Args;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::contenders::{Contender, PAUSE, Servers, Turns, count};
use crate::etcd;
use crate::fleet::{Fleet, TURN_MAX};
use crate::grpc::{Call, Connection};
use crate::report::{Page, Table};
use crate::statistics::{Meter, Outcome};
use crate::wire::Event;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    servers: Servers,
    /// Leases that exist.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    leases: u64,
    /// Clients, one table each. Each has one stream and one keep-alive under way.
    #[arg(long, value_delimiter = ',', default_value = "64,256", value_parser = count)]
    clients: Vec<usize>,
    #[command(flatten)]
    turns: Turns,
}

/// Longer than any run.
const TTL_SECONDS: u64 = 36_000;
/// Grants under way at once.
const GRANTING_CLIENTS: usize = 256;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures the keep-alives of each server.
pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    println!(
        "{} leases of {TTL_SECONDS} s; {}; {}",
        arguments.leases,
        arguments.servers.connections(),
        arguments.turns
    );
    let contenders = arguments.servers.start_etcd_api().await?;
    for contender in &contenders {
        grant(&mut contender.connect(GRANTING_CLIENTS).await?, arguments.leases)?;
    }
    let mut page = Page::default();
    for &clients in &arguments.clients {
        let mut table = Table::new(format!("keep-alive, {clients} clients"));
        for _ in 0..arguments.turns.rounds {
            for contender in &contenders {
                table.add(&contender.name, turn(contender, &arguments, clients).await?);
                tokio::time::sleep(PAUSE).await;
            }
        }
        page.add(table);
    }
    page.print();
    Ok(())
}

/// Grants leases with the numbers from 1.
fn grant(fleet: &mut Fleet<Connection>, leases: u64) -> Result<()> {
    let (mut next, mut under_way, mut refused) = (1, 0, 0);
    let mut message = Vec::new();
    let mut last_answer = Instant::now();
    while next <= leases || under_way > 0 {
        while next <= leases && under_way < GRANTING_CLIENTS {
            message.clear();
            etcd::lease_grant(next, TTL_SECONDS, &mut message);
            let link = next as usize % fleet.len();
            fleet.wire(link).start(0, Call::Unary, etcd::LEASE_GRANT, &message)?;
            next += 1;
            under_way += 1;
        }
        fleet.turn(TURN_MAX, &mut |_, _, event| {
            if let Event::End { succeeded } = event {
                under_way -= 1;
                refused += u64::from(!succeeded);
                last_answer = Instant::now();
            }
        })?;
        ensure!(last_answer.elapsed() < PATIENCE, "no answer for {PATIENCE:?}");
    }
    ensure!(refused == 0, "{refused} of {leases} leases were not granted");
    Ok(())
}

async fn turn(contender: &Contender, arguments: &Arguments, clients: usize) -> Result<Outcome> {
    let mut fleet = contender.connect(clients).await?;
    let mut keep_alives = KeepAlives::new(clients, arguments.leases);
    keep_alives.run(&mut fleet, Instant::now() + arguments.turns.warm_up())?;
    keep_alives.micros.clear();
    let meter = Meter::start(|| contender.members.cpu_time())?;
    keep_alives.run(&mut fleet, meter.started() + arguments.turns.duration())?;
    meter.stop(keep_alives.micros)
}

struct KeepAlives {
    leases: u64,
    random: SmallRng,
    begun: Vec<Instant>,
    idle: Vec<usize>,
    /// Clients whose stream is open.
    is_open: Vec<bool>,
    message: Vec<u8>,
    micros: Vec<u32>,
    last_answer: Instant,
}

impl KeepAlives {
    fn new(clients: usize, leases: u64) -> Self {
        Self {
            leases,
            random: SmallRng::seed_from_u64(leases),
            begun: vec![Instant::now(); clients],
            idle: (0..clients).collect(),
            is_open: vec![false; clients],
            message: Vec::new(),
            micros: Vec::new(),
            last_answer: Instant::now(),
        }
    }

    /// Keeps each client busy until a time.
    fn run(&mut self, fleet: &mut Fleet<Connection>, end: Instant) -> Result<()> {
        while Instant::now() < end {
            while let Some(client) = self.idle.pop() {
                self.start(fleet, client)?;
            }
            let mut broken = Ok(());
            fleet.turn(TURN_MAX, &mut |_, token, event| {
                let taken = self.take(token as usize, event);
                if taken.is_err() {
                    broken = taken;
                }
            })?;
            broken?;
            ensure!(self.last_answer.elapsed() < PATIENCE, "no answer for {PATIENCE:?}");
        }
        Ok(())
    }

    fn start(&mut self, fleet: &mut Fleet<Connection>, client: usize) -> Result<()> {
        self.message.clear();
        etcd::lease_keep_alive(self.random.random_range(1..=self.leases), &mut self.message);
        let connection = fleet.wire(client % fleet.len());
        self.begun[client] = Instant::now();
        if std::mem::replace(&mut self.is_open[client], true) {
            connection.send(client as u32, &self.message);
            return Ok(());
        }
        connection.start(client as u32, Call::Stream, etcd::LEASE_KEEP_ALIVE, &self.message)
    }

    fn take(&mut self, client: usize, event: Event<'_>) -> Result<()> {
        let Event::Message(message) = event else { bail!("a keep-alive stream ended") };
        let seconds = etcd::lease_keep_alive_ttl(message)?;
        ensure!(seconds > 0, "a lease is gone");
        self.last_answer = Instant::now();
        let micros = (self.last_answer - self.begun[client]).as_micros();
        self.micros.push(u32::try_from(micros).unwrap_or(u32::MAX));
        self.idle.push(client);
        Ok(())
    }
}
