//! `onefold node`: the cluster's nodes.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Subcommand;
use onefold_admin::{NewNode, NodeDrain, NodeInfo, NodeRemoval, NodeState, Seat, group_name};
use onefold_client::Client;
use onefold_types::NodeId;

use crate::output::{Format, Progress, Unit, print_json, print_rows};

/// How often a node that goes is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How long the cluster may give no answer while a node goes, as it may when leaders change.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What can be done.
#[derive(Subcommand)]
pub enum NodeCommand {
    /// List the nodes with their seats in the groups.
    List {
        /// Show removed nodes too.
        #[arg(long)]
        all: bool,
    },
    /// Reserve a number for a new node, and print how to start it.
    ///
    /// A node can join without this, by `onefold start --join`. With it the number is known before,
    /// and --replace says whose place the node takes.
    Add {
        /// Where the new node will be reached by the others.
        #[arg(value_name = "HOST:PORT")]
        address: String,
        /// The node that goes as soon as the new one has taken its place.
        #[arg(long, value_name = "NODE")]
        replace: Option<u64>,
    },
    /// Remove a node for good, once what only it holds is elsewhere.
    Remove {
        /// The node's number.
        node: u64,
        /// Give up what only this node holds, instead of waiting until it is copied.
        #[arg(long)]
        force: bool,
        /// Return as soon as the cluster has noted it.
        #[arg(long)]
        no_wait: bool,
    },
    /// Take leaderships and files' data from a node, for instance before maintenance. It still votes.
    Drain {
        /// The node's number.
        node: u64,
        /// Make a drained node an active one again.
        #[arg(long)]
        undo: bool,
        /// Return as soon as the cluster has noted it.
        #[arg(long)]
        no_wait: bool,
    },
}

/// Runs the verb.
pub async fn run(command: NodeCommand, client: &Client, format: Format) -> anyhow::Result<()> {
    match command {
        NodeCommand::List { all } => {
            let mut nodes = client.nodes().await?;
            nodes.retain(|node| all || node.state != NodeState::Removed);
            list(&nodes, format)
        }
        NodeCommand::Add { address, replace } => add(client, address, replace, format).await,
        NodeCommand::Remove { node, force, no_wait } => {
            let node = NodeId(node);
            client.remove_node(NodeRemoval { node, force }).await?;
            if no_wait {
                return Ok(());
            }
            wait(client, node, Goal::Removed { force }).await?;
            said(format, node, "removed", "its data folder can be deleted")
        }
        NodeCommand::Drain { node, undo, no_wait } => {
            let node = NodeId(node);
            client.drain_node(NodeDrain { node, undo }).await?;
            if undo {
                return said(format, node, "active", "it takes chunks and leaderships again");
            }
            if no_wait {
                return Ok(());
            }
            wait(client, node, Goal::Drained).await?;
            said(format, node, "drained", "it can be stopped; `--undo` makes it active again")
        }
    }
}

fn said(format: Format, node: NodeId, state: &str, hint: &str) -> anyhow::Result<()> {
    match format {
        Format::Json => print_json(&serde_json::json!({ "node": node, "state": state })),
        Format::Table => {
            println!("node {node} is {state}; {hint}");
            Ok(())
        }
    }
}

async fn add(
    client: &Client,
    address: String,
    replace: Option<u64>,
    format: Format,
) -> anyhow::Result<()> {
    let replaces = replace.map(NodeId);
    let invitation = client.add_node(NewNode { address: address.clone(), replaces }).await?;
    let join = invitation.join.join(",");
    let command = format!("onefold start --data-dir DIR --listen {address} --join {join}");
    match format {
        Format::Json => print_json(&serde_json::json!({
            "node": invitation.node,
            "cluster": invitation.cluster.to_string(),
            "address": address,
            "join": invitation.join,
            "command": command,
        })),
        Format::Table => {
            println!(
                "node {} of cluster {} may come to {address}; start it there on an empty folder:\n",
                invitation.node, invitation.cluster
            );
            println!("    {command}\n");
            if let Some(node) = replaces {
                println!("node {node} goes once the new node has taken its place");
            }
            Ok(())
        }
    }
}

fn list(nodes: &[NodeInfo], format: Format) -> anyhow::Result<()> {
    let head = ["node", "address", "state", "up", "voter of", "learner of", "leads", "lag"];
    print_rows(format, &head, nodes, |node| {
        let seats = |is_meant: fn(Seat) -> bool| {
            let seats = node.groups.iter().filter(|seat| is_meant(seat.seat));
            crate::status::names(seats.map(|seat| seat.group), group_name)
        };
        let lag = node.groups.iter().filter_map(|seat| seat.lag).max();
        let mut state = node.state.name().to_owned();
        let is_coming = matches!(node.state, NodeState::Invited | NodeState::Joining);
        if let Some(other) = node.replaces.filter(|_| is_coming) {
            state = format!("{state} for {other}");
        }
        if let Some(chunks) = node.chunks_left {
            state = format!("{state}, {chunks} chunks left");
        }
        vec![
            node.node.to_string(),
            node.address.clone(),
            state,
            if node.up { "yes" } else { "no" }.to_owned(),
            seats(|seat| seat == Seat::Voter),
            seats(|seat| seat != Seat::Voter),
            node.leads().to_string(),
            lag.map(|lag| lag.to_string()).unwrap_or_default(),
        ]
    })
}

/// What a node that goes comes to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goal {
    Drained,
    Removed {
        /// Whether chunks that only it holds are given up.
        force: bool,
    },
}

/// Waits until the node is where it should come to, and shows what is left to do.
async fn wait(client: &Client, node: NodeId, goal: Goal) -> anyhow::Result<()> {
    let mut progress = Progress::new(&format!("node {node}"), Unit::Items, 0);
    let mut chunks_most = 0;
    let mut answered = Instant::now();
    loop {
        match client.nodes().await {
            Ok(nodes) => {
                answered = Instant::now();
                let info = nodes.into_iter().find(|info| info.node == node);
                let info = info.with_context(|| format!("node {node} is not listed any more"))?;
                let Some(left) = left(&info, goal)? else { break };
                let chunks = info.chunks_left.unwrap_or(0);
                chunks_most = chunks_most.max(chunks);
                progress.rename(&format!("node {node}: {left}"));
                progress.set(chunks_most - chunks, chunks_most);
            }
            // The node that was asked may be the one that goes, and leaders change on the way.
            Err(error) if answered.elapsed() > SILENCE_MAX => return Err(error.into()),
            Err(_) => {}
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    progress.finish();
    Ok(())
}

/// What is left to do in words; nothing when the node is where it should come to.
fn left(info: &NodeInfo, goal: Goal) -> anyhow::Result<Option<String>> {
    let node = info.node;
    match (info.state, goal) {
        (NodeState::Removed, _) => return Ok(None),
        (NodeState::Removing, _) | (NodeState::Draining, Goal::Drained) => {}
        (state, _) => bail!("somebody else made node {node} {} meanwhile", state.name()),
    }
    if info.leads() > 0 {
        return Ok(Some(format!("hands {} groups over", info.leads())));
    }
    let leaves = || Some(format!("leaves {} groups", info.groups.len()));
    Ok(match info.chunks_left {
        _ if goal == (Goal::Removed { force: true }) => leaves(),
        None => Some("the file system does not tell yet which chunks are there".to_owned()),
        Some(0) if goal == Goal::Drained => None,
        Some(0) => leaves(),
        Some(chunks) if info.up => Some(format!("{chunks} chunks are copied to other nodes")),
        Some(chunks) => Some(format!(
            "{chunks} chunks count on it and it does not answer; what other nodes hold is copied. \
             Start the node if this does not end, or give the rest up with --force"
        )),
    })
}
