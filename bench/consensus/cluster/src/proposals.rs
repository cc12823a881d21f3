//! Proposals to three processes with fsync on.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::cluster::{Cluster, Sample, Shape};
use crate::load::{Outcome, closed_loop};
use crate::methods::DriveRequest;
use onefold_bench_common::disk;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Concurrent proposals, one run each.
    #[arg(long, value_delimiter = ',', default_value = "1,64,256,1000")]
    clients: Vec<usize>,
    /// Bytes of a command.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Seconds of a run.
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// How often all runs are repeated.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Folder on the disk to measure.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    data_dir: PathBuf,
}

/// Length of each look at the disk's own limit.
const DISK_DURATION: Duration = Duration::from_secs(2);

pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    let cluster = Cluster::start(&arguments.data_dir, Shape::of_groups(1)).await?;
    println!(
        "three processes, one group, {} bytes a command, {} s a run; client in a fourth process \
         (\"calls\") or in the leader's (\"local\")",
        arguments.bytes, arguments.seconds
    );
    println!(
        "{:<7}{:>8}{:>10}{:>10}{:>10}{:>10}{:>12}{:>14}{:>14}{:>10}",
        "client",
        "at once",
        "per s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "CPU µs/op",
        "fsyncs/op",
        "fsyncs/s",
        "failed"
    );
    for _ in 0..arguments.rounds {
        print_disk(&cluster)?;
        for &clients in &arguments.clients {
            for is_local in [false, true] {
                measure(&cluster, &arguments, clients, is_local).await?;
            }
        }
    }
    print_disk(&cluster)
}

fn print_disk(cluster: &Cluster) -> Result<()> {
    let syncs = disk::append_and_sync(cluster.folder(), DISK_DURATION)?;
    println!(
        "disk: append 4 KiB + fdatasync {:.0}/s, p50 {:.2} ms, p99 {:.2} ms",
        syncs.per_second,
        syncs.p50_us as f64 / 1e3,
        syncs.p99_us as f64 / 1e3
    );
    Ok(())
}

async fn measure(
    cluster: &Cluster,
    arguments: &Arguments,
    clients: usize,
    is_local: bool,
) -> Result<()> {
    let leader = cluster.leader().await?;
    let before = cluster.sample().await?;
    let outcome = if is_local {
        let request = DriveRequest { clients, seconds: arguments.seconds, bytes: arguments.bytes };
        cluster.drive(leader, request).await?
    } else {
        let duration = Duration::from_secs_f64(arguments.seconds);
        let operation = async |command| cluster.propose(leader, command).await.is_ok();
        closed_loop(clients, duration, arguments.bytes, operation).await
    };
    let after = cluster.sample().await?;
    print_run(leader, clients, is_local, &outcome, &before, &after);
    Ok(())
}

/// Fsyncs an operation: the mean of the three nodes, and the leader's in brackets.
fn print_run(
    leader: usize,
    clients: usize,
    is_local: bool,
    outcome: &Outcome,
    before: &Sample,
    after: &Sample,
) {
    let done = outcome.done.max(1) as f64;
    let fsyncs = |at: usize| (after.reports[at].fsyncs - before.reports[at].fsyncs) as f64;
    let all: f64 = (0..after.reports.len()).map(fsyncs).sum();
    println!(
        "{:<7}{:>8}{:>10.0}{:>10.2}{:>10.2}{:>10.2}{:>12.1}{:>14}{:>14.0}{:>10}",
        if is_local { "local" } else { "calls" },
        clients,
        outcome.per_second(),
        outcome.p50_us as f64 / 1e3,
        outcome.p99_us as f64 / 1e3,
        outcome.p999_us as f64 / 1e3,
        (after.cpu - before.cpu).as_secs_f64() * 1e6 / done,
        format!("{:.3} ({:.3})", all / 3.0 / done, fsyncs(leader) / done),
        fsyncs(leader) / outcome.seconds,
        outcome.failed,
    );
}
