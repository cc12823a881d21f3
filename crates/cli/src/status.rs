//! `onefold status`: the cluster at a glance.

use std::process::ExitCode;

use onefold_admin::{ClusterStatus, NodeReport, Role};
use onefold_client::Client;
use onefold_types::GroupId;

use crate::output::{Format, bytes, print_json, print_rows};

/// Keyspaces that a row names; further ones are only counted.
const KEYSPACES_SHOWN_MAX: usize = 4;

/// Runs the verb. The exit code is 0 when every node answers and every group has a leader.
pub async fn run(client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    let status = client.status().await?;
    let troubles = troubles(&status);
    match format {
        Format::Json => {
            let mut value = serde_json::to_value(&status)?;
            // The number does not fit into what many readers of JSON take for numbers.
            value["cluster"] = status.cluster.to_string().into();
            print_json(&value)?;
        }
        Format::Table => {
            print_table(&status)?;
            for trouble in &troubles {
                println!("! {trouble}");
            }
        }
    }
    Ok(if troubles.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_table(status: &ClusterStatus) -> anyhow::Result<()> {
    println!("cluster {}\n", status.cluster);
    let head = ["node", "state", "peer", "etcd", "s3", "http", "leads", "log", "table"];
    print_rows(Format::Table, &head, &status.nodes, |node| node_cells(status, node))?;
    println!();
    if let Some(files) = &status.files {
        println!(
            "{} files in {} buckets, {}; {} chunks, {} short of replicas, {} unavailable, {} \
             being replicated",
            files.files,
            files.buckets,
            bytes(files.file_bytes),
            files.chunks,
            files.chunks_under_replicated,
            files.chunks_unavailable,
            files.repairs_running,
        );
    }
    Ok(())
}

fn node_cells(cluster: &ClusterStatus, report: &NodeReport) -> Vec<String> {
    let mut cells = vec![report.node.to_string()];
    let Some(status) = &report.status else {
        cells.extend(["no answer".to_owned(), report.address.clone()]);
        cells.resize(9, String::new());
        return cells;
    };
    let led = status
        .groups
        .iter()
        .filter(|group| {
            group.role == Role::Leader && cluster.leader(group.group) == Some(report.node)
        })
        .map(|group| group.group);
    cells.extend([
        "ready".to_owned(),
        report.address.clone(),
        status.etcd.clone(),
        status.s3.clone(),
        status.http.clone(),
        names(led, |group| cluster.group_name(group)),
        bytes(status.log_bytes),
        bytes(status.table_bytes),
    ]);
    cells
}

/// The names of groups, as far as a row has room for them.
pub fn names(groups: impl Iterator<Item = GroupId>, name: impl Fn(GroupId) -> String) -> String {
    let groups: Vec<_> = groups.collect();
    let own = groups.iter().filter(|group| !group.is_keyspace()).count();
    let shown = own + KEYSPACES_SHOWN_MAX;
    let mut names: Vec<_> = groups.iter().take(shown).map(|group| name(*group)).collect();
    if groups.len() > shown {
        names.push(format!("+{}", groups.len() - shown));
    }
    names.join(" ")
}

/// What a person should look at.
fn troubles(status: &ClusterStatus) -> Vec<String> {
    let mut troubles = Vec::new();
    for node in status.nodes.iter().filter(|node| node.status.is_none()) {
        let reason = node.error.as_deref().unwrap_or("no reason given");
        troubles.push(format!("node {} does not answer: {reason}", node.node));
    }
    for group in status.groups() {
        if status.leader(group).is_none() {
            let name = status.group_name(group);
            troubles.push(format!("{name} has no leader: a majority of the nodes must run"));
        }
    }
    match &status.files {
        None => troubles.push("the file system does not answer".to_owned()),
        Some(files) if files.chunks_unavailable > 0 => troubles.push(format!(
            "{} chunks have no replica on a running node; start the nodes that hold them",
            files.chunks_unavailable
        )),
        Some(files) if files.chunks_under_replicated > 0 => troubles.push(format!(
            "{} chunks are short of replicas; they are copied while there are nodes to copy to",
            files.chunks_under_replicated
        )),
        Some(_) => {}
    }
    troubles
}
