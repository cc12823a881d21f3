//! One node's process.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};

use super::layout::{NodeEntry, Route};
use crate::etcd_options::EtcdArgs;

/// How long a node may take to stop by itself before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// A running node. It stops by itself when this process dies, however that happens: the pipe to
/// its standard input closes with it.
pub struct NodeProcess {
    child: Child,
    _life_line: Option<ChildStdin>,
}

impl NodeProcess {
    /// Starts the node. It writes its messages to its log file.
    pub fn spawn(
        entry: &NodeEntry,
        join: &str,
        routes: &[Route],
        etcd: &EtcdArgs,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let log_path = entry.log_path();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)
            .with_context(|| format!("cannot write {}", log_path.display()))?;
        let routes =
            routes.iter().map(|route| format!("--route={}={}", route.known, route.dialled));
        let mut child = Command::new(program)
            .arg("start")
            .arg("--data-dir")
            .arg(&entry.data_dir)
            .args(["--listen", &entry.peer, "--join", join])
            .args(["--etcd-listen", &entry.etcd])
            .args(["--s3-listen", &entry.s3, "--http-listen", &entry.http])
            .args(["--keyspace-port-offset", &entry.keyspace_port_offset().to_string()])
            .args(etcd.arguments())
            .args(["--no-initial-s3-key", "--stop-with-stdin"])
            .args(routes)
            .env_remove("ONEFOLD_CONFIG")
            .stdin(Stdio::piped())
            .stdout(log.try_clone().context("cannot share the log file")?)
            .stderr(log)
            // A Ctrl-C at the terminal is for `dev`, which then stops its nodes in order.
            .process_group(0)
            .spawn()
            .context("cannot start a node process")?;
        let life_line = child.stdin.take();
        Ok(Self { child, _life_line: life_line })
    }

    /// The process's number, 0 once it has ended.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Whether the process has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Kills the process on the spot, as a crash would.
    pub async fn kill(mut self) {
        if self.child.kill().await.is_err() {
            tracing::debug!("the process had ended by itself");
        }
    }

    /// Asks the process to stop, and kills it if it takes too long.
    pub async fn stop(mut self) {
        self.ask_to_stop();
        if tokio::time::timeout(STOP_PATIENCE, self.child.wait()).await.is_err() {
            self.kill().await;
        }
    }

    /// Sends SIGTERM.
    pub fn ask_to_stop(&self) {
        self.signal(Signal::TERM);
    }

    /// Lets the process do nothing, as if its machine stood still, until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets the process go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(pid) = pid
            && let Err(error) = kill_process(pid, signal)
        {
            tracing::debug!("the process had ended by itself: {error}");
        }
    }
}

/// The last line of a log file that says what went wrong, for an error message.
pub fn last_line(path: &Path) -> String {
    const TAIL_BYTES: u64 = 4096;
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        Ok(String::from_utf8_lossy(&tail).into_owned())
    };
    let tail = read().unwrap_or_default();
    let mut lines = tail.lines().rev().filter(|line| !line.trim().is_empty());
    let line = lines.clone().find(|line| line.starts_with("error:")).or_else(|| lines.next());
    line.unwrap_or("it said nothing").trim_start_matches("error: ").to_owned()
}
