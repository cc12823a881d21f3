//! Three hosts in one process, with real logs, tables and sockets.

// Each test file uses a part of it.
#![allow(dead_code)]

pub(crate) mod relay;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use onefold_log::{Log, LogOptions, Recovered};
use onefold_replica::state::stored_groups;
use onefold_replica::{
    Apply, Consistency, Formation, Group, GroupSpec, Host, HostConfig, HostError, Limits,
    ProposeError, SessionTag, StateMachine,
};
use onefold_table::{
    Batch, FjallTable, KeyRange, MemoryTable, Order, Scan, SpaceView, Table, TableError,
    TableOptions, View,
};
use onefold_transport::{Identity, IdentityCell, Peers, Router, Server};
use onefold_types::{ClusterId, GroupId, LogIndex, NodeId, SessionId, Timestamp};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Far more than anything takes; a test that waits so long has failed.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) const GROUP: GroupId = GroupId(7);

const COUNT: &[u8] = b"count";

/// Counts what it applies and stores pairs. `add` answers the new count, `put key value` and
/// `copy from to` the index, `time` the replicated time.
#[derive(Default)]
pub(crate) struct Counter {
    /// A cache, to see that it is rebuilt whenever the table changes under it.
    count: u64,
    applied: LogIndex,
    time: Timestamp,
    gate: Gate,
}

/// Lets nothing be applied while it is closed.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn close(&self) {
        *self.0.0.lock().expect("nobody panics with it") = true;
    }

    pub(crate) fn open(&self) {
        *self.0.0.lock().expect("nobody panics with it") = false;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let is_closed = self.0.0.lock().expect("nobody panics with it");
        drop(
            self.0.1.wait_while(is_closed, |is_closed| *is_closed).expect("nobody panics with it"),
        );
    }
}

impl StateMachine for Counter {
    fn apply(&mut self, context: &mut Apply<'_, '_>, command: &Bytes) -> Result<Bytes, TableError> {
        self.gate.pass();
        assert!(context.time >= self.time, "time never goes back");
        self.time = context.time;
        assert_eq!(count(context.table)?, self.count, "the cache was rebuilt");
        let text = String::from_utf8_lossy(command).into_owned();
        let mut words = text.split(' ');
        Ok(match (words.next(), words.next(), words.next()) {
            (Some("add"), None, None) => {
                self.count += 1;
                context.table.put(COUNT, self.count.to_string());
                self.count.to_string().into()
            }
            (Some("put"), Some(key), Some(value)) => {
                context.table.put(format!("key/{key}"), value.to_owned());
                context.index.to_string().into()
            }
            (Some("copy"), Some(from), Some(to)) => {
                let value = context.table.get(format!("key/{from}").as_bytes())?;
                context.table.put(format!("key/{to}"), value.unwrap_or_default());
                context.index.to_string().into()
            }
            (Some("time"), None, None) => context.time.to_string().into(),
            _ => Bytes::from_static(b"unknown command"),
        })
    }

    fn committed(&mut self, applied: LogIndex) {
        assert!(applied > self.applied, "each round goes on");
        self.applied = applied;
    }

    fn restored(&mut self, view: &SpaceView) -> Result<(), TableError> {
        *self = Self { count: count(view)?, gate: self.gate.clone(), ..Self::default() };
        Ok(())
    }
}

/// The count in a view of the group's state.
pub(crate) fn count(view: &dyn View) -> Result<u64, TableError> {
    let stored = view.get(COUNT)?;
    Ok(stored.map_or(0, |text| String::from_utf8_lossy(&text).parse().expect("a count")))
}

/// Everything in a view of the group's state.
pub(crate) fn pairs(view: &dyn View) -> Vec<(Bytes, Bytes)> {
    let pairs: Result<Vec<_>, _> = view.scan(KeyRange::all(), Order::Ascending).collect();
    pairs.expect("the table is good")
}

/// Where the nodes keep their tables.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    /// On disk, as in production.
    Disk,
    /// In memory. A restart finds what was synced and not one write more: the harshest crash.
    Memory,
}

/// A table in memory that remembers its last sync.
pub(crate) struct CrashTable {
    table: MemoryTable,
    synced: Mutex<Arc<dyn View>>,
}

impl CrashTable {
    fn new() -> Self {
        let table = MemoryTable::new();
        let synced = Mutex::new(table.snapshot());
        Self { table, synced }
    }

    /// What a crash leaves.
    fn after_crash(&self) -> Self {
        let synced = self.synced.lock().expect("nobody panics with it").clone();
        let left = Self::new();
        let mut batch = Batch::new();
        for (key, value) in pairs(&*synced) {
            batch.put(key, value);
        }
        left.write(batch).expect("memory does not fail");
        left.sync().expect("memory does not fail");
        left
    }
}

impl View for CrashTable {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TableError> {
        self.table.get(key)
    }

    fn scan(&self, range: KeyRange, order: Order) -> Scan<'_> {
        self.table.scan(range, order)
    }
}

impl Table for CrashTable {
    fn snapshot(&self) -> Arc<dyn View> {
        self.table.snapshot()
    }

    fn write(&self, batch: Batch) -> Result<(), TableError> {
        self.table.write(batch)
    }

    fn sync(&self) -> Result<(), TableError> {
        *self.synced.lock().expect("nobody panics with it") = self.table.snapshot();
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.table.size_bytes()
    }
}

/// What all nodes are started with.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) nodes: u64,
    /// The last so many of them do not found the groups, and do not run before they join.
    pub(crate) joiners: u64,
    pub(crate) groups: Vec<GroupId>,
    pub(crate) storage: Storage,
    pub(crate) limits: Limits,
    pub(crate) election_ticks: u32,
    pub(crate) lease_reads: bool,
    /// The gate of the first node's state machines.
    pub(crate) gate: Gate,
}

impl Setup {
    pub(crate) fn new(nodes: u64) -> Self {
        Self {
            nodes,
            joiners: 0,
            groups: vec![GROUP],
            storage: Storage::Memory,
            limits: Limits::default(),
            election_ticks: HostConfig::ELECTION_TICKS,
            lease_reads: false,
            gate: Gate::default(),
        }
    }
}

/// A node that runs.
pub(crate) struct Node {
    pub(crate) host: Host,
    pub(crate) table: Arc<dyn Table>,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
}

/// The nodes 1 to n, each on a folder of its own.
pub(crate) struct Cluster {
    pub(crate) setup: Setup,
    folders: Vec<TempDir>,
    addresses: Vec<String>,
    /// Of nodes that have theirs in memory.
    tables: Mutex<BTreeMap<usize, Arc<CrashTable>>>,
    nodes: Vec<Option<Node>>,
}

impl Cluster {
    pub(crate) async fn start(setup: Setup) -> Self {
        let count = setup.nodes as usize;
        let folders = (0..count).map(|_| tempfile::tempdir().expect("a folder for the test"));
        let mut cluster = Self {
            folders: folders.collect(),
            addresses: Vec::new(),
            tables: Mutex::default(),
            nodes: Vec::new(),
            setup,
        };
        // All addresses are known before the first node starts.
        let mut servers = Vec::new();
        for _ in 0..count {
            let server = Server::bind("127.0.0.1:0").await.expect("a free port");
            cluster.addresses.push(server.local_address().to_string());
            servers.push(server);
        }
        for (place, server) in servers.into_iter().enumerate() {
            if place as u64 >= cluster.setup.nodes - cluster.setup.joiners {
                cluster.nodes.push(None);
                continue;
            }
            let node = cluster.run(place, server).expect("a fresh folder is good");
            cluster.nodes.push(Some(node));
        }
        cluster
    }

    fn run(&self, place: usize, server: Server) -> Result<Node, HostError> {
        let node = NodeId(place as u64 + 1);
        let identity = Identity::node(ClusterId(1), node);
        let identity = Arc::new(IdentityCell::new(identity));
        let peers = Peers::new(identity.clone(), onefold_transport::Limits::default());
        for (other, address) in self.addresses.iter().enumerate() {
            peers.set_address(NodeId(other as u64 + 1), address.clone());
        }
        let table = self.open_table(place);
        let (log, recovered) =
            Log::open(&self.folder(place).join("log"), log_options()).expect("a good log");
        let mut config = HostConfig::new(node);
        config.limits = self.setup.limits.clone();
        config.election_ticks = self.setup.election_ticks;
        config.lease_reads = self.setup.lease_reads;
        let founders = self.setup.nodes - self.setup.joiners;
        let formed = if node.get() <= founders {
            Formation::Founders((1..=founders).map(NodeId).collect())
        } else {
            Formation::Joining
        };
        let gate = if place == 0 { self.setup.gate.clone() } else { Gate::default() };
        let specs = self.setup.groups.iter().map(|&id| {
            let machine = Counter { gate: gate.clone(), ..Counter::default() };
            GroupSpec::new(id, formed.clone(), Box::new(machine))
        });
        let mut specs: Vec<_> = specs.collect();
        let stored = stored_groups(&table)?;
        let created = stored.present.into_iter().filter(|id| !self.setup.groups.contains(id));
        specs.extend(created.map(|id| counter(id, Formation::Joining)));
        let host = Host::start(config, log, recovered, table.clone(), peers, specs)?;
        let mut router = Router::default();
        host.register(&mut router);
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(server.serve(identity, router, shutdown.clone()));
        Ok(Node { host, table, shutdown, server })
    }

    fn open_table(&self, place: usize) -> Arc<dyn Table> {
        match self.setup.storage {
            Storage::Memory => {
                let mut tables = self.tables.lock().expect("nobody panics with it");
                let table = tables.get(&place).map_or_else(CrashTable::new, |t| t.after_crash());
                let table = Arc::new(table);
                tables.insert(place, table.clone());
                table
            }
            Storage::Disk => {
                let path = self.folder(place).join("table");
                let table = FjallTable::open(&path, TableOptions::default());
                Arc::new(table.expect("a good table"))
            }
        }
    }

    /// A process that is not a node's own and says that it is this node.
    pub(crate) fn pretend(&self, node: NodeId) -> Peers {
        let identity = Arc::new(IdentityCell::new(Identity::node(ClusterId(1), node)));
        let peers = Peers::new(identity, onefold_transport::Limits::default());
        for (place, address) in self.addresses.iter().enumerate() {
            peers.set_address(NodeId(place as u64 + 1), address.clone());
        }
        peers
    }

    pub(crate) fn folder(&self, place: usize) -> &Path {
        self.folders[place].path()
    }

    /// Stops a node without any farewell.
    pub(crate) async fn stop(&mut self, node: NodeId) {
        let place = node.get() as usize - 1;
        let stopped = self.nodes[place].take().expect("the node runs");
        stopped.shutdown.cancel();
        stopped.host.shutdown().await;
        stopped.server.await.expect("the server ends");
    }

    /// Starts a stopped node on its folder.
    pub(crate) async fn restart(&mut self, node: NodeId) {
        self.try_restart(node).await.expect("the folder is good");
    }

    pub(crate) async fn try_restart(&mut self, node: NodeId) -> Result<(), HostError> {
        let place = node.get() as usize - 1;
        assert!(self.nodes[place].is_none(), "node {node} runs");
        let server = Server::bind(&self.addresses[place]).await.expect("the port is free again");
        self.nodes[place] = Some(self.run(place, server)?);
        Ok(())
    }

    /// Starts a stopped node on its folder at another address than the one that others know, and
    /// gives that address.
    pub(crate) async fn restart_elsewhere(&mut self, node: NodeId) -> String {
        let place = node.get() as usize - 1;
        assert!(self.nodes[place].is_none(), "node {node} runs");
        let server = Server::bind("127.0.0.1:0").await.expect("a free port");
        let address = server.local_address().to_string();
        self.nodes[place] = Some(self.run(place, server).expect("the folder is good"));
        address
    }

    /// The address by which others know a node.
    pub(crate) fn address(&self, node: NodeId) -> &str {
        &self.addresses[node.get() as usize - 1]
    }

    pub(crate) fn node(&self, node: NodeId) -> &Node {
        self.nodes[node.get() as usize - 1].as_ref().expect("the node runs")
    }

    pub(crate) fn group(&self, node: NodeId) -> Group {
        self.node(node).host.group(GROUP).expect("every node hosts the group")
    }

    /// The nodes that run.
    pub(crate) fn running(&self) -> Vec<NodeId> {
        let places = self.nodes.iter().enumerate().filter(|(_, node)| node.is_some());
        places.map(|(place, _)| NodeId(place as u64 + 1)).collect()
    }

    /// Has these nodes found a group while they run.
    pub(crate) async fn found(&self, id: GroupId, nodes: &[NodeId]) {
        let formed = Formation::Founders(nodes.iter().copied().collect());
        for node in nodes {
            let spec = counter(id, formed.clone());
            self.node(*node).host.create_group(spec).await.expect("it is new here");
        }
    }

    /// The table of a node that does not run, as a crash left it.
    pub(crate) fn table_of(&self, node: NodeId) -> Arc<CrashTable> {
        let mut tables = self.tables.lock().expect("nobody panics with it");
        let table = tables.get_mut(&(node.get() as usize - 1)).expect("it ran before");
        *table = Arc::new(table.after_crash());
        table.clone()
    }

    /// What the log of a node that does not run holds.
    pub(crate) fn log_of(&self, node: NodeId) -> Recovered {
        let path = self.folder(node.get() as usize - 1).join("log");
        Log::open(&path, log_options()).expect("a good log").1
    }

    /// The leader that a majority of the running nodes agrees on.
    pub(crate) async fn leader(&self) -> NodeId {
        eventually("all nodes agree on a leader", || async {
            let leaders: BTreeSet<_> = self
                .running()
                .into_iter()
                .map(|node| self.group(node).leadership().borrow().leader)
                .collect();
            let leader = leaders.first().copied().flatten();
            leader.filter(|leader| leaders.len() == 1 && self.running().contains(leader))
        })
        .await
    }

    /// A node that runs and does not lead.
    pub(crate) async fn follower(&self) -> NodeId {
        let leader = self.leader().await;
        let others = self.running().into_iter().find(|node| *node != leader);
        others.expect("more than one node runs")
    }

    /// Waits until all running replicas have the same state, and gives it.
    pub(crate) async fn agreed(&self) -> Vec<(Bytes, Bytes)> {
        eventually("all replicas have the same state", || async {
            let mut states = Vec::new();
            for node in self.running() {
                let view = self.group(node).read(Consistency::Linearizable, LONG).await.ok()?;
                states.push(pairs(&view));
            }
            states.windows(2).all(|two| two[0] == two[1]).then(|| states.swap_remove(0))
        })
        .await
    }
}

/// A group that counts.
pub(crate) fn counter(id: GroupId, formed: Formation) -> GroupSpec {
    GroupSpec::new(id, formed, Box::new(Counter::default()))
}

fn log_options() -> LogOptions {
    LogOptions { segment_bytes: 1 << 20, ..LogOptions::default() }
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
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn propose(group: &Group, command: &str) -> Result<String, ProposeError> {
    let answer = group.propose(Bytes::copy_from_slice(command.as_bytes()), None, LONG).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

pub(crate) async fn propose_once(
    group: &Group,
    command: &str,
    session: u64,
    sequence: u64,
) -> Result<String, ProposeError> {
    let session = SessionId(session);
    let tag = SessionTag { session, sequence, acknowledged_below: sequence };
    let command = Bytes::copy_from_slice(command.as_bytes());
    let answer = group.propose(command, Some(tag), LONG).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
