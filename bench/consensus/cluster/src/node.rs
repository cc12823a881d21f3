//! One node: the product's replica host over its real log, table and transport.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use onefold_log::{Log, LogOptions};
use onefold_replica::{Formation, Group, GroupSpec, Host, HostConfig};
use onefold_table::{FjallTable, Table, TableOptions};
use onefold_transport::{
    Identity, IdentityCell, Limits, Peers, RemoteCode, RemoteError, Router, Server,
};
use onefold_types::{ClusterId, GroupId, NodeId};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use crate::load::closed_loop;
use crate::machine::Puts;
use crate::methods::{Drive, NodeReport, Propose, Report};

const CLUSTER: ClusterId = ClusterId(7);
/// Longest wait for one proposal.
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(crate) struct Arguments {
    /// This node's number, from 1.
    #[arg(long)]
    id: u64,
    /// The addresses of all nodes, in the order of their numbers.
    #[arg(long, value_delimiter = ',')]
    addresses: Vec<String>,
    /// Where it keeps its data.
    #[arg(long)]
    folder: PathBuf,
    /// Groups to host, numbered from 1.
    #[arg(long)]
    groups: u64,
    /// Never let idle groups fall silent.
    #[arg(long)]
    no_quiesce: bool,
}

/// Runs until standard input is closed, so that no node outlives the program that started it.
pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let id = NodeId(arguments.id);
    let identity = Arc::new(IdentityCell::new(Identity::node(CLUSTER, id)));
    let peers = Peers::new(Arc::clone(&identity), Limits::default());
    let ids = (1..).map(NodeId);
    for (node, address) in ids.zip(&arguments.addresses) {
        peers.set_address(node, address.clone());
    }
    let own = arguments.addresses.get(id.0 as usize - 1).context("an address for this node")?;
    let server = Server::bind(own).await?;
    let (log, recovered) = Log::open(&arguments.folder.join("log"), LogOptions::default())?;
    let table = FjallTable::open(&arguments.folder.join("table"), TableOptions::default())?;
    let table: Arc<dyn Table> = Arc::new(table);
    let founders =
        Formation::Founders((1..=arguments.addresses.len() as u64).map(NodeId).collect());
    let spec = |number| GroupSpec::new(GroupId(number), founders.clone(), Box::new(Puts));
    let groups: Vec<GroupSpec> = (1..=arguments.groups).map(spec).collect();
    let config = HostConfig { quiesce: !arguments.no_quiesce, ..HostConfig::new(id) };
    let host = Host::start(config, log.clone(), recovered, table, peers, groups)?;
    let mut router = Router::default();
    host.register(&mut router);
    register(&host, &log, &mut router);
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.serve(identity, router, stop.clone()));
    let mut input = tokio::io::stdin();
    while matches!(input.read(&mut [0; 64]).await, Ok(1..)) {}
    stop.cancel();
    serving.await?;
    host.shutdown().await;
    Ok(())
}

fn register(host: &Host, log: &Log, router: &mut Router) {
    let by_call = host.clone();
    router.call::<Propose, _, _>(move |_, group, command| {
        let group = by_call.group(GroupId(group));
        async move {
            let group = group.ok_or_else(|| failed("no such group"))?;
            propose(&group, command).await.map(|()| ((), Bytes::new()))
        }
    });
    let driven = host.clone();
    router.call::<Drive, _, _>(move |_, request, _| {
        let group = driven.group(GroupId(1));
        async move {
            let group = group.ok_or_else(|| failed("no group"))?;
            let duration = Duration::from_secs_f64(request.seconds);
            let operation = |command| {
                let group = group.clone();
                async move { propose(&group, command).await.is_ok() }
            };
            let outcome = closed_loop(request.clients, duration, request.bytes, operation).await;
            Ok((outcome, Bytes::new()))
        }
    });
    let (host, log) = (host.clone(), log.clone());
    router.call::<Report, _, _>(move |_, (), _| {
        let report = report(&host, &log);
        async move { Ok((report, Bytes::new())) }
    });
}

async fn propose(group: &Group, command: Bytes) -> Result<(), RemoteError> {
    match group.propose(command, None, DEADLINE).await {
        Ok(_) => Ok(()),
        Err(error) => Err(failed(&error.to_string())),
    }
}

fn failed(message: &str) -> RemoteError {
    RemoteError::new(RemoteCode::Unavailable, message)
}

fn report(host: &Host, log: &Log) -> NodeReport {
    let log = log.status();
    let metrics = host.metrics().node;
    let groups = host.status();
    let first = groups.first();
    NodeReport {
        groups: groups.len() as u64,
        led: groups.iter().filter(|group| group.leader == Some(group.node)).count() as u64,
        settled: groups.iter().filter(|group| group.leader.is_some()).count() as u64,
        first_leader: first.and_then(|group| group.leader).map_or(0, |leader| leader.0),
        applied: first.map_or(0, |group| group.applied.0),
        last: first.map_or(0, |group| group.last.0),
        quiet: metrics.groups_quiet,
        retained_bytes: metrics.retained_bytes,
        fsyncs: log.fsyncs,
        appends: log.appends,
        written_bytes: log.written_bytes,
        log_bytes: log.bytes,
    }
}
