//! A cluster under faults, and the histories of its clients.

use crate::local_cluster::{free_base_port, onefold};

#[test]
fn clients_of_a_cluster_under_kills_and_partitions_see_nothing_wrong() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = onefold()
        .args(["torture", "--nodes", "3", "--seconds", "20", "--seed", "5"])
        .args(["--faults", "kill,partition", "--output", "json"])
        .args(["--base-port", &free_base_port().to_string(), "--data-dir"])
        .arg(folder.path().join("data"))
        .output()
        .expect("the program starts");
    let (report, messages) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{report}\n{messages}");
    let report: serde_json::Value = serde_json::from_str(&report).expect("a report");
    assert_eq!(report["violations"], serde_json::json!([]));
    assert_eq!(report["ended"], serde_json::json!([]));
    // It looked: everything that it is to judge was there to be judged.
    let at_least_one = |value: &serde_json::Value, name: &str| {
        assert!(value[name].as_u64().is_some_and(|count| count > 0), "no {name}: {value}");
    };
    for fault in ["kill", "partition"] {
        at_least_one(&report["faults"], fault);
    }
    let looked = &report["looked"];
    for part in
        ["answered", "revisions", "registers", "register_operations", "watch_events", "lease_ends"]
    {
        at_least_one(looked, part);
    }
    assert_eq!(looked["copies"], 3);
}

#[test]
fn a_folder_that_holds_something_is_not_tortured() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("mine"), "precious").expect("writable");
    let output =
        onefold().args(["torture", "--data-dir"]).arg(folder.path()).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("is not empty; choose another --data-dir"), "{message}");
}
