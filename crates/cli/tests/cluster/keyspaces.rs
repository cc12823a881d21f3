//! Many keyspaces in one cluster, with `etcdctl` and with `onefold kv`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use onefold_kv::{PutRequest, RangeRequest, WatchRequest};
use onefold_types::Revision;
use serde_json::Value;

use crate::etcd_programs::Etcdctl;
use crate::local_cluster::{LocalCluster, onefold};

/// Ports of two keyspaces that meet neither each other's nor those of up to four nodes.
fn ports(cluster: &LocalCluster) -> (u16, u16) {
    (cluster.base_port() + 40, cluster.base_port() + 50)
}

/// Creates a keyspace and waits until every node serves it at its port.
fn create(cluster: &mut LocalCluster, name: &str, port: u16) {
    cluster.must(&["kv", "keyspace", "create", name, "--port", &port.to_string()]);
    wait_for_ports(cluster, name);
}

fn wait_for_ports(cluster: &mut LocalCluster, name: &str) {
    let nodes = cluster.nodes.len();
    cluster.wait_for("the keyspace to be served everywhere", |cluster| {
        let endpoints = shown(cluster, name)["endpoints"].as_array().cloned().unwrap_or_default();
        endpoints.len() == nodes && endpoints.iter().all(|it| it["problem"].is_null())
    });
}

/// What `onefold kv keyspace show` says.
fn shown(cluster: &LocalCluster, name: &str) -> Value {
    let output = cluster.run(&["kv", "keyspace", "show", name, "--output", "json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn members(cluster: &LocalCluster, name: &str) -> Vec<u64> {
    let members = shown(cluster, name)["members"].as_array().cloned().unwrap_or_default();
    members.iter().filter_map(Value::as_u64).collect()
}

/// Where the answers of a server come from.
fn header(etcdctl: &Etcdctl) -> Value {
    let answer = etcdctl.must(&["get", "none", "--write-out", "json"]);
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    answer["header"].clone()
}

#[test]
fn keyspaces_know_nothing_of_each_other_and_are_chosen_by_their_port() {
    let Some(etcdctl) = Etcdctl::find("") else { return };
    let at = |port: u16| etcdctl.at(&format!("127.0.0.1:{port}"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut cluster = LocalCluster::start(folder.path(), 3);
    let (port_a, port_b) = ports(&cluster);
    create(&mut cluster, "a", port_a);
    create(&mut cluster, "b", port_b);
    // Node k (from 0) adds k to the port.
    for node in 0..3 {
        let (a, b) = (at(port_a + node), at(port_b + node));
        let key = format!("key{node}");
        a.must(&["put", &key, "of a"]);
        assert_eq!(b.must(&["get", &key]), "");
        b.must(&["put", &key, "of b"]);
        assert_eq!(a.must(&["get", &key]), format!("{key}\nof a\n"));
        let lease = a.must(&["lease", "grant", "600"]);
        let lease = lease.split(' ').nth(1).expect("its number").to_owned();
        assert!(a.must(&["lease", "list"]).contains(&lease));
        assert!(!b.must(&["lease", "list"]).contains(&lease));
        assert_ne!(header(&a)["cluster_id"], header(&b)["cluster_id"]);
    }
    // A file of a keyspace is of that one.
    let file = folder.path().join("a.snapshot");
    let path = file.to_str().expect("text");
    cluster.must(&["kv", "--keyspace", "a", "snapshot", "save", path]);
    let saved = std::fs::read(&file).expect("it was saved");
    let holds = |value: &[u8]| saved.windows(value.len()).any(|bytes| bytes == value);
    assert!(holds(b"of a") && !holds(b"of b"));
    // Three puts each, after the first revision.
    let (a, b) = (at(port_a), at(port_b));
    assert_eq!((&header(&a)["revision"], &header(&b)["revision"]), (&4.into(), &4.into()));
    // A watch from the first revision on sees what was done in its own keyspace, and nothing else.
    let addresses = vec![cluster.nodes[0].peer.clone()];
    assert_eq!(watched(addresses, "b", 3), ["of b"; 3]);

    let own = etcdctl.at(&cluster.nodes[0].etcd);
    assert_eq!(own.must(&["get", "key", "--prefix"]), "", "nor does the default keyspace");
    assert_eq!(
        cluster.must(&["kv", "--keyspace", "a", "get", "key0", "--print-value-only"]),
        "of a\n"
    );
    assert_eq!(
        cluster.must(&["kv", "get", "key0", "--keyspace", "b", "--print-value-only"]),
        "of b\n"
    );
    let status = cluster.must(&["status"]);
    assert!(status.contains(" a ") || status.contains(" b "), "{status}");

    let taken =
        cluster.run(&["kv", "keyspace", "create", "c", "--port", &(port_a + 1).to_string()]);
    assert_eq!(taken.status.code(), Some(1));
    let taken = String::from_utf8_lossy(&taken.stderr).into_owned();
    assert!(taken.contains("would meet that of the keyspace \"a\""), "{taken}");

    let unforced = cluster.run(&["kv", "keyspace", "delete", "a"]);
    assert!(String::from_utf8_lossy(&unforced.stderr).contains("--force"));
    cluster.must(&["kv", "keyspace", "delete", "a", "--force"]);
    let gone = cluster.run(&["kv", "--keyspace", "a", "get", "key0"]);
    assert!(String::from_utf8_lossy(&gone.stderr).contains("there is no keyspace \"a\""));
    assert_eq!(b.must(&["get", "key0"]), "key0\nof b\n");
    // The name is free again, and what was in it does not come back.
    create(&mut cluster, "a", port_a);
    assert_eq!(a.must(&["get", "key", "--prefix"]), "");
    cluster.stop();
}

/// The values of the first so many events of a keyspace.
fn watched(addresses: Vec<String>, keyspace: &str, count: usize) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let watch = async {
        let client = onefold_client::Client::new(addresses).expect("an address");
        let kv = client.keyspace(keyspace).await.expect("it serves");
        let request = WatchRequest { from_revision: Revision(1), ..WatchRequest::prefix("") };
        let mut watcher = kv.watch(request).await.expect("it is watched");
        let mut values = Vec::new();
        while values.len() < count {
            let batch = watcher.next().await.expect("the watch goes on");
            let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
            values.extend(batch.events.iter().map(|event| text(&event.kv.value)));
        }
        values
    };
    runtime.expect("a runtime starts").block_on(watch)
}

/// Writes one key after the other into a keyspace until it is told to stop.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64, String>>,
}

impl Writer {
    fn start(cluster: &LocalCluster, keyspace: &'static str) -> Self {
        let addresses: Vec<String> = cluster.nodes.iter().map(|node| node.peer.clone()).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let write = async move {
            let client = onefold_client::Client::new(addresses).map_err(|e| e.to_string())?;
            let kv = client.keyspace(keyspace).await.map_err(|error| error.to_string())?;
            let mut written = 0;
            while !stopped.load(Ordering::Relaxed) {
                let put = PutRequest::new(format!("load/{written:08}"), keyspace);
                kv.put(put).await.map_err(|error| format!("{keyspace} {written}: {error}"))?;
                written += 1;
            }
            Ok(written)
        };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            runtime.expect("a runtime starts").block_on(write)
        });
        Self { stop, thread }
    }

    /// How many keys were acknowledged. None may have failed.
    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writer ends").expect("every write succeeds")
    }
}

/// How many keys a keyspace has, asked of one node alone.
fn count(address: &str, keyspace: &str) -> u64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let read = async {
        let client = onefold_client::Client::new(vec![address.to_owned()]).expect("an address");
        let kv = client.keyspace(keyspace).await.expect("it serves");
        let count = RangeRequest { count_only: true, ..RangeRequest::prefix("load/") };
        kv.range(count).await.expect("the node answers").count
    };
    runtime.expect("a runtime starts").block_on(read)
}

#[test]
fn keyspaces_survive_the_loss_of_nodes_and_move_when_nodes_go() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut cluster = LocalCluster::start(folder.path(), 3);
    for name in ["a", "b"] {
        cluster.must(&["kv", "keyspace", "create", name]);
    }
    let writers = [Writer::start(&cluster, "a"), Writer::start(&cluster, "b")];
    cluster.act("kill", 2);
    cluster.act("start", 2);
    cluster.act_on_nodes(&["add"]);
    cluster.wait_for("node 4 to be active", |cluster| {
        let output = cluster.run(&["node", "list", "--output", "json"]);
        let nodes: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
        nodes.iter().any(|node| node["node"] == 4 && node["state"] == "active")
    });
    // Nothing moves to a node only because it came; it answers for what is elsewhere.
    assert_eq!(members(&cluster, "a"), [1, 2, 3]);
    let fourth = cluster.nodes[3].peer.clone();
    assert!(count(&fourth, "a") > 0);
    cluster.act_on_nodes(&["remove", "1"]);
    for name in ["a", "b"] {
        cluster.wait_for("node 4 to take the place of node 1", |cluster| {
            members(cluster, name) == [2, 3, 4]
        });
    }
    let written = writers.map(Writer::finish);
    assert!(written.iter().all(|written| *written > 0), "{written:?}");
    for (name, written) in ["a", "b"].into_iter().zip(written) {
        for node in &cluster.nodes {
            assert_eq!(count(&node.peer, name), written, "{name} on node {}", node.id);
        }
    }

    // All of it is there after a restart, and a keyspace that was deleted meanwhile is not.
    cluster.act("stop", 4);
    cluster.must(&["kv", "keyspace", "delete", "b", "--force"]);
    cluster.act("start", 4);
    cluster.wait_for("node 4 to forget what was deleted", |cluster| {
        let http = cluster.nodes.iter().find(|node| node.id == 4).expect("it is listed");
        let output = onefold()
            .args(["--endpoint", &http.peer, "status", "--output", "json"])
            .output()
            .expect("the program starts");
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let groups = nodes.iter().filter_map(|node| node["status"]["groups"].as_array());
        groups.clone().count() == 3
            && groups.flatten().all(|report| report["group"].as_u64() < Some(17))
    });
    assert_eq!(count(&fourth, "a"), written[0]);
    cluster.stop();
}
