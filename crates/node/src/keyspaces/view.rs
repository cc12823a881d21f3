//! What the etcd gateway of one keyspace is told about the cluster.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use onefold_admin::{GroupReport, NodeState};
use onefold_etcd::{Alarm, ClusterView, Member, StatusView};
use onefold_kv::LocalKv;
use onefold_replica::Group;
use onefold_table::Table;
use onefold_types::{ClusterId, GroupId, NodeId};

use super::FollowedCatalog;
use crate::members::Members;

/// What other nodes say of groups that are not on this one.
pub(super) type Reports = Arc<RwLock<BTreeMap<GroupId, GroupReport>>>;

/// The cluster as the clients of one keyspace see it.
pub(super) struct KeyspaceView {
    pub(super) cluster: ClusterId,
    pub(super) node: NodeId,
    pub(super) id: GroupId,
    /// The replica and the store over it, if this node holds one.
    pub(super) replica: Option<(Group, LocalKv)>,
    pub(super) reports: Reports,
    pub(super) members: Arc<Members>,
    pub(super) catalog: FollowedCatalog,
    pub(super) table: Arc<dyn Table>,
}

impl KeyspaceView {
    fn report(&self) -> Option<GroupReport> {
        self.reports.read().unwrap_or_else(PoisonError::into_inner).get(&self.id).cloned()
    }
}

impl ClusterView for KeyspaceView {
    fn cluster_id(&self) -> u64 {
        cluster_id(self.cluster, self.id)
    }

    fn member_id(&self) -> u64 {
        self.node.get()
    }

    /// Every node answers. Those that hold no replica are shown as learners, so that clients prefer
    /// the others.
    fn members(&self) -> Vec<Member> {
        let catalog = self.catalog.get();
        let Some(record) = catalog.of_group(self.id) else { return Vec::new() };
        let mut members = self.members.having(NodeState::is_member);
        for member in &mut members {
            let node = NodeId(member.id);
            // Without a port of its own it is chosen by user, where the default one is served.
            let address = match record.port {
                Some(port) => self.members.keyspace_address(node, port),
                None => self.members.etcd_address(node),
            };
            member.client_urls = address.map(|it| format!("http://{it}")).into_iter().collect();
            member.is_learner = !record.members.contains(&node);
        }
        members
    }

    fn leader(&self) -> Option<u64> {
        let leader = match &self.replica {
            Some((group, _)) => group.status().leader,
            None => self.report().and_then(|report| report.leader),
        };
        leader.map(NodeId::get)
    }

    fn status(&self) -> StatusView {
        if let Some((group, kv)) = &self.replica {
            return self.members.standing(group, kv);
        }
        let Some(report) = self.report() else { return StatusView::default() };
        StatusView {
            db_size: self.table.size_bytes(),
            raft_index: report.commit.get(),
            raft_term: report.term.get(),
            applied: report.applied.get(),
            ..StatusView::default()
        }
    }

    /// Those of this node's replica: nobody asks the others.
    fn alarms(&self) -> Vec<Alarm> {
        let here = self.replica.as_ref();
        here.map(|(group, kv)| self.members.troubles(group, kv)).unwrap_or_default()
    }

    fn own_metrics(&self) -> String {
        self.members.own_metrics()
    }
}

/// The number by which clients tell one keyspace from another: each group of each cluster has its
/// own. The steps are those of a mixer that maps no two numbers to one.
pub(super) fn cluster_id(cluster: ClusterId, group: GroupId) -> u64 {
    let mut mixed = cluster.0 ^ group.get().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for _ in 0..2 {
        mixed ^= mixed >> 32;
        mixed = mixed.wrapping_mul(0xd6e8_feb8_6659_fd93);
    }
    mixed ^ (mixed >> 32)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_keyspace_of_a_cluster_has_a_number_of_its_own() {
        for cluster in [0, 7, u64::MAX].map(ClusterId) {
            let mut ids: BTreeSet<u64> =
                (16..2000).map(|group| cluster_id(cluster, GroupId(group))).collect();
            ids.insert(cluster.0);
            assert_eq!(ids.len(), 2000 - 16 + 1);
        }
    }
}
