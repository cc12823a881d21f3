//! Nodes come and go while the cluster serves.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use onefold_kv::{PutRequest, RangeRequest};
use serde_json::Value;

use crate::local_cluster::{LocalCluster, onefold};

/// The groups that every cluster has.
const GROUPS: usize = 3;

/// What `onefold node list` says of each node.
fn nodes(cluster: &LocalCluster) -> BTreeMap<u64, Value> {
    let output = cluster.run(&["node", "list", "--all", "--output", "json"]);
    let listed: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let id = |node: &Value| node["node"].as_u64();
    listed.into_iter().filter_map(|node| Some((id(&node)?, node))).collect()
}

fn states(cluster: &LocalCluster) -> BTreeMap<u64, String> {
    let state = |node: Value| node["state"].as_str().unwrap_or_default().to_owned();
    nodes(cluster).into_iter().map(|(id, node)| (id, state(node))).collect()
}

fn groups_led(node: &Value) -> usize {
    let groups = node["groups"].as_array().map_or(&[][..], Vec::as_slice);
    groups.iter().filter(|group| group["leads"] == true).count()
}

fn votes(node: &Value) -> usize {
    let groups = node["groups"].as_array().map_or(&[][..], Vec::as_slice);
    groups.iter().filter(|group| group["seat"] == "voter").count()
}

/// Waits until the nodes are in these states, and those that are active vote in every group.
fn wait_for_states(cluster: &mut LocalCluster, expected: &[(u64, &str)]) {
    cluster.wait_for(&format!("nodes to be {expected:?}"), |cluster| {
        let nodes = nodes(cluster);
        nodes.len() == expected.len()
            && expected.iter().all(|(id, state)| {
                let node = &nodes[id];
                node["state"] == *state && (*state != "active" || votes(node) == GROUPS)
            })
    });
}

/// Writes one key after the other until it is told to stop.
struct Writer {
    stop: std::sync::Arc<AtomicBool>,
    thread: JoinHandle<Result<u64, String>>,
}

impl Writer {
    fn start(cluster: &LocalCluster) -> Self {
        let addresses: Vec<String> = cluster.nodes.iter().map(|node| node.peer.clone()).collect();
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let write = async move {
            let client = onefold_client::Client::new(addresses).map_err(|e| e.to_string())?;
            let mut written = 0;
            while !stopped.load(Ordering::Relaxed) {
                let put = PutRequest::new(format!("load/{written}"), written.to_string());
                client.kv().put(put).await.map_err(|error| format!("{written}: {error}"))?;
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
        let outcome = self.thread.join().expect("the writer ends");
        outcome.expect("every write succeeds")
    }
}

/// How many of the keys are missing or wrong, asked of one node alone.
fn lost(address: &str, written: u64) -> Vec<u64> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let read = async {
        let client = onefold_client::Client::new(vec![address.to_owned()]).expect("an address");
        client.kv().range(RangeRequest::prefix("load/")).await.expect("the node answers")
    };
    let found = runtime.expect("a runtime starts").block_on(read);
    let found: BTreeMap<_, _> = found.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect();
    let is_lost = |number: &u64| {
        let value = found.get(format!("load/{number}").as_bytes());
        value.is_none_or(|value| *value != number.to_string().as_bytes())
    };
    (0..written).filter(is_lost).collect()
}

#[test]
fn three_nodes_become_five_and_three_again_under_load() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut cluster = LocalCluster::start(folder.path(), 3);
    let base_port = cluster.base_port();
    let file = folder.path().join("book");
    let book = "we were somewhere around the edge of the desert\n".repeat(50_000);
    std::fs::write(&file, &book).expect("writable");
    cluster.must(&["fs", "mkdir", "/shelf"]);
    cluster.must(&["fs", "put", file.to_str().expect("plain"), "/shelf/old"]);

    let writer = Writer::start(&cluster);
    cluster.act_on_nodes(&["add"]);
    cluster.act_on_nodes(&["add"]);
    let five = [1, 2, 3, 4, 5].map(|id| (id, "active"));
    wait_for_states(&mut cluster, &five);
    cluster.must(&["fs", "put", file.to_str().expect("plain"), "/shelf/new"]);

    // One dies and is removed; another one is removed alive.
    cluster.act("kill", 2);
    cluster.act_on_nodes(&["remove", "2"]);
    cluster.act_on_nodes(&["remove", "1"]);
    wait_for_states(
        &mut cluster,
        &[(1, "removed"), (2, "removed"), (3, "active"), (4, "active"), (5, "active")],
    );
    let written = writer.finish();
    assert!(written > 0);
    for node in &cluster.nodes {
        assert_eq!(lost(&node.peer, written), [0; 0], "node {}", node.id);
    }
    for path in ["/shelf/old", "/shelf/new"] {
        assert_eq!(cluster.must(&["fs", "cat", path]), book);
    }
    let members = cluster.must(&["node", "list"]);
    assert!(!members.contains("removed"), "{members}");

    // The removed node does not start again, the others do.
    let removed = cluster.data_dir().join("node1");
    cluster.stop();
    // Standard input is closed at once, so that a node that did start would end.
    let refused = onefold()
        .args(["start", "--stop-with-stdin", "--data-dir"])
        .arg(removed)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{error}");
    assert!(error.contains("node 1") && error.contains("was removed from cluster"), "{error}");
    let cluster = LocalCluster::start_at(folder.path(), 3, base_port);
    let ids: Vec<u64> = cluster.nodes.iter().map(|node| node.id).collect();
    assert_eq!(ids, [3, 4, 5]);
    assert_eq!(lost(&cluster.nodes[0].peer, written), [0; 0]);
    cluster.stop();
}

#[test]
fn a_member_that_lost_its_folder_comes_back_as_another_node() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut cluster = LocalCluster::start(folder.path(), 3);
    cluster.must(&["kv", "put", "colour", "blue"]);
    cluster.act("kill", 2);
    std::fs::remove_dir_all(cluster.data_dir().join("node2")).expect("it is there");
    cluster.act("start", 2);
    let expected = [(1, "active"), (2, "removed"), (3, "active"), (4, "active")];
    wait_for_states(&mut cluster, &expected);
    let output = onefold()
        .args(["--endpoint", &cluster.nodes[1].peer, "kv", "get", "colour", "--print-value-only"])
        .output()
        .expect("the program starts");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "blue\n");
    // The cluster still survives the loss of a node.
    cluster.act("kill", 3);
    cluster.must(&["kv", "put", "colour", "red"]);
    cluster.stop();
}

#[test]
fn a_node_that_moved_is_found_at_its_new_address() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut cluster = LocalCluster::start(folder.path(), 3);
    cluster.act("stop", 3);
    cluster.must(&["kv", "put", "colour", "blue"]);
    let base = cluster.base_port() + 30;
    let address = |port: u16| format!("127.0.0.1:{}", base + port);
    let mut moved = onefold()
        .args(["start", "--stop-with-stdin", "--listen", &address(0)])
        .args(["--etcd-listen", &address(1), "--s3-listen", &address(2)])
        .args(["--http-listen", &address(3), "--data-dir"])
        .arg(cluster.data_dir().join("node3"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    cluster.wait_for("the node at its new address", |cluster| {
        let node = &nodes(cluster)[&3];
        node["address"] == address(0).as_str() && node["up"] == true
    });
    cluster.wait_for("the node to answer", |_| {
        let output = onefold()
            .args(["--endpoint", &address(0), "kv", "get", "colour", "--print-value-only"])
            .output()
            .expect("the program starts");
        output.stdout == b"blue\n"
    });
    drop(moved.stdin.take());
    assert!(moved.wait().expect("it can be waited for").success());
    cluster.stop();
}

#[test]
fn a_drained_node_leads_nothing_and_holds_no_files() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut cluster = LocalCluster::start(folder.path(), 4);
    let file = folder.path().join("book");
    std::fs::write(&file, "call me anything\n".repeat(100_000)).expect("writable");
    cluster.must(&["fs", "mkdir", "/shelf"]);
    for copy in 0..4 {
        let path = format!("/shelf/{copy}");
        cluster.must(&["fs", "put", file.to_str().expect("plain"), &path]);
    }
    cluster.must(&["node", "drain", "2"]);
    let drained = nodes(&cluster).remove(&2).expect("it is listed");
    assert_eq!((drained["state"].as_str(), groups_led(&drained)), (Some("draining"), 0));
    assert_eq!(drained["chunks_left"], 0);
    assert_eq!(votes(&drained), GROUPS, "it votes on");
    cluster.act("stop", 2);
    for copy in 0..4 {
        let path = format!("/shelf/{copy}");
        assert_eq!(cluster.must(&["fs", "cat", &path]), "call me anything\n".repeat(100_000));
    }
    cluster.act("start", 2);
    cluster.must(&["node", "drain", "2", "--undo"]);
    assert_eq!(states(&cluster)[&2], "active");
    cluster.stop();
}

#[test]
fn leaders_are_spread_over_the_nodes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut cluster = LocalCluster::start(folder.path(), 3);
    let spread = |cluster: &mut LocalCluster| {
        let led: Vec<usize> = nodes(cluster).values().map(groups_led).collect();
        led == [1, 1, 1]
    };
    cluster.wait_for("each node to lead one group", spread);
    cluster.act("kill", 1);
    cluster.act("start", 1);
    cluster.wait_for("each node to lead one group again", spread);
    cluster.stop();
}

#[test]
fn what_cannot_be_done_to_nodes_is_said() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut cluster = LocalCluster::start(folder.path(), 2);
    let refuse = |cluster: &LocalCluster, arguments: &[&str], reason: &str| {
        let output = cluster.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(error.contains(reason), "{arguments:?}: {error}");
    };
    refuse(&cluster, &["node", "remove", "9"], "no node 9");
    refuse(&cluster, &["node", "drain", "9"], "no node 9");
    let taken = cluster.nodes[1].peer.clone();
    refuse(&cluster, &["node", "add", &taken], "belongs to node 2");
    refuse(&cluster, &["node", "add", "127.0.0.1"], "is no address");
    let invitation = cluster.must(&["node", "add", "127.0.0.1:1", "--replace", "2"]);
    assert!(invitation.contains("--listen 127.0.0.1:1 --join"), "{invitation}");
    cluster.must(&["node", "remove", "3"]);

    // Two become one, and the last one stays.
    cluster.must(&["node", "remove", "2"]);
    wait_for_states(&mut cluster, &[(1, "active"), (2, "removed"), (3, "removed")]);
    refuse(&cluster, &["node", "remove", "1"], "the only one that is to stay");
    cluster.must(&["kv", "put", "alone", "yes"]);
    cluster.wait_for("the removed node to end", |cluster| {
        cluster.output().contains("was removed from cluster")
    });
    cluster.stop();
}
