//! Answers about keyspaces: to operators and to clients that name one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use onefold_admin::{
    CreateKeyspace, DeleteKeyspace, FindKeyspace, KeyspaceEndpoint, KeyspaceInfo, KeyspaceLimits,
    KeyspaceState, KeyspaceUsage, LimitsChange, ListKeyspaces, NewKeyspace, NodeStatus,
    SetKeyspace,
};
use onefold_transport::{RemoteCode, RemoteError, Router};
use onefold_types::{GroupId, NodeId};
use tokio::time::timeout;

use super::change::{self, Refused};
use super::{CatalogError, CatalogStore, DEFAULT_NAME, FollowedCatalog, Record, plan};
use crate::controller::Controller;
use crate::placement::World;

/// How long the answer waits for a new keyspace to serve.
const CREATION_WAIT: Duration = Duration::from_secs(5);

/// What is answered from. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) controller: Controller,
    pub(crate) catalog: FollowedCatalog,
    pub(crate) store: CatalogStore,
    pub(crate) members: std::sync::Arc<crate::members::Members>,
}

impl Service {
    /// Enters the methods into the node's router.
    pub(crate) fn register(&self, router: &mut Router) {
        let this = self.clone();
        router.call::<CreateKeyspace, _, _>(move |_, new, _| {
            let this = this.clone();
            async move { answer(this.create(new).await) }
        });
        let this = self.clone();
        router.call::<DeleteKeyspace, _, _>(move |_, name, _| {
            let this = this.clone();
            async move { answer(this.delete(&name).await) }
        });
        let this = self.clone();
        router.call::<ListKeyspaces, _, _>(move |_, (), _| {
            let this = this.clone();
            async move { answer(this.list().await) }
        });
        let this = self.clone();
        router.call::<SetKeyspace, _, _>(move |_, wanted, _| {
            let this = this.clone();
            async move { answer(this.set(&wanted).await) }
        });
        let this = self.clone();
        router.call::<FindKeyspace, _, _>(move |_, name, _| {
            let this = this.clone();
            async move { answer(this.find(&name).await) }
        });
    }

    async fn create(&self, new: NewKeyspace) -> Result<KeyspaceInfo, CatalogError> {
        change::check_name(&new.name).map_err(CatalogError::Refused)?;
        let world = self.controller.look().await;
        let offset_max = self.members.port_offset_max();
        let created = self.store.change(|catalog| {
            let founders = plan::founders(catalog, &world.directory, &world.up);
            change::create(catalog, &new, &founders, offset_max)
        });
        let group = created.await?;
        self.await_creation(&new.name, group).await;
        let catalog = self.store.read().await?;
        self.catalog.offer(&catalog);
        match catalog.all.get(&new.name) {
            Some(record) if record.group == group => Ok(self.info(record).await),
            // It was given up, or somebody was quick to delete it.
            _ => Err(CatalogError::Refused(Refused::Unknown(new.name))),
        }
    }

    /// Waits until this node knows that the keyspace serves, but not for too long.
    async fn await_creation(&self, name: &str, group: GroupId) {
        let mut news = self.catalog.subscribe();
        let is_over = news.wait_for(|catalog| match catalog.all.get(name) {
            Some(record) => record.group != group || record.state != KeyspaceState::Creating,
            None => catalog.is_gone(group),
        });
        let _ = timeout(CREATION_WAIT, is_over).await;
    }

    async fn delete(&self, name: &str) -> Result<(), CatalogError> {
        self.store.change(|catalog| change::delete(catalog, name)).await
    }

    async fn set(&self, wanted: &LimitsChange) -> Result<(), CatalogError> {
        self.store.change(|catalog| change::set_limits(catalog, wanted)).await
    }

    async fn list(&self) -> Result<Vec<KeyspaceInfo>, CatalogError> {
        let catalog = self.store.read().await?;
        self.catalog.offer(&catalog);
        let (world, statuses) = self.controller.look_closely().await;
        let mut infos = vec![self.default_info(&world)];
        let named = catalog.all.values();
        infos.extend(named.map(|record| self.info_from(record, &world, &statuses)));
        let leaders: BTreeSet<NodeId> = infos.iter().filter_map(|info| info.leader).collect();
        let usage = join_all(leaders.into_iter().map(|node| self.usage(node))).await;
        let usage: BTreeMap<_, _> = usage.into_iter().flatten().collect();
        for info in &mut infos {
            info.usage = info.leader.and_then(|leader| usage.get(&(leader, info.group)).copied());
        }
        Ok(infos)
    }

    /// What the keyspaces on a node take; nothing if it does not answer.
    async fn usage(&self, node: NodeId) -> Vec<((NodeId, GroupId), KeyspaceUsage)> {
        let usage = self.controller.usage(node).await;
        usage.into_iter().map(|usage| ((node, usage.group), usage)).collect()
    }

    async fn find(&self, name: &str) -> Result<GroupId, CatalogError> {
        if name == DEFAULT_NAME {
            return Ok(GroupId::KV);
        }
        if let Ok(group) = change::serving(&self.catalog.get(), name) {
            return Ok(group);
        }
        let catalog = self.store.read().await?;
        self.catalog.offer(&catalog);
        change::serving(&catalog, name).map_err(CatalogError::Refused)
    }

    async fn info(&self, record: &Record) -> KeyspaceInfo {
        let (world, statuses) = self.controller.look_closely().await;
        let mut info = self.info_from(record, &world, &statuses);
        if let Some(leader) = info.leader {
            let usage = self.controller.usage(leader).await;
            info.usage = usage.into_iter().find(|usage| usage.group == info.group);
        }
        info
    }

    fn info_from(
        &self,
        record: &Record,
        world: &World,
        statuses: &BTreeMap<NodeId, NodeStatus>,
    ) -> KeyspaceInfo {
        let mut endpoints = Vec::new();
        for node in world.directory.members().map(|member| member.id) {
            let Some(port) = record.port else { break };
            let Some(address) = self.members.keyspace_address(node, port) else { continue };
            let problem = match statuses.get(&node) {
                None => Some("the node does not answer".to_owned()),
                Some(status) => {
                    let open = status.client_ports.iter().find(|it| it.group == record.group);
                    open.map_or(Some("not open yet".to_owned()), |it| it.problem.clone())
                }
            };
            endpoints.push(KeyspaceEndpoint { node, address, problem });
        }
        KeyspaceInfo {
            name: record.name.clone(),
            state: record.state,
            group: record.group,
            port: record.port,
            members: record.members.clone(),
            leader: leader(world, record.group),
            endpoints,
            unready: statuses
                .iter()
                .filter(|(_, status)| !status.serving.contains(&record.group))
                .map(|(node, _)| *node)
                .collect(),
            limits: record.limits,
            usage: None,
        }
    }

    /// The keyspace that every cluster has.
    fn default_info(&self, world: &World) -> KeyspaceInfo {
        let view = world.groups.iter().find(|view| view.group == GroupId::KV);
        let mut endpoints = Vec::new();
        for node in world.directory.members().map(|member| member.id) {
            let Some(address) = self.members.etcd_address(node) else { continue };
            let is_silent = !world.up.contains(&node);
            let problem = is_silent.then(|| "the node does not answer".to_owned());
            endpoints.push(KeyspaceEndpoint { node, address, problem });
        }
        KeyspaceInfo {
            name: DEFAULT_NAME.to_owned(),
            state: KeyspaceState::Active,
            group: GroupId::KV,
            port: None,
            members: view.map(|view| view.members.voters.clone()).unwrap_or_default(),
            leader: leader(world, GroupId::KV),
            endpoints,
            unready: BTreeSet::new(),
            limits: KeyspaceLimits::default(),
            usage: None,
        }
    }
}

fn leader(world: &World, group: GroupId) -> Option<NodeId> {
    world.groups.iter().find(|view| view.group == group).map(|view| view.leader)
}

fn answer<T>(outcome: Result<T, CatalogError>) -> Result<(T, Bytes), RemoteError> {
    outcome.map(|value| (value, Bytes::new())).map_err(|error| {
        let code = match &error {
            CatalogError::Refused(refused) => match refused {
                Refused::Unknown(_) => RemoteCode::NotFound,
                Refused::Exists { .. } => RemoteCode::AlreadyExists,
                Refused::Full => RemoteCode::Exhausted,
                Refused::Name(_)
                | Refused::Reserved(_)
                | Refused::Own(_)
                | Refused::OwnLimits(_)
                | Refused::PortRange { .. } => RemoteCode::Invalid,
                Refused::PortTaken { .. } | Refused::WrongState { .. } => RemoteCode::Conflict,
                Refused::NoNodes => RemoteCode::Unavailable,
            },
            CatalogError::Undecodable { .. } => RemoteCode::Internal,
            CatalogError::Kv { .. } | CatalogError::Contended { .. } => RemoteCode::Unavailable,
        };
        RemoteError::new(code, error.to_string())
    })
}
