//! All nodes of a local cluster: start, watch, stop.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use onefold_admin::{NewNode, NewS3Key, NodeInfo, NodeRemoval};
use onefold_client::Client;
use onefold_node::folder::Folder;
use onefold_types::NodeId;
use rustix::fs::{FlockOperation, flock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::layout::{
    NODES_DEFAULT, NODES_MAX, NodeEntry, Ports, Route, S3_ACCESS_KEY, S3_SECRET_KEY, read_state,
    write_state,
};
use super::process::{NodeProcess, last_line};
use crate::etcd_options::EtcdArgs;

/// How long nodes may take to be ready, recovery of their data included.
const READY_PATIENCE: Duration = Duration::from_secs(120);
/// How long a cluster that is just stopping may keep its ports.
const PORT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a node that was started again may take to be ready before that is left to itself.
const NODE_READY_PATIENCE: Duration = Duration::from_secs(10);
/// How long a node that was removed may take to end by itself.
const REMOVED_PATIENCE: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What a local cluster shall be.
pub struct ClusterOptions {
    /// How many nodes; without it as many as the folder has, or three.
    pub nodes: Option<usize>,
    pub folder: PathBuf,
    pub base_port: Option<u16>,
    /// What its etcd clients may do.
    pub etcd: EtcdArgs,
    /// Where each node, by its number, dials instead of others' addresses.
    pub routes: BTreeMap<u64, Vec<Route>>,
}

struct Slot {
    entry: NodeEntry,
    process: Option<NodeProcess>,
    /// Whether the node is meant to run: false once somebody stopped or killed it on purpose.
    wanted: bool,
}

/// A cluster of node processes that this process started.
pub struct LocalCluster {
    folder: PathBuf,
    base_port: Option<u16>,
    etcd: EtcdArgs,
    /// The peer addresses of the nodes that it was started with.
    join: String,
    routes: BTreeMap<u64, Vec<Route>>,
    slots: Vec<Slot>,
    // Held for its lock, which the system drops with the process.
    _lock: File,
}

impl LocalCluster {
    /// Starts every node and waits until the cluster answers.
    pub async fn start(options: ClusterOptions) -> anyhow::Result<Self> {
        if let Some(nodes) = options.nodes {
            ensure!(
                (1..=NODES_MAX).contains(&nodes),
                "a local cluster has 1 to {NODES_MAX} nodes, not {nodes}; choose another --nodes"
            );
        }
        std::fs::create_dir_all(&options.folder)
            .with_context(|| format!("cannot create {}", options.folder.display()))?;
        let folder = std::fs::canonicalize(&options.folder)?;
        let lock = take_lock(&folder)?;
        let before = read_state(&folder)?;
        let existed = before.is_some();
        let ids = match &before {
            Some(before) => ids_before(&folder, before, &options)?,
            None => (1..=options.nodes.unwrap_or(NODES_DEFAULT) as u64).collect(),
        };
        let entry = |id| NodeEntry::new(&folder, id, options.base_port);
        let entries = ids.into_iter().map(entry).collect::<anyhow::Result<Vec<_>>>()?;
        check_ports(&entries, options.base_port).await?;
        let join = entries.iter().map(|entry| entry.peer.as_str()).collect::<Vec<_>>().join(",");
        let slots = entries.into_iter().map(|entry| Slot { entry, process: None, wanted: true });
        let ClusterOptions { base_port, etcd, routes, .. } = options;
        let slots = slots.collect();
        let mut cluster = Self { folder, base_port, etcd, join, routes, slots, _lock: lock };
        match cluster.bring_up(existed).await {
            Ok(()) => Ok(cluster),
            Err(error) => {
                cluster.stop().await?;
                Err(error)
            }
        }
    }

    /// Starts every node. A new cluster needs all of them to form; one that existed goes on with a
    /// majority, and says what is wrong with the others.
    async fn bring_up(&mut self, existed: bool) -> anyhow::Result<()> {
        for position in 0..self.slots.len() {
            self.spawn(position)?;
        }
        let tolerated = if existed { (self.slots.len() - 1) / 2 } else { 0 };
        self.wait_until_ready(tolerated).await?;
        let key = NewS3Key {
            access_key: Some(S3_ACCESS_KEY.to_owned()),
            secret_key: Some(S3_SECRET_KEY.to_owned()),
            loopback_only: true,
        };
        self.client()?.create_s3_key(key).await?;
        Ok(())
    }

    /// A client of the cluster.
    pub fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(self.slots.iter().map(|slot| slot.entry.peer.clone()).collect())?)
    }

    /// The nodes as `dev.json` lists them.
    pub fn entries(&self) -> Vec<NodeEntry> {
        self.slots.iter().map(|slot| slot.entry.clone()).collect()
    }

    fn slot(&self, id: u64) -> anyhow::Result<usize> {
        let position = self.slots.iter().position(|slot| slot.entry.id == id);
        position.with_context(|| {
            let ids: Vec<_> = self.slots.iter().map(|slot| slot.entry.id.to_string()).collect();
            format!("there is no node {id}; the nodes are {}", ids.join(", "))
        })
    }

    fn spawn(&mut self, position: usize) -> anyhow::Result<()> {
        let slot = &mut self.slots[position];
        let routes = self.routes.get(&slot.entry.id).map_or(&[][..], Vec::as_slice);
        let process = NodeProcess::spawn(&slot.entry, &self.join, routes, &self.etcd)?;
        slot.entry.pid = process.pid();
        slot.process = Some(process);
        slot.wanted = true;
        self.save()
    }

    fn save(&self) -> anyhow::Result<()> {
        write_state(&self.folder, &self.entries())
    }

    fn take(&mut self, position: usize) -> anyhow::Result<Option<NodeProcess>> {
        let slot = &mut self.slots[position];
        slot.wanted = false;
        slot.entry.pid = 0;
        let process = slot.process.take();
        self.save()?;
        Ok(process)
    }

    /// Starts a further node, which joins the cluster, and waits until it is ready. Its number is the
    /// one that the cluster gives it.
    pub async fn add_node(&mut self) -> anyhow::Result<u64> {
        let client = self.client()?;
        let id = client.nodes().await?.iter().map(|node| node.node.get()).max().unwrap_or(0) + 1;
        let entry = NodeEntry::new(&self.folder, id, self.base_port)?;
        check_ports(std::slice::from_ref(&entry), self.base_port).await?;
        let new = NewNode { address: entry.peer.clone(), replaces: None };
        let invitation = client.add_node(new).await?;
        ensure!(invitation.node.get() == id, "another node was added at the same time; try again");
        self.slots.push(Slot { entry, process: None, wanted: true });
        self.save()?;
        self.start_node(id).await?;
        Ok(id)
    }

    /// Removes a node from the cluster and forgets it. Its data folder stays.
    pub async fn remove_node(&mut self, id: u64) -> anyhow::Result<()> {
        let position = self.slot(id)?;
        let others = self.slots.iter().filter(|slot| slot.entry.id != id);
        let client = Client::new(others.map(|slot| slot.entry.peer.clone()).collect())?;
        let address = &self.slots[position].entry.peer;
        // A node that lost its folder has another number in the cluster.
        let is_meant = |node: &&NodeInfo| node.address == *address && node.state.is_member();
        let nodes = client.nodes().await?;
        let meant: Vec<NodeId> = nodes.iter().filter(is_meant).map(|node| node.node).collect();
        for node in meant {
            client.remove_node(NodeRemoval { node, force: false }).await?;
        }
        let give_up = Instant::now() + READY_PATIENCE;
        loop {
            let nodes = client.nodes().await;
            if nodes.is_ok_and(|nodes| !nodes.iter().any(|node| is_meant(&node))) {
                break;
            }
            ensure!(
                Instant::now() < give_up,
                "node {id} is still being removed; `onefold node list` shows what is left"
            );
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        if let Some(mut process) = self.take(position)? {
            // It learns by itself that it was removed, and notes that in its folder.
            let give_up = Instant::now() + REMOVED_PATIENCE;
            while process.ended().is_none() && Instant::now() < give_up {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
            process.stop().await;
        }
        self.slots.remove(position);
        self.save()
    }

    /// Starts a node that does not run, and waits for nothing.
    pub fn launch_node(&mut self, id: u64) -> anyhow::Result<()> {
        let position = self.slot(id)?;
        ensure!(self.slots[position].process.is_none(), "node {id} is running");
        self.spawn(position)
    }

    /// Lets a node's process stand still.
    pub fn pause_node(&self, id: u64) -> anyhow::Result<()> {
        self.process(id)?.pause();
        Ok(())
    }

    /// Lets a node's process go on.
    pub fn resume_node(&self, id: u64) -> anyhow::Result<()> {
        self.process(id)?.resume();
        Ok(())
    }

    fn process(&self, id: u64) -> anyhow::Result<&NodeProcess> {
        let process = self.slots[self.slot(id)?].process.as_ref();
        process.with_context(|| format!("node {id} does not run"))
    }

    /// Whether a node has a process.
    pub fn is_running(&self, id: u64) -> bool {
        self.process(id).is_ok()
    }

    /// Starts a node that does not run, and waits until it answers. Whether it is ready depends on
    /// the others too, so that is only waited for a little.
    pub async fn start_node(&mut self, id: u64) -> anyhow::Result<()> {
        let position = self.slot(id)?;
        ensure!(self.slots[position].process.is_none(), "node {id} is running");
        self.spawn(position)?;
        let started = Instant::now();
        loop {
            if let Some((_, reason)) = self.reap()?.into_iter().find(|(ended, _)| *ended == id) {
                bail!("node {id} did not start: {reason}");
            }
            // Nodes that ended because they were removed are gone from the list.
            let address = &self.slots[self.slot(id)?].entry.http;
            let is_late = started.elapsed() > NODE_READY_PATIENCE;
            if answers(address, "/readyz").await || (is_late && answers(address, "/livez").await) {
                return Ok(());
            }
            ensure!(started.elapsed() < READY_PATIENCE, "node {id} does not answer");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Stops a node in order.
    pub async fn stop_node(&mut self, id: u64) -> anyhow::Result<()> {
        let position = self.slot(id)?;
        let process = self.take(position)?.with_context(|| format!("node {id} does not run"))?;
        process.stop().await;
        Ok(())
    }

    /// Kills a node with SIGKILL.
    pub async fn kill_node(&mut self, id: u64) -> anyhow::Result<()> {
        let position = self.slot(id)?;
        let process = self.take(position)?.with_context(|| format!("node {id} does not run"))?;
        process.kill().await;
        Ok(())
    }

    /// Notices nodes that ended without being asked to, and says which and why.
    pub fn reap(&mut self) -> anyhow::Result<Vec<(u64, String)>> {
        let mut ended = Vec::new();
        for slot in &mut self.slots {
            let Some(status) = slot.process.as_mut().and_then(NodeProcess::ended) else { continue };
            let reason = match status.code() {
                Some(_) => last_line(&slot.entry.log_path()),
                None => status.to_string(),
            };
            ended.push((slot.entry.id, reason));
            slot.process = None;
            slot.entry.pid = 0;
        }
        if !ended.is_empty() {
            self.slots
                .retain(|slot| slot.process.is_some() || !Folder::is_removed(&slot.entry.data_dir));
            self.save()?;
        }
        Ok(ended)
    }

    /// Starts again every node that ended without being asked to.
    pub fn restart_ended(&mut self) -> anyhow::Result<()> {
        for position in 0..self.slots.len() {
            if self.slots[position].wanted && self.slots[position].process.is_none() {
                self.spawn(position)?;
            }
        }
        Ok(())
    }

    /// Stops all nodes in order.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let mut processes = Vec::new();
        for position in 0..self.slots.len() {
            processes.extend(self.take(position)?);
        }
        processes.iter().for_each(NodeProcess::ask_to_stop);
        for process in processes {
            process.stop().await;
        }
        Ok(())
    }

    async fn wait_until_ready(&mut self, mut tolerated: usize) -> anyhow::Result<()> {
        let give_up = Instant::now() + READY_PATIENCE;
        loop {
            for (id, reason) in self.reap()? {
                ensure!(tolerated > 0, "node {id} did not start: {reason}");
                tolerated -= 1;
                eprintln!("node {id} did not start, the others go on without it: {reason}");
            }
            let mut unready = None;
            for slot in self.slots.iter().filter(|slot| slot.process.is_some()) {
                if !answers(&slot.entry.http, "/readyz").await {
                    unready = Some((slot.entry.id, slot.entry.log_path()));
                    break;
                }
            }
            let Some((id, log)) = unready else { return Ok(()) };
            if Instant::now() > give_up {
                bail!(
                    "node {id} is not ready after {} s; its messages are in {}",
                    READY_PATIENCE.as_secs(),
                    log.display()
                );
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// Keeps a second `onefold dev` off the folder.
fn take_lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("dev.lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let give_up = Instant::now() + PORT_PATIENCE;
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        ensure!(
            Instant::now() < give_up,
            "another `onefold dev` runs on {}; stop it or choose another --data-dir",
            folder.display()
        );
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(file)
}

/// The nodes of a cluster that was here before. It keeps them, and their addresses.
fn ids_before(
    folder: &Path,
    before: &[NodeEntry],
    options: &ClusterOptions,
) -> anyhow::Result<Vec<u64>> {
    let (removed, left): (Vec<_>, Vec<_>) =
        before.iter().map(|node| node.id).partition(|id| is_removed(folder, *id));
    for id in removed {
        eprintln!("node {id} was removed from the cluster and is left out");
    }
    ensure!(!left.is_empty(), "every node in {} was removed", folder.display());
    let count = left.len();
    if let Some(nodes) = options.nodes.filter(|nodes| *nodes != count) {
        bail!(
            "{} holds a cluster of {count} nodes, not {nodes}; give --nodes {count} or another \
             --data-dir, and change its size with `onefold dev node add` and `remove`",
            folder.display(),
        );
    }
    if let Some(then) = before.first() {
        let now = NodeEntry::new(folder, then.id, options.base_port)?;
        ensure!(
            then.peer == now.peer,
            "the cluster in {} was formed with its first node at {}, not {}; give the --base-port \
             that it was started with before, or another --data-dir",
            folder.display(),
            then.peer,
            now.peer
        );
    }
    Ok(left)
}

/// Whether a node was removed from the cluster by somebody else than `dev`.
fn is_removed(folder: &Path, id: u64) -> bool {
    Folder::is_removed(&NodeEntry::data_dir_of(folder, id))
}

/// Fails with the name of the first port that something else keeps.
async fn check_ports(entries: &[NodeEntry], base: Option<u16>) -> anyhow::Result<()> {
    let give_up = Instant::now() + PORT_PATIENCE;
    for NodeEntry { id, .. } in entries {
        for (purpose, port) in Ports::of_node(*id, base)?.named() {
            while let Err(error) = TcpListener::bind(("127.0.0.1", port)) {
                if Instant::now() > give_up {
                    bail!(
                        "port {port} ({purpose} of node {id}) cannot be used: {error}; stop what \
                         listens there or choose other ports with --base-port"
                    );
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
    }
    Ok(())
}

/// Whether the node that serves health at this address says that it is ready.
pub async fn is_ready(address: &str) -> bool {
    answers(address, "/readyz").await
}

/// Whether a node's page says yes.
async fn answers(address: &str, page: &str) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let request =
            format!("GET {page} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0u8; 12];
        stream.read_exact(&mut answer).await?;
        Ok::<_, std::io::Error>(answer.ends_with(b"200"))
    };
    matches!(tokio::time::timeout(Duration::from_secs(2), ask).await, Ok(Ok(true)))
}
