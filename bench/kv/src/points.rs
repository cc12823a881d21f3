//! Puts and ranges: closed loops of clients on single keys.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::contenders::{Contender, Servers};
use crate::grpc::Connection;
use crate::load::{self, Action, Load};
use crate::report;
use crate::statistics::Outcome;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    servers: Servers,
    /// Clients, one row each.
    #[arg(long, value_delimiter = ',')]
    clients: Vec<usize>,
    /// How often each server is measured with each number of clients.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds that are measured in each turn, after a fifth as much that is not.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Keys of eight bytes.
    #[arg(long, default_value_t = 100_000)]
    keys: u32,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
}

/// Clients that write the keys before anything is measured.
const FILLING_CLIENTS: usize = 512;
/// Between turns, for what a server does after its load has ended.
const PAUSE: Duration = Duration::from_secs(1);

/// Measures puts.
pub(crate) async fn puts(mut arguments: Arguments) -> Result<()> {
    if arguments.clients.is_empty() {
        arguments.clients = vec![1, 64, 256, 1000];
    }
    run(&arguments, &[("put", Action::Put)]).await
}

/// Measures ranges of one key: first linearizable, then serializable.
pub(crate) async fn ranges(mut arguments: Arguments) -> Result<()> {
    if arguments.clients.is_empty() {
        arguments.clients = vec![1, 64, 256];
    }
    let linearizable = ("linearizable range", Action::Get { serializable: false });
    let serializable = ("serializable range", Action::Get { serializable: true });
    run(&arguments, &[linearizable, serializable]).await
}

async fn run(arguments: &Arguments, actions: &[(&str, Action)]) -> Result<()> {
    println!(
        "values of {} bytes under {} keys; {} s a turn, {} rounds",
        arguments.bytes, arguments.keys, arguments.seconds, arguments.rounds
    );
    let contenders = arguments.servers.start().await?;
    for contender in &contenders {
        let load = arguments.load(FILLING_CLIENTS);
        load::fill(&mut contender.connect::<Connection>(FILLING_CLIENTS).await?, load)?;
    }
    for (name, action) in actions {
        for &clients in &arguments.clients {
            let mut table = report::Table::new(format!("{name}, {clients} clients"));
            for _ in 0..arguments.rounds {
                for contender in &contenders {
                    let outcome = turn(contender, arguments.load(clients), *action).await?;
                    table.add(&contender.name, outcome);
                    tokio::time::sleep(PAUSE).await;
                }
            }
            table.print_summary();
        }
    }
    Ok(())
}

async fn turn(contender: &Contender, load: Load, action: Action) -> Result<Outcome> {
    let mut fleet = contender.connect::<Connection>(load.clients).await?;
    load::closed_loop(&mut fleet, load, action, || contender.cpu_time())
}

impl Arguments {
    fn load(&self, clients: usize) -> Load {
        let duration = Duration::from_secs_f64(self.seconds);
        Load { clients, keys: self.keys, value_bytes: self.bytes, warm_up: duration / 5, duration }
    }
}
