//! What etcd's operators use beside keys: HTTP paths, hashes, leaders, members.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::etcd_programs::Etcdctl;
use crate::local_cluster::{LocalCluster, PATIENCE, onefold};

/// Sends one request and gives the status and the body.
fn send(address: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("the node listens");
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: \
         {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("the node reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    (status, body.to_owned())
}

fn get(address: &str, path: &str) -> (u16, String) {
    send(address, "GET", path, "")
}

fn post(address: &str, path: &str, body: &Value) -> Value {
    let (_, body) = send(address, "POST", path, &body.to_string());
    serde_json::from_str(&body).unwrap_or_else(|_| panic!("no JSON from {path}: {body}"))
}

#[test]
fn every_node_answers_plain_http_and_tells_the_same_hash() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cluster = LocalCluster::start(folder.path(), 3);
    let first = &cluster.nodes[0].etcd;
    for number in 0..50 {
        let key = ["Zm9v", "YmFy", "YmF6"][number % 3];
        let put = post(first, "/v3/kv/put", &json!({ "key": key, "value": "MQ==" }));
        assert!(put["header"]["revision"].is_string(), "{put}");
    }
    let compacted = post(first, "/v3/kv/compaction", &json!({ "revision": "20" }));
    assert!(compacted["header"].is_object(), "{compacted}");
    let mut hashes = Vec::new();
    for node in &cluster.nodes {
        let address = &node.etcd;
        assert_eq!(get(address, "/health"), (200, r#"{"health":"true","reason":""}"#.to_owned()));
        for path in ["/livez", "/readyz", "/readyz/linearizable_read"] {
            assert_eq!(get(address, path), (200, "ok\n".to_owned()), "{path} of {address}");
        }
        let (_, version) = get(address, "/version");
        assert!(version.contains("etcdserver"), "{version}");
        let range = post(address, "/v3/kv/range", &json!({ "key": "Zm9v" }));
        assert_eq!(range["kvs"][0]["version"], "17", "{range}");
        let hash = post(address, "/v3/maintenance/hashkv", &json!({ "revision": "51" }));
        assert_eq!(hash["compact_revision"], "20", "{hash}");
        hashes.push(hash["hash"].clone());
        metrics(address, &get(address, "/metrics").1);
    }
    assert!(hashes[0].is_u64(), "{hashes:?}");
    assert_eq!(hashes[1..], [hashes[0].clone(), hashes[0].clone()], "replicas are the same");
    cluster.stop();
}

/// The page must show what has just happened.
fn metrics(address: &str, page: &str) {
    let value = |name: &str| {
        let line = page.lines().find(|l| l.strip_prefix(name).is_some_and(|l| l.starts_with(' ')));
        let line = line.unwrap_or_else(|| panic!("no {name} at {address}"));
        line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")
    };
    assert!(value("etcd_server_has_leader") == 1.0);
    assert!(value("etcd_server_proposals_applied_total") >= 51.0);
    assert!(value("etcd_debugging_mvcc_current_revision") >= 51.0);
    assert!(value("etcd_debugging_mvcc_compact_revision") == 20.0);
    assert!(value("etcd_disk_wal_fsync_duration_seconds_count") > 0.0);
    assert!(value("etcd_disk_wal_fsync_duration_seconds_sum") > 0.0);
    assert!(value("etcd_disk_backend_commit_duration_seconds_count") > 0.0);
    assert!(page.contains("onefold_raft_term{"), "the node's own are there, too");
}

/// A further node, started by hand as an operator does after `member add`.
struct Newcomer(Child);

impl Newcomer {
    fn start(folder: &Path, base_port: u16, join: &str) -> Self {
        let address = |port: u16| format!("127.0.0.1:{}", base_port + port);
        let child = onefold()
            .arg("start")
            .arg("--data-dir")
            .arg(folder.join("newcomer"))
            .args(["--listen", &address(0), "--join", join, "--etcd-listen", &address(1)])
            .args(["--s3-listen", &address(2), "--http-listen", &address(3)])
            .args(["--no-initial-s3-key", "--stop-with-stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        Self(child)
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn etcdctl_moves_the_leader_and_adds_promotes_and_removes_members() {
    let Some(etcdctl) = Etcdctl::find("") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut cluster = LocalCluster::start(folder.path(), 3);
    let endpoints: Vec<&str> = cluster.nodes.iter().map(|node| node.etcd.as_str()).collect();
    let etcdctl = etcdctl.at(&endpoints.join(","));

    let leader = cluster.leader(2);
    let target = cluster.nodes.iter().find(|node| node.id != leader).expect("three nodes").id;
    let moved = etcdctl.must(&["move-leader", &format!("{target:x}")]);
    assert!(moved.contains("Leadership transferred"), "{moved}");
    let unknown = etcdctl.refused(&["move-leader", "77"]);
    assert!(unknown.contains("etcdserver: bad leader transferee"), "{unknown}");

    let port = cluster.base_port() + 30;
    let url = format!("http://127.0.0.1:{port}");
    let added = etcdctl.must(&["member", "add", "four", "--peer-urls", &url, "--learner"]);
    assert!(added.contains("added to cluster"), "{added}");
    let listed = etcdctl.must(&["member", "list"]);
    assert!(listed.contains(&format!("4, unstarted, , {url}, , true")), "{listed}");
    let again = etcdctl.refused(&["member", "add", "four", "--peer-urls", &url]);
    assert!(again.contains("etcdserver: Peer URLs already exists"), "{again}");
    let early = etcdctl.refused(&["member", "promote", "4"]);
    assert!(early.contains("in sync with leader"), "{early}");

    let newcomer = Newcomer::start(folder.path(), port, &cluster.endpoints());
    until("the newcomer to be a learner", || {
        let listed = etcdctl.must(&["member", "list"]);
        listed.contains(&format!("4, started, node4, {url}, http://127.0.0.1:{}, true", port + 1))
    });
    // It stays a learner until it is promoted, which works once it has caught up.
    until("the promotion", || etcdctl.run(&["member", "promote", "4"]).status.success());
    let listed = etcdctl.must(&["member", "list"]);
    assert!(listed.lines().any(|l| l.starts_with("4,") && l.ends_with("false")), "{listed}");
    let twice = etcdctl.refused(&["member", "promote", "4"]);
    assert!(twice.contains("can only promote a learner member"), "{twice}");

    // Nobody answers there.
    etcdctl.refused(&["member", "update", "4", "--peer-urls", "http://127.0.0.1:1"]);
    etcdctl.must(&["member", "update", "4", "--peer-urls", &url]);

    let removed = etcdctl.must(&["member", "remove", "4"]);
    assert!(removed.contains("removed from cluster"), "{removed}");
    let listed = etcdctl.must(&["member", "list"]);
    assert!(!listed.contains("node4"), "{listed}");
    let unknown = etcdctl.refused(&["member", "remove", "77"]);
    assert!(unknown.contains("etcdserver: member not found"), "{unknown}");
    let mut newcomer = newcomer;
    until("the removed node to end", || newcomer.0.try_wait().expect("it is ours").is_some());
    cluster.stop();
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < give_up, "waited in vain for {what}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
