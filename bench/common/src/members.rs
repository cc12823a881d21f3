//! Members of a cluster: the product itself, etcd or ZooKeeper.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::etcd_client::EtcdClient;
use crate::status::{MemberStatus, zookeeper_status};
use crate::{NODES, free_addresses, process};

/// Longest wait for a cluster or a member to be ready.
const READY_MAX: Duration = Duration::from_secs(120);
/// Longest wait for what a member says about itself.
const STATUS_MAX: Duration = Duration::from_secs(1);
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A restarted member has caught up when it is at most this many entries behind the leader.
const CAUGHT_UP_ENTRIES: u64 = 1000;

/// Whose members they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Onefold,
    Etcd,
    ZooKeeper,
}

/// Three members as separate processes; dropping it kills them and removes their data.
pub struct Members {
    kind: Kind,
    program: PathBuf,
    folder: TempDir,
    peers: Vec<String>,
    clients: Vec<String>,
    /// Two for each member that clients do not ask but that must not collide.
    others: Vec<String>,
    processes: Vec<Option<Child>>,
    /// To ask members that speak the etcd API.
    status: Vec<EtcdClient>,
}

impl Members {
    /// Starts three members with their data below a folder, and waits for a leader. The program of
    /// ZooKeeper is its jar, which `java` from the path runs.
    ///
    /// # Errors
    ///
    /// A member cannot be started, or there is no leader for long.
    pub async fn start(kind: Kind, program: &Path, below: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("onefold-bench-").tempdir_in(below)?;
        let mut addresses = free_addresses(4 * NODES)?;
        let others = addresses.split_off(2 * NODES);
        let clients = addresses.split_off(NODES);
        let status = clients
            .iter()
            .map(|address| EtcdClient::new(address, STATUS_MAX))
            .collect::<Result<_>>();
        let mut members = Self {
            kind,
            program: program.to_owned(),
            folder,
            peers: addresses,
            clients,
            others,
            processes: (0..NODES).map(|_| None).collect(),
            status: status?,
        };
        for at in 0..NODES {
            members.start_member(at)?;
        }
        members.wait_for_leader().await?;
        Ok(members)
    }

    /// The program that they run.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Where the members reach each other.
    pub fn peers(&self) -> &[String] {
        &self.peers
    }

    /// Where clients reach the members.
    pub fn clients(&self) -> &[String] {
        &self.clients
    }

    /// Starts the member at a position on the data that it has.
    pub fn start_member(&mut self, at: usize) -> Result<()> {
        let folder = self.member_folder(at);
        fs::create_dir_all(&folder)?;
        let data = folder.join("data");
        let mut command = match self.kind {
            Kind::Onefold => self.onefold(at, &data),
            Kind::Etcd => self.etcd(at, &data),
            Kind::ZooKeeper => self.zookeeper(at, &data)?,
        };
        let log = File::options().create(true).append(true).open(folder.join("output"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("{} cannot be started", self.program.display()))?;
        self.processes[at] = Some(child);
        Ok(())
    }

    /// `onefold start`, everything as by default but the addresses.
    fn onefold(&self, at: usize, folder: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("start")
            .arg("--data-dir")
            .arg(folder)
            .args(["--listen", &self.peers[at]])
            .args(["--join", &self.peers.join(",")])
            .args(["--etcd-listen", &self.clients[at]])
            .args(["--s3-listen", &self.others[2 * at]])
            .args(["--http-listen", &self.others[2 * at + 1]])
            // All are on one host, and each needs a port of its own for each keyspace.
            .args(["--keyspace-port-offset", &at.to_string()])
            .arg("--no-initial-s3-key");
        command
    }

    /// `etcd`, everything as by default but the addresses.
    fn etcd(&self, at: usize, folder: &Path) -> Command {
        let mut command = Command::new(&self.program);
        let url = |address: &String| format!("http://{address}");
        let members: Vec<String> = (1..)
            .zip(&self.peers)
            .map(|(number, peer)| format!("m{number}={}", url(peer)))
            .collect();
        command
            .args(["--name", &format!("m{}", at + 1)])
            .arg("--data-dir")
            .arg(folder)
            .args(["--listen-peer-urls", &url(&self.peers[at])])
            .args(["--initial-advertise-peer-urls", &url(&self.peers[at])])
            .args(["--listen-client-urls", &url(&self.clients[at])])
            .args(["--advertise-client-urls", &url(&self.clients[at])])
            .args(["--initial-cluster", &members.join(",")])
            .args(["--initial-cluster-state", "new"]);
        command
    }

    /// ZooKeeper with the settings of its own example, any number of connections from one address,
    /// and fsync on, as by default.
    fn zookeeper(&self, at: usize, folder: &Path) -> Result<Command> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("myid"), format!("{}\n", at + 1))?;
        let (host, port) = self.clients[at].split_once(':').context("an address with a port")?;
        let mut settings = format!(
            "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPortAddress={host}\n\
             clientPort={port}\nmaxClientCnxns=0\nadmin.enableServer=false\n",
            folder.display()
        );
        for member in 0..NODES {
            let (_, election) = self.others[2 * member].split_once(':').context("a port")?;
            let peer = &self.peers[member];
            settings.push_str(&format!("server.{}={peer}:{election}\n", member + 1));
        }
        let file = folder.join("zoo.cfg");
        fs::write(&file, settings)?;
        let mut command = Command::new("java");
        command
            .arg("-cp")
            .arg(&self.program)
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(file);
        Ok(command)
    }

    /// Kills the member at a position as SIGKILL does.
    pub fn kill_member(&mut self, at: usize) -> Result<()> {
        if let Some(mut child) = self.processes[at].take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Whose members they are.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where the members keep their data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The processes of all running members.
    pub fn processes(&self) -> impl Iterator<Item = u32> {
        self.processes.iter().flatten().map(Child::id)
    }

    /// CPU time of all running members together.
    pub fn cpu_time(&self) -> Result<Duration> {
        self.processes().map(process::cpu_time).sum()
    }

    async fn statuses(&self) -> Vec<Option<MemberStatus>> {
        let asked = (0..NODES).map(async |at| match self.kind {
            Kind::Onefold | Kind::Etcd => Ok(self.status[at].status().await?),
            Kind::ZooKeeper => timeout(STATUS_MAX, zookeeper_status(&self.clients[at])).await?,
        });
        futures::future::join_all(asked).await.into_iter().map(Result::<_>::ok).collect()
    }

    /// The position of the member that leads, when all members know a leader.
    pub async fn wait_for_leader(&self) -> Result<usize> {
        let start = Instant::now();
        while start.elapsed() < READY_MAX {
            let statuses = self.statuses().await;
            let is_whole = statuses.iter().all(|s| s.is_some_and(|s| s.has_leader));
            let leader = statuses.iter().position(|s| s.is_some_and(|s| s.is_leader));
            if let Some(leader) = leader.filter(|_| is_whole) {
                return Ok(leader);
            }
            sleep(LOOK_INTERVAL).await;
        }
        bail!("{:?} had no leader within {READY_MAX:?}; {}", self.kind, self.last_words())
    }

    /// The last line that each member has written, for an error: the data is removed after it.
    fn last_words(&self) -> String {
        let of_member = |at: usize| {
            let output = fs::read(self.member_folder(at).join("output")).unwrap_or_default();
            let text = String::from_utf8_lossy(&output).into_owned();
            format!("member {}: {}", at + 1, text.lines().last().unwrap_or("no output"))
        };
        (0..NODES).map(of_member).collect::<Vec<_>>().join("; ")
    }

    fn member_folder(&self, at: usize) -> PathBuf {
        self.folder.path().join(format!("member-{}", at + 1))
    }

    /// Waits until the member at a position is as far as the others; gives how long that took.
    pub async fn wait_for_catch_up(&self, at: usize) -> Result<Duration> {
        let start = Instant::now();
        while start.elapsed() < READY_MAX {
            let statuses = self.statuses().await;
            let index = |s: &Option<MemberStatus>| s.map_or(0, |s| s.raft_index);
            let furthest = statuses.iter().map(index).max().unwrap_or_default();
            let own = statuses[at].filter(|s| s.has_leader).map_or(0, |s| s.raft_index);
            if own > 0 && own + CAUGHT_UP_ENTRIES >= furthest {
                return Ok(start.elapsed());
            }
            sleep(LOOK_INTERVAL).await;
        }
        bail!("member {} did not catch up within {READY_MAX:?}", at + 1)
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for child in self.processes.iter_mut().flatten() {
            // Both fail only when it has already ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
