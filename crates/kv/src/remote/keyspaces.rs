//! Where each keyspace is: on this node, or on others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use onefold_types::{GroupId, NodeId};

use crate::LocalKv;

/// The keyspaces that a node answers for. Cheap to clone; clones share what they know.
#[derive(Clone, Default)]
pub struct Keyspaces {
    places: Arc<RwLock<BTreeMap<GroupId, Place>>>,
}

/// Where a keyspace is.
#[derive(Clone)]
pub(super) enum Place {
    /// On this node.
    Here(LocalKv),
    /// On other nodes.
    There(Arc<Seats>),
}

/// The nodes that have a keyspace, any of which may be asked.
pub(super) struct Seats {
    nodes: Vec<NodeId>,
    /// The place of the one that answered last.
    current: AtomicUsize,
}

impl Seats {
    /// All of them, the one that answered last first.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = NodeId> {
        let first = self.current.load(Ordering::Relaxed);
        self.nodes.iter().cycle().skip(first).take(self.nodes.len()).copied()
    }

    /// One of them answered.
    pub(super) fn answered(&self, node: NodeId) {
        if let Some(place) = self.nodes.iter().position(|seat| *seat == node) {
            self.current.store(place, Ordering::Relaxed);
        }
    }
}

impl Keyspaces {
    /// A keyspace is on this node from now on.
    pub fn here(&self, kv: LocalKv) {
        self.set(kv.group(), Place::Here(kv));
    }

    /// A keyspace is on these nodes, and not on this one: clients are answered through them.
    pub fn there(&self, group: GroupId, nodes: Vec<NodeId>) {
        let seats = Seats { nodes, current: AtomicUsize::new(0) };
        self.set(group, Place::There(Arc::new(seats)));
    }

    /// A keyspace is not answered for any more.
    pub fn forget(&self, group: GroupId) {
        self.places.write().unwrap_or_else(PoisonError::into_inner).remove(&group);
    }

    /// Those that are on this node.
    pub fn all_here(&self) -> Vec<LocalKv> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        let here = |place: &Place| match place {
            Place::Here(kv) => Some(kv.clone()),
            Place::There(_) => None,
        };
        places.values().filter_map(here).collect()
    }

    pub(super) fn find(&self, group: GroupId) -> Option<Place> {
        self.places.read().unwrap_or_else(PoisonError::into_inner).get(&group).cloned()
    }

    fn set(&self, group: GroupId, place: Place) {
        self.places.write().unwrap_or_else(PoisonError::into_inner).insert(group, place);
    }
}
