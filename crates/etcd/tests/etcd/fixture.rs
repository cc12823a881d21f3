//! One node that serves the API, and clients of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use onefold_etcd::proto::etcdserverpb::auth_client::AuthClient;
use onefold_etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use onefold_etcd::proto::etcdserverpb::kv_client::KvClient;
use onefold_etcd::proto::etcdserverpb::lease_client::LeaseClient;
use onefold_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use onefold_etcd::proto::etcdserverpb::watch_client::WatchClient;
use onefold_etcd::proto::etcdserverpb::{PutRequest, RangeRequest, RangeResponse, ResponseHeader};
use onefold_etcd::proto::health::health_client::HealthClient;
use onefold_etcd::proto::mvccpb::KeyValue;
use onefold_etcd::proto::v3electionpb::election_client::ElectionClient;
use onefold_etcd::proto::v3lockpb::lock_client::LockClient;
use onefold_etcd::{Alarm, ClusterView, Member, Options, ServeError, StatusView, serve_with};
use onefold_kv::{Feed, KvError, KvOptions, KvStore, LocalKv};
use onefold_log::{Log, LogOptions};
use onefold_replica::{Formation, GroupSpec, Host, HostConfig};
use onefold_table::MemoryTable;
use onefold_transport::{Identity, IdentityCell, Peers};
use onefold_types::{ClusterId, DurationHistogram, GroupId, NodeId};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::control::TestControl;
use crate::faults::Faulty;

pub(crate) const CLUSTER: u64 = 0xc1;
pub(crate) const MEMBER: u64 = 1;

/// Far more than anything takes; a test that waits so long has failed.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A cluster of one started member and one that is not there yet.
#[derive(Default)]
pub(crate) struct TestView {
    has_no_leader: AtomicBool,
    alarms: Mutex<Vec<Alarm>>,
}

impl TestView {
    pub(crate) fn set_leader(&self, has_leader: bool) {
        self.has_no_leader.store(!has_leader, Ordering::SeqCst);
    }

    pub(crate) fn set_alarms(&self, alarms: Vec<Alarm>) {
        *self.alarms.lock().expect("no test panics with it") = alarms;
    }
}

impl ClusterView for TestView {
    fn cluster_id(&self) -> u64 {
        CLUSTER
    }

    fn member_id(&self) -> u64 {
        MEMBER
    }

    fn members(&self) -> Vec<Member> {
        let started = Member {
            id: MEMBER,
            name: "one".to_owned(),
            peer_urls: vec!["http://127.0.0.1:1".to_owned()],
            client_urls: vec!["http://127.0.0.1:2".to_owned()],
            is_learner: false,
        };
        vec![started, Member { id: 2, is_learner: true, ..Member::default() }]
    }

    fn leader(&self) -> Option<u64> {
        (!self.has_no_leader.load(Ordering::SeqCst)).then_some(MEMBER)
    }

    fn status(&self) -> StatusView {
        let durations = DurationHistogram::default();
        durations.add(Duration::from_millis(3));
        StatusView {
            db_size: 4096,
            db_size_in_use: 2048,
            db_size_quota: 1 << 30,
            revision: 9,
            compacted: 4,
            raft_index: 12,
            raft_term: 3,
            applied: 11,
            proposals_pending: 5,
            proposals_failed: 6,
            leader_changes: 7,
            fsync_durations: durations.counts(),
            commit_durations: durations.counts(),
        }
    }

    fn alarms(&self) -> Vec<Alarm> {
        self.alarms.lock().expect("no test panics with it").clone()
    }

    fn own_metrics(&self) -> String {
        "onefold_node_uptime_seconds 1\n".to_owned()
    }
}

/// The node; everything ends with it.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) view: Arc<TestView>,
    pub(crate) control: Arc<TestControl>,
    channel: Channel,
    store: Arc<Faulty>,
    shutdown: CancellationToken,
    server: JoinHandle<Result<(), ServeError>>,
    host: Host,
    _folder: TempDir,
}

impl Node {
    pub(crate) async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    pub(crate) async fn start_with(options: Options) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let (host, kv) = store(&folder).await;
        let store = Arc::new(Faulty::new(kv));
        let view = Arc::new(TestView::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shutdown = CancellationToken::new();
        let control = Arc::new(TestControl::default());
        let server = serve_with(
            listener,
            store.clone(),
            view.clone(),
            control.clone(),
            options,
            shutdown.clone(),
        );
        let server = tokio::spawn(server);
        let channel = connect(address).await;
        Self { address, view, control, channel, store, shutdown, server, host, _folder: folder }
    }

    /// Makes the store answer this to everything.
    pub(crate) fn fail(&self, error: KvError) {
        self.store.fail(error);
    }

    /// Has puts wait until they are let go.
    pub(crate) fn hold(&self, is_held: bool) {
        self.store.hold(is_held);
    }

    /// Ends serving and waits for it.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        drop(self.channel);
        let ended = tokio::time::timeout(LONG, self.server).await.expect("serving ends");
        ended.expect("it does not panic").expect("it ends well");
        self.host.shutdown().await;
    }

    pub(crate) fn stopping(&self) {
        self.shutdown.cancel();
    }

    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    pub(crate) fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    pub(crate) fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    pub(crate) fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }

    pub(crate) fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    pub(crate) fn auth(&self) -> AuthClient<Channel> {
        AuthClient::new(self.channel.clone())
    }

    pub(crate) fn lock(&self) -> LockClient<Channel> {
        LockClient::new(self.channel.clone())
    }

    pub(crate) fn election(&self) -> ElectionClient<Channel> {
        ElectionClient::new(self.channel.clone())
    }

    pub(crate) fn health(&self) -> HealthClient<Channel> {
        HealthClient::new(self.channel.clone())
    }

    /// Puts `key` and gives the revision.
    pub(crate) async fn put(&self, key: &str, value: &str) -> i64 {
        let response = self.kv().put(put(key, value)).await.expect("a good put").into_inner();
        revision(&response.header)
    }

    pub(crate) async fn delete(&self, key: &str) -> i64 {
        let request = onefold_etcd::proto::etcdserverpb::DeleteRangeRequest {
            key: bytes(key),
            ..Default::default()
        };
        let response = self.kv().delete_range(request).await.expect("a good deletion");
        revision(&response.into_inner().header)
    }

    pub(crate) async fn compact(&self, revision: i64) {
        let request =
            onefold_etcd::proto::etcdserverpb::CompactionRequest { revision, ..Default::default() };
        self.kv().compact(request).await.expect("a good compaction");
    }

    pub(crate) async fn range(&self, request: RangeRequest) -> RangeResponse {
        self.kv().range(request).await.expect("a good range").into_inner()
    }

    pub(crate) async fn get(&self, key: &str) -> Option<KeyValue> {
        self.range(RangeRequest { key: bytes(key), ..Default::default() }).await.kvs.pop()
    }
}

/// A connection of its own.
pub(crate) async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a good address");
    endpoint.connect().await.expect("the node listens")
}

async fn store(folder: &TempDir) -> (Host, LocalKv) {
    let node = NodeId(MEMBER);
    let identity = Identity::node(ClusterId(CLUSTER), node);
    let peers =
        Peers::new(Arc::new(IdentityCell::new(identity)), onefold_transport::Limits::default());
    let options = LogOptions { segment_bytes: 1 << 20, ..LogOptions::default() };
    let (log, recovered) = Log::open(&folder.path().join("log"), options).expect("a fresh log");
    let feed = Feed::default();
    let group = GroupSpec::new(
        GroupId::KV,
        Formation::Founders(BTreeSet::from([node])),
        Box::new(KvStore::new(feed.clone())),
    );
    let table = Arc::new(MemoryTable::new());
    let config = HostConfig::new(node);
    let host = Host::start(config, log, recovered, table, peers.clone(), vec![group]);
    let host = host.expect("a fresh folder is good");
    let group = host.group(GroupId::KV).expect("it was just given");
    let mut leadership = group.leadership();
    leadership.wait_for(|leadership| leadership.is_self).await.expect("the host runs");
    (host, LocalKv::start(group, feed, peers, KvOptions::default()))
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..Default::default() }
}

/// A range over the keys that begin with `a` to `z`.
pub(crate) fn letters() -> RangeRequest {
    RangeRequest { key: bytes("a"), range_end: bytes("{"), ..Default::default() }
}

pub(crate) fn keys(kvs: &[KeyValue]) -> Vec<&str> {
    kvs.iter().map(|kv| std::str::from_utf8(&kv.key).expect("a key of the test")).collect()
}

/// The revision in a header, whose other fields are checked.
#[track_caller]
pub(crate) fn revision(header: &Option<ResponseHeader>) -> i64 {
    let header = header.as_ref().expect("every answer has a header");
    assert_eq!((header.cluster_id, header.member_id), (CLUSTER, MEMBER));
    assert!(header.raft_term > 0);
    header.revision
}

/// Checks an error as clients do.
#[track_caller]
pub(crate) fn assert_error<T: std::fmt::Debug>(
    result: Result<T, Status>,
    code: Code,
    message: &str,
) {
    let status = result.expect_err("an error was expected");
    assert_eq!((status.code(), status.message()), (code, message));
}
