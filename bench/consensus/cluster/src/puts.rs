//! Puts over the etcd API to the whole product, beside etcd.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use clap::Args;
use onefold_bench_common::etcd_client::EtcdClient;
use onefold_bench_common::members::{Kind, Members};

use crate::load::closed_loop;
use crate::machine::KEY_BYTES;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The product's program.
    #[arg(long)]
    onefold: PathBuf,
    /// The program of etcd; without it only Onefold is measured.
    #[arg(long)]
    etcd: Option<PathBuf>,
    /// Clients, one run each.
    #[arg(long, value_delimiter = ',', default_value = "1,64,256,1000")]
    clients: Vec<usize>,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Seconds of a run.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How often all runs are repeated.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Folder for the members' data.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    data_dir: PathBuf,
}

/// Connections that the clients share, spread over the members.
const CONNECTIONS_MAX: usize = 48;
/// Longest wait for one put.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    println!(
        "three members at default settings, values of {} bytes, clients spread over the members, \
         {} s a run, {} rounds",
        arguments.bytes, arguments.seconds, arguments.rounds
    );
    println!(
        "{:<9}{:>8}{:>10}{:>10}{:>10}{:>10}{:>12}{:>8}",
        "server", "clients", "per s", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs/op", "failed"
    );
    let onefold = Members::start(Kind::Onefold, &arguments.onefold, &arguments.data_dir).await?;
    let mut contenders = vec![("onefold", onefold)];
    if let Some(etcd) = &arguments.etcd {
        let members = Members::start(Kind::Etcd, etcd, &arguments.data_dir).await?;
        contenders.push(("etcd", members));
    }
    for &clients in &arguments.clients {
        for _ in 0..arguments.rounds {
            for (name, members) in &contenders {
                measure(name, members, &arguments, clients).await?;
            }
        }
    }
    Ok(())
}

async fn measure(
    name: &str,
    members: &Members,
    arguments: &Arguments,
    clients: usize,
) -> Result<()> {
    members.wait_for_leader().await?;
    let addresses = members.clients();
    let connections = (0..clients.min(CONNECTIONS_MAX))
        .map(|number| EtcdClient::new(&addresses[number % addresses.len()], TIMEOUT))
        .collect::<Result<Vec<_>>>()?;
    let turn = AtomicUsize::new(0);
    let put = async |command: Bytes| {
        let turn = turn.fetch_add(1, Ordering::Relaxed) % connections.len();
        let key = [b"put/", &command[..KEY_BYTES]].concat();
        connections[turn].put(key, command.to_vec()).await.is_ok()
    };
    let before = members.cpu_time()?;
    let duration = Duration::from_secs_f64(arguments.seconds);
    let outcome = closed_loop(clients, duration, arguments.bytes, put).await;
    let cpu = members.cpu_time()? - before;
    println!(
        "{name:<9}{clients:>8}{:>10.0}{:>10.2}{:>10.2}{:>10.2}{:>12.1}{:>8}",
        outcome.per_second(),
        outcome.p50_us as f64 / 1e3,
        outcome.p99_us as f64 / 1e3,
        outcome.p999_us as f64 / 1e3,
        cpu.as_secs_f64() * 1e6 / outcome.done.max(1) as f64,
        outcome.failed,
    );
    Ok(())
}
