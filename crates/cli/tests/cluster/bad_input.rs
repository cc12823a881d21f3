//! What a person can do wrong gets one clear line and a fitting exit code.

use std::process::Output;

use crate::local_cluster::{LocalCluster, free_base_port, onefold};

fn error_line(output: &Output, code: i32) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(!error.contains("panicked"), "{error}");
    let line = error.lines().find(|line| line.starts_with("error: "));
    line.unwrap_or_else(|| panic!("no error line in {error:?}")).to_owned()
}

fn run(arguments: &[&str]) -> Output {
    onefold().args(arguments).output().expect("the program starts")
}

#[test]
fn wrong_usage_ends_with_code_2() {
    for arguments in [
        &["juggle"][..],
        &["dev", "--legs", "4"],
        &["dev", "--nodes", "many"],
        &["start"],
        &["start", "--data-dir", "d", "--etcd-max-txn-ops", "9000"],
        &["dev", "--etcd-max-request-bytes", "0"],
        &["--output", "xml", "status"],
        &["kv", "lease", "revoke", "not-hex"],
    ] {
        error_line(&run(arguments), 2);
    }
}

#[test]
fn a_cluster_that_is_not_there_is_said_so() {
    let line = error_line(&run(&["--endpoint", "127.0.0.1:1", "kv", "get", "k"]), 1);
    assert!(line.contains("127.0.0.1:1"), "{line}");
}

#[test]
fn listening_beyond_loopback_needs_consent() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("node");
    let data_dir = data_dir.to_str().expect("plain");
    let line = error_line(&run(&["start", "--data-dir", data_dir, "--listen", "0.0.0.0:7000"]), 1);
    assert!(line.contains("--allow-plaintext"), "{line}");
}

#[test]
fn a_folder_or_port_that_belongs_to_something_else_is_left_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let base = free_base_port().to_string();
    let data_dir = folder.path().join("data");
    std::fs::create_dir_all(data_dir.join("node1")).expect("writable");
    std::fs::write(data_dir.join("node1/thesis"), "mine").expect("writable");
    let data = data_dir.to_str().expect("plain");
    let dev = ["dev", "--nodes", "1", "--base-port", &base, "--data-dir", data];
    let line = error_line(&run(&dev), 1);
    assert!(line.contains("not a data folder"), "{line}");
    let thesis = std::fs::read(data_dir.join("node1/thesis")).expect("it is still there");
    assert_eq!(thesis, b"mine");

    let other = folder.path().join("other");
    let other = other.to_str().expect("plain");
    let _taken =
        std::net::TcpListener::bind(("127.0.0.1", base.parse::<u16>().expect("a port") + 2))
            .expect("it was free");
    let line =
        error_line(&run(&["dev", "--nodes", "1", "--base-port", &base, "--data-dir", other]), 1);
    assert!(line.contains("cannot be used") && line.contains("S3"), "{line}");
}

#[test]
fn damaged_data_is_refused_or_repaired_and_never_served() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cluster = LocalCluster::start(folder.path(), 1);
    let base_port = cluster.base_port();
    cluster.must(&["kv", "put", "k", "v"]);
    let data_dir = cluster.data_dir();
    cluster.stop();
    let log = std::fs::read_dir(data_dir.join("node1/log"))
        .expect("a node has a log")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.metadata().is_ok_and(|kind| kind.len() > 4096))
        .min()
        .expect("the log has a segment");
    let whole = std::fs::read(&log).expect("readable");
    // A flipped bit early in the log, with valid records behind it, is no torn tail.
    let mut flipped = whole.clone();
    flipped[100] ^= 4;
    std::fs::write(&log, &flipped).expect("writable");
    let data = data_dir.to_str().expect("plain");
    let base = base_port.to_string();
    let dev = ["dev", "--nodes", "1", "--base-port", &base, "--data-dir", data];
    let line = error_line(&run(&dev), 1);
    assert!(line.contains(log.file_name().expect("a name").to_str().expect("plain")), "{line}");
    // With the file as it was, nothing is lost.
    std::fs::write(&log, &whole).expect("writable");
    let cluster = LocalCluster::start_at(folder.path(), 1, base_port);
    assert_eq!(cluster.must(&["kv", "get", "k", "--print-value-only"]), "v\n");
    cluster.stop();
}

#[test]
fn files_and_buckets_that_are_not_there_or_not_allowed_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cluster = LocalCluster::start(folder.path(), 1);
    let line = error_line(&cluster.run(&["fs", "cat", "/shelf/none"]), 1);
    assert!(line.contains("shelf"), "{line}");
    let line = error_line(&cluster.run(&["fs", "mkdir", "/Bad_Bucket"]), 1);
    assert!(line.contains("Bad_Bucket"), "{line}");
    cluster.must(&["fs", "mkdir", "/shelf"]);
    let line = error_line(&cluster.run(&["fs", "cat", "/shelf/none"]), 1);
    assert!(line.contains("/shelf/none"), "{line}");
    let line = error_line(&cluster.run(&["fs", "put", "/no/such/file", "/shelf/f"]), 1);
    assert!(line.contains("/no/such/file"), "{line}");
    let line = error_line(&cluster.run(&["kv", "get", "none"]), 1);
    assert!(line.contains("none"), "{line}");
    cluster.stop();
}
