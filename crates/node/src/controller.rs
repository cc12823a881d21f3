//! The controller: on the leader of the system group, it leads every group's members and leaders to
//! what the registry asks for, one small step at a time.
//!
//! It runs on every node and acts only on the one that leads the system group. Two that act at once,
//! around a change of leadership, do no harm: each step is checked again by the group's leader or by
//! the registry's transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use onefold_admin::{GetNodeStatus, GroupReport, NodeState, NodeStatus, Role, group_name};
use onefold_files::FileSystem;
use onefold_replica::{Group, Host, TransferError};
use onefold_transport::{Class, Peers, RemoteCode, RemoteError, Router};
use onefold_types::{GroupId, NodeId};

use crate::admin::Admin;
use crate::nodes::HandOver;
use crate::placement::{GroupView, Planner, Step, World};
use crate::registry::{Directory, Followed, Registry, RegistryError, change};

/// Pause between two rounds.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);

/// How long a node may take to say how it is.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// How long one change of a group's members may take before it is looked at again.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a leader may take to hand over.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(3);

/// What the controller works with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Controller {
    pub(crate) node: NodeId,
    pub(crate) system: Group,
    pub(crate) host: Host,
    pub(crate) peers: Peers,
    pub(crate) registry: Registry,
    pub(crate) followed: Followed,
    pub(crate) admin: Arc<Admin>,
    pub(crate) files: Arc<dyn FileSystem>,
}

impl Controller {
    /// Works for as long as the future is polled.
    pub(crate) async fn run(self) {
        let mut planner = Planner::default();
        let mut rounds = tokio::time::interval(ROUND_INTERVAL);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            if !self.system.is_leader() || self.followed.get().next == 0 {
                planner = Planner::default();
                continue;
            }
            let world = self.look().await;
            let steps = planner.plan(&world);
            join_all(steps.into_iter().map(|step| self.take(step))).await;
        }
    }

    /// What the nodes tell now.
    pub(crate) async fn look(&self) -> World {
        let directory = (*self.followed.get()).clone();
        let nodes: Vec<NodeId> = directory.members().map(|record| record.id).collect();
        let statuses = join_all(nodes.iter().map(|node| self.status(*node))).await;
        let statuses: BTreeMap<NodeId, NodeStatus> = nodes
            .into_iter()
            .zip(statuses)
            .filter_map(|(node, status)| Some((node, status?)))
            .collect();
        let goes = |state| matches!(state, NodeState::Draining | NodeState::Removing);
        let going: BTreeSet<NodeId> = directory.having(goes).map(|record| record.id).collect();
        let chunks_left = self.chunks_left(&going).await;
        World {
            groups: views(&statuses),
            hosted: self.host.status().len(),
            up: statuses.into_keys().collect(),
            chunks_left,
            directory,
        }
    }

    async fn status(&self, node: NodeId) -> Option<NodeStatus> {
        if node == self.node {
            return Some(self.admin.node_status());
        }
        let call =
            self.peers.call::<GetNodeStatus>(node, Class::Call, &(), Bytes::new(), STATUS_TIMEOUT);
        call.await.ok().map(|(status, _)| status)
    }

    /// How many chunks still need each of the nodes.
    async fn chunks_left(&self, nodes: &BTreeSet<NodeId>) -> BTreeMap<NodeId, u64> {
        if nodes.is_empty() {
            return BTreeMap::new();
        }
        let asked = tokio::time::timeout(STATUS_TIMEOUT, self.files.usage()).await;
        let Ok(Ok(usage)) = asked else { return BTreeMap::new() };
        // Who is not listed was not told to the file system yet.
        usage.leaving.into_iter().filter(|(node, _)| nodes.contains(node)).collect()
    }

    async fn take(&self, step: Step) {
        let outcome = match step.clone() {
            Step::Change(group, change) => {
                tracing::info!("changing the members of {}: {}", group_name(group), told(&change));
                match self.host.group(group) {
                    Some(handle) => handle
                        .change_membership(change, CHANGE_TIMEOUT)
                        .await
                        .map_err(|error| error.to_string()),
                    None => Ok(()),
                }
            }
            Step::Transfer { group, from, to } => {
                tracing::info!("{} shall be led by node {to}, not {from}", group_name(group));
                self.transfer(group, from, to).await
            }
            Step::Settle(node) => {
                tracing::info!("node {node} has joined");
                self.record(|directory| change::settle(directory, node)).await
            }
            Step::Bury(node) => {
                tracing::info!("node {node} has left");
                self.record(|directory| change::bury(directory, node)).await
            }
        };
        if let Err(reason) = outcome {
            tracing::info!("not done yet, and tried again: {reason}");
        }
    }

    async fn record(
        &self,
        decide: impl Fn(&Directory) -> Result<change::Change<()>, change::ChangeRefused>,
    ) -> Result<(), String> {
        self.registry.change(decide).await.map_err(|error: RegistryError| error.to_string())
    }

    async fn transfer(&self, group: GroupId, from: NodeId, to: NodeId) -> Result<(), String> {
        if from == self.node {
            let Some(handle) = self.host.group(group) else { return Ok(()) };
            let transfer = handle.transfer_leadership(to, TRANSFER_TIMEOUT);
            return transfer.await.map_err(|error| error.to_string());
        }
        let order = (group, to);
        let call = self.peers.call::<HandOver>(
            from,
            Class::Call,
            &order,
            Bytes::new(),
            TRANSFER_TIMEOUT + STATUS_TIMEOUT,
        );
        call.await.map(drop).map_err(|error| error.to_string())
    }
}

/// Answers orders to hand a group over.
pub(crate) fn register(host: &Host, router: &mut Router) {
    let host = host.clone();
    router.call::<HandOver, _, _>(move |_, (group, to), _| {
        let handle = host.group(group);
        async move {
            let unknown = || RemoteError::new(RemoteCode::NotFound, "this node lacks that group");
            let handle = handle.ok_or_else(unknown)?;
            let outcome = handle.transfer_leadership(to, TRANSFER_TIMEOUT).await;
            outcome.map_err(|error| {
                let code = match error {
                    TransferError::NotLeader { .. } => RemoteCode::NotLeader,
                    TransferError::Refused { .. } => RemoteCode::Conflict,
                    _ => RemoteCode::Unavailable,
                };
                RemoteError::new(code, error.to_string())
            })?;
            Ok(((), Bytes::new()))
        }
    });
}

/// Each group as the leader with the highest term tells it.
pub(crate) fn views(statuses: &BTreeMap<NodeId, NodeStatus>) -> Vec<GroupView> {
    let mut leaders: BTreeMap<GroupId, (NodeId, &GroupReport)> = BTreeMap::new();
    for (node, status) in statuses {
        for report in status.groups.iter().filter(|report| report.role == Role::Leader) {
            let is_latest =
                leaders.get(&report.group).is_none_or(|(_, other)| other.term < report.term);
            if is_latest {
                leaders.insert(report.group, (*node, report));
            }
        }
    }
    let lag_of = |group: GroupId, commit: u64, status: &NodeStatus| {
        let report = status.groups.iter().find(|report| report.group == group)?;
        Some(commit.saturating_sub(report.applied.get()))
    };
    let view = |(group, (leader, report)): (GroupId, (NodeId, &GroupReport))| {
        let commit = report.commit.get();
        let lag = statuses
            .iter()
            .filter_map(|(node, status)| Some((*node, lag_of(group, commit, status)?)));
        GroupView { group, leader, members: report.members.clone(), lag: lag.collect() }
    };
    leaders.into_iter().map(view).collect()
}

/// A change in words.
fn told(change: &onefold_replica::MembershipChange) -> String {
    let parts = [("join", &change.join), ("learn", &change.learn), ("leave", &change.remove)];
    let part = |(what, nodes): (&str, &BTreeSet<NodeId>)| {
        let nodes: Vec<_> = nodes.iter().map(ToString::to_string).collect();
        format!("{} {what}", nodes.join(", "))
    };
    let parts = parts.into_iter().filter(|(_, nodes)| !nodes.is_empty()).map(part);
    parts.collect::<Vec<_>>().join("; ")
}
