//! The life of a node: open, form, serve, stop.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use onefold_admin::S3Key;
use onefold_etcd::{Keyspace, Options as EtcdOptions, Room};
use onefold_files::{FilesConfig, FilesNode, Namespace, StoreError};
use onefold_kv::{
    AutoCompaction, Feed, Keyspaces, KvOptions, KvStore, LEASE_CHECKPOINT_INTERVAL_DEFAULT,
    LocalKv, RETENTION_DEFAULT,
};
use onefold_log::{Log, LogError, LogOptions};
use onefold_mapreduce::{MapReduceError, MapReduceNode};
use onefold_replica::{
    Formation, GroupSpec, GroupStatus, Host, HostConfig, HostError, StateMachine,
};
use onefold_table::{FjallTable, Table, TableError, TableOptions};
use onefold_transport::{
    Identity, IdentityCell, Limits, Peers, Router, Routes, ServeError, Server,
};
use onefold_types::{ClusterId, GroupId, NodeId};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::controller::{self, Controller};
use crate::duplicate::until_duplicated;
use crate::folder::{Folder, FolderError, Formed};
use crate::formation::{FormationError, Introduction, form};
use crate::http;
use crate::keys::S3Keys;
use crate::keyspaces::hosting::{self, Hosting, Seed};
use crate::keyspaces::{self, CatalogStore, FollowedCatalog, ServedKeyspaces, ShownPorts};
use crate::members::{ClientAddress, Members};
use crate::membership::Membership;
use crate::moves::Moves;
use crate::operations::Operations;
use crate::placement::election_rank;
use crate::records;
use crate::registry::{self, Directory, Followed, Registry};
use crate::roster::{Roster, Verdict};

/// The system group holds the cluster's own records: nothing may refuse them.
const SYSTEM_OPTIONS: KvOptions = KvOptions {
    quota_bytes: 0,
    auto_compaction: AutoCompaction::Periodic { retention: RETENTION_DEFAULT },
    lease_checkpoint_interval: LEASE_CHECKPOINT_INTERVAL_DEFAULT,
};

const READY_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long a service may take to end its open requests.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How long a system may take to tell the other nodes that this one stops.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(1);

/// What a node has to know.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Where it keeps its data.
    pub data_dir: PathBuf,
    /// Where it listens for other nodes and for clients of the transport.
    pub listen: String,
    /// Where to dial other nodes instead of where they say that they are reached.
    pub routes: Routes,
    /// Where the others reach it.
    pub advertise: String,
    /// The founders of the cluster, this node included; empty for a cluster of one.
    pub join: Vec<String>,
    /// Where etcd clients connect.
    pub etcd_listen: String,
    /// What was chosen for the key-value store.
    pub kv: KvOptions,
    /// What was chosen for etcd clients.
    pub etcd: EtcdOptions,
    /// Where S3 clients connect.
    pub s3_listen: String,
    /// Where health and metrics are served.
    pub http_listen: String,
    /// What this node adds to the port of each keyspace that has one: nodes on one host need
    /// different ports.
    pub keyspace_port_offset: u16,
    /// Whether the cluster gets a first S3 access key.
    pub create_initial_s3_key: bool,
}

/// What a person should be told.
#[derive(Clone, Debug)]
pub enum NodeEvent {
    /// Every part answers.
    Ready {
        /// The node.
        node: NodeId,
        /// Its cluster.
        cluster: ClusterId,
    },
    /// The cluster's first access key was created; nobody will show it again.
    FirstS3Key {
        /// The access key.
        access_key: String,
        /// Its secret.
        secret_key: String,
    },
}

/// Why a node can't run, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The cluster.
    #[error(transparent)]
    Formation(#[from] FormationError),
    /// The peer port.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Another port.
    #[error(
        "cannot listen on {address} for {purpose}: {source}; stop what listens there or choose \
         another address"
    )]
    Listen {
        /// Where.
        address: String,
        /// For which clients.
        purpose: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The write-ahead log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The groups.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The chunks.
    #[error(transparent)]
    Chunks(#[from] StoreError),
    /// MapReduce's folder.
    #[error(transparent)]
    MapReduce(#[from] MapReduceError),
    /// The first access key.
    #[error("the first S3 access key could not be created: {0}")]
    FirstKey(String),
    /// Another process runs as this node.
    #[error(
        "another process runs as node {node}: this data folder is a copy of its folder, or the \
         other way round. The members know that one, so this one stops. Stop and delete the copy"
    )]
    Duplicate {
        /// The node.
        node: NodeId,
    },
    /// A part ended that should run for as long as the node.
    #[error("{part} ended unexpectedly{reason}; start the node again")]
    Ended {
        /// Which part.
        part: &'static str,
        /// Why, if it said.
        reason: String,
    },
}

/// Runs a node until `shutdown` is cancelled, then stops it in order.
///
/// # Errors
/// When the node can't start, or had to stop because a part of it failed.
pub async fn run(
    config: NodeConfig,
    shutdown: CancellationToken,
    notify: impl Fn(NodeEvent),
) -> Result<(), NodeError> {
    let data_dir = config.data_dir.clone();
    let mut folder = blocking(move || Folder::open(&data_dir)).await?;
    // Ports first: one that is taken is the commonest mistake, and cheap to find.
    let listeners = Listeners::bind(&config).await?;
    let identity = Arc::new(IdentityCell::new(identity_of(&folder)));
    let routes = config.routes.clone();
    let peers = Peers::with_routes(Arc::clone(&identity), Limits::default(), routes);
    let introduction = Introduction::new(&folder, &config.advertise, &config.join);
    let formed = tokio::select! {
        formed = join(&config, &mut folder, &introduction, &identity, &peers) => formed?,
        () = shutdown.cancelled() => return Ok(()),
    };
    identity.set(identity_of(&folder));
    for member in &formed.members {
        peers.set_address(member.id, member.address.clone());
    }
    let server = Server::bind(&config.listen).await?;
    let joined = Joined {
        folder,
        formed,
        peers,
        identity: identity.clone(),
        introduction: introduction.clone(),
    };
    let node = Node::open(&config, joined).await?;
    let mut router = Router::default();
    introduction.register(&mut router);
    node.register(&mut router);
    // Nobody else sets it.
    let _ = node.admin.inbound.set(server.status());

    let stop = CancellationToken::new();
    let mut parts: Parts = JoinSet::new();
    let token = stop.clone();
    parts.spawn(async move {
        server.serve(identity, router, token).await;
        ("the peer port", String::new())
    });
    node.serve(&mut parts, listeners, &config, &stop);
    let outcome = node.watch(&config, &notify, &mut parts, &shutdown).await;
    stop.cancel();
    node.stop(parts).await;
    outcome
}

/// Parts that run for as long as the node; each ends with its name and what went wrong.
type Parts = JoinSet<(&'static str, String)>;

/// The ports of the gateways, taken before anything else happens.
struct Listeners {
    etcd: TcpListener,
    s3: TcpListener,
    http: TcpListener,
}

impl Listeners {
    async fn bind(config: &NodeConfig) -> Result<Self, NodeError> {
        Ok(Self {
            etcd: listen(&config.etcd_listen, "etcd clients").await?,
            s3: listen(&config.s3_listen, "S3 clients").await?,
            http: listen(&config.http_listen, "HTTP").await?,
        })
    }
}

async fn listen(address: &str, purpose: &'static str) -> Result<TcpListener, NodeError> {
    TcpListener::bind(address).await.map_err(|source| NodeError::Listen {
        address: address.to_owned(),
        purpose,
        source,
    })
}

/// Runs what waits for the disk where waiting harms nobody.
async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, NodeError>
where
    T: Send + 'static,
    E: Into<NodeError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(error) => Err(NodeError::Ended { part: "opening", reason: format!(": {error}") }),
    }
}

fn identity_of(folder: &Folder) -> Identity {
    let member = |formed: &Formed| formed.member(folder.incarnation()).map(|member| member.id);
    Identity {
        cluster: folder.formed().map(|formed| formed.cluster),
        node: folder.formed().and_then(member),
    }
}

/// Makes the folder a member of a cluster; meanwhile the peer port only says who this node is.
async fn join(
    config: &NodeConfig,
    folder: &mut Folder,
    introduction: &Introduction,
    identity: &Arc<IdentityCell>,
    peers: &Peers,
) -> Result<Formed, NodeError> {
    if let Some(formed) = folder.formed() {
        return Ok(formed.clone());
    }
    let server = Server::bind(&config.listen).await?;
    let mut router = Router::default();
    introduction.register(&mut router);
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.serve(Arc::clone(identity), router, stop.clone()));
    let _stop_when_dropped = stop.clone().drop_guard();
    let formed = form(folder, introduction, peers).await?;
    stop.cancel();
    if serving.await.is_err() {
        tracing::debug!("the peer port ended early while the cluster was formed");
    }
    Ok(formed)
}

/// A member of a cluster before its parts are opened.
struct Joined {
    folder: Folder,
    formed: Formed,
    peers: Peers,
    identity: Arc<IdentityCell>,
    introduction: Introduction,
}

/// All parts of a node that is a member of a cluster.
struct Node {
    id: NodeId,
    cluster: ClusterId,
    data_dir: PathBuf,
    formed: Formed,
    host: Host,
    system: LocalKv,
    kv: LocalKv,
    files: FilesNode,
    mapreduce: MapReduceNode,
    members: Arc<Members>,
    admin: Arc<Admin>,
    keys: S3Keys,
    roster: Arc<Roster>,
    membership: Membership,
    operations: Arc<Operations>,
    /// Where calls find the keyspaces.
    routes: Keyspaces,
    service: keyspaces::Service,
    /// What all keyspaces share when they serve etcd clients.
    room: Room,
    /// Those that etcd clients can choose.
    served: ServedKeyspaces,
    /// Taken when the gateways are started.
    hosting: Mutex<Option<Hosting>>,
}

impl Node {
    async fn open(config: &NodeConfig, joined: Joined) -> Result<Self, NodeError> {
        let Joined { mut folder, formed, peers, identity, introduction } = joined;
        let started = Instant::now();
        let id = formed.member(folder.incarnation()).expect("a formed folder is a member").id;
        let cluster = formed.cluster;
        let (log_path, table_path) = (folder.part("log"), folder.part("table"));
        let log_options = LogOptions {
            owner: folder.incarnation(),
            must_exist: folder.is_log_begun(),
            ..LogOptions::default()
        };
        let (log, recovered) = blocking(move || Log::open(&log_path, log_options)).await?;
        folder.begin_log()?;
        let table =
            blocking(move || FjallTable::open(&table_path, TableOptions::default())).await?;
        let table: Arc<dyn Table> = Arc::new(table);

        let founders = formed.founders();
        let formation = match founders.contains(&id) {
            true => Formation::Founders(founders),
            false => Formation::Joining,
        };
        let voters: BTreeSet<NodeId> = formed.members.iter().map(|member| member.id).collect();
        let (system_feed, kv_feed) = (Feed::default(), Feed::default());
        let machines: [(GroupId, Box<dyn StateMachine>); 3] = [
            (GroupId::SYSTEM, Box::new(KvStore::new(system_feed.clone()))),
            (GroupId::KV, Box::new(KvStore::new(kv_feed.clone()))),
            (GroupId::NAMESPACE, Box::new(Namespace)),
        ];
        let groups = machines.map(|(group, state_machine)| GroupSpec {
            election_rank: election_rank(group, &voters, id),
            ..GroupSpec::new(group, formation.clone(), state_machine)
        });
        let mut groups = Vec::from(groups);
        let seeds = hosting::stored(&table, &recovered)?;
        let (specs, feeds): (Vec<_>, Vec<_>) = seeds.into_iter().map(Seed::divide).unzip();
        let created: Vec<_> = specs.iter().map(|spec| spec.id).collect();
        groups.extend(specs);
        let host = {
            let (log, table, peers) = (log.clone(), Arc::clone(&table), peers.clone());
            let config = HostConfig::new(id);
            blocking(move || Host::start(config, log, recovered, table, peers, groups)).await?
        };
        let group = |id| host.group(id).expect("the node hosts the groups that it was given");
        let system =
            LocalKv::start(group(GroupId::SYSTEM), system_feed, peers.clone(), SYSTEM_OPTIONS);
        let kv = LocalKv::start(group(GroupId::KV), kv_feed, peers.clone(), config.kv);
        let replicas = created.into_iter().zip(feeds);
        let replicas: BTreeMap<_, _> = replicas
            .map(|(id, feed)| {
                // What was chosen for it is known once the catalog is.
                let interval = config.kv.lease_checkpoint_interval;
                let kv = LocalKv::start_unconfigured(group(id), feed, peers.clone(), interval);
                (id, kv)
            })
            .collect();
        let routes = Keyspaces::default();
        for local in [&system, &kv].into_iter().chain(replicas.values()) {
            routes.here(local.clone());
        }
        let files_config = FilesConfig::new(id, cluster, folder.part("chunks"));
        let files =
            FilesNode::start(files_config, group(GroupId::NAMESPACE), peers.clone()).await?;
        let mapreduce = MapReduceNode::start(
            id,
            folder.part("mapreduce"),
            Arc::new(system.clone()),
            Arc::new(files.files()),
            peers.clone(),
        )
        .await?;
        let keys = S3Keys::new(Arc::new(system.clone()));
        let followed = Followed::new(Directory::of_folder(&formed));
        let (catalog, ports) = (FollowedCatalog::default(), ShownPorts::default());
        let (served, moves) = (ServedKeyspaces::default(), Moves::default());
        let admin = Arc::new(Admin {
            cluster,
            node: id,
            listeners: [&config.etcd_listen, &config.s3_listen, &config.http_listen]
                .map(Clone::clone),
            started,
            host: host.clone(),
            log,
            table: Arc::clone(&table),
            peers: peers.clone(),
            inbound: OnceLock::new(),
            followed: followed.clone(),
            catalog: catalog.clone(),
            ports: ports.clone(),
            served: served.clone(),
            stores: routes.clone(),
            moves: moves.clone(),
            files: Arc::new(files.files()),
            keys: keys.clone(),
        });
        let members = Arc::new(Members::new(
            cluster,
            followed.clone(),
            id,
            group(GroupId::KV),
            kv.clone(),
            Arc::clone(&admin),
        ));
        let data_dir = config.data_dir.clone();
        let folder = Arc::new(Mutex::new(folder));
        let controller = Controller {
            node: id,
            system: group(GroupId::SYSTEM),
            host: host.clone(),
            peers: peers.clone(),
            registry: Registry::new(Arc::new(system.clone())),
            followed: followed.clone(),
            catalog: catalog.clone(),
            catalog_store: CatalogStore::new(Arc::new(system.clone())),
            admin: Arc::clone(&admin),
            files: Arc::new(files.files()),
        };
        let service = keyspaces::Service {
            controller: controller.clone(),
            catalog: catalog.clone(),
            store: controller.catalog_store.clone(),
            members: Arc::clone(&members),
        };
        let membership = Membership {
            registry: controller.registry.clone(),
            followed: followed.clone(),
            peers: peers.clone(),
            introduction: introduction.clone(),
            controller,
        };
        let operations = Arc::new(Operations {
            membership: membership.clone(),
            group: group(GroupId::KV),
            system: Arc::new(system.clone()),
            moves,
        });
        let room = Room::default();
        let hosting = Hosting {
            cluster,
            node: id,
            host: host.clone(),
            peers: peers.clone(),
            table,
            catalog,
            followed: followed.clone(),
            members: Arc::clone(&members),
            operations: Arc::clone(&operations),
            keyspaces: routes.clone(),
            replicas,
            options: config.kv,
            gateway: gateway_options(&config.data_dir, &config.etcd),
            room: room.clone(),
            served: served.clone(),
            client_host: host_of(&config.etcd_listen),
            port_offset: config.keyspace_port_offset,
            shown: ports,
        };
        let advertise = config.advertise.clone();
        let roster = Arc::new(Roster {
            node: id,
            advertise,
            followed,
            peers,
            identity,
            introduction,
            folder,
        });
        Ok(Self {
            id,
            cluster,
            data_dir,
            formed,
            host,
            system,
            kv,
            files,
            mapreduce,
            members,
            admin,
            keys,
            roster,
            membership,
            operations,
            routes,
            service,
            room,
            served,
            hosting: Mutex::new(Some(hosting)),
        })
    }

    fn register(&self, router: &mut Router) {
        self.host.register(router);
        onefold_kv::register(&self.routes, &self.admin.peers, router);
        self.service.register(router);
        self.files.register(router);
        self.mapreduce.register(router);
        self.admin.register(router);
        self.membership.register(router);
        controller::register(&self.host, router);
    }

    /// Starts the gateways.
    fn serve(
        &self,
        parts: &mut Parts,
        listeners: Listeners,
        config: &NodeConfig,
        stop: &CancellationToken,
    ) {
        let Listeners { etcd, s3, http } = listeners;
        let operations = Arc::clone(&self.operations);
        let (kv, members, token) =
            (Arc::new(self.kv.clone()), Arc::clone(&self.members), stop.clone());
        let bounds = (gateway_options(&self.data_dir, &config.etcd), self.room.clone());
        let name = keyspaces::DEFAULT_NAME.to_owned();
        let own = Keyspace::new(name, kv, members, operations, bounds, token.clone());
        let others = Arc::new(self.served.clone());
        parts.spawn(async move {
            let serving = onefold_etcd::serve_keyspace(etcd, Arc::new(own), others, token);
            ("the etcd port", reason(serving.await))
        });
        let (files, keys, token) =
            (Arc::new(self.files.files()), Arc::new(self.keys.clone()), stop.clone());
        parts.spawn(async move {
            onefold_s3::serve(s3, files, keys, onefold_s3::Config::default(), token).await;
            ("the S3 port", String::new())
        });
        let (files, token) = (self.files.files(), stop.clone());
        parts.spawn(async move {
            let leading = files.clone();
            onefold_s3::expire(Arc::new(files), move || leading.leads(), token).await;
            ("the removal of what expired", String::new())
        });
        let (admin, token) = (Arc::clone(&self.admin), stop.clone());
        parts
            .spawn(async move { ("the HTTP port", reason(http::serve(http, admin, token).await)) });
        let (members, system, token) =
            (Arc::clone(&self.members), Arc::new(self.system.clone()), stop.clone());
        let own = ClientAddress {
            etcd: client_address(&config.advertise, &config.etcd_listen),
            port_offset: config.keyspace_port_offset,
        };
        parts.spawn(async move {
            token.run_until_cancelled(members.follow(system, own)).await;
            ("following the members", String::new())
        });
        let Membership { registry, followed, controller, .. } = self.membership.clone();
        let (token, node, formed) = (stop.clone(), self.id, self.formed.clone());
        parts.spawn(async move {
            let founders = formed.founders();
            let first = founders.contains(&node).then(|| registry::change::bootstrap(&formed));
            let following = records::follow(registry, followed, first);
            token.run_until_cancelled(following).await;
            ("following the registry", String::new())
        });
        self.serve_keyspaces(parts, stop);
        let token = stop.clone();
        parts.spawn(async move {
            token.run_until_cancelled(controller.run()).await;
            ("the controller", String::new())
        });
    }

    fn serve_keyspaces(&self, parts: &mut Parts, stop: &CancellationToken) {
        let (store, catalog) = (self.service.store.clone(), self.service.catalog.clone());
        let token = stop.clone();
        parts.spawn(async move {
            token.run_until_cancelled(records::follow(store, catalog, None)).await;
            ("following the keyspaces", String::new())
        });
        let hosting = self.hosting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(hosting) = hosting {
            let stop = stop.clone();
            parts.spawn(async move {
                hosting.run(stop).await;
                ("serving the keyspaces", String::new())
            });
        }
    }

    /// Tells when the node is ready, and waits until it shall or must stop.
    async fn watch(
        &self,
        config: &NodeConfig,
        notify: &impl Fn(NodeEvent),
        parts: &mut Parts,
        shutdown: &CancellationToken,
    ) -> Result<(), NodeError> {
        let mut failure = self.host.failure();
        let tell = |directory: &Directory| self.files.set_leaving(directory.leaving());
        let announce = async {
            self.announce(config, notify).await?;
            std::future::pending::<Result<(), NodeError>>().await
        };
        tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            failed = announce => failed,
            verdict = self.roster.keep(tell) => match verdict {
                Verdict::Removed => Err(self.leave().await),
                Verdict::Folder(error) => Err(error.into()),
            },
            () = self.roster.exchange() => Err(self.leave().await),
            () = until_duplicated(self.id, &self.admin.peers) => {
                Err(NodeError::Duplicate { node: self.id })
            }
            ended = parts.join_next() => Err(match ended {
                Some(Ok((part, reason))) => NodeError::Ended { part, reason },
                Some(Err(panic)) => {
                    NodeError::Ended { part: "a part", reason: format!(": {panic}") }
                }
                None => NodeError::Ended { part: "every part", reason: String::new() },
            }),
            failed = failure.wait_for(Option::is_some) => {
                let error = failed.ok().and_then(|failed| failed.clone());
                Err(error.map_or_else(
                    || NodeError::Ended { part: "the group host", reason: String::new() },
                    NodeError::Host,
                ))
            }
        }
    }

    /// The node was removed: no process shall start on its folder again.
    async fn leave(&self) -> NodeError {
        if let Err(error) = self.roster.close_folder().await {
            return error.into();
        }
        let (path, node, cluster) = (self.data_dir.clone(), self.id, self.cluster);
        FolderError::Removed { path, node, cluster }.into()
    }

    async fn announce(
        &self,
        config: &NodeConfig,
        notify: &impl Fn(NodeEvent),
    ) -> Result<(), NodeError> {
        let own = |group: &GroupStatus| !group.group.is_keyspace();
        while self.host.status().iter().filter(|it| own(it)).any(|it| it.leader.is_none()) {
            tokio::time::sleep(READY_POLL_INTERVAL).await;
        }
        notify(NodeEvent::Ready { node: self.id, cluster: self.cluster });
        if !config.create_initial_s3_key {
            return Ok(());
        }
        loop {
            match self.keys.create_first().await {
                Ok(Some(key)) => {
                    let S3Key { access_key, secret_key, .. } = key;
                    notify(NodeEvent::FirstS3Key { access_key, secret_key });
                    return Ok(());
                }
                Ok(None) => return Ok(()),
                Err(error) => tracing::warn!("creating the first S3 access key: {error}"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Stops the parts, the uppermost first.
    async fn stop(&self, mut parts: Parts) {
        let ended = async { while parts.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_PATIENCE, ended).await.is_err() {
            tracing::warn!("some requests were cut off");
        }
        // Handing over what others should know needs a majority, which may be stopping as well.
        for part in [self.mapreduce.shutdown().boxed(), self.files.shutdown().boxed()] {
            if tokio::time::timeout(HAND_OVER_PATIENCE, part).await.is_err() {
                tracing::debug!("the others will notice by themselves that this node is gone");
            }
        }
        self.host.shutdown().await;
    }
}

fn reason<E: std::fmt::Display>(outcome: Result<(), E>) -> String {
    outcome.err().map(|error| format!(": {error}")).unwrap_or_default()
}

/// How the etcd API is served.
fn gateway_options(data_dir: &Path, chosen: &EtcdOptions) -> EtcdOptions {
    EtcdOptions { scratch_dir: data_dir.to_owned(), ..chosen.clone() }
}

/// The host of an address.
fn host_of(address: &str) -> String {
    address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned()
}

/// Where clients of another machine connect: a gateway that listens everywhere is found at the
/// host that the peers use.
fn client_address(advertise: &str, listen: &str) -> String {
    let everywhere = listen.parse::<SocketAddr>().is_ok_and(|a| a.ip().is_unspecified());
    match (advertise.rsplit_once(':'), listen.rsplit_once(':')) {
        (Some((host, _)), Some((_, port))) if everywhere => format!("{host}:{port}"),
        _ => listen.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_listens_everywhere_is_found_at_the_peers_host() {
        assert_eq!(client_address("10.0.0.1:7000", "0.0.0.0:2379"), "10.0.0.1:2379");
        assert_eq!(client_address("10.0.0.1:7000", "10.0.0.2:2379"), "10.0.0.2:2379");
    }
}
