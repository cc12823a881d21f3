//! Drives Onefold with the crate `etcd-client`. See ../../README.md. Run: client ONEFOLD DATA_DIR

mod cluster;
mod keys;
mod leases;
mod locks;
mod users;
mod watches;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, DeleteOptions, Error};

/// How long anything may take before a test gives up. Never a measure of speed.
const PATIENCE: Duration = Duration::from_secs(60);

/// One node as `dev.json` lists it.
#[derive(serde::Deserialize)]
struct Node {
    id: u64,
    etcd: String,
}

/// A running `onefold dev`.
struct Cluster {
    onefold: PathBuf,
    data_dir: PathBuf,
    nodes: Vec<Node>,
}

impl Cluster {
    fn find() -> Self {
        let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
        let (Some(onefold), Some(data_dir)) = (arguments.next(), arguments.next()) else {
            panic!("usage: client ONEFOLD DATA_DIR");
        };
        let list = std::fs::read(data_dir.join("dev.json")).expect("dev.json exists");
        let nodes: Vec<Node> = serde_json::from_slice(&list).expect("it is a list of nodes");
        assert!(nodes.len() >= 3, "three nodes are needed");
        Self { onefold, data_dir, nodes }
    }

    async fn connect_with(&self, options: Option<ConnectOptions>) -> Result<Client, Error> {
        let endpoints: Vec<&str> = self.nodes.iter().map(|node| node.etcd.as_str()).collect();
        Client::connect(endpoints, options).await
    }

    /// A client that knows all nodes.
    async fn connect(&self) -> Client {
        self.connect_with(None).await.expect("the cluster is there")
    }

    /// A client that knows one node only.
    async fn connect_to(&self, index: usize) -> Client {
        Client::connect([&self.nodes[index].etcd], None).await.expect("the node is there")
    }

    /// Does something to a node: kill (with SIGKILL) or start.
    fn act(&self, action: &str, id: u64) {
        let status = Command::new(&self.onefold)
            .args(["dev", "node", action, &id.to_string(), "--data-dir"])
            .arg(&self.data_dir)
            .stdout(std::process::Stdio::null())
            .status();
        assert!(status.expect("the program starts").success(), "{action} node {id}");
    }
}

/// Fails unless an answer is this error of etcd's.
#[track_caller]
fn refused<T>(answer: Result<T, Error>, text: &str) {
    match answer {
        Ok(_) => panic!("it is not refused with {text:?}"),
        Err(Error::GRpcStatus(status)) => assert!(status.message().contains(text), "{status}"),
        Err(error) => panic!("{error} instead of {text:?}"),
    }
}

macro_rules! run {
    ($cluster:expr, $($module:ident :: $test:ident),* $(,)?) => {$(
        let test = $module::$test(&$cluster);
        tokio::time::timeout(2 * PATIENCE, test).await.expect(concat!(stringify!($test), " ends"));
        println!("ok   {}::{}", stringify!($module), stringify!($test));
    )*};
}

#[tokio::main]
async fn main() {
    let cluster = Cluster::find();
    // What an earlier run left.
    let all = DeleteOptions::new().with_all_keys();
    cluster.connect().await.delete("", Some(all)).await.expect("deleted");
    run!(
        cluster,
        keys::put,
        keys::get,
        keys::delete,
        keys::transactions,
        keys::compaction,
        keys::namespace,
        watches::history_and_present,
        watches::progress_and_cancel,
        leases::life,
        locks::lock,
        locks::election,
        cluster::maintenance,
        cluster::members,
        users::users,
        cluster::failover,
    );
}
