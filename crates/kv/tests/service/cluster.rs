//! Nodes in one process, each with a replica of the keyspace, and clients of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use onefold_kv::{
    Event, EventKind, Feed, Keyspaces, Kv, KvOptions, KvStore, LocalKv, PutRequest, RangeRequest,
    RemoteKv, Watcher, register,
};
use onefold_log::{Log, LogOptions};
use onefold_replica::{Formation, Group, GroupSpec, Host, HostConfig};
use onefold_table::MemoryTable;
use onefold_transport::{Identity, IdentityCell, Limits, Peers, Router, Server};
use onefold_types::{ClusterId, GroupId, NodeId, Revision};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Far more than anything takes; a test that waits so long has failed.
pub(crate) const LONG: Duration = Duration::from_secs(60);

struct Node {
    host: Host,
    kv: LocalKv,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
}

/// The nodes 1 to n.
pub(crate) struct Cluster {
    folders: Vec<TempDir>,
    addresses: Vec<String>,
    nodes: Vec<Option<Node>>,
    options: KvOptions,
}

impl Cluster {
    /// Starts so many nodes.
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_with(count, KvOptions::default()).await
    }

    /// Starts so many nodes with these options.
    pub(crate) async fn start_with(count: usize, options: KvOptions) -> Self {
        let folders = (0..count).map(|_| tempfile::tempdir().expect("a folder for the test"));
        let mut cluster =
            Self { folders: folders.collect(), addresses: Vec::new(), nodes: Vec::new(), options };
        let mut servers = Vec::new();
        for _ in 0..count {
            let server = Server::bind("127.0.0.1:0").await.expect("a free port");
            cluster.addresses.push(server.local_address().to_string());
            servers.push(server);
        }
        for (place, server) in servers.into_iter().enumerate() {
            let node = cluster.run(place, server);
            cluster.nodes.push(Some(node));
        }
        cluster
    }

    /// The address of a node that has no replica, and passes on what it is asked.
    pub(crate) async fn outsider(&self) -> String {
        let node = id(self.addresses.len());
        let identity = Arc::new(IdentityCell::new(Identity::node(ClusterId(1), node)));
        let peers = Peers::new(identity.clone(), Limits::default());
        for (other, address) in self.addresses.iter().enumerate() {
            peers.set_address(id(other), address.clone());
        }
        let keyspaces = Keyspaces::default();
        keyspaces.there(GroupId::KV, (0..self.addresses.len()).map(id).collect());
        let mut router = Router::default();
        register(&keyspaces, &peers, &mut router);
        let server = Server::bind("127.0.0.1:0").await.expect("a free port");
        let address = server.local_address().to_string();
        tokio::spawn(server.serve(identity, router, CancellationToken::new()));
        address
    }

    /// A client process that knows one address.
    pub(crate) fn client_at(address: String) -> RemoteKv {
        let identity = Arc::new(IdentityCell::new(Identity::CLIENT));
        RemoteKv::new(Peers::new(identity, Limits::default()), GroupId::KV, vec![address])
    }

    fn run(&self, place: usize, server: Server) -> Node {
        let node = id(place);
        let identity = Arc::new(IdentityCell::new(Identity::node(ClusterId(1), node)));
        let peers = Peers::new(identity.clone(), Limits::default());
        for (other, address) in self.addresses.iter().enumerate() {
            peers.set_address(id(other), address.clone());
        }
        let options = LogOptions { segment_bytes: 1 << 20, ..LogOptions::default() };
        let (log, recovered) = Log::open(self.folders[place].path(), options).expect("a good log");
        let feed = Feed::default();
        let spec = GroupSpec::new(
            GroupId::KV,
            Formation::Founders((0..self.addresses.len()).map(id).collect()),
            Box::new(KvStore::new(feed.clone())),
        );
        // A table in memory is lost with the process: a restart applies the whole log again.
        let table = Arc::new(MemoryTable::new());
        let config = HostConfig::new(node);
        let host = Host::start(config, log, recovered, table, peers.clone(), vec![spec])
            .expect("a good folder");
        let group = host.group(GroupId::KV).expect("the node hosts the group");
        let kv = LocalKv::start(group, feed, peers.clone(), self.options);
        let mut router = Router::default();
        host.register(&mut router);
        let keyspaces = Keyspaces::default();
        keyspaces.here(kv.clone());
        register(&keyspaces, &peers, &mut router);
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(server.serve(identity, router, shutdown.clone()));
        Node { host, kv, shutdown, server }
    }

    /// The keyspace on one node.
    pub(crate) fn kv(&self, node: NodeId) -> LocalKv {
        self.node(node).kv.clone()
    }

    /// The replica of one node.
    pub(crate) fn group(&self, node: NodeId) -> Group {
        self.node(node).host.group(GroupId::KV).expect("the node hosts the group")
    }

    fn node(&self, node: NodeId) -> &Node {
        self.nodes[place(node)].as_ref().expect("the node runs")
    }

    /// A client process that knows these nodes.
    pub(crate) fn client(&self, nodes: &[NodeId]) -> RemoteKv {
        let identity = Arc::new(IdentityCell::new(Identity::CLIENT));
        let addresses = nodes.iter().map(|node| self.addresses[place(*node)].clone()).collect();
        RemoteKv::new(Peers::new(identity, Limits::default()), GroupId::KV, addresses)
    }

    /// A client process that knows every node.
    pub(crate) fn any(&self) -> RemoteKv {
        let nodes: Vec<NodeId> = (0..self.nodes.len()).map(id).collect();
        self.client(&nodes)
    }

    /// The nodes that run.
    pub(crate) fn running(&self) -> Vec<NodeId> {
        let places = self.nodes.iter().enumerate().filter(|(_, node)| node.is_some());
        places.map(|(place, _)| id(place)).collect()
    }

    /// The leader that all running nodes agree on.
    pub(crate) async fn leader(&self) -> NodeId {
        let began = Instant::now();
        loop {
            let leaders: BTreeSet<_> = self
                .running()
                .into_iter()
                .map(|node| self.group(node).leadership().borrow().leader)
                .collect();
            if let (1, Some(Some(leader))) = (leaders.len(), leaders.first())
                && self.running().contains(leader)
            {
                return *leader;
            }
            assert!(began.elapsed() < LONG, "no leader that all agree on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A node that runs and does not lead.
    pub(crate) async fn follower(&self) -> NodeId {
        let leader = self.leader().await;
        let other = self.running().into_iter().find(|node| *node != leader);
        other.expect("more than one node runs")
    }

    /// Stops a node without any farewell.
    pub(crate) async fn stop(&mut self, node: NodeId) {
        let stopped = self.nodes[place(node)].take().expect("the node runs");
        stopped.shutdown.cancel();
        stopped.host.shutdown().await;
        stopped.server.await.expect("the server ends");
    }

    /// Starts a stopped node on its folder.
    pub(crate) async fn restart(&mut self, node: NodeId) {
        let place = place(node);
        let server = Server::bind(&self.addresses[place]).await.expect("the port is free again");
        self.nodes[place] = Some(self.run(place, server));
    }
}

fn id(place: usize) -> NodeId {
    NodeId(place as u64 + 1)
}

fn place(node: NodeId) -> usize {
    usize::try_from(node.get() - 1).expect("few nodes")
}

/// Writes a pair and tells the revision that it made.
pub(crate) async fn put(kv: &dyn Kv, key: &str, value: &str) -> Revision {
    let request = PutRequest::new(key.to_owned(), value.to_owned());
    kv.put(request).await.expect("the put is done").header.revision
}

/// The value of a key, if it exists.
pub(crate) async fn get(kv: &dyn Kv, key: &str) -> Option<Bytes> {
    let response = kv.range(RangeRequest::key(key.to_owned())).await.expect("the range is read");
    response.kvs.into_iter().next().map(|kv| kv.value)
}

/// The next so many events.
pub(crate) async fn events(watcher: &mut Box<dyn Watcher>, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        let next = tokio::time::timeout(LONG, watcher.next()).await;
        let batch = next.expect("events come").expect("the watch goes on");
        assert_eq!(batch.compacted, None, "the history is there");
        events.extend(batch.events);
    }
    events
}

/// Events in short: `put key=value` or `delete key`, with the revision in front.
pub(crate) fn told(events: &[Event]) -> Vec<String> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let tell = |event: &Event| {
        let (revision, key) = (event.kv.mod_revision, text(&event.kv.key));
        match event.kind {
            EventKind::Put => format!("{revision} put {key}={}", text(&event.kv.value)),
            EventKind::Delete => format!("{revision} delete {key}"),
        }
    };
    events.iter().map(tell).collect()
}
