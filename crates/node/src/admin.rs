//! Answers to operators: how this node and the cluster are, and the access keys.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use onefold_admin::{
    ClusterStatus, CreateS3Key, GetClusterStatus, GetKeyspaceUsage, GetNodeStatus, GroupMembers,
    GroupReport, KeyspaceUsage, ListS3Keys, NodeReport, NodeStatus, RemoveS3Key, Role,
};
use onefold_files::FileSystem;
use onefold_kv::{Keyspaces, LocalKv};
use onefold_log::Log;
use onefold_replica::Host;
use onefold_table::Table;
use onefold_transport::{Class, Peers, RemoteCode, RemoteError, Router, TransportStatus};
use onefold_types::{ClusterId, GroupId, NodeId};

use crate::keys::{KeyError, S3Keys};
use crate::keyspaces::{FollowedCatalog, ServedKeyspaces, ShownPorts};
use crate::metrics::Reading;
use crate::moves::Moves;
use crate::registry::{Followed, Record};

/// How long another node may take to say how it is.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// What the answers are made of.
pub(crate) struct Admin {
    /// The cluster.
    pub(crate) cluster: ClusterId,
    /// This node.
    pub(crate) node: NodeId,
    /// Where its clients connect: etcd, S3 and HTTP.
    pub(crate) listeners: [String; 3],
    /// When the process started.
    pub(crate) started: Instant,
    /// Its groups.
    pub(crate) host: Host,
    /// Its log.
    pub(crate) log: Log,
    /// Its table.
    pub(crate) table: Arc<dyn Table>,
    /// The other nodes.
    pub(crate) peers: Peers,
    /// What happens on the peer port, once it is served.
    pub(crate) inbound: OnceLock<Arc<TransportStatus>>,
    /// The members.
    pub(crate) followed: Followed,
    /// The keyspaces.
    pub(crate) catalog: FollowedCatalog,
    /// Their ports on this node.
    pub(crate) ports: ShownPorts,
    /// Those whose clients this node serves.
    pub(crate) served: ServedKeyspaces,
    /// Their stores.
    pub(crate) stores: Keyspaces,
    /// The leaderships that were moved through this node.
    pub(crate) moves: Moves,
    /// The file system.
    pub(crate) files: Arc<dyn FileSystem>,
    /// The access keys.
    pub(crate) keys: S3Keys,
}

impl Admin {
    /// Enters the methods into the node's router.
    pub(crate) fn register(self: &Arc<Self>, router: &mut Router) {
        let admin = Arc::clone(self);
        router.call::<GetNodeStatus, _, _>(move |_, (), _| {
            let status = admin.node_status();
            async move { Ok((status, Bytes::new())) }
        });
        let admin = Arc::clone(self);
        router.call::<GetClusterStatus, _, _>(move |_, (), _| {
            let admin = Arc::clone(&admin);
            async move { Ok((admin.cluster_status().await, Bytes::new())) }
        });
        let admin = Arc::clone(self);
        router.call::<GetKeyspaceUsage, _, _>(move |_, (), _| {
            let usage = admin.usage();
            async move { Ok((usage, Bytes::new())) }
        });
        let keys = self.keys.clone();
        router.call::<CreateS3Key, _, _>(move |_, new, _| {
            let keys = keys.clone();
            async move { answer(keys.create(new).await) }
        });
        let keys = self.keys.clone();
        router.call::<ListS3Keys, _, _>(move |_, (), _| {
            let keys = keys.clone();
            async move { answer(keys.list().await) }
        });
        let keys = self.keys.clone();
        router.call::<RemoveS3Key, _, _>(move |_, access_key, _| {
            let keys = keys.clone();
            async move { answer(keys.remove(&access_key).await) }
        });
    }

    /// How this node is.
    pub(crate) fn node_status(&self) -> NodeStatus {
        let report = |status: onefold_replica::GroupStatus| GroupReport {
            group: status.group,
            role: match status.role {
                onefold_replica::Role::Leader => Role::Leader,
                onefold_replica::Role::Follower => Role::Follower,
                onefold_replica::Role::Candidate | onefold_replica::Role::PreCandidate => {
                    Role::Candidate
                }
            },
            term: status.term,
            leader: status.leader,
            commit: status.commit,
            applied: status.applied,
            members: GroupMembers {
                voters: status.voters,
                outgoing: status.outgoing,
                learners: status.learners,
                joining: status.joining,
            },
        };
        let [etcd, s3, http] = self.listeners.clone();
        NodeStatus {
            node: self.node,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.started.elapsed().as_secs(),
            etcd,
            s3,
            http,
            groups: self.host.status().into_iter().map(report).collect(),
            client_ports: self.ports.read().unwrap_or_else(PoisonError::into_inner).clone(),
            serving: self.served.groups(),
            held: self.moves.held(),
            log_bytes: self.log.status().bytes,
            table_bytes: self.table.size_bytes(),
        }
    }

    /// What the key-value stores on this node take. One that cannot be read is left out.
    pub(crate) fn usage(&self) -> Vec<KeyspaceUsage> {
        let usage = |kv: &LocalKv| {
            let status = kv.status_here().ok()?;
            Some(KeyspaceUsage {
                group: kv.group(),
                keys: status.keys,
                revision: status.header.revision.get(),
                compacted: status.compacted.get(),
                live_bytes: status.live_bytes,
                history_bytes: status.history_bytes,
                quota_bytes: status.quota_bytes,
                is_full: status.is_full,
                watchers: kv.watchers_here() as u64,
                leases: kv.leases_here() as u64,
            })
        };
        self.stores.all_here().iter().filter_map(usage).collect()
    }

    fn keyspace_names(&self) -> BTreeMap<GroupId, String> {
        let catalog = self.catalog.get();
        catalog.all.values().map(|record| (record.group, record.name.clone())).collect()
    }

    /// What the metrics page shows.
    pub(crate) fn reading(&self) -> Reading {
        Reading {
            node: self.node,
            uptime_s: self.started.elapsed().as_secs(),
            log: self.log.status(),
            table_bytes: self.table.size_bytes(),
            host: self.host.metrics(),
            groups: self.host.status(),
            names: self.keyspace_names(),
            keyspaces: self.usage(),
            inbound: self.inbound.get().cloned(),
            outbound: self.peers.status(),
        }
    }

    /// How every node is.
    async fn cluster_status(&self) -> ClusterStatus {
        let directory = self.followed.get();
        let reports = directory.members().map(|record| async move {
            let Record { id: node, address, .. } = record.clone();
            let outcome = if node == self.node {
                Ok(self.node_status())
            } else {
                let call = self.peers.call::<GetNodeStatus>(
                    node,
                    Class::Call,
                    &(),
                    Bytes::new(),
                    STATUS_TIMEOUT,
                );
                call.await.map(|(status, _)| status).map_err(|error| error.to_string())
            };
            let (status, error) = match outcome {
                Ok(status) => (Some(status), None),
                Err(error) => (None, Some(error)),
            };
            NodeReport { node, address, status, error }
        });
        let usage = tokio::time::timeout(STATUS_TIMEOUT, self.files.usage());
        let (nodes, usage) = tokio::join!(join_all(reports), usage);
        ClusterStatus {
            cluster: self.cluster,
            answered_by: self.node,
            nodes,
            files: usage.ok().and_then(Result::ok),
            keyspaces: self.keyspace_names(),
        }
    }
}

fn answer<T>(outcome: Result<T, KeyError>) -> Result<(T, Bytes), RemoteError> {
    match outcome {
        Ok(value) => Ok((value, Bytes::new())),
        Err(error) => {
            let code = match error {
                KeyError::Invalid(_) => RemoteCode::Invalid,
                KeyError::Damaged { .. } => RemoteCode::Internal,
                KeyError::Kv(_) => RemoteCode::Unavailable,
            };
            Err(RemoteError::new(code, error.to_string()))
        }
    }
}
