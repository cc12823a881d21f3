//! `onefold dev` keeps its promises to scripts.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use crate::local_cluster::{LocalCluster, onefold};

#[test]
fn a_stopped_cluster_goes_on_with_everything_that_it_held() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cluster = LocalCluster::start(folder.path(), 3);
    let base_port = cluster.base_port();
    cluster.must(&["kv", "put", "colour", "blue"]);
    cluster.must(&["fs", "mkdir", "/shelf"]);
    let file = folder.path().join("book");
    std::fs::write(&file, "once upon a time").expect("writable");
    cluster.must(&["fs", "put", file.to_str().expect("plain"), "/shelf/a/book"]);
    cluster.stop();

    let cluster = LocalCluster::start_at(folder.path(), 3, base_port);
    assert_eq!(cluster.must(&["kv", "get", "colour", "--print-value-only"]), "blue\n");
    assert_eq!(cluster.must(&["fs", "cat", "/shelf/a/book"]), "once upon a time");
    // Killed without any warning, and at once started again.
    cluster.must(&["kv", "put", "colour", "red"]);
    cluster.kill_dev();
    let cluster = LocalCluster::start_at(folder.path(), 3, base_port);
    assert_eq!(cluster.must(&["kv", "get", "colour", "--print-value-only"]), "red\n");
    assert_eq!(cluster.must(&["fs", "cat", "/shelf/a/book"]), "once upon a time");
    cluster.stop();
}

#[test]
fn every_node_answers_files_and_keys_alike() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cluster = LocalCluster::start(folder.path(), 3);
    let at = |node: usize, arguments: &[&str]| {
        let output = onefold()
            .args(["--endpoint", &cluster.nodes[node].peer])
            .args(arguments)
            .output()
            .expect("the program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    for (position, node) in cluster.nodes.iter().enumerate() {
        assert_eq!(node.id, position as u64 + 1);
        assert!(Path::new(&format!("/proc/{}", node.pid)).exists(), "node {} runs", node.id);
        for page in ["/livez", "/readyz", "/metrics"] {
            assert!(get(&node.http, page).starts_with("HTTP/1.1 200"), "{page}");
        }
    }
    at(0, &["kv", "put", "k", "v"]);
    at(1, &["fs", "mkdir", "-p", "/shelf/box"]);
    let file = folder.path().join("note");
    std::fs::write(&file, "remember").expect("writable");
    at(2, &["fs", "put", file.to_str().expect("plain"), "/shelf/box/"]);
    for node in 0..3 {
        assert_eq!(at(node, &["kv", "get", "k"]), "k\nv\n");
        assert_eq!(at(node, &["fs", "cat", "/shelf/box/note"]), "remember");
        let listing = at(node, &["fs", "ls", "/shelf", "--output", "json"]);
        let listing: serde_json::Value = serde_json::from_str(&listing).expect("JSON");
        assert_eq!(listing[0]["path"], "/shelf/box/");
        let status = at(node, &["status"]);
        assert_eq!(status.matches("ready").count(), 3, "{status}");
    }
    at(1, &["fs", "mv", "/shelf/box", "/shelf/chest"]);
    assert_eq!(at(2, &["fs", "cat", "/shelf/chest/note"]), "remember");
    at(0, &["fs", "rm", "-r", "/shelf"]);
    assert_eq!(at(1, &["fs", "ls", "--output", "json"]).trim(), "[]");
    cluster.stop();
}

fn get(address: &str, page: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the node listens");
    write!(stream, "GET {page} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .expect("the node reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the node answers with text");
    answer
}
