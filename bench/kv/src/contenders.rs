//! The servers that are measured beside each other.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use onefold_bench_common::NODES;
use onefold_bench_common::members::{Kind, Members};

use crate::fleet::Fleet;
use crate::wire::Wire;

/// Which servers to measure, and where their data goes.
#[derive(Args, Clone)]
pub(crate) struct Servers {
    /// The product's program.
    #[arg(long)]
    onefold: PathBuf,
    /// Programs of etcd, of any versions.
    #[arg(long)]
    etcd: Vec<PathBuf>,
    /// Folder on the disk to measure.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    data_dir: PathBuf,
    /// Clients that share a connection; 1 gives each its own.
    #[arg(long, default_value_t = 16)]
    clients_per_connection: usize,
}

/// A cluster under test.
pub(crate) struct Contender {
    pub(crate) name: String,
    pub(crate) members: Members,
    clients_per_connection: usize,
}

impl Servers {
    /// Starts all clusters; they stay up, and take turns.
    ///
    /// # Errors
    ///
    /// A program cannot be started or finds no leader.
    pub(crate) async fn start(&self) -> Result<Vec<Contender>> {
        let mut contenders = Vec::new();
        let etcds = self.etcd.iter().map(|program| (Kind::Etcd, program));
        for (kind, program) in std::iter::once((Kind::Onefold, &self.onefold)).chain(etcds) {
            let name = name(kind, program)?;
            let members = Members::start(kind, program, &self.data_dir).await?;
            let clients_per_connection = self.clients_per_connection;
            contenders.push(Contender { name, members, clients_per_connection });
        }
        Ok(contenders)
    }
}

/// A name with the version where more than one version may be measured.
fn name(kind: Kind, program: &Path) -> Result<String> {
    if kind == Kind::Onefold {
        return Ok("onefold".to_owned());
    }
    let output = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| format!("{} cannot be started", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.lines().find_map(|line| line.strip_prefix("etcd Version: "));
    Ok(format!("etcd {}", version.context("etcd tells no version")?))
}

impl Contender {
    /// Connects so many clients: to all members in turn, the leader first.
    ///
    /// # Errors
    ///
    /// A member cannot be reached or there is no leader.
    pub(crate) async fn connect<W: Wire>(&self, clients: usize) -> Result<Fleet<W>> {
        let leader = self.members.wait_for_leader().await?;
        let mut connections = clients.div_ceil(self.clients_per_connection);
        if connections > 1 && self.clients_per_connection > 1 {
            connections = connections.next_multiple_of(NODES);
        }
        let addresses = self.members.clients();
        Fleet::connect((0..connections).map(|at| addresses[(leader + at) % NODES].as_str()))
    }

    /// CPU time of all members together.
    ///
    /// # Errors
    ///
    /// A member has ended.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        self.members.cpu_time()
    }
}
