//! A node's part: it forms and destroys its replicas of keyspaces, and serves their clients.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use onefold_admin::{GetNodeStatus, GroupReport, KeyspaceState, Role};
use onefold_kv::{Feed, Keyspaces, Kv, KvOptions, KvStore, LocalKv, RemoteKv};
use onefold_log::Recovered;
use onefold_replica::state::{StoredGroups, stored_groups};
use onefold_replica::{Formation, Group, GroupError, GroupSpec, Host, HostError};
use onefold_table::Table;
use onefold_transport::{Class, Peers};
use onefold_types::{ClusterId, GroupId, NodeId};
use tokio_util::sync::CancellationToken;

use super::control::KeyspaceControl;
use super::ports::{Ports, Service, ShownPorts, Source, Wanted};
use super::view::{KeyspaceView, Reports};
use super::{Catalog, FollowedCatalog, Record};
use crate::members::Members;
use crate::operations::Operations;
use crate::placement::election_rank;
use crate::registry::Followed;

/// Pause between two looks when nothing has changed: what failed is tried again.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long another node may take to say how the groups are that this one lacks.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// A replica's store before its group runs.
pub(crate) struct Seed {
    feed: Feed,
    spec: GroupSpec,
}

impl Seed {
    /// A group that the node's own data knows.
    fn stored(group: GroupId) -> Self {
        // Only for a group whose root is lost: the leader tells who the members are.
        Self::new(group, Formation::Joining, 0)
    }

    fn new(group: GroupId, formed: Formation, election_rank: u32) -> Self {
        let feed = Feed::default();
        let machine = Box::new(KvStore::new(feed.clone()));
        Self { feed, spec: GroupSpec { election_rank, ..GroupSpec::new(group, formed, machine) } }
    }

    /// The group's part and that of the store over it.
    pub(crate) fn divide(self) -> (GroupSpec, Feed) {
        (self.spec, self.feed)
    }
}

/// The keyspaces that a node's own data knows, whatever the cluster has decided meanwhile.
///
/// # Errors
/// When the table can't be read.
pub(crate) fn stored(
    table: &Arc<dyn Table>,
    recovered: &Recovered,
) -> Result<Vec<Seed>, HostError> {
    let StoredGroups { present, destroyed } = stored_groups(table)?;
    let logged = recovered.keys().copied().filter(|group| !destroyed.contains(group));
    let known: BTreeSet<GroupId> = present.into_iter().chain(logged).collect();
    Ok(known.into_iter().filter(|group| group.is_keyspace()).map(Seed::stored).collect())
}

/// What a node's part is done with.
pub(crate) struct Hosting {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) host: Host,
    pub(crate) peers: Peers,
    pub(crate) table: Arc<dyn Table>,
    pub(crate) catalog: FollowedCatalog,
    pub(crate) followed: Followed,
    pub(crate) members: Arc<Members>,
    /// What clients may have done to the cluster.
    pub(crate) operations: Arc<Operations>,
    /// Where calls of other processes find a keyspace.
    pub(crate) keyspaces: Keyspaces,
    /// The replicas that this node started with.
    pub(crate) replicas: BTreeMap<GroupId, LocalKv>,
    /// What was chosen for every keyspace.
    pub(crate) options: KvOptions,
    /// How their etcd APIs are served.
    pub(crate) gateway: onefold_etcd::Options,
    /// The host that etcd clients connect to.
    pub(crate) client_host: String,
    /// What this node adds to a keyspace's port.
    pub(crate) port_offset: u16,
    pub(crate) shown: ShownPorts,
}

/// What changes while it is done.
struct Held {
    replicas: BTreeMap<GroupId, LocalKv>,
    /// Keyspaces that are answered for through other nodes.
    there: BTreeMap<GroupId, BTreeSet<NodeId>>,
    ports: Ports,
    reports: Reports,
}

impl Hosting {
    /// Works until it shall stop, and then lets open requests end.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut held = Held {
            replicas: std::mem::take(&mut self.replicas),
            there: BTreeMap::new(),
            ports: Ports::new(self.gateway.clone(), self.shown.clone()),
            reports: Reports::default(),
        };
        let mut news = self.catalog.subscribe();
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = looks.tick() => self.ask_others(&held).await,
                _ = news.changed() => {}
            }
            let catalog = self.catalog.get();
            self.hold(&catalog, &mut held).await;
            self.route(&catalog, &mut held);
            self.open_ports(&catalog, &mut held).await;
        }
        held.ports.close().await;
    }

    /// Forms the replicas that shall be here, and destroys those that shall be nowhere.
    async fn hold(&self, catalog: &Catalog, held: &mut Held) {
        for record in catalog.all.values() {
            let is_wanted = record.members.contains(&self.node);
            match record.state {
                KeyspaceState::Creating | KeyspaceState::Active if is_wanted => {
                    self.form(record, held).await;
                }
                KeyspaceState::Deleting => self.destroy(record.group, held).await,
                // A node that shall not hold it any more is about to leave the cluster.
                KeyspaceState::Creating | KeyspaceState::Active => {}
            }
        }
        // This node was away while they were deleted.
        let gone: Vec<_> =
            held.replicas.keys().copied().filter(|group| catalog.is_gone(*group)).collect();
        for group in gone {
            self.destroy(group, held).await;
        }
    }

    async fn form(&self, record: &Record, held: &mut Held) {
        let group = record.group;
        if held.replicas.contains_key(&group) {
            return;
        }
        let formed = match record.founders.contains(&self.node) {
            true => Formation::Founders(record.founders.clone()),
            false => Formation::Joining,
        };
        let rank = election_rank(group, &record.members, self.node);
        let (spec, feed) = Seed::new(group, formed, rank).divide();
        match self.host.create_group(spec).await {
            Ok(handle) => {
                tracing::info!(%group, "holds the keyspace {}", record.name);
                self.begin(handle, feed, held);
            }
            Err(error) => tracing::warn!("cannot hold the keyspace {}: {error}", record.name),
        }
    }

    fn begin(&self, group: Group, feed: Feed, held: &mut Held) {
        let kv = LocalKv::start(group, feed, self.peers.clone(), self.options);
        held.there.remove(&kv.group());
        self.keyspaces.here(kv.clone());
        held.replicas.insert(kv.group(), kv);
    }

    async fn destroy(&self, group: GroupId, held: &mut Held) {
        if held.replicas.remove(&group).is_none() {
            return;
        }
        self.keyspaces.forget(group);
        match self.host.destroy_group(group).await {
            Ok(_) => tracing::info!(%group, "destroyed a keyspace"),
            // The host stops, and the next start finds the group again or its tombstone.
            Err(GroupError::Stopped { reason }) => tracing::debug!(%group, reason, "not destroyed"),
            Err(error) => tracing::warn!(%group, "a keyspace is not destroyed: {error}"),
        }
    }

    /// Has calls find the keyspaces that are on other nodes.
    fn route(&self, catalog: &Catalog, held: &mut Held) {
        let serving = catalog.all.values().filter(|record| record.state == KeyspaceState::Active);
        let elsewhere: BTreeMap<_, _> = serving
            .filter(|record| !held.replicas.contains_key(&record.group))
            .map(|record| (record.group, record.members.clone()))
            .collect();
        for group in held.there.keys().filter(|group| !elsewhere.contains_key(group)) {
            if !held.replicas.contains_key(group) {
                self.keyspaces.forget(*group);
            }
        }
        for (group, nodes) in &elsewhere {
            if held.there.get(group) != Some(nodes) {
                self.keyspaces.there(*group, nodes.iter().copied().collect());
            }
        }
        held.there = elsewhere;
    }

    async fn open_ports(&self, catalog: &Catalog, held: &mut Held) {
        let mut wanted = BTreeMap::new();
        for record in catalog.all.values() {
            let Some(port) = record.port.filter(|_| record.state == KeyspaceState::Active) else {
                continue;
            };
            let Some(port) = port.checked_add(self.port_offset) else { continue };
            let source = match held.replicas.contains_key(&record.group) {
                true => Source::Here,
                false => Source::There(record.members.clone()),
            };
            let address = format!("{}:{port}", self.client_host);
            wanted.insert(record.group, Wanted { address, source });
        }
        let Held { replicas, reports, ports, .. } = held;
        ports.set(wanted, |group, source| self.service(group, source, replicas, reports)).await;
    }

    /// The store behind a port, and what its clients are told of the cluster.
    fn service(
        &self,
        id: GroupId,
        source: &Source,
        replicas: &BTreeMap<GroupId, LocalKv>,
        reports: &Reports,
    ) -> Option<Service> {
        let (kv, replica): (Arc<dyn Kv>, _) = match source {
            Source::Here => {
                let kv = replicas.get(&id)?.clone();
                (Arc::new(kv.clone()), Some((self.host.group(id)?, kv)))
            }
            Source::There(nodes) => {
                let directory = self.followed.get();
                let addresses = nodes.iter().filter_map(|node| directory.all.get(node));
                let addresses = addresses.map(|record| record.address.clone()).collect();
                (Arc::new(RemoteKv::new(self.peers.clone(), id, addresses)), None)
            }
        };
        let control = KeyspaceControl {
            group: replica.as_ref().map(|(group, _)| group.clone()),
            cluster: self.operations.clone(),
        };
        let view = KeyspaceView {
            cluster: self.cluster,
            node: self.node,
            id,
            replica,
            reports: reports.clone(),
            members: self.members.clone(),
            catalog: self.catalog.clone(),
            table: self.table.clone(),
        };
        Some(Service { kv, view: Arc::new(view), control: Arc::new(control) })
    }

    /// Asks the nodes that hold what this one lacks how those groups are.
    async fn ask_others(&self, held: &Held) {
        let nodes: BTreeSet<NodeId> = held.there.values().flatten().copied().collect();
        let asked = join_all(nodes.into_iter().map(|node| async move {
            let call = self.peers.call::<GetNodeStatus>(
                node,
                Class::Call,
                &(),
                Bytes::new(),
                REPORT_TIMEOUT,
            );
            call.await.ok().map(|(status, _)| status.groups)
        }));
        let mut latest: BTreeMap<GroupId, GroupReport> = BTreeMap::new();
        for report in asked.await.into_iter().flatten().flatten() {
            if !held.there.contains_key(&report.group) {
                continue;
            }
            let rank = |report: &GroupReport| (report.term, report.role == Role::Leader);
            let is_later =
                latest.get(&report.group).is_none_or(|known| rank(known) < rank(&report));
            if is_later {
                latest.insert(report.group, report);
            }
        }
        *held.reports.write().unwrap_or_else(PoisonError::into_inner) = latest;
    }
}
