//! `onefold kv status` and `health`: the store as each node has it.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::ensure;
use onefold_client::Client;
use onefold_kv::RangeRequest;
use onefold_types::GroupId;
use serde::Serialize;

use crate::output::{Format, bytes, print_rows};

/// A node's replica of the store.
#[derive(Serialize)]
struct Replica {
    node: u64,
    etcd: String,
    role: String,
    term: u64,
    leader: Option<u64>,
    committed: u64,
    applied: u64,
    table_bytes: u64,
}

/// Lists the replicas of the store.
pub async fn status(client: &Client, format: Format) -> anyhow::Result<()> {
    let nodes = client.status().await?.nodes;
    let mut replicas = Vec::new();
    for status in nodes.into_iter().filter_map(|node| node.status) {
        let group = status.groups.iter().find(|report| report.group == GroupId::KV);
        let Some(group) = group else { continue };
        replicas.push(Replica {
            node: status.node.get(),
            etcd: status.etcd.clone(),
            role: format!("{:?}", group.role).to_lowercase(),
            term: group.term.get(),
            leader: group.leader.map(|leader| leader.get()),
            committed: group.commit.get(),
            applied: group.applied.get(),
            table_bytes: status.table_bytes,
        });
    }
    let head = ["node", "etcd", "role", "term", "leader", "committed", "applied", "table"];
    print_rows(format, &head, &replicas, |replica| {
        vec![
            replica.node.to_string(),
            replica.etcd.clone(),
            replica.role.clone(),
            replica.term.to_string(),
            replica.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
            replica.committed.to_string(),
            replica.applied.to_string(),
            bytes(replica.table_bytes),
        ]
    })
}

/// Whether a node answers a linearizable read.
#[derive(Serialize)]
struct Health {
    node: u64,
    address: String,
    healthy: bool,
    took_ms: u128,
    error: Option<String>,
}

/// Reads through each node. The exit code says whether all of them answer.
pub async fn health(client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    let mut checks = Vec::new();
    for node in client.status().await?.nodes {
        let began = Instant::now();
        let one = Client::new(vec![node.address.clone()])?;
        let nothing = RangeRequest { count_only: true, ..RangeRequest::key(&[0][..]) };
        let error = one.kv().range(nothing).await.err().map(|error| error.to_string());
        let took_ms = began.elapsed().as_millis();
        let (node, address) = (node.node.get(), node.address);
        checks.push(Health { node, address, healthy: error.is_none(), took_ms, error });
    }
    ensure!(!checks.is_empty(), "the cluster names no nodes; see `onefold node list`");
    print_rows(format, &["node", "address", "health", "took", "error"], &checks, |check| {
        vec![
            check.node.to_string(),
            check.address.clone(),
            if check.healthy { "healthy" } else { "unhealthy" }.to_owned(),
            format!("{} ms", check.took_ms),
            check.error.clone().unwrap_or_default(),
        ]
    })?;
    let is_well = checks.iter().all(|check| check.healthy);
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
