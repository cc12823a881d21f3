//! `etcdctl`, as Debian ships it, against each node.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

use crate::local_cluster::{LocalCluster, client_program};

struct Etcdctl {
    program: String,
    endpoint: String,
}

impl Etcdctl {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoint]).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().expect("etcdctl starts")
    }

    fn must(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "etcdctl {arguments:?} at {}: {}",
            self.endpoint,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    }
}

#[test]
fn works_against_each_node() {
    let Some(program) = client_program("/usr/bin/etcdctl", "etcd-client") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cluster = LocalCluster::start(folder.path(), 3);
    for node in &cluster.nodes {
        let etcdctl = Etcdctl { program: program.clone(), endpoint: node.etcd.clone() };
        keys(&etcdctl);
        transactions(&etcdctl);
        leases(&etcdctl);
        watches(&etcdctl);
        members(&etcdctl, &cluster);
    }
    cluster.stop();
}

fn keys(etcdctl: &Etcdctl) {
    assert_eq!(etcdctl.must(&["put", "fruit/apple", "red"]).trim(), "OK");
    etcdctl.must(&["put", "fruit/pear", "green"]);
    assert_eq!(etcdctl.must(&["get", "fruit/apple"]), "fruit/apple\nred\n");
    assert_eq!(
        etcdctl.must(&["get", "fruit/", "--prefix"]),
        "fruit/apple\nred\nfruit/pear\ngreen\n"
    );
    assert_eq!(
        etcdctl.must(&["get", "fruit/", "--prefix", "--keys-only", "--limit=1"]).trim(),
        "fruit/apple"
    );
    assert_eq!(etcdctl.must(&["del", "fruit/", "--prefix"]).trim(), "2");
    assert_eq!(etcdctl.must(&["get", "fruit/", "--prefix"]), "");
}

fn transactions(etcdctl: &Etcdctl) {
    etcdctl.must(&["put", "txn", "one"]);
    let txn = |script: &str| {
        let mut child = etcdctl
            .command(&["txn"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("etcdctl starts");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(script.as_bytes()).expect("etcdctl reads");
        drop(stdin);
        let output = child.wait_with_output().expect("etcdctl ends");
        assert!(output.status.success());
        String::from_utf8(output.stdout).expect("text")
    };
    let script = "value(\"txn\") = \"one\"\n\nput txn two\n\nget txn\n\n";
    assert!(txn(script).starts_with("SUCCESS"), "the condition holds");
    let answer = txn(script);
    assert!(answer.starts_with("FAILURE") && answer.contains("two"), "{answer}");
    etcdctl.must(&["del", "txn"]);
}

fn leases(etcdctl: &Etcdctl) {
    let granted = etcdctl.must(&["lease", "grant", "300"]);
    let id = granted.split_whitespace().nth(1).expect("lease ID granted").to_owned();
    etcdctl.must(&["put", "leased", "x", "--lease", &id]);
    let left = etcdctl.must(&["lease", "timetolive", &id, "--keys"]);
    assert!(left.contains("granted with TTL(300s)") && left.contains("leased"), "{left}");
    let kept = etcdctl.must(&["lease", "keep-alive", "--once", &id]);
    assert!(kept.contains("keepalived with TTL(300)"), "{kept}");
    assert!(etcdctl.must(&["lease", "list"]).contains(&id));
    etcdctl.must(&["lease", "revoke", &id]);
    assert_eq!(etcdctl.must(&["get", "leased"]), "", "a revoked lease takes its keys along");
    let gone = etcdctl.run(&["lease", "revoke", &id]);
    let error = String::from_utf8_lossy(&gone.stderr).into_owned();
    assert!(!gone.status.success() && error.contains("requested lease not found"), "{error}");
}

fn watches(etcdctl: &Etcdctl) {
    let revision = etcdctl.must(&["put", "watched", "1", "-w", "json"]);
    let revision: serde_json::Value = serde_json::from_str(&revision).expect("JSON");
    let from = revision["header"]["revision"].as_u64().expect("a revision");
    etcdctl.must(&["put", "watched", "2"]);
    etcdctl.must(&["del", "watched"]);
    let mut watch = etcdctl
        .command(&["watch", "watched", "--rev", &from.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("etcdctl starts");
    let lines = BufReader::new(watch.stdout.take().expect("it is piped")).lines();
    let seen: Vec<String> = lines.take(8).map(|line| line.expect("text")).collect();
    watch.kill().expect("it runs");
    watch.wait().expect("it ends");
    assert_eq!(seen, ["PUT", "watched", "1", "PUT", "watched", "2", "DELETE", "watched"]);
}

fn members(etcdctl: &Etcdctl, cluster: &LocalCluster) {
    let list = etcdctl.must(&["member", "list"]);
    assert_eq!(list.lines().count(), 3, "{list}");
    for node in &cluster.nodes {
        assert!(list.contains(&node.etcd) && list.contains(&node.peer), "{list}");
    }
    let status = etcdctl.must(&["endpoint", "status", "-w", "json"]);
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let status = &status[0]["Status"];
    assert!(status["leader"].as_u64().is_some_and(|leader| leader > 0), "{status}");
    assert!(status["raftIndex"].as_u64().is_some_and(|index| index > 0), "{status}");
    assert!(etcdctl.must(&["endpoint", "status"]).contains(&etcdctl.endpoint));
    // It asks at the members' URLs, and names those as the authority of its calls.
    let all = etcdctl.must(&["endpoint", "status", "--cluster"]);
    assert!(cluster.nodes.iter().all(|node| all.contains(&node.etcd)), "{all}");
    let health = etcdctl.run(&["endpoint", "health"]);
    assert!(health.status.success(), "{}", String::from_utf8_lossy(&health.stderr));
}
