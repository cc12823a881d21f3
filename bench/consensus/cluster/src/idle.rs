//! What groups cost that nobody uses.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use onefold_bench_common::NODES;
use onefold_bench_common::process::{anonymous_bytes, mib, resident_bytes};
use tokio::time::sleep;

use crate::cluster::{Cluster, Shape};
use crate::methods::NodeReport;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Groups of each run; the first is what the others are compared with.
    #[arg(long, value_delimiter = ',', default_value = "1,1000")]
    groups: Vec<u64>,
    /// Seconds during which CPU time is counted.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seconds that the groups get to come to rest, once all have leaders.
    #[arg(long, default_value_t = 15)]
    rest: u64,
    /// Never let idle groups fall silent, to see what that spares.
    #[arg(long)]
    no_quiesce: bool,
    /// Folder for the nodes' data.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    data_dir: PathBuf,
}

struct Idle {
    cpu_share: f64,
    resident: Vec<u64>,
    anonymous: Vec<u64>,
    quiet: u64,
    fsyncs: u64,
}

pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    println!(
        "three processes, groups without any work, CPU over {} s after {} s of rest",
        arguments.seconds, arguments.rest
    );
    println!(
        "{:>7}{:>22}{:>26}{:>32}{:>22}{:>12}{:>10}",
        "groups",
        "CPU, % of one core",
        "RSS MiB, sum",
        "RSS MiB of each node",
        "anonymous MiB, sum",
        "quiet, sum",
        "fsyncs"
    );
    let mut first: Option<Idle> = None;
    for &groups in &arguments.groups {
        let idle = measure(&arguments, groups).await?;
        let more = |sum: u64, base: fn(&Idle) -> &Vec<u64>| {
            first.as_ref().map_or(String::new(), |first| {
                format!(" ({:+.1})", mib(sum) - mib(base(first).iter().sum()))
            })
        };
        let resident: u64 = idle.resident.iter().sum();
        let anonymous: u64 = idle.anonymous.iter().sum();
        let each: Vec<String> =
            idle.resident.iter().map(|&bytes| format!("{:.1}", mib(bytes))).collect();
        println!(
            "{groups:>7}{:>22.2}{:>26}{:>32}{:>22}{:>12}{:>10}",
            idle.cpu_share * 100.0,
            format!("{:.1}{}", mib(resident), more(resident, |first| &first.resident)),
            each.join(" "),
            format!("{:.1}{}", mib(anonymous), more(anonymous, |first| &first.anonymous)),
            idle.quiet,
            idle.fsyncs,
        );
        first.get_or_insert(idle);
    }
    Ok(())
}

async fn measure(arguments: &Arguments, groups: u64) -> Result<Idle> {
    let shape = Shape { groups, quiesce: !arguments.no_quiesce };
    let cluster = Cluster::start(&arguments.data_dir, shape).await?;
    sleep(Duration::from_secs(arguments.rest)).await;
    let fsyncs_before: u64 =
        cluster.sample().await?.reports.iter().map(|report| report.fsyncs).sum();
    let duration = Duration::from_secs(arguments.seconds);
    let before = cluster.cpu_time()?;
    sleep(duration).await;
    let cpu = cluster.cpu_time()? - before;
    let pids = || (0..NODES).filter_map(|at| cluster.pid(at));
    let after = cluster.sample().await?.reports;
    let sum = |of: fn(&NodeReport) -> u64| after.iter().map(of).sum::<u64>();
    Ok(Idle {
        cpu_share: cpu.as_secs_f64() / duration.as_secs_f64(),
        resident: pids().map(resident_bytes).collect::<Result<_>>()?,
        anonymous: pids().map(anonymous_bytes).collect::<Result<_>>()?,
        quiet: sum(|report| report.quiet),
        fsyncs: sum(|report| report.fsyncs) - fsyncs_before,
    })
}
