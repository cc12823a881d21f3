//! `onefold torture`: kills, cuts off, slows and restarts a real cluster while clients use it, and
//! checks that what they saw is what a store without faults would have shown.
//!
//! ```text
//! plan       which faults, when, drawn from a seed
//! faults     does them: to processes with signals, to the network through relays
//! network    the relays between the nodes
//! workload   clients of the etcd API that write down what they see
//! round      a minute of all that, then rest, read back, judge
//! report     what is printed in the end
//! ```

mod faults;
mod network;
mod plan;
mod report;
mod round;
mod workload;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use onefold_types::NodeId;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;

use crate::etcd_options::EtcdArgs;
use crate::local::{ClusterOptions, LocalCluster, NODES_DEFAULT, NODES_MAX, Ports, free_base_port};
use crate::output::Format;
use faults::Target;
use network::Network;
use plan::Fault;
use report::Report;
use round::Rounds;
use workload::session::Address;

/// Kill, cut off, slow down and restart a real cluster of separate processes while clients use it,
/// and check every answer.
///
/// The clients put, get, delete, compare, move amounts in transactions, hold leases, watch and
/// compact through any node of the etcd API. What they saw is checked: linearizability, strict
/// serializability by revisions, watches, leases, that nothing acknowledged is lost, and that all
/// nodes hold the same in the end. Exit code 0 means that all was checked and nothing found.
#[derive(Args)]
pub struct TortureArgs {
    /// How many nodes.
    #[arg(long, env = "ONEFOLD_NODES", default_value_t = NODES_DEFAULT)]
    nodes: usize,

    /// How many seconds under faults. After each minute the cluster rests and is checked.
    #[arg(long, env = "ONEFOLD_SECONDS", default_value_t = 60, value_name = "N",
          value_parser = clap::value_parser!(u64).range(5..))]
    seconds: u64,

    /// Decides which faults happen when [default: a new one each time, which is printed].
    #[arg(long, env = "ONEFOLD_SEED", value_name = "S")]
    seed: Option<u64>,

    /// Which faults [default: all].
    #[arg(long, env = "ONEFOLD_FAULTS", value_delimiter = ',', value_name = "FAULT,…")]
    faults: Vec<Fault>,

    /// An empty folder for the nodes' data, which stays [default: a temporary one, which stays if
    /// something is found].
    #[arg(long, env = "ONEFOLD_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Node k (from 0) uses ports P+10k to P+10k+3 [default: free ones].
    #[arg(long, env = "ONEFOLD_BASE_PORT", value_name = "P")]
    base_port: Option<u16>,
}

/// Runs the verb.
pub async fn run(arguments: TortureArgs, format: Format) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let temporary = match arguments.data_dir {
        Some(_) => None,
        None => Some(
            tempfile::Builder::new()
                .prefix("onefold-torture-")
                .tempdir()
                .context("cannot create a temporary folder")?,
        ),
    };
    let folder = match (&arguments.data_dir, &temporary) {
        (Some(folder), _) => folder.clone(),
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => bail!("there is no folder for the nodes' data"),
    };
    // Dropping the cluster closes the nodes' standard input, at which they stop.
    let report = tokio::select! {
        report = torture(&arguments, &folder) => report,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = terminate.recv() => bail!("interrupted"),
    };
    if let Some(temporary) = temporary
        && !report.as_ref().is_ok_and(Report::is_clean)
    {
        eprintln!("the nodes' data and logs are kept in {}", temporary.keep().display());
    }
    let report = report?;
    report.print(format)?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn torture(arguments: &TortureArgs, folder: &Path) -> anyhow::Result<Report> {
    let nodes = arguments.nodes;
    ensure!(
        (1..=NODES_MAX).contains(&nodes),
        "a local cluster has 1 to {NODES_MAX} nodes, not {nodes}; choose another --nodes"
    );
    let is_empty = std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
    ensure!(is_empty, "{} is not empty; choose another --data-dir", folder.display());
    let seed = arguments.seed.unwrap_or_else(rand::random);
    let base_port = match arguments.base_port {
        Some(port) => port,
        None => free_base_port(nodes)?,
    };
    let ports: BTreeMap<u64, Ports> = (1..=nodes as u64)
        .map(|id| Ok((id, Ports::of_node(id, Some(base_port))?)))
        .collect::<anyhow::Result<_>>()?;
    let peers = ports.iter().map(|(id, ports)| (*id, format!("127.0.0.1:{}", ports.peer)));
    let network = Network::start(&peers.collect()).await?;
    let options = ClusterOptions {
        nodes: Some(nodes),
        folder: folder.to_owned(),
        base_port: Some(base_port),
        etcd: EtcdArgs::default(),
        routes: network.routes(),
    };
    eprintln!("seed {seed}: starting {nodes} nodes in {}", folder.display());
    let cluster = LocalCluster::start(options).await?;
    let target = Arc::new(Target {
        cluster: Mutex::new(cluster),
        network,
        nodes: ports.keys().copied().collect(),
        health: ports.values().map(|ports| format!("127.0.0.1:{}", ports.http)).collect(),
        ended: Mutex::default(),
        done: Mutex::default(),
    });
    let address = |(id, ports): (&u64, &Ports)| Address {
        node: NodeId(*id),
        etcd: format!("127.0.0.1:{}", ports.etcd),
    };
    let faults = match &arguments.faults[..] {
        [] => Fault::ALL.to_vec(),
        chosen => chosen.to_vec(),
    };
    let rounds = Rounds {
        target: target.clone(),
        addresses: ports.iter().map(address).collect(),
        faults,
        seed,
        total: Duration::from_secs(arguments.seconds),
        folder: folder.to_owned(),
        epoch: Instant::now(),
    };
    let report = rounds.run().await;
    if let Some(target) = Arc::into_inner(target) {
        target.cluster.into_inner().stop().await?;
    }
    report
}
