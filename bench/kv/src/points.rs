//! Operations on single keys: closed loops of clients, and arrivals at a rate.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use onefold_bench_common::members::Kind;

use crate::contenders::{Contender, PAUSE, Servers, Turns, count, positive};
use crate::grpc::Connection;
use crate::limits;
use crate::load::{self, Action, Load};
use crate::report::{Page, Table};
use crate::statistics::Outcome;
use crate::wire::Wire;
use crate::zookeeper::Session;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    servers: Servers,
    /// Clients, one table each. Each has one operation under way, unless a rate is offered: then
    /// it is how many operations may be under way.
    #[arg(long, value_delimiter = ',', value_parser = count)]
    clients: Vec<usize>,
    #[command(flatten)]
    turns: Turns,
    /// Keys of eight bytes.
    #[arg(long, default_value = "100000", value_parser = count)]
    keys: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
}

#[derive(Args)]
pub(crate) struct OfferedArguments {
    #[command(flatten)]
    common: Arguments,
    /// Operations a second that are offered, one table each.
    #[arg(long, value_delimiter = ',', default_value = "1000,3000,6000", value_parser = positive)]
    rates: Vec<f64>,
}

/// Clients that write the keys before anything is measured.
const FILLING_CLIENTS: usize = 512;
/// Operations that may be under way at an offered rate.
const OFFERED_CLIENTS: usize = 4096;
/// An offered load comes over as many connections as so many clients have.
const OFFERED_CONNECTION_CLIENTS: usize = 256;
/// Gets in a hundred operations of the mixed load.
const MIXED_GET_PERCENT: u32 = 80;
/// How long each server meets each kind of operation before it is measured, for the caches and the
/// compilers that some have.
const WARMING: Duration = Duration::from_secs(10);
const WARMING_CLIENTS: usize = 256;

const LINEARIZABLE: Action = Action::Get { serializable: false };
const SERIALIZABLE: Action = Action::Get { serializable: true };

/// One table: what is done, by how many clients, and at which rate if not as fast as answers come.
struct Row {
    title: String,
    action: Action,
    clients: usize,
    per_second: Option<f64>,
}

/// Measures puts.
pub(crate) async fn puts(arguments: Arguments) -> Result<()> {
    closed_loops(&arguments, &[1, 64, 256, 1000], &[("put", Action::Put)]).await
}

/// Measures ranges of one key: first linearizable, then serializable.
pub(crate) async fn ranges(arguments: Arguments) -> Result<()> {
    let actions = [("linearizable range", LINEARIZABLE), ("serializable range", SERIALIZABLE)];
    closed_loops(&arguments, &[1, 64, 256], &actions).await
}

/// Measures linearizable ranges and puts at once.
pub(crate) async fn mixed(arguments: Arguments) -> Result<()> {
    let title = format!("{MIXED_GET_PERCENT} % linearizable range, else put");
    let action = Action::Mixed { get_percent: MIXED_GET_PERCENT };
    closed_loops(&arguments, &[64, 256], &[(title.as_str(), action)]).await
}

/// Measures latency at offered rates.
pub(crate) async fn offered(arguments: OfferedArguments) -> Result<()> {
    let clients = arguments.common.clients.first().copied().unwrap_or(OFFERED_CLIENTS);
    let mut rows = Vec::new();
    for (name, action) in [("put", Action::Put), ("linearizable range", LINEARIZABLE)] {
        rows.extend(arguments.rates.iter().map(|&rate| Row {
            title: format!("{name}, {rate} offered per s"),
            action,
            clients,
            per_second: Some(rate),
        }));
    }
    run(&arguments.common, rows).await
}

async fn closed_loops(
    arguments: &Arguments,
    clients: &[usize],
    actions: &[(&str, Action)],
) -> Result<()> {
    let clients = if arguments.clients.is_empty() { clients } else { &arguments.clients };
    let mut rows = Vec::new();
    for &(name, action) in actions {
        rows.extend(clients.iter().map(|&clients| Row {
            title: format!("{name}, {clients} clients"),
            action,
            clients,
            per_second: None,
        }));
    }
    run(arguments, rows).await
}

async fn run(arguments: &Arguments, rows: Vec<Row>) -> Result<()> {
    println!(
        "values of {} bytes under {} keys; {}; {}",
        arguments.bytes,
        arguments.keys,
        arguments.turns,
        arguments.servers.connections(),
    );
    limits::print(&arguments.servers.data_dir)?;
    let contenders = arguments.servers.start().await?;
    let mut actions: Vec<Action> = rows.iter().map(|row| row.action).collect();
    actions.dedup();
    for contender in &contenders {
        match contender.members.kind() {
            Kind::Onefold | Kind::Etcd => {
                warm::<Connection>(contender, arguments, &actions).await?
            }
            Kind::ZooKeeper => warm::<Session>(contender, arguments, &actions).await?,
        }
    }
    let mut page = Page::default();
    for row in rows {
        let mut table = Table::new(row.title.clone());
        let load = arguments.turns.load(row.clients, arguments.keys, arguments.bytes);
        for _ in 0..arguments.turns.rounds {
            for contender in &contenders {
                let outcome = match contender.members.kind() {
                    Kind::Onefold | Kind::Etcd => turn::<Connection>(contender, load, &row).await?,
                    Kind::ZooKeeper => turn::<Session>(contender, load, &row).await?,
                };
                table.add(&contender.name, outcome);
                tokio::time::sleep(PAUSE).await;
            }
        }
        page.add(table);
    }
    page.print();
    Ok(())
}

/// Writes all keys, and runs for a while what will be measured.
async fn warm<W: Wire>(
    contender: &Contender,
    arguments: &Arguments,
    actions: &[Action],
) -> Result<()> {
    let load = arguments.turns.load(FILLING_CLIENTS, arguments.keys, arguments.bytes);
    load::fill(&mut contender.connect::<W>(FILLING_CLIENTS).await?, load)?;
    let load = Load {
        duration: WARMING,
        ..arguments.turns.load(WARMING_CLIENTS, arguments.keys, arguments.bytes)
    };
    for &action in actions {
        let mut fleet = contender.connect::<W>(WARMING_CLIENTS).await?;
        load::closed_loop(&mut fleet, load, action, || contender.members.cpu_time())?;
    }
    Ok(())
}

async fn turn<W: Wire>(contender: &Contender, load: Load, row: &Row) -> Result<Outcome> {
    let cpu = || contender.members.cpu_time();
    match row.per_second {
        None => {
            let mut fleet = contender.connect::<W>(load.clients).await?;
            load::closed_loop(&mut fleet, load, row.action, cpu)
        }
        Some(per_second) => {
            let mut fleet = contender.connect::<W>(OFFERED_CONNECTION_CLIENTS).await?;
            load::open_loop(&mut fleet, load, row.action, per_second, cpu)
        }
    }
}
