//! Moving a store from an etcd and back, by file and by mirror, with real programs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::etcd_programs::{Etcd, Etcdctl};
use crate::local_cluster::{LocalCluster, free_base_port};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../bbolt/tests/data/etcd-3.4-snapshot.db")
}

fn json(cluster: &LocalCluster, arguments: &[&str]) -> serde_json::Value {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--output", "json"]).collect();
    serde_json::from_str(&cluster.must(&arguments)).expect("JSON")
}

#[test]
fn a_file_of_a_real_etcd_fills_an_empty_store_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cluster = LocalCluster::start(folder.path(), 3);
    let file = fixture();
    let file = file.to_str().expect("plain");

    let damaged = folder.path().join("damaged.db");
    let mut bytes = std::fs::read(file).expect("the file is there");
    bytes[20_000] ^= 1;
    std::fs::write(&damaged, &bytes).expect("writable");
    let refused = cluster.run(&["kv", "import-etcd", damaged.to_str().expect("plain")]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("SHA-256"));

    let imported = json(&cluster, &["kv", "import-etcd", file]);
    assert_eq!(imported["revision"], 115);
    assert_eq!((&imported["records"], &imported["leases"]), (&111.into(), &2.into()));
    assert_eq!(imported["skipped_users"], 1);
    let found = json(&cluster, &["kv", "get", "a"]);
    assert_eq!((&found[0]["create_revision"], &found[0]["version"]), (&8.into(), &1.into()));
    assert_eq!(found[0]["value"], "again");
    assert_eq!(cluster.must(&["kv", "get", "t/2", "--rev", "9", "--print-value-only"]), "two\n");
    assert!(!cluster.run(&["kv", "get", "t/2"]).status.success(), "it was deleted later");
    let below = cluster.run(&["kv", "get", "a", "--rev", "8"]);
    assert!(String::from_utf8_lossy(&below.stderr).contains("compacted"));
    assert!(cluster.must(&["kv", "lease", "timetolive", "792a228ab86880a"]).contains("leased"));
    // The next revision follows the etcd's last one.
    assert_eq!(json(&cluster, &["kv", "put", "next", "x"])["revision"], 116);

    let history = cluster.must(&["kv", "history", "--from-rev", "112"]);
    let events: Vec<serde_json::Value> =
        history.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let told: Vec<_> =
        events.iter().map(|event| (event["revision"].as_u64(), event["event"].as_str())).collect();
    let expected = [(112, "PUT"), (113, "DELETE"), (114, "PUT"), (115, "DELETE"), (116, "PUT")];
    assert!(told.into_iter().eq(expected.map(|(at, what)| (Some(at), Some(what)))), "{history}");

    let again = cluster.run(&["kv", "import-etcd", file]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("not empty"));
    cluster.stop();
}

#[test]
fn a_saved_store_is_restored_by_a_real_etcd() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cluster = LocalCluster::start(folder.path(), 1);
    cluster.must(&["kv", "import-etcd", fixture().to_str().expect("plain")]);
    cluster.must(&["kv", "put", "last", "changed"]);
    let path = folder.path().join("saved.db");
    let file = path.to_str().expect("plain");
    cluster.must(&["kv", "snapshot", "save", file]);
    let status = json(&cluster, &["kv", "snapshot", "status", file]);
    assert_eq!((&status["revision"], &status["records"]), (&116.into(), &112.into()));
    let Some(etcdctl) = Etcdctl::find(&cluster.nodes[0].etcd) else { return };
    let run = |arguments: &[&str]| etcdctl.must(arguments);
    let saved = folder.path().join("by-etcdctl.db");
    let saved = saved.to_str().expect("plain");
    run(&["snapshot", "save", saved]);
    let status = run(&["snapshot", "status", saved, "-w", "json"]);
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["revision"], 116);
    let (base, data_dir) = (free_base_port(), folder.path().join("restored"));
    let peer = format!("http://127.0.0.1:{base}");
    run(&[
        "snapshot",
        "restore",
        saved,
        "--name",
        "one",
        "--initial-cluster",
        &format!("one={peer}"),
        "--initial-advertise-peer-urls",
        &peer,
        "--data-dir",
        data_dir.to_str().expect("plain"),
    ]);
    let etcd = Etcd::start(&data_dir, base);
    let Some(Etcd { etcdctl: etcd, .. }) = &etcd else { return };
    // Every key at every readable revision, with all that is known of it.
    for revision in 9..=116_u64 {
        let revision = revision.to_string();
        let read = ["get", "--prefix", "", "--rev", &revision, "-w", "json"];
        let kvs = |answer: String| {
            let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
            answer["kvs"].clone()
        };
        assert_eq!(kvs(etcd.must(&read)), kvs(run(&read)), "revision {revision}");
    }
    let below = etcd.run(&["get", "a", "--rev", "8"]);
    assert!(String::from_utf8_lossy(&below.stderr).contains("compacted"));
    // Etcd lists leases in no order.
    let leases = |list: String| list.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(leases(etcd.must(&["lease", "list"])), leases(run(&["lease", "list"])));
    // It goes on as any etcd, and gives up what was restored.
    etcd.must(&["put", "a", "on"]);
    etcd.must(&["compact", "117", "--physical"]);
    assert_eq!(etcd.must(&["get", "a", "--print-value-only"]), "on\n");
    cluster.stop();
}

#[test]
fn a_mirror_follows_a_real_etcd_and_goes_on_after_a_stop() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let etcd = Etcd::start(&folder.path().join("etcd"), free_base_port());
    let Some(Etcd { etcdctl: etcd, .. }) = &etcd else { return };
    let mut cluster = LocalCluster::start(folder.path(), 1);
    for (key, value) in [("p/a", "1"), ("p/b", "2"), ("other", "x")] {
        etcd.must(&["put", key, value]);
    }
    cluster.must(&["kv", "put", "q/stale", "x"]);
    let mirror =
        ["kv", "mirror", "--from", etcd.endpoints(), "--prefix", "p/", "--dest-prefix", "q/"];
    let once: Vec<&str> = mirror.iter().copied().chain(["--once"]).collect();
    cluster.must(&once);
    let mirrored = |cluster: &LocalCluster| cluster.must(&["kv", "get", "q/", "--prefix"]);
    assert_eq!(mirrored(&cluster), "q/a\n1\nq/b\n2\n");
    // What happens while no mirror runs is made up for, deletions too.
    etcd.must(&["put", "p/c", "3"]);
    etcd.must(&["del", "p/a"]);
    let mut follower = start_mirror(&cluster, &mirror);
    cluster.wait_for("the mirror", |cluster| mirrored(cluster) == "q/b\n2\nq/c\n3\n");
    etcd.must(&["put", "p/b", "4"]);
    etcd.must(&["put", "p/c", "5"]);
    cluster.wait_for("the mirror", |cluster| mirrored(cluster) == "q/b\n4\nq/c\n5\n");
    follower.kill().expect("it runs");
    follower.wait().expect("it ends");
    // The etcd forgets what the mirror has not seen.
    etcd.must(&["del", "p/b"]);
    etcd.must(&["put", "p/d", "6"]);
    let revision = etcd.must(&["get", "p/d", "-w", "json"]);
    let revision: serde_json::Value = serde_json::from_str(&revision).expect("JSON");
    etcd.must(&["compact", &revision["header"]["revision"].to_string()]);
    let mut follower = start_mirror(&cluster, &mirror);
    cluster.wait_for("the mirror", |cluster| mirrored(cluster) == "q/c\n5\nq/d\n6\n");
    follower.kill().expect("it runs");
    follower.wait().expect("it ends");
    cluster.stop();
}

fn start_mirror(cluster: &LocalCluster, arguments: &[&str]) -> Child {
    crate::local_cluster::onefold()
        .args(["--endpoint", &cluster.endpoints()])
        .args(arguments)
        .stdout(Stdio::null())
        .spawn()
        .expect("the program starts")
}
