//! The cluster. Each node has a runtime of its own: shutting that down is as sudden as a power cut.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use onefold_files::testing::MemoryFiles;
use onefold_files::{CreateOptions, FileSystem, FinishOptions, ListRequest};
use onefold_kv::{Feed, Kv, KvOptions, KvStore, LocalKv, RangeRequest};
use onefold_log::{Log, LogOptions};
use onefold_replica::{Formation, GroupSpec, Host, HostConfig};
use onefold_table::MemoryTable;
use onefold_transport::{Identity, IdentityCell, Limits, Peers, Router, Server};
use onefold_types::{ClusterId, GroupId, NodeId};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::service::node::Settings;
use crate::task::TaskLimits;
use crate::timing::Timing;
use crate::{JobId, JobSpec, JobStatus, MapReduce, MapReduceNode, Phase, Program, RemoteMapReduce};

const CLUSTER: ClusterId = ClusterId(0xc1);

/// Far more than anything takes; a test that waits so long has failed.
const LONG: Duration = Duration::from_secs(60);

pub(super) struct Cluster {
    pub(super) folder: TempDir,
    pub(super) files: MemoryFiles,
    pub(super) kv: LocalKv,
    pub(super) worker_timeout: Duration,
    nodes: BTreeMap<u64, TestNode>,
    addresses: BTreeMap<u64, String>,
    host: Host,
}

struct TestNode {
    runtime: Option<Runtime>,
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Cluster {
    pub(super) async fn start(nodes: u64) -> Self {
        Self::start_with(nodes, Duration::from_secs(1)).await
    }

    pub(super) async fn start_with(nodes: u64, worker_timeout: Duration) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (host, kv) = keyspace(&folder).await;
        let files = MemoryFiles::with_hosts((1..=nodes).map(NodeId).collect());
        files.create_bucket("books").await.expect("a bucket");
        let mut cluster = Self {
            folder,
            files,
            kv,
            worker_timeout,
            nodes: BTreeMap::new(),
            addresses: BTreeMap::new(),
            host,
        };
        for id in 1..=nodes {
            let listener = std::net::TcpListener::bind((own_host(), 0)).expect("a free port");
            let address = listener.local_addr().expect("its address").to_string();
            cluster.addresses.insert(id, address);
        }
        for id in 1..=nodes {
            cluster.start_node(id).await;
        }
        cluster
    }

    pub(super) async fn start_node(&mut self, id: u64) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let (kv, files) = (Arc::new(self.kv.clone()), Arc::new(self.files.clone()));
        let folder = self.folder.path().join(format!("node-{id}"));
        let addresses = self.addresses.clone();
        let settings = settings(self.worker_timeout);
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        runtime.spawn(async move {
            let identity = Arc::new(IdentityCell::new(Identity::node(CLUSTER, NodeId(id))));
            let peers = Peers::new(identity.clone(), Limits::default());
            for (&node, address) in &addresses {
                peers.set_address(NodeId(node), address.clone());
            }
            let server = loop {
                // The node's former life may not have let go of the port yet.
                match Server::bind(&addresses[&id]).await {
                    Ok(server) => break server,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            };
            let node = MapReduceNode::start_with(NodeId(id), folder, kv, files, peers, settings);
            let node = node.await.expect("a usable folder");
            let mut router = Router::default();
            node.register(&mut router);
            let _ = ready.send(());
            server.serve(identity, router, CancellationToken::new()).await;
        });
        is_ready.await.expect("the node starts");
        self.nodes.insert(id, TestNode { runtime: Some(runtime) });
    }

    /// Ends a node in the middle of whatever it does.
    pub(super) fn kill(&mut self, id: u64) {
        self.nodes.remove(&id).expect("it runs");
    }

    pub(super) fn client(&self) -> RemoteMapReduce {
        let identity = Arc::new(IdentityCell::new(Identity::CLIENT));
        let peers = Peers::new(identity, Limits::default());
        RemoteMapReduce::new(peers, self.addresses.values().cloned().collect())
    }

    /// The node of the elected coordinator.
    pub(super) async fn coordinator(&self) -> u64 {
        loop {
            let found = self.kv.range(RangeRequest::key("mapreduce/coordinator")).await;
            if let Some(kv) = found.expect("kv answers").kvs.first() {
                return u64::from(kv.value[1]);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Keys of the job records that start so.
    pub(super) async fn keys(&self, prefix: &'static str) -> usize {
        self.kv.range(RangeRequest::prefix(prefix)).await.expect("kv answers").kvs.len()
    }

    pub(super) async fn put(&self, key: &str, content: impl Into<Bytes>) {
        let writer = self.files.create("books", key, CreateOptions::default()).await;
        let mut writer = writer.expect("a writer");
        writer.write(content.into()).await.expect("written");
        writer.finish(FinishOptions::default()).await.expect("a file");
    }

    /// All keys below a prefix.
    pub(super) async fn list(&self, prefix: &str) -> Vec<String> {
        let request = ListRequest {
            bucket: "books".to_owned(),
            prefix: prefix.to_owned(),
            limit: 1000,
            ..ListRequest::default()
        };
        let page = self.files.list(request).await.expect("a listing");
        page.entries.into_iter().map(|entry| entry.key).collect()
    }

    /// The lines of all output files, sorted.
    pub(super) async fn output(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for key in self.list("out/").await {
            let reader = self.files.open("books", &key).await.expect("an output file");
            let mut stream = reader.read(0..u64::MAX);
            let mut text = Vec::new();
            while let Some(piece) = stream.next().await {
                text.extend_from_slice(&piece.expect("a piece"));
            }
            lines.extend(String::from_utf8(text).expect("text").lines().map(str::to_owned));
        }
        lines.sort();
        lines
    }

    pub(super) async fn wait(&self, job: JobId) -> JobStatus {
        let client = self.client();
        let waited = crate::wait(&client, job, |_| {});
        tokio::time::timeout(LONG, waited).await.expect("the job ends").expect("a status")
    }

    /// Waits until the status of a job is as wanted.
    pub(super) async fn wait_for(&self, job: JobId, wanted: impl Fn(&JobStatus) -> bool) {
        let client = self.client();
        let waited = async {
            loop {
                let status = client.status(job).await.expect("a status");
                if wanted(&status) {
                    return;
                }
                assert!(!status.summary.phase.is_ended(), "it ended too early: {status:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LONG, waited).await.expect("the job gets there");
    }

    pub(super) async fn succeed(&self, spec: JobSpec) -> JobStatus {
        let job = self.client().submit(spec).await.expect("a job that can run");
        let status = self.wait(job).await;
        self.assert_succeeded(&status).await;
        status
    }

    pub(super) async fn assert_succeeded(&self, status: &JobStatus) {
        assert_eq!((status.summary.phase, &status.error), (Phase::Succeeded, &None));
        let keys = self.list("out/").await;
        assert!(keys.contains(&"out/_SUCCESS".to_owned()), "{keys:?}");
        let parts = keys.iter().filter(|key| key.starts_with("out/part-")).count();
        assert_eq!(parts + 1, keys.len(), "nothing else is left: {keys:?}");
    }

    pub(super) async fn stop(mut self) {
        self.nodes.clear();
        self.host.shutdown().await;
    }
}

/// A loopback address that nobody else uses: what is free there stays free, while a port of 127.0.0.1
/// may be given to an outgoing connection of anybody before its node listens, or between two lives.
fn own_host() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let process = u8::try_from(std::process::id() % 250).expect("small");
    Ipv4Addr::new(127, 1 + process, high, low.max(1))
}

/// One replica of the system keyspace, which lives on when nodes die.
async fn keyspace(folder: &TempDir) -> (Host, LocalKv) {
    let node = NodeId(99);
    let identity = Identity::node(CLUSTER, node);
    let peers = Peers::new(Arc::new(IdentityCell::new(identity)), Limits::default());
    let options = LogOptions { segment_bytes: 1 << 20, ..LogOptions::default() };
    let (log, recovered) = Log::open(&folder.path().join("log"), options).expect("a fresh log");
    let feed = Feed::default();
    let group = GroupSpec::new(
        GroupId::SYSTEM,
        Formation::Founders(BTreeSet::from([node])),
        Box::new(KvStore::new(feed.clone())),
    );
    let table = Arc::new(MemoryTable::new());
    let host =
        Host::start(HostConfig::new(node), log, recovered, table, peers.clone(), vec![group]);
    let host = host.expect("a fresh folder is good");
    let group = host.group(GroupId::SYSTEM).expect("it was just given");
    let mut leadership = group.leadership();
    leadership.wait_for(|leadership| leadership.is_self).await.expect("the host runs");
    (host, LocalKv::start(group, feed, peers, KvOptions::default()))
}

/// Small and fast.
fn settings(worker_timeout: Duration) -> Settings {
    Settings {
        slots: 2,
        limits: TaskLimits {
            sort_bytes: 2000,
            count_bytes: 60_000,
            fetch_bytes: 1000,
            merge_ways: 3,
        },
        timing: Timing {
            heartbeat: Duration::from_millis(30),
            worker_timeout,
            election_poll: Duration::from_millis(50),
            lease_seconds: 2,
            hold: Duration::from_millis(150),
            status: Duration::from_millis(50),
            fetch_patience: Duration::from_millis(500),
        },
    }
}

pub(super) fn spec(program: Program) -> JobSpec {
    let mut spec = JobSpec::new(program, vec!["/books/in".to_owned()], "/books/out");
    spec.reducers = Some(3);
    spec
}

pub(super) fn streaming(mapper: &str, reducer: Option<&str>) -> Program {
    Program::Streaming {
        mapper: mapper.to_owned(),
        combiner: None,
        reducer: reducer.map(str::to_owned),
    }
}
