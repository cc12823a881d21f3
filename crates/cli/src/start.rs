//! `onefold start`: one node.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Args;
use onefold_node::{NodeConfig, NodeEvent};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::etcd_options::EtcdArgs;
use crate::store_options::StoreArgs;

/// Run one node of a cluster, until Ctrl-C or SIGTERM.
///
/// Nodes that are started for the first time with the same list of addresses form a cluster. After
/// that the data folder alone says which cluster the node belongs to.
#[derive(Args)]
pub struct StartArgs {
    /// Where the node keeps its data; one folder for each node.
    #[arg(long, env = "ONEFOLD_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,

    /// Where other nodes and `onefold` clients reach this node.
    #[arg(
        long,
        env = "ONEFOLD_LISTEN",
        default_value = "127.0.0.1:7000",
        value_name = "HOST:PORT"
    )]
    listen: String,

    /// The address that other nodes use, if it is not the one that is listened on.
    #[arg(long, env = "ONEFOLD_ADVERTISE", value_name = "HOST:PORT")]
    advertise: Option<String>,

    /// The peer addresses of all nodes that form the cluster; the same list on each of them.
    /// Without it the node forms a cluster of one.
    #[arg(long, env = "ONEFOLD_JOIN", value_name = "HOST:PORT,…", value_delimiter = ',')]
    join: Vec<String>,

    /// Where etcd clients connect [default: the host of --listen, port 2379].
    #[arg(long, env = "ONEFOLD_ETCD_LISTEN", value_name = "HOST:PORT")]
    etcd_listen: Option<String>,

    /// Where S3 clients connect [default: the host of --listen, port 9000].
    #[arg(long, env = "ONEFOLD_S3_LISTEN", value_name = "HOST:PORT")]
    s3_listen: Option<String>,

    /// Where health and metrics are served [default: the host of --listen, port 8080].
    #[arg(long, env = "ONEFOLD_HTTP_LISTEN", value_name = "HOST:PORT")]
    http_listen: Option<String>,

    #[command(flatten)]
    etcd: EtcdArgs,

    #[command(flatten)]
    store: StoreArgs,

    /// What this node adds to the ports of keyspaces. Nodes that share a host need different ones.
    #[arg(long, env = "ONEFOLD_KEYSPACE_PORT_OFFSET", default_value_t = 0, value_name = "N")]
    keyspace_port_offset: u16,

    /// Listen beyond loopback although nothing is encrypted or authenticated between nodes.
    #[arg(long, env = "ONEFOLD_ALLOW_PLAINTEXT")]
    allow_plaintext: bool,

    /// Don't create a first S3 access key when the cluster is formed.
    #[arg(long, env = "ONEFOLD_NO_INITIAL_S3_KEY")]
    no_initial_s3_key: bool,

    /// Dial the second address where the first one is another node's.
    #[arg(long, hide = true, value_name = "HOST:PORT=HOST:PORT", value_parser = route)]
    route: Vec<(String, String)>,

    /// Stop when standard input is closed.
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

/// Runs the verb.
pub async fn run(arguments: StartArgs) -> anyhow::Result<()> {
    let config = config(&arguments)?;
    let shutdown = CancellationToken::new();
    stop_on_signals(shutdown.clone(), arguments.stop_with_stdin)?;
    onefold_node::run(config, shutdown, |event| match event {
        NodeEvent::Ready { node, cluster } => {
            println!("node {node} of cluster {cluster} is ready");
        }
        NodeEvent::FirstS3Key { access_key, secret_key } => {
            println!("first S3 access key: {access_key} secret: {secret_key} (shown only now)");
        }
    })
    .await?;
    Ok(())
}

fn config(arguments: &StartArgs) -> anyhow::Result<NodeConfig> {
    let listen = &arguments.listen;
    let (host, _) = split(listen).context("--listen")?;
    let or_port = |given: &Option<String>, port: u16| {
        given.clone().unwrap_or_else(|| format!("{host}:{port}"))
    };
    let config = NodeConfig {
        data_dir: arguments.data_dir.clone(),
        listen: listen.clone(),
        advertise: arguments.advertise.clone().unwrap_or_else(|| listen.clone()),
        routes: arguments.route.iter().cloned().collect(),
        join: arguments.join.clone(),
        etcd_listen: or_port(&arguments.etcd_listen, 2379),
        etcd: arguments.etcd.options(),
        s3_listen: or_port(&arguments.s3_listen, 9000),
        http_listen: or_port(&arguments.http_listen, 8080),
        kv: arguments.store.options()?,
        keyspace_port_offset: arguments.keyspace_port_offset,
        create_initial_s3_key: !arguments.no_initial_s3_key,
    };
    let listeners = [
        ("--listen", &config.listen),
        ("--etcd-listen", &config.etcd_listen),
        ("--s3-listen", &config.s3_listen),
        ("--http-listen", &config.http_listen),
    ];
    for (flag, address) in listeners {
        let (host, _) = split(address).context(flag)?;
        ensure!(
            arguments.allow_plaintext || is_loopback(host),
            "{flag} {address} is reachable from other machines, and connections are neither \
             encrypted nor authenticated between nodes; use it in a trusted network only, with \
             --allow-plaintext"
        );
    }
    for address in arguments.join.iter().chain([&config.advertise]) {
        split(address).context("--join and --advertise")?;
    }
    let unspecified = config.advertise.parse::<SocketAddr>().is_ok_and(|a| a.ip().is_unspecified());
    ensure!(
        !unspecified,
        "other nodes can't reach this one at {}; say with --advertise where they can",
        config.advertise
    );
    Ok(config)
}

fn route(text: &str) -> anyhow::Result<(String, String)> {
    let (known, dialled) = text.split_once('=').context("a route is written as KNOWN=DIALLED")?;
    split(known)?;
    split(dialled)?;
    Ok((known.to_owned(), dialled.to_owned()))
}

fn split(address: &str) -> anyhow::Result<(&str, u16)> {
    let parts = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    let parsed = parts.and_then(|(host, port)| Some((host, port.parse().ok()?)));
    parsed.with_context(|| format!("{address:?} is no address; write it as HOST:PORT"))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn stop_on_signals(shutdown: CancellationToken, with_stdin: bool) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = stdin_closed(), if with_stdin => {}
        }
        shutdown.cancel();
    });
    Ok(())
}

async fn stdin_closed() {
    let mut stdin = tokio::io::stdin();
    let mut ignored = [0u8; 64];
    while matches!(stdin.read(&mut ignored).await, Ok(1..)) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_by_any_of_its_names() {
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["10.0.0.1", "0.0.0.0", "example.org"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn addresses_need_host_and_port() {
        assert!(matches!(split("h:1"), Ok(("h", 1))));
        for address in ["h", ":1", "h:", "h:99999"] {
            assert!(split(address).is_err(), "{address}");
        }
    }
}
