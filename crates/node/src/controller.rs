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
use onefold_admin::{
    GetKeyspaceUsage, GetNodeStatus, GroupReport, KeyspaceState, KeyspaceUsage, NodeState,
    NodeStatus, Role, group_name,
};
use onefold_files::FileSystem;
use onefold_replica::{Group, Host, MembershipChange, TransferError};
use onefold_transport::{Class, Peers, RemoteCode, RemoteError, Router};
use onefold_types::{GroupId, NodeId};

use crate::admin::Admin;
use crate::keyspaces::plan::{KeyspacePlanner, KeyspaceStep};
use crate::keyspaces::{Catalog, CatalogError, CatalogStore, FollowedCatalog};
use crate::nodes::{ChangeMembers, HandOver};
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
    pub(crate) catalog: FollowedCatalog,
    pub(crate) catalog_store: CatalogStore,
    pub(crate) admin: Arc<Admin>,
    pub(crate) files: Arc<dyn FileSystem>,
}

impl Controller {
    /// Works for as long as the future is polled.
    pub(crate) async fn run(self) {
        let mut planner = Planner::default();
        let mut keyspaces = KeyspacePlanner::default();
        let mut rounds = tokio::time::interval(ROUND_INTERVAL);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            if !self.system.is_leader() || self.followed.get().next == 0 {
                planner = Planner::default();
                keyspaces = KeyspacePlanner::default();
                continue;
            }
            let world = self.look().await;
            let steps = planner.plan(&world);
            join_all(steps.into_iter().map(|step| self.take(step, &world))).await;
            for step in keyspaces.plan(&self.catalog.get(), &world) {
                self.take_with_keyspace(step).await;
            }
        }
    }

    /// What the nodes tell now.
    pub(crate) async fn look(&self) -> World {
        self.look_closely().await.0
    }

    /// The same, with all that each of them says.
    pub(crate) async fn look_closely(&self) -> (World, BTreeMap<NodeId, NodeStatus>) {
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
        let placed = placed(&self.catalog.get());
        let own = self.host.status().iter().filter(|it| !it.group.is_keyspace()).count();
        let mut groups = views(&statuses);
        // A keyspace that goes is led by nobody for long.
        groups.retain(|view| !view.group.is_keyspace() || placed.contains_key(&view.group));
        let hosted = |status: &NodeStatus| status.groups.iter().map(|it| it.group).collect();
        let world = World {
            groups,
            hosted: own + placed.len(),
            placed,
            hosting: statuses.iter().map(|(node, status)| (*node, hosted(status))).collect(),
            up: statuses.keys().copied().collect(),
            held: statuses.values().flat_map(|status| status.held.iter().copied()).collect(),
            chunks_left,
            directory,
        };
        (world, statuses)
    }

    async fn status(&self, node: NodeId) -> Option<NodeStatus> {
        if node == self.node {
            return Some(self.admin.node_status());
        }
        let call =
            self.peers.call::<GetNodeStatus>(node, Class::Call, &(), Bytes::new(), STATUS_TIMEOUT);
        call.await.ok().map(|(status, _)| status)
    }

    /// What the keyspaces on a node take; nothing if it does not answer.
    pub(crate) async fn usage(&self, node: NodeId) -> Vec<KeyspaceUsage> {
        if node == self.node {
            return self.admin.usage();
        }
        let call = self.peers.call::<GetKeyspaceUsage>(
            node,
            Class::Call,
            &(),
            Bytes::new(),
            STATUS_TIMEOUT,
        );
        call.await.map(|(usage, _)| usage).unwrap_or_default()
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

    async fn take(&self, step: Step, world: &World) {
        let outcome = match step.clone() {
            Step::Change(group, change) => {
                tracing::info!("changing the members of {}: {}", group_name(group), told(&change));
                self.change_members(group, change, world).await
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

    async fn take_with_keyspace(&self, step: KeyspaceStep) {
        use crate::keyspaces::change;
        let store = &self.catalog_store;
        let outcome = match step {
            KeyspaceStep::Activate(name, group) => {
                tracing::info!("the keyspace {name} serves");
                store.change(|catalog| change::activate(catalog, &name, group)).await
            }
            KeyspaceStep::RollBack(name, group) => {
                tracing::warn!("the keyspace {name} could not be formed, and is given up");
                store.change(|catalog| change::roll_back(catalog, &name, group)).await
            }
            KeyspaceStep::Forget(name, group) => {
                tracing::info!("the keyspace {name} is gone");
                store.change(|catalog| change::forget(catalog, &name, group)).await
            }
            KeyspaceStep::Place(name, group, members) => {
                tracing::info!("the keyspace {name} shall be on the nodes {members:?}");
                store.change(|catalog| change::place(catalog, &name, group, &members)).await
            }
        };
        if let Err(error) = outcome {
            let error: CatalogError = error;
            tracing::info!("not done yet, and tried again: {error}");
        }
    }

    async fn change_members(
        &self,
        group: GroupId,
        change: MembershipChange,
        world: &World,
    ) -> Result<(), String> {
        let Some(view) = world.groups.iter().find(|view| view.group == group) else {
            return Ok(());
        };
        // Only the leader is sure to know it: this node's replica may be one that waits to be let in.
        if view.leader == self.node {
            let Some(handle) = self.host.group(group) else { return Ok(()) };
            let changed = handle.change_membership(change, CHANGE_TIMEOUT).await;
            return changed.map_err(|error| error.to_string());
        }
        let order = (group, change);
        let call = self.peers.call::<ChangeMembers>(
            view.leader,
            Class::Call,
            &order,
            Bytes::new(),
            CHANGE_TIMEOUT + STATUS_TIMEOUT,
        );
        call.await.map(drop).map_err(|error| error.to_string())
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

/// The keyspaces that serve or come, and the nodes that shall hold them.
fn placed(catalog: &Catalog) -> BTreeMap<GroupId, BTreeSet<NodeId>> {
    let staying = catalog.all.values().filter(|record| record.state != KeyspaceState::Deleting);
    staying.map(|record| (record.group, record.members.clone())).collect()
}

/// Answers orders to hand a group over, and to change its members.
pub(crate) fn register(host: &Host, router: &mut Router) {
    let of_host = host.clone();
    router.call::<ChangeMembers, _, _>(move |_, (group, change), _| {
        let handle = of_host.group(group);
        async move {
            let unknown = || RemoteError::new(RemoteCode::NotFound, "this node lacks that group");
            let handle = handle.ok_or_else(unknown)?;
            let changed = handle.change_membership(change, CHANGE_TIMEOUT).await;
            changed.map_err(|error| RemoteError::new(RemoteCode::Conflict, error.to_string()))?;
            Ok(((), Bytes::new()))
        }
    });
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
fn told(change: &MembershipChange) -> String {
    let parts = [("join", &change.join), ("learn", &change.learn), ("leave", &change.remove)];
    let part = |(what, nodes): (&str, &BTreeSet<NodeId>)| {
        let nodes: Vec<_> = nodes.iter().map(ToString::to_string).collect();
        format!("{} {what}", nodes.join(", "))
    };
    let parts = parts.into_iter().filter(|(_, nodes)| !nodes.is_empty()).map(part);
    parts.collect::<Vec<_>>().join("; ")
}
