//! What plain HTTP clients get on the port of the gRPC clients.

use std::net::SocketAddr;
use std::time::Duration;

use onefold_etcd::{Alarm, AlarmKind};
use onefold_kv::KvError;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fixture::{LONG, MEMBER, Node};

/// An answer: its status, its headers, its body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }
}

pub(crate) async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    head: &str,
    body: &str,
) -> Answer {
    let mut stream = TcpStream::connect(address).await.expect("the node listens");
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}Content-Length: \
         {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.expect("the node reads");
    let mut answer = String::new();
    let read = timeout(LONG, stream.read_to_string(&mut answer)).await;
    read.expect("the node answers").expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    let head = head.to_ascii_lowercase();
    let is_chunked = head.contains("transfer-encoding: chunked");
    let body = if is_chunked { joined(body) } else { body.to_owned() };
    Answer { status, head, body }
}

/// The chunks of a body, put together.
fn joined(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((length, rest)) = chunks.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("a length");
        body += &rest[..length];
        chunks = rest[length..].trim_start_matches("\r\n");
    }
    body
}

pub(crate) async fn get(node: &Node, path: &str) -> Answer {
    send(node.address, "GET", path, "", "").await
}

async fn post(node: &Node, path: &str, body: Value) -> Answer {
    send(node.address, "POST", path, "", &body.to_string()).await
}

#[tokio::test]
async fn keys_are_written_read_and_deleted_in_json() {
    let node = Node::start().await;
    let put = post(&node, "/v3/kv/put", json!({ "key": "Zm9v", "value": "YmFy" })).await;
    assert_eq!(put.status, 200);
    assert!(put.head.contains("content-type: application/json"), "{}", put.head);
    let header = &put.json()["header"];
    assert_eq!((&header["cluster_id"], &header["member_id"]), (&json!("193"), &json!("1")));
    assert_eq!(header["revision"], "2");
    let range = post(&node, "/v3/kv/range", json!({ "key": "Zg==", "rangeEnd": "Zw==" })).await;
    let range = range.json();
    let expected = json!({
        "key": "Zm9v", "value": "YmFy", "create_revision": "2", "mod_revision": "2", "version": "1",
    });
    assert_eq!((&range["kvs"], &range["count"]), (&json!([expected]), &json!("1")));
    let txn = json!({
        "compare": [{ "target": "VALUE", "key": "Zm9v", "value": "YmFy" }],
        "success": [{ "requestPut": { "key": "Zm9v", "value": "bmV3" } }],
    });
    let txn = post(&node, "/v3/kv/txn", txn).await.json();
    assert_eq!(txn["succeeded"], true);
    assert!(txn["responses"][0]["response_put"].is_object(), "{txn}");
    let deleted =
        post(&node, "/v3/kv/deleterange", json!({ "key": "Zm9v", "prev_kv": true })).await;
    assert_eq!(deleted.json()["prev_kvs"][0]["value"], "bmV3");
    let compacted = post(&node, "/v3/kv/compaction", json!({ "revision": "3" })).await;
    assert_eq!(compacted.status, 200);
    let old = post(&node, "/v3/kv/range", json!({ "key": "Zm9v", "revision": 2 })).await;
    let text = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!(old.status, 400);
    assert_eq!(old.json(), json!({ "error": text, "code": 11, "message": text }));
}

#[tokio::test]
async fn leases_work_under_both_of_their_paths() {
    let node = Node::start().await;
    let granted = post(&node, "/v3/lease/grant", json!({ "TTL": 300, "ID": "77" })).await.json();
    assert_eq!((&granted["ID"], &granted["TTL"]), (&json!("77"), &json!("300")));
    for path in ["/v3/lease/leases", "/v3/kv/lease/leases"] {
        assert_eq!(post(&node, path, json!({})).await.json()["leases"], json!([{ "ID": "77" }]));
    }
    for path in ["/v3/lease/timetolive", "/v3/kv/lease/timetolive"] {
        let left = post(&node, path, json!({ "ID": 77 })).await.json();
        assert_eq!(left["grantedTTL"], "300");
    }
    let kept = post(&node, "/v3/lease/keepalive", json!({ "ID": "77" })).await;
    assert_eq!(kept.json()["result"]["TTL"], "300", "the stream ends with its one request");
    assert_eq!(post(&node, "/v3/kv/lease/revoke", json!({ "ID": "77" })).await.status, 200);
    let again = post(&node, "/v3/lease/revoke", json!({ "ID": "77" })).await;
    assert_eq!(again.status, 404);
    assert_eq!(again.json()["message"], "etcdserver: requested lease not found");
}

#[tokio::test]
async fn a_watch_streams_a_line_for_each_answer() {
    let node = Node::start().await;
    let mut stream = TcpStream::connect(node.address).await.expect("the node listens");
    let create = json!({ "create_request": { "key": "Zm9v" } }).to_string();
    let head = "POST /v3/watch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    stream.write_all(format!("{head}{}", chunk(&create)).as_bytes()).await.expect("the node reads");
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    let mut next = async || loop {
        let line = timeout(LONG, lines.next_line()).await.expect("the node answers");
        let line = line.expect("text").expect("the stream goes on");
        if line.starts_with('{') {
            break serde_json::from_str::<Value>(&line).expect("JSON");
        }
    };
    assert_eq!(next().await["result"]["created"], true);
    node.put("foo", "bar").await;
    let event = next().await;
    assert_eq!(event["result"]["events"][0]["kv"]["value"], "YmFy");
    // The request goes on while the answer does.
    let cancel = json!({ "cancel_request": { "watch_id": 0 } }).to_string();
    writer.write_all(chunk(&cancel).as_bytes()).await.expect("the node reads");
    assert_eq!(next().await["result"]["canceled"], true);
    // The end of the requests is not the end of the answers.
    let last = json!({ "create_request": { "key": "Zm9v", "start_revision": "1" } }).to_string();
    writer.write_all(format!("{}0\r\n\r\n", chunk(&last)).as_bytes()).await.expect("it reads");
    assert_eq!(next().await["result"]["created"], true);
    assert_eq!(next().await["result"]["events"][0]["kv"]["value"], "YmFy");
    node.stopping();
    let error = &next().await["error"];
    assert_eq!((&error["grpc_code"], &error["http_code"]), (&json!(14), &json!(503)));
}

#[tokio::test]
async fn the_other_services_are_reached_too() {
    let node = Node::start().await;
    let members = post(&node, "/v3/cluster/member/list", json!({})).await.json();
    let first = json!({
        "ID": "1", "name": "one", "peerURLs": ["http://127.0.0.1:1"],
        "clientURLs": ["http://127.0.0.1:2"],
    });
    assert_eq!(members["members"][0], first);
    let status = post(&node, "/v3/maintenance/status", json!({})).await.json();
    assert_eq!((&status["leader"], &status["dbSize"]), (&json!("1"), &json!("4096")));
    let auth = post(&node, "/v3/auth/status", json!({})).await;
    assert_eq!(auth.status, 200);
    let body = json!({ "name": "a", "password": "b" });
    let login = post(&node, "/v3/auth/authenticate", body).await;
    assert_eq!(login.status, 400);
    assert_eq!(login.json()["error"], "etcdserver: authentication is not enabled");
}

#[tokio::test]
async fn bad_requests_get_one_clear_error_each() {
    let node = Node::start().await;
    for (path, body, status, code) in [
        ("/v3/kv/range", "{", 400, 3),
        ("/v3/kv/range", r#"{"key":"%%%"}"#, 400, 3),
        ("/v3/kv/range", "", 400, 3),
        ("/v3/watch", "nonsense", 400, 3),
        ("/v3/no/such/path", "{}", 404, 5),
        ("/v2/keys", "{}", 404, 5),
    ] {
        let answer = send(node.address, "POST", path, "", body).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (status, &json!(code)),
            "{path} {body}"
        );
        assert!(!answer.json()["message"].as_str().unwrap_or_default().is_empty());
    }
    let wrong_method = get(&node, "/v3/kv/range").await;
    assert_eq!(wrong_method.status, 405);
    assert!(wrong_method.head.contains("allow: post"), "{}", wrong_method.head);
    let long = format!(r#"{{"key":"{}"}}"#, "A".repeat(7 << 20));
    let answer = send(node.address, "POST", "/v3/kv/range", "", &long).await;
    assert_eq!(answer.json()["message"], "etcdserver: request is too large");
    node.fail(KvError::Unavailable { reason: "a test".to_owned() });
    let answer = post(&node, "/v3/kv/range", json!({ "key": "Zm9v" })).await;
    assert_eq!((answer.status, &answer.json()["code"]), (503, &json!(14)));
}

#[tokio::test]
async fn metadata_of_grpc_travels_in_headers() {
    let node = Node::start().await;
    node.view.set_leader(false);
    let body = json!({ "key": "Zm9v" }).to_string();
    let head = "Grpc-Metadata-hasleader: true\r\n";
    let refused = send(node.address, "POST", "/v3/kv/range", head, &body).await;
    assert_eq!(refused.json()["message"], "etcdserver: no leader");
    assert_eq!(send(node.address, "POST", "/v3/kv/range", "", &body).await.status, 200);
}

#[tokio::test]
async fn health_says_why_not() {
    let node = Node::start().await;
    let good = get(&node, "/health").await;
    assert_eq!((good.status, good.body.as_str()), (200, r#"{"health":"true","reason":""}"#));
    node.view.set_alarms(vec![Alarm { member: MEMBER, kind: AlarmKind::NoSpace }]);
    let full = get(&node, "/health").await;
    assert_eq!(full.status, 503);
    assert_eq!(full.json(), json!({ "health": "false", "reason": "ALARM NOSPACE" }));
    assert_eq!(get(&node, "/health?exclude=CORRUPT").await.status, 503);
    assert_eq!(get(&node, "/health?exclude=NOSPACE").await.status, 200);
    node.view.set_alarms(Vec::new());
    node.view.set_leader(false);
    assert_eq!(get(&node, "/health").await.json()["reason"], "RAFT NO LEADER");
    assert_eq!(get(&node, "/health?serializable=true").await.status, 200);
    node.view.set_leader(true);
    node.fail(KvError::TimedOut { reason: "a test".to_owned() });
    let reason = "RANGE ERROR:etcdserver: request timed out";
    assert_eq!(get(&node, "/health").await.json()["reason"], reason);
    let wrong = send(node.address, "POST", "/health", "", "").await;
    assert_eq!(wrong.status, 405);
    assert!(wrong.head.contains("allow: get"), "{}", wrong.head);
}

#[tokio::test]
async fn probes_run_their_checks_alone_or_together() {
    let node = Node::start().await;
    for path in [
        "/livez",
        "/livez/serializable_read",
        "/readyz",
        "/readyz/data_corruption",
        "/readyz/serializable_read",
        "/readyz/linearizable_read",
        "/readyz/non_learner",
    ] {
        let answer = get(&node, path).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"), "{path}");
    }
    let told = get(&node, "/readyz?verbose&exclude=non_learner").await.body;
    let expected = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\nok\n";
    assert_eq!(told, expected);
    node.view.set_alarms(vec![Alarm { member: MEMBER, kind: AlarmKind::Corrupt }]);
    let ready = get(&node, "/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("[-]data_corruption failed: alarm activated: CORRUPT\n"));
    assert_eq!(get(&node, "/readyz?exclude=data_corruption").await.status, 200);
    assert_eq!(get(&node, "/livez").await.status, 200);
    node.fail(KvError::TimedOut { reason: "a test".to_owned() });
    let live = get(&node, "/livez").await;
    assert_eq!(live.status, 503);
    assert_eq!(live.body, "[-]serializable_read failed: etcdserver: request timed out\n");
    assert_eq!(get(&node, "/livez/linearizable_read").await.status, 404);
}

#[tokio::test]
async fn the_version_is_told() {
    let node = Node::start().await;
    let version = get(&node, "/version").await;
    assert!(version.head.contains("content-type: application/json"), "{}", version.head);
    let status = post(&node, "/v3/maintenance/status", json!({})).await.json();
    assert_eq!(version.json()["etcdserver"], status["version"]);
    assert_eq!(version.json()["storage"], status["storageVersion"]);
    assert!(version.json()["etcdcluster"].as_str().is_some_and(|text| text.ends_with(".0")));
}

/// The value of a sample of the metrics page.
fn sample(page: &str, name: &str) -> f64 {
    let line =
        page.lines().find(|line| line.strip_prefix(name).is_some_and(|l| l.starts_with(' ')));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{page}"));
    line.rsplit(' ').next().expect("a value").parse().expect("a number")
}

#[tokio::test]
async fn metrics_stand_under_etcds_names() {
    let node = Node::start().await;
    node.put("foo", "bar").await;
    let failed = post(&node, "/v3/lease/revoke", json!({ "ID": 5 })).await;
    assert_eq!(failed.status, 404);
    get(&node, "/health").await;
    get(&node, "/readyz").await;
    let page = get(&node, "/metrics").await;
    assert!(page.head.contains("content-type: text/plain; version=0.0.4"), "{}", page.head);
    let page = page.body;
    for (name, value) in [
        ("etcd_server_has_leader", 1.0),
        ("etcd_server_is_leader", 1.0),
        ("etcd_server_proposals_committed_total", 12.0),
        ("etcd_server_proposals_applied_total", 11.0),
        ("etcd_server_proposals_pending", 5.0),
        ("etcd_server_proposals_failed_total", 6.0),
        ("etcd_server_leader_changes_seen_total", 7.0),
        ("etcd_server_quota_backend_bytes", 1_073_741_824.0),
        ("etcd_mvcc_db_total_size_in_bytes", 4096.0),
        ("etcd_mvcc_db_total_size_in_use_in_bytes", 2048.0),
        ("etcd_disk_wal_fsync_duration_seconds_count", 1.0),
        ("etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.002\"}", 0.0),
        ("etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.004\"}", 1.0),
        ("etcd_disk_backend_commit_duration_seconds_count", 1.0),
        ("etcd_server_health_success", 1.0),
        (
            "etcd_server_healthchecks_total{name=\"linearizable_read\",status=\"success\",\
             type=\"readyz\"}",
            1.0,
        ),
        (
            "grpc_server_started_total{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",\
             grpc_type=\"unary\"}",
            1.0,
        ),
        (
            "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",\
             grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}",
            1.0,
        ),
        (
            "grpc_server_handled_total{grpc_code=\"NotFound\",grpc_method=\"LeaseRevoke\",\
             grpc_service=\"etcdserverpb.Lease\",grpc_type=\"unary\"}",
            1.0,
        ),
        ("onefold_node_uptime_seconds", 1.0),
    ] {
        assert_eq!(sample(&page, name), value, "{name}");
    }
    assert!(sample(&page, "etcd_network_client_grpc_received_bytes_total") > 100.0);
    assert!(sample(&page, "etcd_network_client_grpc_sent_bytes_total") > 100.0);
    assert!(sample(&page, "process_resident_memory_bytes") > 1e6);
}

#[tokio::test]
async fn the_end_of_a_stream_is_counted_with_its_code() {
    let node = Node::start().await;
    let handled = |code: &str| {
        format!(
            "grpc_server_handled_total{{grpc_code=\"{code}\",grpc_method=\"LeaseKeepAlive\",\
             grpc_service=\"etcdserverpb.Lease\",grpc_type=\"bidi_stream\"}}"
        )
    };
    post(&node, "/v3/lease/keepalive", json!({ "ID": "77" })).await;
    let page = get(&node, "/metrics").await.body;
    assert_eq!(sample(&page, &handled("OK")), 1.0);
    // One whose client goes away.
    let mut stream = TcpStream::connect(node.address).await.expect("the node listens");
    let head = "POST /v3/watch HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}";
    stream.write_all(head.as_bytes()).await.expect("the node reads");
    let open = "etcd_debugging_mvcc_watch_stream_total";
    while sample(&get(&node, "/metrics").await.body, open) != 1.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(stream);
    let wait = async {
        while sample(&get(&node, "/metrics").await.body, open) != 0.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, wait).await.expect("the stream ends with its client");
}
