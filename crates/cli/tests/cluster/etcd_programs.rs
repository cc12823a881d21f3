//! Etcd's own programs, as Debian ships them: its command-line client and its server.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::local_cluster::{PATIENCE, client_program};

/// `etcdctl` with the servers that it asks.
#[derive(Clone)]
pub struct Etcdctl {
    program: String,
    endpoints: String,
}

impl Etcdctl {
    /// The program; none, and a line that says so, where it is not installed.
    pub fn find(endpoints: &str) -> Option<Self> {
        let program = client_program("/usr/bin/etcdctl", "etcd-client")?;
        Some(Self { program, endpoints: endpoints.to_owned() })
    }

    /// The same for other servers.
    pub fn at(&self, endpoints: &str) -> Self {
        Self { program: self.program.clone(), endpoints: endpoints.to_owned() }
    }

    /// Whom it asks.
    pub fn endpoints(&self) -> &str {
        &self.endpoints
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.endpoints])
            // Its own are short on a busy machine.
            .args(["--dial-timeout", "60s", "--command-timeout", "60s"])
            .args(arguments);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().expect("etcdctl starts")
    }

    /// What it prints on success.
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "etcdctl {arguments:?} at {}: {}",
            self.endpoints,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    }

    /// What it complains of on failure.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "etcdctl {arguments:?} should fail");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Runs it with a text on its standard input.
    pub fn feed(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("etcdctl starts");
        let mut stdin = child.stdin.take().expect("it is piped");
        // It may have ended without reading.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().expect("etcdctl ends")
    }

    /// Runs what does not end by itself, and ends it after so many lines. With `input` its standard
    /// input stays open meanwhile.
    pub fn take(&self, arguments: &[&str], input: &str, lines: usize) -> Vec<String> {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcdctl starts");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(input.as_bytes()).expect("etcdctl reads");
        let printed = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            // Nobody may wait for the rest of them.
            printed.map_while(Result::ok).take(lines).all(|line| sender.send(line).is_ok())
        });
        let mut seen = Vec::new();
        while let Ok(line) = receiver.recv_timeout(PATIENCE) {
            seen.push(line);
        }
        // In order, so that it gives up the locks and leases that it has.
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
        child.wait().expect("it ends");
        seen
    }
}

/// A real etcd of one member, ended when it is dropped.
pub struct Etcd {
    process: Child,
    pub etcdctl: Etcdctl,
}

impl Etcd {
    /// Starts a member in a folder, a new one or one that was restored for these ports; none where
    /// etcd is not installed.
    pub fn start(data_dir: &Path, base: u16) -> Option<Self> {
        let server = client_program("/usr/bin/etcd", "etcd-server")?;
        let (client, peer) = (format!("127.0.0.1:{}", base + 1), format!("127.0.0.1:{base}"));
        let etcdctl = Etcdctl::find(&client)?;
        let process = Command::new(server)
            .args(["--name", "one", "--log-level", "error", "--data-dir"])
            .arg(data_dir)
            .args(["--listen-client-urls", &format!("http://{client}")])
            .args(["--advertise-client-urls", &format!("http://{client}")])
            .args(["--listen-peer-urls", &format!("http://{peer}")])
            .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
            .args(["--initial-cluster", &format!("one=http://{peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd starts");
        let etcd = Self { process, etcdctl };
        let give_up = Instant::now() + PATIENCE;
        // A question that everybody may ask.
        while !etcd.etcdctl.run(&["member", "list"]).status.success() {
            assert!(Instant::now() < give_up, "etcd does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(etcd)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
