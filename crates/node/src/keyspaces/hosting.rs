//! A node's part: it forms and destroys its replicas of keyspaces, and serves their clients.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use onefold_admin::{GetNodeStatus, GroupReport, History, KeyspaceLimits, KeyspaceState, Role};
use onefold_etcd::{Keyspace, Room};
use onefold_kv::{AutoCompaction, Feed, Keyspaces, Kv, KvOptions, KvStore, LocalKv, RemoteKv};
use onefold_log::Recovered;
use onefold_replica::state::{StoredGroups, stored_groups};
use onefold_replica::{Formation, Group, GroupError, GroupSpec, Host, HostError};
use onefold_table::Table;
use onefold_transport::{Class, Peers};
use onefold_types::{ClusterId, GroupId, NodeId};
use tokio_util::sync::CancellationToken;

use super::control::KeyspaceControl;
use super::ports::{Ports, ShownPorts, Wanted};
use super::served::ServedKeyspaces;
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
    /// What all of them share for that.
    pub(crate) room: Room,
    /// Where clients that choose one by name find it.
    pub(crate) served: ServedKeyspaces,
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
    /// The keyspaces that etcd clients are served here.
    served: BTreeMap<GroupId, Serving>,
    ports: Ports,
    reports: Reports,
}

/// A keyspace that is served.
struct Serving {
    source: Source,
    keyspace: Arc<Keyspace>,
}

/// What a keyspace is served from: when that changes, it is served anew.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// This node's replica.
    Here,
    /// The nodes at these addresses.
    There(Vec<String>),
}

impl Hosting {
    /// Works until it shall stop, and then lets open requests end.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut held = Held {
            replicas: std::mem::take(&mut self.replicas),
            there: BTreeMap::new(),
            served: BTreeMap::new(),
            ports: Ports::new(self.shown.clone()),
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
            self.configure(&catalog, &held);
            self.route(&catalog, &mut held);
            self.serve(&catalog, &mut held);
            self.open_ports(&catalog, &mut held).await;
        }
        held.served.values().for_each(|serving| serving.keyspace.close());
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
        let interval = self.options.lease_checkpoint_interval;
        let kv = LocalKv::start_unconfigured(group, feed, self.peers.clone(), interval);
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

    /// Has each replica keep within what was chosen for its keyspace.
    fn configure(&self, catalog: &Catalog, held: &Held) {
        for record in catalog.all.values() {
            if let Some(kv) = held.replicas.get(&record.group) {
                kv.configure(bounded(self.options, &record.limits));
            }
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

    /// Serves etcd clients the keyspaces that there are, each from where it is now.
    fn serve(&self, catalog: &Catalog, held: &mut Held) {
        let mut before = std::mem::take(&mut held.served);
        for record in catalog.all.values().filter(|it| it.state == KeyspaceState::Active) {
            let source = match held.replicas.contains_key(&record.group) {
                true => Source::Here,
                false => Source::There(self.addresses(&record.members)),
            };
            let serving = match before.remove(&record.group) {
                Some(serving) if serving.source == source => Some(serving),
                former => {
                    former.iter().for_each(|it| it.keyspace.close());
                    self.begin_to_serve(record, source, held)
                }
            };
            if let Some(serving) = serving {
                held.served.insert(record.group, serving);
            }
        }
        before.values().for_each(|serving| serving.keyspace.close());
        let by_name = catalog.all.values().filter_map(|record| {
            let serving = held.served.get(&record.group)?;
            Some((record.name.clone(), (record.group, Arc::clone(&serving.keyspace))))
        });
        self.served.set(by_name.collect());
    }

    fn addresses(&self, nodes: &BTreeSet<NodeId>) -> Vec<String> {
        let directory = self.followed.get();
        let known = nodes.iter().filter_map(|node| directory.all.get(node));
        known.map(|record| record.address.clone()).collect()
    }

    /// The store of a keyspace, and what its clients are told of the cluster.
    fn begin_to_serve(&self, record: &Record, source: Source, held: &Held) -> Option<Serving> {
        let id = record.group;
        let (kv, replica): (Arc<dyn Kv>, _) = match &source {
            Source::Here => {
                let kv = held.replicas.get(&id)?.clone();
                (Arc::new(kv.clone()), Some((self.host.group(id)?, kv)))
            }
            Source::There(addresses) => {
                (Arc::new(RemoteKv::new(self.peers.clone(), id, addresses.clone())), None)
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
            reports: held.reports.clone(),
            members: self.members.clone(),
            catalog: self.catalog.clone(),
            table: self.table.clone(),
        };
        let keyspace = Keyspace::new(
            record.name.clone(),
            kv,
            Arc::new(view),
            Arc::new(control),
            (self.gateway.clone(), self.room.clone()),
            CancellationToken::new(),
        );
        Some(Serving { source, keyspace: Arc::new(keyspace) })
    }

    async fn open_ports(&self, catalog: &Catalog, held: &mut Held) {
        let wanted = catalog.all.values().filter_map(|record| {
            let serving = held.served.get(&record.group)?;
            let port = record.port?.checked_add(self.port_offset)?;
            let address = format!("{}:{port}", self.client_host);
            Some((record.group, Wanted { address, keyspace: Arc::clone(&serving.keyspace) }))
        });
        let wanted = wanted.collect();
        held.ports.set(wanted).await;
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

/// What a keyspace is kept within: what was chosen for it, and else what the node was started with.
fn bounded(options: KvOptions, limits: &KeyspaceLimits) -> KvOptions {
    let auto_compaction = limits.history.map(|history| match history {
        History::All => AutoCompaction::Off,
        History::Seconds(seconds) => {
            AutoCompaction::Periodic { retention: Duration::from_secs(seconds) }
        }
        History::Revisions(retention) => AutoCompaction::Revision { retention },
    });
    KvOptions {
        quota_bytes: limits.quota_bytes.unwrap_or(options.quota_bytes),
        auto_compaction: auto_compaction.unwrap_or(options.auto_compaction),
        ..options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_chosen_for_a_keyspace_counts_and_the_nodes_own_flags_for_the_rest() {
        let own = KvOptions::default();
        assert_eq!(bounded(own, &KeyspaceLimits::default()), own);
        let limits = KeyspaceLimits { quota_bytes: Some(0), history: Some(History::Revisions(9)) };
        let chosen = bounded(own, &limits);
        assert_eq!(chosen.quota_bytes, 0);
        assert_eq!(chosen.auto_compaction, AutoCompaction::Revision { retention: 9 });
        assert_eq!(chosen.lease_checkpoint_interval, own.lease_checkpoint_interval);
    }
}
