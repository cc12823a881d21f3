//! Which groups are on this node, and which were and never come back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use onefold_types::GroupId;

use crate::core::GroupCell;

/// The groups of a node. Read by everybody, changed by [`crate::lifecycle`] only.
#[derive(Default)]
pub(crate) struct Groups {
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    hosted: BTreeMap<GroupId, Arc<GroupCell>>,
    destroyed: BTreeSet<GroupId>,
}

impl Groups {
    pub(crate) fn new(
        hosted: BTreeMap<GroupId, Arc<GroupCell>>,
        destroyed: BTreeSet<GroupId>,
    ) -> Self {
        Self { known: RwLock::new(Known { hosted, destroyed }) }
    }

    /// The group, if this node hosts it.
    pub(crate) fn get(&self, id: GroupId) -> Option<Arc<GroupCell>> {
        self.read().hosted.get(&id).cloned()
    }

    /// All that this node hosts, in the order of their numbers.
    pub(crate) fn all(&self) -> Vec<Arc<GroupCell>> {
        self.read().hosted.values().cloned().collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.read().hosted.len()
    }

    /// Whether the group was here and is gone for good.
    pub(crate) fn is_destroyed(&self, id: GroupId) -> bool {
        self.read().destroyed.contains(&id)
    }

    pub(crate) fn host(&self, cell: Arc<GroupCell>) {
        self.write().hosted.insert(cell.id, cell);
    }

    /// The group is gone for good.
    pub(crate) fn destroy(&self, id: GroupId) {
        let mut known = self.write();
        known.hosted.remove(&id);
        known.destroyed.insert(id);
    }

    // A thread that panicked with the lock has stopped the host already.

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}
