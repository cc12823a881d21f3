//! Clients of S3 that people use: boto3, s3cmd, rclone, s3fs, pyarrow, DuckDB, Polars, each against
//! three nodes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::local_cluster::{LocalCluster, client_program};

/// Runs a client that must succeed, and returns what it printed.
fn must(mut command: Command) -> String {
    let output = command.output().expect("the client starts");
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The interpreter that has the clients of `clients/requirements.txt`: the one that `.ci/clients`
/// makes, or the one that `ONEFOLD_TEST_PYTHON` names.
fn python() -> Option<PathBuf> {
    if let Some(python) = std::env::var_os("ONEFOLD_TEST_PYTHON") {
        return Some(python.into());
    }
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/clients");
    if clients.join("installed.txt").exists() {
        return Some(clients.join("bin/python"));
    }
    eprintln!("SKIPPED: S3's clients for Python are not installed (bash .ci/clients)");
    None
}

/// Runs one of the scripts in `clients/` against all nodes of a fresh cluster.
fn run_script(script: &str, more: &[&str]) {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cluster = LocalCluster::start(folder.path(), 3);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/clients").join(script);
    let mut command = Command::new(python);
    command.arg(script).args(cluster.nodes.iter().map(|node| &node.s3)).args(more);
    command.env("HOME", folder.path()).env("AWS_EC2_METADATA_DISABLED", "true");
    print!("{}", must(command));
    cluster.stop();
}

#[test]
fn boto3_with_its_transfer_manager() {
    run_script("boto3_client.py", &["40"]);
}

/// The same with 200 MiB a transfer: `cargo test --release -p onefold-cli --test cluster -- --ignored boto3`.
#[test]
#[ignore = "half a minute; docs/testing.md"]
fn boto3_with_large_transfers() {
    run_script("boto3_client.py", &["200"]);
}

#[test]
fn parquet_through_s3fs_pyarrow_duckdb_and_polars() {
    run_script("analytics.py", &[]);
}

/// A folder tree of `files` files, some nested, empty, or with names that need quoting.
fn tree(root: &Path, files: usize) {
    for number in 0..files {
        let folder = root.join(format!("d{}/e {}", number % 7, number % 29));
        fs::create_dir_all(&folder).expect("writable");
        let size = if number % 50 == 0 { 100_000 } else { number * 37 % 5000 };
        let body: Vec<u8> = (0..size).map(|at| (at * 31 + number * 7) as u8).collect();
        fs::write(folder.join(format!("f+{number} ü.bin")), body).expect("writable");
    }
}

#[test]
fn s3cmd_puts_gets_syncs_and_tells() {
    let Some(program) = client_program("/usr/bin/s3cmd", "s3cmd") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cluster = LocalCluster::start(folder.path(), 3);
    let run = |node: usize, arguments: &[&str]| {
        let mut command = Command::new(&program);
        let host = &cluster.nodes[node].s3;
        command.env("HOME", folder.path()).args(["--access_key=onefold", "--no-ssl"]);
        command.args(["--secret_key=onefold-secret", "--no-progress", "--region=us-east-1"]);
        command.args([format!("--host={host}"), format!("--host-bucket={host}")]);
        command.args(arguments);
        must(command)
    };
    run(0, &["mb", "s3://shelf"]);
    let large = folder.path().join("large");
    // Beyond the client's 15 MiB a part.
    let content: Vec<u8> = (0..(17 << 20) + 5).map(|at: usize| ((at * at) >> 7) as u8).collect();
    fs::write(&large, &content).expect("writable");
    run(1, &["put", large.to_str().expect("plain"), "s3://shelf/large"]);
    let info = run(2, &["info", "s3://shelf/large"]);
    assert!(info.contains("File size: 17825797"), "{info}");
    let back = folder.path().join("back");
    run(0, &["get", "s3://shelf/large", back.to_str().expect("plain")]);
    assert!(fs::read(&back).expect("it was fetched") == content);
    run(1, &["setacl", "--acl-private", "s3://shelf/large"]);
    run(2, &["cp", "s3://shelf/large", "s3://shelf/again"]);
    run(0, &["mv", "s3://shelf/again", "s3://shelf/moved"]);
    assert!(run(1, &["ls", "s3://shelf"]).contains("s3://shelf/moved"));
    assert!(run(1, &["info", "s3://shelf"]).contains("us-east-1"));

    let (here, there) = (folder.path().join("tree"), folder.path().join("tree-back"));
    tree(&here, 60);
    fs::create_dir(&there).expect("writable");
    let source = format!("{}/", here.display());
    run(0, &["sync", &source, "s3://shelf/tree/"]);
    let again = run(1, &["sync", &source, "s3://shelf/tree/"]);
    assert!(!again.contains("upload:"), "nothing has changed: {again}");
    run(2, &["sync", "s3://shelf/tree/", &format!("{}/", there.display())]);
    let mut compare = Command::new("diff");
    compare.arg("-r").args([&here, &there]);
    must(compare);
    run(1, &["del", "--recursive", "--force", "s3://shelf"]);
    assert_eq!(run(2, &["la"]).trim(), "");
    run(0, &["rb", "s3://shelf"]);
    cluster.stop();
}

fn rclone_syncs_and_checks(files: usize) {
    let Some(program) = client_program("/usr/bin/rclone", "rclone") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cluster = LocalCluster::start(folder.path(), 3);
    let run = |node: usize, arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.env("HOME", folder.path()).env("RCLONE_CONFIG_ONEFOLD_TYPE", "s3");
        // rclone's transport cannot use it.
        command.env_remove("AWS_CA_BUNDLE");
        command.env("RCLONE_CONFIG_ONEFOLD_PROVIDER", "Other");
        command.env("RCLONE_CONFIG_ONEFOLD_ACCESS_KEY_ID", "onefold");
        command.env("RCLONE_CONFIG_ONEFOLD_SECRET_ACCESS_KEY", "onefold-secret");
        let endpoint = format!("http://{}", cluster.nodes[node].s3);
        command.env("RCLONE_CONFIG_ONEFOLD_ENDPOINT", endpoint).args(arguments);
        must(command)
    };
    let here = folder.path().join("tree");
    tree(&here, files);
    let source = here.to_str().expect("plain");
    run(0, &["sync", source, "onefold:tree/in", "--transfers", "16", "--checkers", "16"]);
    run(1, &["check", source, "onefold:tree/in", "--checkers", "16"]);
    // Every byte is fetched and compared.
    run(2, &["check", source, "onefold:tree/in", "--download", "--checkers", "16"]);
    let count = run(0, &["size", "onefold:tree", "--json"]);
    assert!(count.contains(&format!("\"count\":{files}")), "{count}");
    fs::remove_dir_all(here.join("d3")).expect("it exists");
    run(1, &["sync", source, "onefold:tree/in", "--transfers", "16", "--checkers", "16"]);
    run(2, &["check", source, "onefold:tree/in", "--checkers", "16"]);
    run(0, &["moveto", "onefold:tree/in/d1", "onefold:tree/moved"]);
    assert_eq!(run(1, &["lsf", "onefold:tree"]), "in/\nmoved/\n");
    run(2, &["purge", "onefold:tree"]);
    assert_eq!(run(0, &["lsd", "onefold:"]), "");
    cluster.stop();
}

#[test]
fn rclone_syncs_and_checks_a_tree() {
    rclone_syncs_and_checks(400);
}

/// `cargo test --release -p onefold-cli --test cluster -- --ignored rclone`.
#[test]
#[ignore = "some minutes; docs/testing.md"]
fn rclone_syncs_and_checks_50_000_files() {
    rclone_syncs_and_checks(50_000);
}
