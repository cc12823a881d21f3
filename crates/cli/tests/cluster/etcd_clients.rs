//! The client libraries of etcd's users, each driven by its script in `tests/clients`.
//!
//! What a script needs is fetched and built here, into the target folder. Where the language or the
//! network is missing the test says that it is skipped; a script that does not compile fails.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::local_cluster::LocalCluster;

/// Where the scripts are.
fn scripts(language: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = root.join("tests/clients").join(language);
    folder.canonicalize().expect("the scripts are part of the source")
}

/// Where things for a language are kept from one run to the next.
fn cache(language: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = target.join("clients").join(language);
    std::fs::create_dir_all(&folder).expect("the target folder is writable");
    folder
}

/// Whether a step of the preparation succeeds that needs programs or the network.
fn prepared(step: &str, command: &mut Command) -> bool {
    let why = match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    eprintln!("SKIPPED: {step}: {why}");
    false
}

/// Runs something that must succeed, and shows what it said if it does not.
fn must(what: &str, command: &mut Command) {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{what}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, complained) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{what} failed\n{said}\n{complained}");
    println!("{said}");
}

/// Runs a script against a cluster of its own.
fn drive(what: &str, command: impl Fn(&Path, &Path) -> Command) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cluster = LocalCluster::start(folder.path(), 3);
    let onefold = Path::new(env!("CARGO_BIN_EXE_onefold"));
    must(what, &mut command(onefold, &cluster.data_dir()));
    cluster.stop();
}

#[test]
fn the_go_client_finds_all_of_etcd() {
    let (scripts, cache) = (scripts("go"), cache("go"));
    let go = |arguments: &[&str]| {
        let mut command = Command::new("go");
        command
            .args(arguments)
            .current_dir(&scripts)
            .env("GOCACHE", cache.join("build"))
            .env("GOMODCACHE", cache.join("modules"))
            // Modules that can be deleted with the target folder, and no other Go than this one.
            .env("GOFLAGS", "-modcacherw -mod=readonly")
            .env("GOTOOLCHAIN", "local");
        command
    };
    if !prepared("Go or its modules are missing", &mut go(&["mod", "download"])) {
        return;
    }
    let tests = cache.join("clients.test");
    let output = tests.to_str().expect("a plain path");
    must("compiling the Go client", &mut go(&["test", "-c", "-o", output, "."]));
    drive("the Go client", |onefold, data_dir| {
        let mut command = Command::new(&tests);
        command.arg("-test.v").arg("-onefold").arg(onefold).arg("-data-dir").arg(data_dir);
        command
    });
}

#[test]
fn the_python_clients_find_all_of_etcd() {
    let (scripts, cache) = (scripts("python"), cache("python"));
    let python = cache.join("bin/python");
    let requirements = scripts.join("requirements.txt");
    if !python.exists() {
        let mut venv = Command::new("python3");
        if !prepared("Python or its venv is missing", venv.args(["-m", "venv"]).arg(&cache)) {
            return;
        }
    }
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
    if !prepared("packages of Python are missing", install.arg(requirements)) {
        return;
    }
    for script in ["with_etcd3.py", "with_aetcd.py"] {
        drive(script, |onefold, data_dir| {
            let mut command = Command::new(&python);
            command
                .arg(scripts.join(script))
                .args([onefold, data_dir])
                // requirements.txt says why.
                .env("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
                .env("PYTHONDONTWRITEBYTECODE", "1");
            command
        });
    }
}

#[test]
fn the_rust_client_finds_all_of_etcd() {
    let (scripts, cache) = (scripts("rust"), cache("rust"));
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command
            .args(arguments)
            .arg("--locked")
            .current_dir(&scripts)
            .env("CARGO_TARGET_DIR", &cache)
            .env("PROTOC", cache.join("debug/protoc"));
        command
    };
    if !prepared("crates are missing", &mut cargo(&["fetch"])) {
        return;
    }
    // The client's build script calls the other one.
    must("compiling protoc", &mut cargo(&["build", "--offline", "--package", "protoc"]));
    must("compiling the Rust client", &mut cargo(&["build", "--offline", "--package", "client"]));
    drive("the Rust client", |onefold, data_dir| {
        let mut command = Command::new(cache.join("debug/client"));
        command.args([onefold, data_dir]);
        command
    });
}
