//! Who the members are and where their clients connect, for the etcd gateway.
//!
//! A member's peer address is in the registry. Where its etcd clients connect is its own affair, so
//! each node writes it into the system keyspace when it starts, and follows what the others wrote:
//! the address and, if it is not 0, what the node adds to the ports of keyspaces.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use onefold_admin::NodeState;
use onefold_etcd::{Alarm, AlarmKind, ClusterView, Member, StatusView};
use onefold_kv::{Event, EventKind, Kv, KvError, LocalKv, PutRequest, RangeRequest, WatchRequest};
use onefold_replica::Group;
use onefold_types::{ClusterId, NodeId};

use crate::admin::Admin;
use crate::metrics;
use crate::registry::{Followed, Record};

const PREFIX: &str = "nodes/etcd/";
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Where a node's etcd clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientAddress {
    /// The default keyspace's port.
    pub(crate) etcd: String,
    /// What the node adds to a keyspace's own port.
    pub(crate) port_offset: u16,
}

impl ClientAddress {
    fn parse(text: &str) -> Option<Self> {
        let (etcd, port_offset) = match text.split_once(' ') {
            Some((etcd, offset)) => (etcd, offset.parse().ok()?),
            None => (text, 0),
        };
        Some(Self { etcd: etcd.to_owned(), port_offset })
    }

    fn text(&self) -> String {
        match self.port_offset {
            0 => self.etcd.clone(),
            offset => format!("{} {offset}", self.etcd),
        }
    }

    /// Where a keyspace's clients connect that has this port.
    fn of_keyspace(&self, port: u16) -> Option<String> {
        let (host, _) = self.etcd.rsplit_once(':')?;
        Some(format!("{host}:{}", port.checked_add(self.port_offset)?))
    }
}

/// The members, as they are known now.
pub(crate) struct Members {
    cluster: ClusterId,
    followed: Followed,
    node: NodeId,
    group: Group,
    kv: LocalKv,
    admin: Arc<Admin>,
    etcd: RwLock<BTreeMap<NodeId, ClientAddress>>,
}

impl Members {
    /// The members of a cluster; `group` is the replica of the default keyspace `kv`.
    pub(crate) fn new(
        cluster: ClusterId,
        followed: Followed,
        node: NodeId,
        group: Group,
        kv: LocalKv,
        admin: Arc<Admin>,
    ) -> Self {
        Self { cluster, followed, node, group, kv, admin, etcd: RwLock::default() }
    }

    /// Tells the others where this node's etcd clients connect, and follows what they tell, for as
    /// long as the future is polled.
    pub(crate) async fn follow(&self, kv: Arc<dyn Kv>, own: ClientAddress) {
        let key = format!("{PREFIX}{}", self.node);
        let own = own.text();
        loop {
            match self.follow_once(&*kv, &key, &own).await {
                Ok(()) => {}
                Err(error) => tracing::debug!("following the members' addresses: {error}"),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn follow_once(&self, kv: &dyn Kv, key: &str, own: &str) -> Result<(), KvError> {
        let known = kv.range(RangeRequest::key(key.to_owned())).await?;
        if known.kvs.first().is_none_or(|record| record.value != own.as_bytes()) {
            kv.put(PutRequest::new(key.to_owned(), own.to_owned())).await?;
        }
        let found = kv.range(RangeRequest::prefix(PREFIX)).await?;
        for kv in found.kvs {
            self.learn(&Event { kind: EventKind::Put, kv, prev_kv: None });
        }
        let from_revision = found.header.revision.next();
        let request = WatchRequest { from_revision, ..WatchRequest::prefix(PREFIX) };
        let mut watcher = kv.watch(request).await?;
        loop {
            let batch = watcher.next().await?;
            if batch.compacted.is_some() {
                return Ok(());
            }
            batch.events.iter().for_each(|event| self.learn(event));
        }
    }

    fn learn(&self, event: &Event) {
        let name = std::str::from_utf8(&event.kv.key[PREFIX.len()..]);
        let address = std::str::from_utf8(&event.kv.value);
        let (Ok(Ok(node)), Ok(address)) = (name.map(str::parse), address) else { return };
        let Some(address) = ClientAddress::parse(address) else { return };
        if event.kind == EventKind::Put {
            let mut etcd = self.etcd.write().unwrap_or_else(PoisonError::into_inner);
            etcd.insert(NodeId(node), address);
        }
    }

    fn addresses(&self) -> RwLockReadGuard<'_, BTreeMap<NodeId, ClientAddress>> {
        self.etcd.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a node's etcd clients connect, if that is known.
    pub(crate) fn etcd_address(&self, node: NodeId) -> Option<String> {
        self.addresses().get(&node).map(|address| address.etcd.clone())
    }

    /// Where a node's clients of a keyspace with this port connect, if that is known.
    pub(crate) fn keyspace_address(&self, node: NodeId, port: u16) -> Option<String> {
        self.addresses().get(&node)?.of_keyspace(port)
    }

    /// The most that a node adds to the ports of keyspaces.
    pub(crate) fn port_offset_max(&self) -> u16 {
        let members: BTreeSet<_> = self.followed.get().members().map(|record| record.id).collect();
        let addresses = self.addresses();
        let present = addresses.iter().filter(|(node, _)| members.contains(node));
        present.map(|(_, address)| address.port_offset).max().unwrap_or_default()
    }

    /// The nodes in one of the states that `is_told` picks, with where clients of the default
    /// keyspace connect.
    pub(crate) fn having(&self, is_told: impl Fn(NodeState) -> bool) -> Vec<Member> {
        let etcd = self.addresses();
        let url = |address: &str| format!("http://{address}");
        let voters = self.group.status().voters;
        let directory = self.followed.get();
        // One that has not come yet has no name, as in etcd.
        let member = |record: &Record| match record.state {
            NodeState::Invited => Member {
                id: record.id.get(),
                peer_urls: vec![url(&record.address)],
                is_learner: record.is_learner,
                ..Member::default()
            },
            _ => Member {
                id: record.id.get(),
                name: format!("node{}", record.id),
                peer_urls: vec![url(&record.address)],
                client_urls: etcd.get(&record.id).map(|it| url(&it.etcd)).into_iter().collect(),
                is_learner: !voters.contains(&record.id),
            },
        };
        directory.having(is_told).map(member).collect()
    }

    /// How this node's replica of a keyspace stands.
    pub(crate) fn standing(&self, group: &Group, kv: &LocalKv) -> StatusView {
        let status = group.status();
        let standing = kv.status_here().unwrap_or_default();
        let host = self.admin.host.metrics();
        let counted = host.groups.get(&kv.group()).copied().unwrap_or_default();
        StatusView {
            db_size: self.admin.table.size_bytes(),
            db_size_in_use: standing.bytes(),
            db_size_quota: standing.quota_bytes,
            revision: standing.header.revision.get(),
            compacted: standing.compacted.get(),
            raft_index: status.commit.get(),
            raft_term: status.term.get(),
            applied: status.applied.get(),
            proposals_pending: host.node.proposals_waiting,
            proposals_failed: counted.proposals_refused_total
                + counted.proposals_too_large_total
                + counted.proposals_unknown_total,
            leader_changes: counted.leader_changes_total,
            fsync_durations: self.admin.log.status().fsync_durations,
            commit_durations: self.admin.table.write_durations(),
        }
    }

    /// What this node knows of the trouble of its replica of a keyspace.
    pub(crate) fn troubles(&self, group: &Group, kv: &LocalKv) -> Vec<Alarm> {
        let is_wrong = group.status().is_state_lost;
        let is_full = kv.status_here().is_ok_and(|standing| standing.is_full);
        let kinds = [(is_full, AlarmKind::NoSpace), (is_wrong, AlarmKind::Corrupt)];
        let raised = kinds.into_iter().filter(|(is_raised, _)| *is_raised);
        raised.map(|(_, kind)| Alarm { member: self.node.get(), kind }).collect()
    }
}

impl ClusterView for Members {
    fn cluster_id(&self) -> u64 {
        self.cluster.0
    }

    fn member_id(&self) -> u64 {
        self.node.get()
    }

    fn members(&self) -> Vec<Member> {
        self.having(|state| state == NodeState::Invited || state.is_staying())
    }

    fn leader(&self) -> Option<u64> {
        self.group.status().leader.map(NodeId::get)
    }

    fn status(&self) -> StatusView {
        self.standing(&self.group, &self.kv)
    }

    fn alarms(&self) -> Vec<Alarm> {
        self.troubles(&self.group, &self.kv)
    }

    fn own_metrics(&self) -> String {
        metrics::render(&self.admin.reading())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_client_address_is_the_same_after_it_was_stored() {
        for (etcd, port_offset) in [("h:2379", 0), ("h:2379", 8), ("[::1]:2379", 1)] {
            let address = ClientAddress { etcd: etcd.to_owned(), port_offset };
            assert_eq!(ClientAddress::parse(&address.text()), Some(address));
        }
        assert_eq!(ClientAddress::parse("h:1 x"), None);
    }

    #[test]
    fn a_keyspaces_port_is_its_own_and_the_nodes_offset() {
        let address = ClientAddress::parse("10.0.0.1:2379 2").unwrap();
        assert_eq!(address.of_keyspace(4000).as_deref(), Some("10.0.0.1:4002"));
        assert_eq!(address.of_keyspace(65_535), None);
    }
}
