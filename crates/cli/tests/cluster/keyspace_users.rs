//! Keyspaces that etcd clients choose by their user, at the ordinary port, and bound one by one.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::local_cluster::{LocalCluster, client_program};

/// `etcdctl` as one user at the ordinary port of one node.
struct User<'a> {
    program: &'a str,
    endpoint: String,
    user: &'a str,
}

impl User<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoint]);
        // Its own 2 and 5 s would make this a test of the machine.
        command.args(["--dial-timeout", PATIENCE, "--command-timeout", PATIENCE]);
        if !self.user.is_empty() {
            command.args(["--user", self.user]);
        }
        command.args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("etcdctl starts")
    }

    fn must(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "etcdctl {arguments:?} as {:?}: {error}", self.user);
        String::from_utf8(output.stdout).expect("text")
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "etcdctl {arguments:?} as {:?} succeeds", self.user);
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn revision(&self) -> i64 {
        let answer = self.must(&["get", "none", "--write-out", "json"]);
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        answer["header"]["revision"].as_i64().expect("a number")
    }
}

/// A program that is killed when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How long `etcdctl` waits for an answer.
const PATIENCE: &str = "60s";

const WRONG: &str = "authentication failed, invalid user ID or password";

#[test]
fn a_user_chooses_the_keyspace_at_the_ordinary_port() {
    let Some(program) = client_program("/usr/bin/etcdctl", "etcd-client") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cluster = LocalCluster::start(folder.path(), 3);
    let at = |node: usize, user| User {
        program: &program,
        endpoint: cluster.nodes[node].etcd.clone(),
        user,
    };
    for name in ["a", "b"] {
        cluster.must(&["kv", "keyspace", "create", name]);
    }
    // Without authentication any password is as good as none, and the keyspace is the one that was
    // named.
    at(0, "a/root:x").must(&["put", "k", "of a"]);
    at(1, "b/root:x").must(&["put", "k", "of b"]);
    assert_eq!(at(2, "a/root:y").must(&["get", "k"]), "k\nof a\n");
    assert_eq!(at(0, "").must(&["get", "k"]), "", "the default keyspace has nothing");
    assert_eq!(at(0, "default/root:x").must(&["get", "k"]), "");
    for nobody in ["c/root:x", "A/root:x", "/root:x", "files/root:x"] {
        let error = at(0, nobody).refused(&["put", "k", "lost"]);
        assert!(error.contains(WRONG), "{nobody}: {error}");
    }
    // Each keyspace has users of its own.
    for arguments in [
        &["user", "add", "root:secret"][..],
        &["role", "add", "root"],
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        at(0, "a/root:x").must(arguments);
    }
    for node in 0..3 {
        assert_eq!(at(node, "a/root:secret").must(&["get", "k"]), "k\nof a\n");
        assert!(at(node, "a/root:x").refused(&["get", "k"]).contains(WRONG));
        assert_eq!(at(node, "b/root:x").must(&["get", "k"]), "k\nof b\n");
    }
    // Streams go the same way.
    let watch = at(1, "a/root:secret").command(&["watch", "w", "--rev", "1"]);
    let mut watch = Running({ watch }.stdout(Stdio::piped()).spawn().expect("etcdctl starts"));
    at(0, "").must(&["put", "w", "of nobody"]);
    at(2, "a/root:secret").must(&["put", "w", "of a"]);
    let lines = BufReader::new(watch.0.stdout.take().expect("it is piped")).lines();
    let seen: Vec<String> = lines.take(3).map(|line| line.expect("text")).collect();
    assert_eq!(seen, ["PUT", "w", "of a"]);
    assert!(at(0, "a/root:secret").must(&["lease", "grant", "60"]).contains("granted"));
    cluster.stop();
}

#[test]
fn each_keyspace_has_its_own_quota_and_begins_anew_when_it_was_deleted() {
    let Some(program) = client_program("/usr/bin/etcdctl", "etcd-client") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut cluster = LocalCluster::start(folder.path(), 3);
    let endpoint = cluster.nodes[0].etcd.clone();
    let at = |user| User { program: &program, endpoint: endpoint.clone(), user };
    let (small, large) = (at("small/x:x"), at("large/x:x"));
    cluster.must(&["kv", "keyspace", "create", "small", "--quota", "64KiB", "--history", "50"]);
    cluster.must(&["kv", "keyspace", "create", "large"]);
    let value = "v".repeat(8 << 10);
    cluster.wait_for("the small keyspace to be full", |_| {
        let output = small.run(&["put", &format!("k{}", small.revision()), &value]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || error.contains("database space exceeded"), "{error}");
        !output.status.success()
    });
    large.must(&["put", "k", &value]);
    let shown = cluster.must(&["kv", "keyspace", "show", "small", "--output", "json"]);
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["usage"]["quota_bytes"], 64 << 10);
    assert_eq!(shown["limits"]["history"]["revisions"], 50);
    // What was chosen outlives its leader, and can be given up.
    cluster.act("kill", 1);
    cluster.act("start", 1);
    small.refused(&["put", "more", &value]);
    cluster.must(&["kv", "keyspace", "set", "small", "--quota", "default"]);
    cluster.wait_for("the small keyspace to grow", |_| {
        small.run(&["put", "more", &value]).status.success()
    });
    for refused in [
        &["kv", "keyspace", "set", "default", "--quota", "1GiB"][..],
        &["kv", "keyspace", "set", "none", "--quota", "1GiB"],
        &["kv", "keyspace", "set", "small"],
        &["kv", "keyspace", "create", "small"],
    ] {
        assert_eq!(cluster.run(refused).status.code(), Some(1), "{refused:?}");
    }
    cluster.must(&["kv", "keyspace", "delete", "small", "--force"]);
    let error = small.refused(&["get", "more"]);
    assert!(error.contains(WRONG), "{error}");
    cluster.must(&["kv", "keyspace", "create", "small"]);
    assert_eq!(small.revision(), 1);
    assert_eq!(large.must(&["get", "k", "--print-value-only"]).trim(), value);
    cluster.stop();
}
