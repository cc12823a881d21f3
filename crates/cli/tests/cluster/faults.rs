//! Nodes die; users notice nothing.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::local_cluster::LocalCluster;

/// The group of the default keyspace.
const KV: u64 = 2;
/// The group of the file system's namespace.
const FILES: u64 = 3;

#[test]
fn acknowledged_writes_survive_the_death_of_each_leader() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut cluster = LocalCluster::start(folder.path(), 3);
    cluster.must(&["fs", "mkdir", "/shelf"]);
    let file = folder.path().join("book");
    let book = "all work and no play makes a dull node\n".repeat(100_000);
    std::fs::write(&file, &book).expect("writable");
    let file = file.to_str().expect("plain").to_owned();
    for (round, group) in [KV, FILES].into_iter().enumerate() {
        let (key, path) = (format!("key{round}"), format!("/shelf/book{round}"));
        cluster.must(&["kv", "put", &key, "kept"]);
        cluster.must(&["fs", "put", &file, &path]);
        let leader = cluster.leader(group);
        cluster.act("kill", leader);
        assert_eq!(cluster.must(&["kv", "get", &key, "--print-value-only"]), "kept\n");
        assert_eq!(cluster.must(&["fs", "cat", &path]), book);
        // With two of three nodes, everything can be written as well.
        cluster.must(&["kv", "put", &key, "changed"]);
        cluster.must(&["fs", "put", &file, &format!("{path}-degraded")]);
        cluster.act("start", leader);
        assert_eq!(cluster.must(&["kv", "get", &key, "--print-value-only"]), "changed\n");
        assert_eq!(cluster.must(&["fs", "cat", &format!("{path}-degraded")]), book);
    }
    cluster.stop();
}

#[test]
fn files_written_while_a_node_dies_are_whole_or_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut cluster = LocalCluster::start(folder.path(), 3);
    cluster.must(&["fs", "mkdir", "/shelf"]);
    let file = folder.path().join("book");
    let book = "the quick brown fox jumps over the lazy dog\n".repeat(50_000);
    std::fs::write(&file, &book).expect("writable");
    let done = AtomicBool::new(false);
    let victim = cluster.leader(FILES);
    let written = std::thread::scope(|scope| {
        let (file, endpoints, done) = (&file, cluster.endpoints(), &done);
        let writer = scope.spawn(move || {
            let mut written = Vec::new();
            for number in 0.. {
                let path = format!("/shelf/book{number}");
                let output = crate::local_cluster::onefold()
                    .args(["--endpoint", &endpoints, "fs", "put"])
                    .arg(file)
                    .arg(&path)
                    .output()
                    .expect("the program starts");
                if output.status.success() {
                    written.push(path);
                }
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
            written
        });
        std::thread::sleep(std::time::Duration::from_millis(500));
        cluster.act("kill", victim);
        std::thread::sleep(std::time::Duration::from_secs(3));
        done.store(true, Ordering::Relaxed);
        writer.join().expect("the writer ends")
    });
    assert!(!written.is_empty());
    for path in &written {
        assert_eq!(cluster.must(&["fs", "cat", path]), book, "{path}");
    }
    cluster.act("start", victim);
    for path in &written {
        assert_eq!(cluster.must(&["fs", "cat", path]), book, "{path}");
    }
    cluster.stop();
}
