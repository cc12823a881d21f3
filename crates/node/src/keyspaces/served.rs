//! The keyspaces whose clients a node serves, found by their names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use onefold_etcd::{Directory, Keyspace};
use onefold_types::GroupId;

/// What is served now. Cheap to clone; clones share what they know.
#[derive(Clone, Default)]
pub(crate) struct ServedKeyspaces {
    by_name: Arc<RwLock<ByName>>,
}

type ByName = BTreeMap<String, (GroupId, Arc<Keyspace>)>;

impl ServedKeyspaces {
    /// Replaces what is served.
    pub(super) fn set(&self, served: ByName) {
        *self.by_name.write().unwrap_or_else(PoisonError::into_inner) = served;
    }

    /// The groups of the keyspaces.
    pub(crate) fn groups(&self) -> BTreeSet<GroupId> {
        self.read().values().map(|(group, _)| *group).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, ByName> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory for ServedKeyspaces {
    fn find(&self, name: &str) -> Option<Arc<Keyspace>> {
        self.read().get(name).map(|(_, keyspace)| Arc::clone(keyspace))
    }
}
