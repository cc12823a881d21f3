//! Three node processes, and a client of them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use onefold_bench_common::{NODES, free_addresses, process};
use onefold_transport::{Class, Identity, IdentityCell, Limits, Method, Peers};
use onefold_types::NodeId;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::load::Outcome;
use crate::methods::{Drive, DriveRequest, NodeReport, Propose, Report};

/// Longest wait for all groups to have leaders.
const SETTLE_MAX: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Longest wait for an answer of a node that should be well.
const CALL_MAX: Duration = Duration::from_secs(15);

/// What the nodes host, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Groups, each on all nodes.
    pub(crate) groups: u64,
    /// Whether idle groups fall silent, as they do by default.
    pub(crate) quiesce: bool,
}

impl Shape {
    /// As by default.
    pub(crate) fn of_groups(groups: u64) -> Self {
        Self { groups, quiesce: true }
    }
}

/// Three nodes and everything about them; dropping it stops them and removes their data.
pub(crate) struct Cluster {
    folder: TempDir,
    shape: Shape,
    addresses: Vec<String>,
    nodes: Vec<Option<Child>>,
    peers: Peers,
}

/// CPU time and counters of all nodes at one moment.
pub(crate) struct Sample {
    /// Of all nodes together.
    pub(crate) cpu: Duration,
    /// In the order of the nodes.
    pub(crate) reports: Vec<NodeReport>,
}

impl Cluster {
    /// Starts the nodes below a folder and waits until every node knows a leader of every group.
    pub(crate) async fn start(below: &Path, shape: Shape) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("onefold-bench-").tempdir_in(below)?;
        let addresses = free_addresses(NODES)?;
        let identity = Arc::new(IdentityCell::new(Identity::CLIENT));
        let peers = Peers::new(identity, Limits::default());
        for (id, address) in (1..).map(NodeId).zip(&addresses) {
            peers.set_address(id, address.clone());
        }
        let nodes = (0..NODES).map(|_| None).collect();
        let mut cluster = Self { folder, shape, addresses, nodes, peers };
        for at in 0..NODES {
            cluster.start_node(at)?;
        }
        cluster.settle().await?;
        Ok(cluster)
    }

    /// Where the nodes keep their data.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the node at a position on the data that it has.
    pub(crate) fn start_node(&mut self, at: usize) -> Result<()> {
        let folder = self.folder.path().join(format!("node-{}", at + 1));
        std::fs::create_dir_all(&folder)?;
        let mut command = Command::new(own_program()?);
        command.arg("node");
        if !self.shape.quiesce {
            command.arg("--no-quiesce");
        }
        let child = command
            .args(["--id", &(at + 1).to_string()])
            .args(["--groups", &self.shape.groups.to_string()])
            .args(["--addresses", &self.addresses.join(",")])
            .arg("--folder")
            .arg(&folder)
            .stdin(Stdio::piped())
            .spawn()?;
        self.nodes[at] = Some(child);
        Ok(())
    }

    /// Kills the node at a position and waits until it is gone.
    pub(crate) fn kill_node(&mut self, at: usize) -> Result<()> {
        if let Some(mut child) = self.nodes[at].take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Stops the process of the node at a position from running, or lets it go on.
    pub(crate) fn freeze_node(&self, at: usize, frozen: bool) -> Result<()> {
        let pid = self.pid(at).context("a running node")?;
        let pid = Pid::from_raw(i32::try_from(pid)?).context("a process number")?;
        kill_process(pid, if frozen { Signal::STOP } else { Signal::CONT })?;
        Ok(())
    }

    /// The process of the node at a position, while it runs.
    pub(crate) fn pid(&self, at: usize) -> Option<u32> {
        self.nodes[at].as_ref().map(Child::id)
    }

    /// Waits until every running node knows a leader of every group.
    pub(crate) async fn settle(&self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < SETTLE_MAX {
            let mut is_settled = true;
            for at in 0..NODES {
                let report = self.report(at).await;
                is_settled &= report.is_ok_and(|report| report.settled == self.shape.groups);
            }
            if is_settled {
                return Ok(());
            }
            sleep(LOOK_INTERVAL).await;
        }
        bail!("after {SETTLE_MAX:?} not every group had a leader that all nodes know")
    }

    /// The position of the leader of the first group.
    pub(crate) async fn leader(&self) -> Result<usize> {
        for at in 0..NODES {
            if let Ok(report) = self.report(at).await
                && report.first_leader > 0
            {
                return Ok(report.first_leader as usize - 1);
            }
        }
        bail!("no node knows the leader of the first group")
    }

    async fn call<M: Method>(
        &self,
        at: usize,
        request: &M::Request,
        body: Bytes,
        timeout: Duration,
    ) -> Result<M::Response> {
        let to = NodeId(at as u64 + 1);
        let (answer, _) = self.peers.call::<M>(to, Class::Call, request, body, timeout).await?;
        Ok(answer)
    }

    pub(crate) async fn report(&self, at: usize) -> Result<NodeReport> {
        self.call::<Report>(at, &(), Bytes::new(), CALL_MAX).await
    }

    /// Has a node replicate a command in the first group.
    pub(crate) async fn propose(&self, at: usize, command: Bytes) -> Result<()> {
        self.call::<Propose>(at, &1, command, CALL_MAX).await
    }

    /// Has a node run a closed loop of clients itself.
    pub(crate) async fn drive(&self, at: usize, request: DriveRequest) -> Result<Outcome> {
        let patience = Duration::from_secs_f64(request.seconds) + CALL_MAX;
        self.call::<Drive>(at, &request, Bytes::new(), patience).await
    }

    /// CPU time and counters of all nodes now.
    pub(crate) async fn sample(&self) -> Result<Sample> {
        let mut reports = Vec::new();
        for at in 0..NODES {
            reports.push(self.report(at).await?);
        }
        Ok(Sample { cpu: self.cpu_time()?, reports })
    }

    /// CPU time of all running nodes together.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        self.nodes.iter().flatten().map(|child| process::cpu_time(child.id())).sum()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().flatten() {
            // Both fail only when it has already ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// This program's own file.
fn own_program() -> Result<PathBuf> {
    Ok(std::env::current_exe()?)
}
