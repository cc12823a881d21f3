//! `onefold kv keyspace`: independent key-value stores in one cluster.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use onefold_admin::{KeyspaceInfo, KeyspaceState, KeyspaceUsage, NewKeyspace};
use onefold_client::Client;

use super::limits::LimitArgs;
use crate::output::{Format, bytes, print_json, print_rows};

/// How often a keyspace that comes or goes is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// How long a keyspace may take to come or to go before the command gives up waiting.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What can be done.
#[derive(Subcommand)]
pub enum KeyspaceCommand {
    /// Create a keyspace: a key-value store with revisions, watches and leases of its own.
    Create {
        /// Its name: lower-case letters, digits and hyphens.
        name: String,
        /// Give it a port for etcd clients, on every node. Each node adds its own offset, which is 0
        /// unless nodes share a host.
        #[arg(long, value_name = "PORT")]
        port: Option<u16>,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Change what bounds a keyspace.
    Set {
        /// Its name.
        name: String,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// List the keyspaces.
    List,
    /// Show one keyspace, with where its clients connect.
    Show {
        /// Its name.
        name: String,
    },
    /// Delete a keyspace with all that is in it. There is no way back.
    Delete {
        /// Its name.
        name: String,
        /// Don't ask.
        #[arg(long)]
        force: bool,
        /// Return as soon as the cluster has noted it.
        #[arg(long)]
        no_wait: bool,
    },
}

/// Runs the verb.
pub async fn run(command: KeyspaceCommand, client: &Client, format: Format) -> anyhow::Result<()> {
    match command {
        KeyspaceCommand::Create { name, port, limits } => {
            create(client, NewKeyspace { name, port, limits: limits.limits() }, format).await
        }
        KeyspaceCommand::Set { name, limits } => {
            client.set_keyspace(limits.change(name.clone())?).await?;
            let found = find(client, &name).await?;
            show(&found.with_context(|| format!("the keyspace {name} is gone"))?, format)
        }
        KeyspaceCommand::List => {
            let keyspaces = client.keyspaces().await?;
            print_rows(format, &HEAD, &keyspaces, row)
        }
        KeyspaceCommand::Show { name } => {
            let found = find(client, &name).await?;
            let found = found.with_context(|| format!("there is no keyspace {name:?}"))?;
            show(&found, format)
        }
        KeyspaceCommand::Delete { name, force, no_wait } => {
            ensure!(force || confirmed(&name)?, "nothing was deleted");
            client.delete_keyspace(&name).await?;
            if !no_wait {
                wait(client, &name, |found| found.is_none()).await?;
            }
            let state = if no_wait { "deleting" } else { "deleted" };
            match format {
                Format::Json => print_json(&serde_json::json!({ "name": name, "state": state })),
                Format::Table => {
                    println!("the keyspace {name} is {state}");
                    Ok(())
                }
            }
        }
    }
}

async fn create(client: &Client, new: NewKeyspace, format: Format) -> anyhow::Result<()> {
    let (name, port) = (new.name.clone(), new.port);
    let mut info = client.create_keyspace(new).await?;
    let is_ready = |found: Option<&KeyspaceInfo>| match found {
        // Every node hears of it a moment after it serves, and opens its port then.
        Some(info) => {
            info.state == KeyspaceState::Active
                && info.unready.is_empty()
                && (port.is_none() || info.endpoints.iter().any(|it| it.problem.is_none()))
        }
        None => true,
    };
    if !is_ready(Some(&info)) {
        let found = wait(client, &name, is_ready).await?;
        info = found.with_context(|| {
            format!(
                "the keyspace {name} could not be formed and was given up; check that a majority \
                 of the nodes runs"
            )
        })?;
    }
    show(&info, format)
}

async fn find(client: &Client, name: &str) -> anyhow::Result<Option<KeyspaceInfo>> {
    let keyspaces = client.keyspaces().await?;
    Ok(keyspaces.into_iter().find(|keyspace| keyspace.name == name))
}

/// Waits until what the cluster says of a keyspace is as it should be.
async fn wait(
    client: &Client,
    name: &str,
    is_over: impl Fn(Option<&KeyspaceInfo>) -> bool,
) -> anyhow::Result<Option<KeyspaceInfo>> {
    let began = Instant::now();
    loop {
        let found = find(client, name).await?;
        if is_over(found.as_ref()) {
            return Ok(found);
        }
        if began.elapsed() > WAIT_MAX {
            let state = found.map_or("gone", |found| found.state.name());
            bail!(
                "the keyspace {name} is still {state}; `onefold kv keyspace show {name}` tells more"
            );
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// What a table of keyspaces shows.
const HEAD: [&str; 9] =
    ["name", "state", "group", "leader", "nodes", "port", "keys", "size", "clients"];

/// What a keyspace takes, of what it may take.
fn size(usage: KeyspaceUsage) -> String {
    let quota = if usage.quota_bytes == 0 { "none".to_owned() } else { bytes(usage.quota_bytes) };
    let full = if usage.is_full { ", full" } else { "" };
    format!("{} of {quota}{full}", bytes(usage.live_bytes + usage.history_bytes))
}

fn row(info: &KeyspaceInfo) -> Vec<String> {
    let nodes: Vec<_> = info.members.iter().map(ToString::to_string).collect();
    let clients: Vec<_> = info.addresses().collect();
    vec![
        info.name.clone(),
        info.state.name().to_owned(),
        info.group.to_string(),
        info.leader.map(|node| node.to_string()).unwrap_or_default(),
        nodes.join(" "),
        info.port.map(|port| port.to_string()).unwrap_or_default(),
        info.usage.map(|usage| usage.keys.to_string()).unwrap_or_default(),
        info.usage.map(size).unwrap_or_default(),
        clients.join(","),
    ]
}

fn show(info: &KeyspaceInfo, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        return print_json(info);
    }
    print_rows(format, &HEAD, &[info], |info| row(info))?;
    for endpoint in &info.endpoints {
        if let Some(problem) = &endpoint.problem {
            println!("! node {} does not serve {}: {problem}", endpoint.node, endpoint.address);
        }
    }
    Ok(())
}

/// Has a person type the name of what is to be deleted.
fn confirmed(name: &str) -> anyhow::Result<bool> {
    ensure!(
        std::io::stdin().is_terminal(),
        "deleting {name} deletes all that is in it; say --force if that is meant"
    );
    print!("This deletes all that is in the keyspace {name}. Type its name to go on: ");
    std::io::stdout().flush()?;
    let mut typed = String::new();
    std::io::stdin().read_line(&mut typed).context("cannot read standard input")?;
    Ok(typed.trim() == name)
}
