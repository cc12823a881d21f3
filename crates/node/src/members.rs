//! Who the members are and where their clients connect, for the etcd gateway.
//!
//! A member's peer address is in the registry. Where its etcd clients connect is its own affair, so
//! each node writes it into the system keyspace when it starts, and follows what the others wrote.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use onefold_etcd::{ClusterView, Member, StatusView};
use onefold_kv::{Event, EventKind, Kv, KvError, PutRequest, RangeRequest, WatchRequest};
use onefold_replica::Group;
use onefold_table::Table;
use onefold_types::{ClusterId, NodeId};

use crate::registry::{Followed, Record};

const PREFIX: &str = "nodes/etcd/";
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The members, as they are known now.
pub(crate) struct Members {
    cluster: ClusterId,
    followed: Followed,
    node: NodeId,
    group: Group,
    table: Arc<dyn Table>,
    etcd: RwLock<BTreeMap<NodeId, String>>,
}

impl Members {
    /// The members of a cluster; `group` is the replica of the default keyspace.
    pub(crate) fn new(
        cluster: ClusterId,
        followed: Followed,
        node: NodeId,
        group: Group,
        table: Arc<dyn Table>,
    ) -> Self {
        Self { cluster, followed, node, group, table, etcd: RwLock::default() }
    }

    /// Tells the others where this node's etcd clients connect, and follows what they tell, for as
    /// long as the future is polled.
    pub(crate) async fn follow(&self, kv: Arc<dyn Kv>, own: String) {
        let key = format!("{PREFIX}{}", self.node);
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
        if event.kind == EventKind::Put {
            let mut etcd = self.etcd.write().unwrap_or_else(PoisonError::into_inner);
            etcd.insert(NodeId(node), address.to_owned());
        }
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
        let etcd = self.etcd.read().unwrap_or_else(PoisonError::into_inner);
        let url = |address: &String| format!("http://{address}");
        let voters = self.group.status().voters;
        let directory = self.followed.get();
        let member = |record: &Record| Member {
            id: record.id.get(),
            name: format!("node{}", record.id),
            peer_urls: vec![url(&record.address)],
            client_urls: etcd.get(&record.id).map(url).into_iter().collect(),
            is_learner: !voters.contains(&record.id),
        };
        directory.members().map(member).collect()
    }

    fn leader(&self) -> Option<u64> {
        self.group.status().leader.map(NodeId::get)
    }

    fn status(&self) -> StatusView {
        let status = self.group.status();
        StatusView {
            db_size: self.table.size_bytes(),
            raft_index: status.commit.get(),
            raft_term: status.term.get(),
            applied: status.applied.get(),
        }
    }
}
