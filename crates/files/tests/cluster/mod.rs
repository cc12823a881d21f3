//! A cluster in one process: real logs, tables, chunk folders and sockets.

// Each test file uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt;
use onefold_files::{
    CreateOptions, FileInfo, FileReader, FileSystem, FilesConfig, FilesError, FilesNode,
    FinishOptions, LocalFiles, Namespace, RemoteFiles, StoreError,
};
use onefold_log::{Log, LogOptions};
use onefold_replica::{Formation, Group, GroupSpec, Host, HostConfig};
use onefold_table::MemoryTable;
use onefold_transport::{Identity, IdentityCell, Limits, Peers, Router, Server};
use onefold_types::{ClusterId, GroupId, NodeId};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Far more than anything takes; a test that waits so long has failed.
pub(crate) const LONG: Duration = Duration::from_secs(90);

pub(crate) const BUCKET: &str = "bucket";

struct Node {
    host: Host,
    files: FilesNode,
    group: Group,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
}

/// The nodes 1 to n, each on a folder of its own.
pub(crate) struct Cluster {
    folders: Vec<TempDir>,
    addresses: Vec<String>,
    nodes: Vec<Option<Node>>,
    garbage_grace: Duration,
}

impl Cluster {
    pub(crate) async fn start(nodes: usize) -> Self {
        Self::start_with(nodes, FilesConfig::GARBAGE_GRACE).await
    }

    pub(crate) async fn start_with(nodes: usize, garbage_grace: Duration) -> Self {
        let folders = (0..nodes).map(|_| tempfile::tempdir().expect("a folder for the test"));
        let folders = folders.collect();
        let mut cluster = Self { folders, addresses: Vec::new(), nodes: Vec::new(), garbage_grace };
        let mut servers = Vec::new();
        for _ in 0..nodes {
            let server = Server::bind("127.0.0.1:0").await.expect("a free port");
            cluster.addresses.push(server.local_address().to_string());
            servers.push(server);
        }
        for (place, server) in servers.into_iter().enumerate() {
            let node = cluster.run(place, server, ClusterId(1)).await.expect("a good folder");
            cluster.nodes.push(Some(node));
        }
        let files = cluster.files(1);
        eventually("the namespace takes commands", || async {
            match files.create_bucket(BUCKET).await {
                Ok(()) | Err(FilesError::BucketExists { .. }) => Some(()),
                Err(_) => None,
            }
        })
        .await;
        cluster
    }

    async fn run(
        &self,
        place: usize,
        server: Server,
        cluster: ClusterId,
    ) -> Result<Node, StoreError> {
        let node = NodeId(place as u64 + 1);
        let identity = Arc::new(IdentityCell::new(Identity::node(cluster, node)));
        let peers = Peers::new(identity.clone(), Limits::default());
        for (other, address) in self.addresses.iter().enumerate() {
            peers.set_address(NodeId(other as u64 + 1), address.clone());
        }
        let options = LogOptions { segment_bytes: 1 << 20, ..LogOptions::default() };
        let (log, recovered) =
            Log::open(&self.folders[place].path().join("log"), options).expect("a good log");
        let voters: BTreeSet<_> = (1..=self.addresses.len() as u64).map(NodeId).collect();
        let state_machine = Box::new(Namespace);
        let spec = GroupSpec::new(GroupId::NAMESPACE, Formation::Founders(voters), state_machine);
        let (config, table) = (HostConfig::new(node), Arc::new(MemoryTable::new()));
        let host = Host::start(config, log, recovered, table, peers.clone(), vec![spec]);
        let host = host.expect("a good folder");
        let group = host.group(GroupId::NAMESPACE).expect("it is hosted");
        let mut config = FilesConfig::new(node, cluster, self.folder(place as u64 + 1));
        config.garbage_grace = self.garbage_grace;
        let files = match FilesNode::start(config, group.clone(), peers).await {
            Ok(files) => files,
            Err(error) => {
                host.shutdown().await;
                return Err(error);
            }
        };
        let mut router = Router::default();
        host.register(&mut router);
        files.register(&mut router);
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(server.serve(identity, router, shutdown.clone()));
        Ok(Node { host, files, group, shutdown, server })
    }

    /// The chunk folder of a node.
    pub(crate) fn folder(&self, node: u64) -> PathBuf {
        self.folders[node as usize - 1].path().join("chunks")
    }

    fn node(&self, node: u64) -> &Node {
        self.nodes[node as usize - 1].as_ref().expect("the node runs")
    }

    /// Tells every running node which ones leave.
    pub(crate) fn set_leaving(&self, nodes: &[u64]) {
        for node in self.nodes.iter().flatten() {
            node.files.set_leaving(nodes.iter().copied().map(NodeId).collect());
        }
    }

    pub(crate) fn files(&self, node: u64) -> LocalFiles {
        self.node(node).files.files()
    }

    /// The file system as a client sees it, through any of the nodes.
    pub(crate) fn client(&self) -> RemoteFiles {
        let identity = Arc::new(IdentityCell::new(Identity::CLIENT));
        RemoteFiles::new(Peers::new(identity, Limits::default()), self.addresses.clone())
    }

    /// Stops a node without any farewell.
    pub(crate) async fn stop(&mut self, node: u64) {
        let stopped = self.nodes[node as usize - 1].take().expect("the node runs");
        stopped.shutdown.cancel();
        stopped.server.await.expect("the server ends");
        stopped.files.shutdown().await;
        stopped.host.shutdown().await;
    }

    /// Starts a stopped node on its folder.
    pub(crate) async fn restart(&mut self, node: u64) {
        self.restart_as(node, ClusterId(1)).await.expect("a good folder");
    }

    pub(crate) async fn restart_as(
        &mut self,
        node: u64,
        cluster: ClusterId,
    ) -> Result<(), StoreError> {
        let place = node as usize - 1;
        assert!(self.nodes[place].is_none(), "node {node} runs");
        let address = &self.addresses[place];
        let server =
            eventually("the port is free again", || async { Server::bind(address).await.ok() })
                .await;
        self.nodes[place] = Some(self.run(place, server, cluster).await?);
        Ok(())
    }

    /// The node that leads the namespace.
    pub(crate) async fn leader(&self) -> u64 {
        eventually("a leader is known", || async {
            let running = self.nodes.iter().flatten();
            let mut leaders = running.filter(|node| node.group.is_leader());
            leaders.next().map(|node| node.group.status().node.get())
        })
        .await
    }

    /// A node that does not lead the namespace.
    pub(crate) async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        let running =
            (1..=self.nodes.len() as u64).filter(|n| self.nodes[*n as usize - 1].is_some());
        running.into_iter().find(|node| *node != leader).expect("more than one node runs")
    }
}

/// Asks again and again until there is an answer.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < LONG, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Bytes that look random and are the same for the same seed.
pub(crate) fn content(length: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        bytes.extend_from_slice(&(state ^ (state >> 33)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

pub(crate) async fn put(
    files: &dyn FileSystem,
    key: &str,
    data: &Bytes,
) -> Result<FileInfo, FilesError> {
    let mut writer = files.create(BUCKET, key, CreateOptions::default()).await?;
    // Pieces of an odd size, so that nothing falls together with a border.
    for piece in data.chunks(777_777) {
        writer.write(Bytes::copy_from_slice(piece)).await?;
    }
    writer.finish(FinishOptions::default()).await
}

pub(crate) async fn read(reader: &FileReader) -> Result<Bytes, FilesError> {
    let pieces: Vec<Bytes> = reader.read(0..u64::MAX).try_collect().await?;
    Ok(pieces.concat().into())
}

pub(crate) async fn get(files: &dyn FileSystem, key: &str) -> Result<Bytes, FilesError> {
    read(&files.open(BUCKET, key).await?).await
}

/// The chunk files in a folder, by name.
pub(crate) fn chunk_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder exists");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    let mut chunks: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "chunk")).collect();
    chunks.sort();
    chunks
}
