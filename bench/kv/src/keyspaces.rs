//! Many keyspaces in one cluster: what puts cost in all of them together, and how much one that is
//! flooded delays another.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use onefold_bench_common::members::Members;
use onefold_bench_common::{NODES, free_addresses};

use crate::contenders::{PAUSE, Servers, Turns, count};
use crate::fleet::Fleet;
use crate::grpc::Connection;
use crate::limits;
use crate::load::{self, Action, Load};
use crate::statistics::{Outcome, Summary};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    servers: Servers,
    /// How many keyspaces are written to, one table each.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8", value_parser = count)]
    keyspaces: Vec<usize>,
    /// Clients of all keyspaces together, each with one put under way.
    #[arg(long, default_value = "256", value_parser = count)]
    clients: usize,
    #[command(flatten)]
    turns: Turns,
    /// Keys of eight bytes, in each keyspace.
    #[arg(long, default_value = "10000", value_parser = count)]
    keys: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Clients that flood one keyspace while another has one client.
    #[arg(long, default_value = "1000", value_parser = count)]
    flood: usize,
}

/// Clients that share a connection.
const CLIENTS_PER_CONNECTION: usize = 16;
/// For the leaderships of new keyspaces to be evened out.
const SETTLING: Duration = Duration::from_secs(10);
/// Attempts to find ports that follow each other.
const PORT_ATTEMPTS: usize = 100;

/// A cluster with keyspaces, each at a port of its own.
struct Cluster {
    members: Members,
    /// The first member's port of each keyspace; the others' follow.
    ports: Vec<u16>,
}

/// Measures both.
pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    let Arguments { clients, keys, bytes, flood, .. } = arguments;
    println!(
        "puts of {bytes} bytes under {keys} keys a keyspace by {clients} clients in all; {}; \
         {CLIENTS_PER_CONNECTION} clients share a connection",
        arguments.turns
    );
    limits::print(&arguments.servers.data_dir)?;
    let most = arguments.keyspaces.iter().copied().max().unwrap_or(1).max(2);
    let cluster = Cluster::start(&arguments, most).await?;
    cluster.grow(&arguments)?;
    println!("\none client of a keyspace, alone and beside {flood} clients of another one");
    cluster.disturb(&arguments)
}

impl Cluster {
    async fn start(arguments: &Arguments, count: usize) -> Result<Self> {
        let server = arguments.servers.list().next().context("a program")?;
        let members = arguments.servers.start_one(server).await?.members;
        let first = free_ports(count * NODES)?;
        let ports: Vec<u16> = (0..count).map(|at| first + (at * NODES) as u16).collect();
        for (at, port) in ports.iter().enumerate() {
            let output = Command::new(members.program())
                .args(["--endpoint", &members.peers()[0], "kv", "keyspace", "create"])
                .args([&format!("bench{at}"), "--port", &port.to_string()])
                .output()?;
            let error = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "a keyspace is not created: {error}");
        }
        tokio::time::sleep(SETTLING).await;
        Ok(Self { members, ports })
    }

    /// Connections to some keyspaces, those of each to all members in turn.
    fn connect(&self, keyspaces: &[u16], clients: usize) -> Result<Fleet<Connection>> {
        let connections = clients.div_ceil(CLIENTS_PER_CONNECTION).max(keyspaces.len());
        let addresses: Vec<String> = (0..connections)
            .map(|at| {
                let (keyspace, turn) = (at % keyspaces.len(), at / keyspaces.len());
                format!("127.0.0.1:{}", keyspaces[keyspace] + (turn % NODES) as u16)
            })
            .collect();
        Fleet::connect(addresses.iter().map(String::as_str))
    }

    /// The same number of clients over more and more keyspaces.
    fn grow(&self, arguments: &Arguments) -> Result<()> {
        let mut medians = Vec::new();
        for &count in &arguments.keyspaces {
            println!("\n{count} keyspaces");
            println!(
                "{:>10}{:>10}{:>10}{:>14}{:>14}{:>12}{:>8}",
                "per s", "p50 ms", "p99 ms", "server µs/op", "client µs/op", "syncs/put", "failed"
            );
            let mut rows = Vec::new();
            for _ in 0..arguments.turns.rounds {
                let (outcome, syncs) = self.turn(arguments, &self.ports[..count])?;
                println!(
                    "{:>10.0}{:>10.2}{:>10.2}{:>14.2}{:>14.2}{syncs:>12.3}{:>8}",
                    outcome.per_second(),
                    outcome.p50_ms,
                    outcome.p99_ms,
                    outcome.server_micros(),
                    outcome.client_micros(),
                    outcome.failed,
                );
                rows.push((outcome, syncs));
                std::thread::sleep(PAUSE);
            }
            medians.push((count, rows));
        }
        println!("\n| keyspaces | puts per s | p99 | server CPU a put | syncs a put |");
        println!("| --- | --- | --- | --- | --- |");
        for (count, rows) in medians {
            let figure = |of: &dyn Fn(&(Outcome, f64)) -> f64| Summary::of(rows.iter().map(of));
            println!(
                "| {count} | {} | {:.1} ms | {:.1} µs | {:.3} |",
                figure(&|row| row.0.per_second()),
                figure(&|row| row.0.p99_ms).median,
                figure(&|row| row.0.server_micros()).median,
                figure(&|row| row.1).median,
            );
        }
        Ok(())
    }

    /// One turn, and how many syncs of all members' logs there were for a put.
    fn turn(&self, arguments: &Arguments, keyspaces: &[u16]) -> Result<(Outcome, f64)> {
        let mut fleet = self.connect(keyspaces, arguments.clients)?;
        // Asked at the beginning and at the end of what is measured, as is the CPU time.
        let syncs = RefCell::new(Vec::new());
        let read = || {
            syncs.borrow_mut().push(self.syncs()?);
            self.members.cpu_time()
        };
        let load = arguments.turns.load(arguments.clients, arguments.keys, arguments.bytes);
        let outcome = load::closed_loop(&mut fleet, load, Action::Put, read)?;
        let [before, after] = syncs.into_inner()[..] else { bail!("no syncs were counted") };
        let syncs = (after - before) as f64 / outcome.done as f64;
        Ok((outcome, syncs))
    }

    /// Syncs of all members' logs so far.
    fn syncs(&self) -> Result<u64> {
        let name = "etcd_disk_wal_fsync_duration_seconds_count ";
        let count = |address: &String| {
            let page = get(address, "/metrics")?;
            let value = page.lines().find_map(|line| line.strip_prefix(name));
            Ok(value.context("no such metric")?.parse::<u64>()?)
        };
        self.members.clients().iter().map(count).sum()
    }

    /// A quiet keyspace alone, beside a flooded one, and a quiet client within the flood.
    fn disturb(&self, arguments: &Arguments) -> Result<()> {
        let (flooded, quiet) = (&self.ports[..1], &self.ports[1..2]);
        for (title, keyspace, is_flooded) in [
            ("alone", quiet, false),
            ("beside", quiet, true),
            ("within", flooded, true),
            ("alone", quiet, false),
            ("beside", quiet, true),
            ("within", flooded, true),
        ] {
            let over = AtomicBool::new(!is_flooded);
            std::thread::scope(|scope| {
                let flooding = scope.spawn(|| self.flood(arguments, flooded, &over));
                let mut fleet = self.connect(keyspace, 1)?;
                let cpu = || self.members.cpu_time();
                let one = load::closed_loop(
                    &mut fleet,
                    arguments.turns.load(1, arguments.keys, arguments.bytes),
                    Action::Put,
                    cpu,
                );
                over.store(true, Ordering::Relaxed);
                let flood = flooding.join().expect("the flood does not panic")?;
                let one = one?;
                println!(
                    "{title:<7}{:>8.0} per s{:>9.2} ms p50{:>9.2} ms p99{:>9.2} ms p99.9; the \
                     flood {flood:.0} per s",
                    one.per_second(),
                    one.p50_ms,
                    one.p99_ms,
                    one.p999_ms,
                );
                Ok::<_, anyhow::Error>(())
            })?;
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Puts as fast as answers come until it is over; how many a second.
    fn flood(&self, arguments: &Arguments, port: &[u16], over: &AtomicBool) -> Result<f64> {
        let mut rate = 0.0;
        while !over.load(Ordering::Relaxed) {
            let mut fleet = self.connect(port, arguments.flood)?;
            let load = Load {
                warm_up: Duration::ZERO,
                ..arguments.turns.load(arguments.flood, arguments.keys, arguments.bytes)
            };
            let cpu = || self.members.cpu_time();
            rate = load::closed_loop(&mut fleet, load, Action::Put, cpu)?.per_second();
        }
        Ok(rate)
    }
}

/// The first of some ports in a row that nobody uses now.
fn free_ports(count: usize) -> Result<u16> {
    for address in (0..PORT_ATTEMPTS).flat_map(|_| free_addresses(1)).flatten() {
        let first: u16 = address.rsplit_once(':').context("a port")?.1.parse()?;
        let Some(end) = first.checked_add(count as u16) else { continue };
        if (first..end).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return Ok(first);
        }
    }
    bail!("no {count} ports in a row are free")
}

fn get(address: &str, path: &str) -> Result<String> {
    let mut socket = TcpStream::connect(address)?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    socket.read_to_string(&mut page)?;
    Ok(page)
}
