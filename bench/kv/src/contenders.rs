//! The servers that are measured beside each other.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use onefold_bench_common::NODES;
use onefold_bench_common::members::{Kind, Members};
use onefold_bench_common::status::zookeeper_version;

use crate::fleet::Fleet;
use crate::load::Load;
use crate::wire::Wire;

/// How often and how long each server is measured.
#[derive(Args, Clone, Copy)]
pub(crate) struct Turns {
    /// How often each server is measured under each load.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Seconds that are measured in each turn, after a fifth as much that is not.
    #[arg(long, default_value_t = 4.0, value_parser = positive)]
    seconds: f64,
}

impl Turns {
    /// How long a turn is measured.
    pub(crate) fn duration(self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// How long it runs before that.
    pub(crate) fn warm_up(self) -> Duration {
        self.duration() / 5
    }

    /// What a turn is made of.
    pub(crate) fn load(self, clients: usize, keys: usize, value_bytes: usize) -> Load {
        let (warm_up, duration) = (self.warm_up(), self.duration());
        Load { clients, keys: keys as u32, value_bytes, warm_up, duration }
    }
}

impl fmt::Display for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s a turn, {} rounds", self.seconds, self.rounds)
    }
}

/// Reads a number above zero, and no larger than a day has seconds.
///
/// # Errors
///
/// It is something else.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if number > 0.0 && number <= 86_400.0 {
        Ok(number)
    } else {
        Err(format!("{text} is not between 0 and 86,400"))
    }
}

/// Reads how many of something there shall be, at least one.
///
/// # Errors
///
/// It is something else.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|_| format!("{text:?} is not a whole number"))?;
    if (1..=COUNT_MAX).contains(&number) {
        Ok(number)
    } else {
        Err(format!("{text} is not between 1 and {COUNT_MAX}"))
    }
}

/// Keys of eight digits are the most of anything that can be told apart.
const COUNT_MAX: usize = 100_000_000;

/// Which servers to measure, and where their data goes.
#[derive(Args, Clone)]
pub(crate) struct Servers {
    /// The product's program.
    #[arg(long)]
    onefold: PathBuf,
    /// Programs of etcd, of any versions.
    #[arg(long)]
    etcd: Vec<PathBuf>,
    /// The jar of ZooKeeper, which `java` runs.
    #[arg(long)]
    zookeeper: Option<PathBuf>,
    /// Folder on the disk to measure.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub(crate) data_dir: PathBuf,
    /// Clients that share a connection; 1 gives each its own.
    #[arg(long, default_value_t = 16, value_parser = count)]
    clients_per_connection: usize,
}

/// Between turns, for what a server does after its load has ended.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

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
        for server in self.list().chain(self.zookeeper.as_deref().map(Server::zookeeper)) {
            contenders.push(self.start_one(server).await?);
        }
        Ok(contenders)
    }

    /// How clients reach the members, in words.
    pub(crate) fn connections(&self) -> String {
        match self.clients_per_connection {
            1 => "each client has a connection of its own".to_owned(),
            clients => format!("{clients} clients share a connection"),
        }
    }

    /// As [`Self::start`], but only those that speak the etcd API.
    pub(crate) async fn start_etcd_api(&self) -> Result<Vec<Contender>> {
        let mut contenders = Vec::new();
        for server in self.list() {
            contenders.push(self.start_one(server).await?);
        }
        Ok(contenders)
    }

    /// The servers that speak the etcd API.
    pub(crate) fn list(&self) -> impl Iterator<Item = Server<'_>> {
        let onefold = Server { kind: Kind::Onefold, program: &self.onefold };
        let etcd = self.etcd.iter().map(|program| Server { kind: Kind::Etcd, program });
        std::iter::once(onefold).chain(etcd)
    }

    /// Starts one cluster.
    ///
    /// # Errors
    ///
    /// A program cannot be started or finds no leader.
    pub(crate) async fn start_one(&self, server: Server<'_>) -> Result<Contender> {
        let members = Members::start(server.kind, server.program, &self.data_dir)
            .await
            .with_context(|| format!("{} cannot be measured", server.program.display()))?;
        let name = match server.kind {
            Kind::Onefold => "onefold".to_owned(),
            Kind::Etcd => format!("etcd {}", etcd_version(server.program)?),
            Kind::ZooKeeper => {
                format!("zookeeper {}", zookeeper_version(&members.clients()[0]).await?)
            }
        };
        Ok(Contender { name, members, clients_per_connection: self.clients_per_connection })
    }
}

/// A program to measure.
#[derive(Clone, Copy)]
pub(crate) struct Server<'a> {
    kind: Kind,
    program: &'a Path,
}

impl<'a> Server<'a> {
    fn zookeeper(jar: &'a Path) -> Self {
        Self { kind: Kind::ZooKeeper, program: jar }
    }
}

fn etcd_version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.lines().find_map(|line| line.strip_prefix("etcd Version: "));
    Ok(version.context("etcd tells no version")?.to_owned())
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
}
