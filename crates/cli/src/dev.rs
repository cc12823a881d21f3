//! `onefold dev`: a local cluster that a person can play with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::etcd_options::EtcdArgs;
use crate::local::{Action, ClusterOptions, Control, LocalCluster, S3_ACCESS_KEY, S3_SECRET_KEY};
use crate::output::{Format, print_rows};

/// How often ended nodes are noticed, and the pause before one is started again.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Run a local cluster of separate node processes, until Ctrl-C or SIGTERM.
///
/// Everything is kept in the data folder; the same command on the same folder goes on with it.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DevArgs {
    /// How many nodes; three survive the loss of one [default: as many as there are in the data
    /// folder, or 3].
    #[arg(long, env = "ONEFOLD_NODES")]
    nodes: Option<usize>,

    /// Where the nodes keep their data.
    #[arg(long, env = "ONEFOLD_DATA_DIR", default_value = "onefold-data", value_name = "DIR")]
    data_dir: PathBuf,

    /// Node k (from 0) uses ports P+10k (peer), P+10k+1 (etcd), P+10k+2 (S3), P+10k+3 (http).
    /// Without it: 7000, 2379, 9000 and 8080, each plus 10k.
    #[arg(long, env = "ONEFOLD_BASE_PORT", value_name = "P")]
    base_port: Option<u16>,

    /// Start a node again when it ends without being asked to.
    #[arg(long, env = "ONEFOLD_RESTART")]
    restart: bool,

    #[command(flatten)]
    etcd: EtcdArgs,

    #[command(subcommand)]
    command: Option<DevCommand>,
}

#[derive(Subcommand)]
enum DevCommand {
    /// Add, remove, start, stop or kill a node of a running local cluster.
    Node {
        /// What to do.
        #[command(subcommand)]
        action: Action,
        /// The data folder of the running `onefold dev`.
        #[arg(
            long,
            global = true,
            env = "ONEFOLD_DATA_DIR",
            default_value = "onefold-data",
            value_name = "DIR"
        )]
        data_dir: PathBuf,
    },
}

/// Runs the verb.
pub async fn run(arguments: DevArgs, format: Format) -> anyhow::Result<()> {
    match arguments.command {
        Some(DevCommand::Node { action, data_dir }) => {
            let id = crate::local::command(&data_dir, action).await?;
            match action {
                Action::Add => println!("node {id} has been added"),
                Action::Remove { .. } => println!("node {id} has been removed"),
                Action::Start { .. } | Action::Stop { .. } | Action::Kill { .. } => {}
            }
            Ok(())
        }
        None => run_cluster(arguments, format).await,
    }
}

async fn run_cluster(arguments: DevArgs, format: Format) -> anyhow::Result<()> {
    // Listened to from the start, so that a signal while nodes start still stops them in order.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let options = ClusterOptions {
        nodes: arguments.nodes,
        folder: arguments.data_dir,
        base_port: arguments.base_port,
        etcd: arguments.etcd,
        routes: BTreeMap::new(),
    };
    let folder = options.folder.clone();
    let mut cluster = tokio::select! {
        started = LocalCluster::start(options) => started?,
        // Dropping the cluster closes the nodes' standard input, at which they stop.
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    let (_control, mut actions) = Control::listen(&folder).await?;
    print_endpoints(&cluster, format)?;
    let mut watch = tokio::time::interval(WATCH_INTERVAL);
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            Some((action, done)) = actions.recv() => {
                let acting = async {
                    match action {
                        Action::Add => cluster.add_node().await,
                        Action::Remove { id } => cluster.remove_node(id).await.map(|()| id),
                        Action::Start { id } => cluster.start_node(id).await.map(|()| id),
                        Action::Stop { id } => cluster.stop_node(id).await.map(|()| id),
                        Action::Kill { id } => cluster.kill_node(id).await.map(|()| id),
                    }
                };
                let outcome = tokio::select! {
                    outcome = acting => outcome.map_err(|error| format!("{error:#}")),
                    _ = interrupt.recv() => break,
                    _ = terminate.recv() => break,
                };
                if done.send(outcome).is_err() {
                    tracing::debug!("the caller did not wait for the outcome");
                }
            }
            _ = watch.tick() => {
                if let Err(error) = look_after(&mut cluster, arguments.restart) {
                    eprintln!("{error:#}");
                }
            }
        }
    }
    eprintln!("stopping");
    cluster.stop().await
}

/// Says which nodes ended by themselves, and starts them again if that is wanted.
fn look_after(cluster: &mut LocalCluster, restart: bool) -> anyhow::Result<()> {
    if restart {
        cluster.restart_ended()?;
    }
    for (id, reason) in cluster.reap()? {
        eprintln!("node {id} ended: {reason}");
    }
    Ok(())
}

fn print_endpoints(cluster: &LocalCluster, format: Format) -> anyhow::Result<()> {
    let head = ["node", "pid", "peer", "etcd", "s3", "http", "data"];
    print_rows(format, &head, &cluster.entries(), |node| {
        vec![
            node.id.to_string(),
            node.pid.to_string(),
            node.peer.clone(),
            node.etcd.clone(),
            format!("http://{}", node.s3),
            format!("http://{}", node.http),
            node.data_dir.display().to_string(),
        ]
    })?;
    if format == Format::Table {
        println!(
            "\nS3 access key {S3_ACCESS_KEY}, secret {S3_SECRET_KEY}. Ctrl-C stops the nodes."
        );
    }
    Ok(())
}
