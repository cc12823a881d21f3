//! `etcdctl`, as Debian ships it, against each node.

use crate::etcd_programs::Etcdctl;
use crate::local_cluster::LocalCluster;

#[test]
fn works_against_each_node() {
    let Some(etcdctl) = Etcdctl::find("") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cluster = LocalCluster::start(folder.path(), 3);
    for node in &cluster.nodes {
        let etcdctl = etcdctl.at(&node.etcd);
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
        let output = etcdctl.feed(&["txn"], script);
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
    let error = etcdctl.refused(&["lease", "revoke", &id]);
    assert!(error.contains("requested lease not found"), "{error}");
}

fn watches(etcdctl: &Etcdctl) {
    let revision = etcdctl.must(&["put", "watched", "1", "-w", "json"]);
    let revision: serde_json::Value = serde_json::from_str(&revision).expect("JSON");
    let from = revision["header"]["revision"].as_u64().expect("a revision");
    etcdctl.must(&["put", "watched", "2"]);
    etcdctl.must(&["del", "watched"]);
    let seen = etcdctl.take(&["watch", "watched", "--rev", &from.to_string()], "", 8);
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
    assert!(etcdctl.must(&["endpoint", "status"]).contains(etcdctl.endpoints()));
    // It asks at the members' URLs, and names those as the authority of its calls.
    let all = etcdctl.must(&["endpoint", "status", "--cluster"]);
    assert!(cluster.nodes.iter().all(|node| all.contains(&node.etcd)), "{all}");
    let health = etcdctl.run(&["endpoint", "health"]);
    assert!(health.status.success(), "{}", String::from_utf8_lossy(&health.stderr));
}
