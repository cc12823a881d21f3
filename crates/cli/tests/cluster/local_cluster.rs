//! A cluster run by `onefold dev`, for one test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take before the test gives up. Never a measure of speed.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// One node as `dev.json` lists it.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Node {
    pub id: u64,
    pub pid: u32,
    pub etcd: String,
    pub s3: String,
    pub http: String,
    pub peer: String,
}

/// A running `onefold dev`. Dropping it kills it, and with it its nodes.
pub struct LocalCluster {
    dev: Child,
    folder: PathBuf,
    pub nodes: Vec<Node>,
}

impl LocalCluster {
    /// Starts a cluster on free ports and waits until its table of endpoints is printed.
    pub fn start(folder: &Path, nodes: usize) -> Self {
        Self::start_at(folder, nodes, free_base_port())
    }

    /// The same with given ports, to go on with a folder.
    pub fn start_at(folder: &Path, nodes: usize, base_port: u16) -> Self {
        let log = std::fs::File::create(folder.join("dev.out")).expect("the folder is writable");
        let dev = onefold()
            .args(["dev", "--nodes", &nodes.to_string(), "--base-port", &base_port.to_string()])
            .arg("--data-dir")
            .arg(folder.join("data"))
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .spawn()
            .expect("the program starts");
        let mut cluster = Self { dev, folder: folder.to_owned(), nodes: Vec::new() };
        cluster.wait_for("the cluster to be ready", |cluster| {
            if let Some(status) = cluster.dev.try_wait().expect("a child can be asked") {
                panic!("dev ended with {status}: {}", cluster.output());
            }
            cluster.output().contains("Ctrl-C")
        });
        cluster.read_nodes();
        cluster
    }

    /// The base port, from the first node's peer address.
    pub fn base_port(&self) -> u16 {
        let (_, port) = self.nodes[0].peer.rsplit_once(':').expect("HOST:PORT");
        port.parse().expect("a port")
    }

    /// What `dev` printed.
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.folder.join("dev.out")).unwrap_or_default()
    }

    /// Where the nodes keep their data.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Reads `dev.json` again.
    pub fn read_nodes(&mut self) {
        let text = std::fs::read(self.data_dir().join("dev.json")).expect("dev.json exists");
        self.nodes = serde_json::from_slice(&text).expect("dev.json is a list of nodes");
    }

    /// Any nodes' addresses, for `--endpoint`.
    pub fn endpoints(&self) -> String {
        self.nodes.iter().map(|node| node.peer.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Runs a client verb against the cluster.
    pub fn run(&self, arguments: &[&str]) -> Output {
        onefold()
            .args(["--endpoint", &self.endpoints()])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("the program starts")
    }

    /// Runs a verb that must succeed, and returns what it printed.
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "onefold {arguments:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    }

    /// `onefold dev node ACTION ID`.
    pub fn act(&mut self, action: &str, id: u64) {
        self.act_on_nodes(&[action, &id.to_string()]);
    }

    /// `onefold dev node ARGUMENTS`.
    pub fn act_on_nodes(&mut self, arguments: &[&str]) {
        let data_dir = self.data_dir();
        let data_dir = data_dir.to_str().expect("a plain path");
        let arguments: Vec<&str> = ["dev", "node"]
            .iter()
            .chain(arguments)
            .copied()
            .chain(["--data-dir", data_dir])
            .collect();
        self.must(&arguments);
        self.read_nodes();
    }

    /// The node that leads a group: `system`, `kv` or `files`.
    pub fn leader(&mut self, group: u64) -> u64 {
        let mut leader = None;
        self.wait_for("a leader", |cluster| {
            let output = cluster.run(&["status", "--output", "json"]);
            let Ok(status) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else {
                return false;
            };
            let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
            leader = nodes
                .iter()
                .filter_map(|node| node["status"]["groups"].as_array())
                .flatten()
                .filter(|report| report["group"] == group && report["role"] == "leader")
                .max_by_key(|report| report["term"].as_u64())
                .and_then(|report| report["leader"].as_u64());
            leader.is_some()
        });
        leader.expect("it was just found")
    }

    /// Waits until something holds.
    pub fn wait_for(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let give_up = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < give_up, "waited in vain for {what}: {}", self.output());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills `dev` itself with SIGKILL. Its nodes notice and end.
    pub fn kill_dev(mut self) {
        self.dev.kill().expect("a child can be killed");
        self.dev.wait().expect("a child can be waited for");
    }

    /// Stops `dev` with SIGTERM; it must stop its nodes and end with success.
    pub fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.dev);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let status = self.dev.wait().expect("a child can be waited for");
        assert!(status.success(), "dev ended with {status}: {}", self.output());
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.dev.kill();
        let _ = self.dev.wait();
    }
}

/// The program, without anything from the environment that could change what it does.
pub fn onefold() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onefold"));
    for (name, _) in std::env::vars() {
        if name.starts_with("ONEFOLD_") {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1");
    command
}

/// A base port such that no other test of this process takes it.
pub fn free_base_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        // Processes that run at the same time start at different places.
        let start = u16::try_from(std::process::id() % 200).expect("small");
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        // Below the ports that the system gives to outgoing connections: one of those could take the
        // port of a node that is down.
        let base = 10_000 + (start * 7 + step) % 227 * 100;
        let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (0..5).all(|node| (0..4).all(|port| is_free(base + 10 * node + port))) {
            return base;
        }
    }
}

/// The path of a real client, or none with a line that says that the test is skipped.
pub fn client_program(path: &str, package: &str) -> Option<String> {
    if Path::new(path).exists() {
        return Some(path.to_owned());
    }
    eprintln!("SKIPPED: {path} is not installed (Debian package {package})");
    None
}
