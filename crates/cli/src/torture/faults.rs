//! Does to the cluster what the plan says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use onefold_types::GroupId;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use super::network::{Flow, Network};
use super::plan::{Fault, Step, Victim};
use crate::local::{LocalCluster, is_ready};

/// How long a question about the leader may take before a node is chosen without it.
const LEADER_PATIENCE: Duration = Duration::from_secs(1);
/// How long the next fault of a process waits for nodes that are starting.
const READY_PATIENCE: Duration = Duration::from_secs(15);
const READY_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// One of so many faults of processes does not wait, and hits nodes that are starting.
const IMPATIENT_FAULTS: u64 = 4;
/// How often nodes that ended by themselves are looked for.
const REAP_INTERVAL: Duration = Duration::from_millis(200);
/// How long each turn of a flapping link takes, in milliseconds.
const FLAP_MS: u64 = 250;
/// Longest delay of a slow link, in milliseconds.
const DELAY_MS_MAX: u64 = 400;

/// The cluster and its network, to which faults are done.
pub struct Target {
    pub cluster: Mutex<LocalCluster>,
    pub network: Network,
    pub nodes: Vec<u64>,
    /// Where the nodes serve their health.
    pub health: Vec<String>,
    /// Nodes that ended without being asked to, each with its last words.
    pub ended: Mutex<Vec<(u64, String)>>,
    /// How often each fault was done.
    pub done: Mutex<BTreeMap<Fault, u64>>,
}

impl Target {
    /// Does the steps of a plan, those of processes and those of the network side by side, and looks
    /// after the nodes until the plan is over.
    pub async fn endure(self: &Arc<Self>, plan: &[Step], began: Instant, ends: Instant) {
        let (network, processes): (Vec<&Step>, Vec<&Step>) =
            plan.iter().partition(|step| step.fault.is_of_network());
        let both = async {
            tokio::join!(self.lane(&network, began, ends), self.lane(&processes, began, ends));
            sleep_until(ends).await;
        };
        tokio::select! {
            () = both => {}
            () = self.look_after() => {}
        }
    }

    async fn lane(&self, steps: &[&Step], began: Instant, ends: Instant) {
        for step in steps {
            sleep_until(began + step.after).await;
            // On a slow machine steps come late, and some not at all.
            if Instant::now() + step.lasts > ends {
                continue;
            }
            let victim = self.choose(step).await;
            *self.done.lock().await.entry(step.fault).or_default() += 1;
            if step.fault.is_of_network() {
                self.disturb_network(step, victim).await;
            } else if let Err(error) = self.disturb_process(step, victim).await {
                // A node that ended by itself is found and told by whoever looks after them.
                tracing::debug!("{}: {error:#}", step.fault);
            } else if !step.detail.is_multiple_of(IMPATIENT_FAULTS) {
                self.wait_until_ready().await;
            }
        }
    }

    /// Waits until all nodes are ready, but not for ever: they may be cut off.
    async fn wait_until_ready(&self) {
        let give_up = Instant::now() + READY_PATIENCE;
        for address in &self.health {
            while !is_ready(address).await && Instant::now() < give_up {
                sleep(READY_POLL_INTERVAL).await;
            }
        }
    }

    async fn choose(&self, step: &Step) -> u64 {
        let any = self.nodes[usize::try_from(step.detail).unwrap_or(0) % self.nodes.len()];
        match step.victim {
            Victim::Node(node) => node,
            Victim::Leader => self.leader().await.unwrap_or(any),
        }
    }

    /// The node that leads the key-value group, if a node knows one.
    async fn leader(&self) -> Option<u64> {
        let client = self.cluster.lock().await.client().ok()?;
        let status = tokio::time::timeout(LEADER_PATIENCE, client.status()).await.ok()?.ok()?;
        status.leader(GroupId::KV).map(|node| node.get())
    }

    async fn disturb_process(&self, step: &Step, victim: u64) -> anyhow::Result<()> {
        match step.fault {
            Fault::Kill => {
                self.cluster.lock().await.kill_node(victim).await?;
                sleep(step.lasts).await;
                self.cluster.lock().await.launch_node(victim)?;
            }
            Fault::Stop => {
                self.cluster.lock().await.stop_node(victim).await?;
                sleep(step.lasts).await;
                self.cluster.lock().await.launch_node(victim)?;
            }
            Fault::Pause => {
                self.cluster.lock().await.pause_node(victim)?;
                sleep(step.lasts).await;
                self.cluster.lock().await.resume_node(victim)?;
            }
            Fault::RestartAll => {
                let mut cluster = self.cluster.lock().await;
                for &node in &self.nodes {
                    if cluster.is_running(node) {
                        cluster.kill_node(node).await?;
                    }
                }
                for &node in &self.nodes {
                    cluster.launch_node(node)?;
                }
            }
            Fault::Partition | Fault::OneWay | Fault::Flap | Fault::Slow | Fault::Cut => {
                unreachable!("it is done to the network")
            }
        }
        Ok(())
    }

    async fn disturb_network(&self, step: &Step, victim: u64) {
        let closed = Flow { is_closed: true, ..Flow::default() };
        let others = || self.nodes.iter().copied().filter(|node| *node != victim);
        let cut_off = |side: &[u64]| {
            for &inside in side {
                for outside in self.nodes.iter().filter(|node| !side.contains(node)) {
                    self.network.set(inside, *outside, closed);
                    self.network.set(*outside, inside, closed);
                }
            }
        };
        match step.fault {
            Fault::Partition => {
                // The victim, and with more than three nodes perhaps others: less than half of all.
                let minority = (self.nodes.len().saturating_sub(1) / 2).max(1);
                let size = 1 + usize::try_from(step.detail).unwrap_or(0) % minority;
                let side: Vec<u64> = [victim].into_iter().chain(others()).take(size).collect();
                cut_off(&side);
                sleep(step.lasts).await;
            }
            Fault::OneWay => {
                for other in others() {
                    match step.detail % 2 {
                        0 => self.network.set(victim, other, closed),
                        _ => self.network.set(other, victim, closed),
                    }
                }
                sleep(step.lasts).await;
            }
            Fault::Flap => {
                let ends = Instant::now() + step.lasts;
                while Instant::now() < ends {
                    cut_off(&[victim]);
                    sleep(Duration::from_millis(FLAP_MS)).await;
                    self.network.heal();
                    sleep(Duration::from_millis(FLAP_MS)).await;
                }
            }
            Fault::Slow => {
                let delay = Duration::from_millis(1 + step.detail % DELAY_MS_MAX);
                for other in others() {
                    let slow = Flow { delay, ..Flow::default() };
                    self.network.set(victim, other, slow);
                    self.network.set(other, victim, slow);
                }
                sleep(step.lasts).await;
            }
            Fault::Cut => self.network.cut(),
            Fault::Kill | Fault::Stop | Fault::Pause | Fault::RestartAll => {
                unreachable!("it is done to processes")
            }
        }
        self.network.heal();
    }

    /// Notes nodes that ended without being asked to, and starts them again.
    async fn look_after(&self) {
        loop {
            sleep(REAP_INTERVAL).await;
            self.reap().await;
        }
    }

    async fn reap(&self) {
        let mut cluster = self.cluster.lock().await;
        let ended = cluster.reap().and_then(|ended| cluster.restart_ended().map(|()| ended));
        match ended {
            Ok(ended) => self.ended.lock().await.extend(ended),
            Err(error) => tracing::error!("cannot look after the nodes: {error:#}"),
        }
    }

    /// Ends every fault: all links are open, all nodes run.
    pub async fn heal(&self) {
        self.network.heal();
        {
            let mut cluster = self.cluster.lock().await;
            for &node in &self.nodes {
                let healed = match cluster.is_running(node) {
                    true => cluster.resume_node(node),
                    false => cluster.launch_node(node),
                };
                if let Err(error) = healed {
                    tracing::error!("node {node} does not run again: {error:#}");
                }
            }
        }
        self.reap().await;
    }
}
