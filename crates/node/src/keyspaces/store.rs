//! The records of keyspaces in the system keyspace.

use std::sync::Arc;

use onefold_kv::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, KeyValue, Kv, KvError, Operation,
    PutRequest, RangeRequest, TxnRequest,
};
use onefold_types::{GroupId, Revision};

use super::change::{Change, Refused};
use super::{Catalog, Record};

/// Prefix of the records.
pub(super) const ENTRY_PREFIX: &str = "keyspaces/entry/";
/// The number of the next group. The records and this key are one range.
const NEXT_KEY: &str = "keyspaces/next";
/// The end of the range of [`ENTRY_PREFIX`] and [`NEXT_KEY`].
pub(super) const RANGE_END: &str = "keyspaces/next\0";

/// Attempts at a change that others keep overtaking.
const ATTEMPTS_MAX: usize = 16;

/// Why keyspaces were not read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatalogError {
    /// The change is not allowed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The system keyspace does not answer.
    #[error("the cluster cannot decide on its keyspaces now: {0}")]
    Kv(#[from] KvError),
    /// A record does not decode.
    #[error(
        "the cluster's record {key:?} does not decode ({reason}); it was written by a newer \
         program: start this node with that one"
    )]
    Undecodable {
        /// The record's key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// Others changed the catalog each time.
    #[error("the cluster's list of keyspaces keeps changing; try again")]
    Contended,
}

/// The catalog, changed from any node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct CatalogStore {
    kv: Arc<dyn Kv>,
}

impl CatalogStore {
    /// The catalog in `kv`, the system keyspace.
    pub(crate) fn new(kv: Arc<dyn Kv>) -> Self {
        Self { kv }
    }

    pub(super) fn kv(&self) -> &dyn Kv {
        &*self.kv
    }

    /// The catalog as it is now, and the revision that the system keyspace is at.
    ///
    /// # Errors
    /// When the keyspace does not answer, or a record does not decode.
    pub(crate) async fn read(&self) -> Result<(Catalog, Revision), CatalogError> {
        let range = RangeRequest {
            key: ENTRY_PREFIX.into(),
            range_end: RANGE_END.into(),
            ..RangeRequest::default()
        };
        let found = self.kv.range(range).await?;
        let mut catalog = Catalog::default();
        for record in &found.kvs {
            catalog.learn(record)?;
        }
        Ok((catalog, found.header.revision))
    }

    /// Changes the catalog as `decide` says, on a state that nobody changed meanwhile. Answers the
    /// records as they were written.
    ///
    /// # Errors
    /// What `decide` refuses, or when the keyspace does not answer: then the change may be made or
    /// not, and asking again is harmless.
    pub(crate) async fn change(
        &self,
        decide: impl Fn(&Catalog) -> Result<Change, Refused>,
    ) -> Result<Vec<Record>, CatalogError> {
        for _ in 0..ATTEMPTS_MAX {
            let (catalog, _) = self.read().await?;
            let change = decide(&catalog)?;
            if change.is_empty() || self.write(&catalog, &change).await? {
                return Ok(change.put);
            }
        }
        Err(CatalogError::Contended)
    }

    /// Writes a change unless the catalog has changed; says whether it did.
    async fn write(&self, read: &Catalog, change: &Change) -> Result<bool, CatalogError> {
        let mut success: Vec<_> = change.put.iter().map(put).collect();
        success.extend(change.remove.iter().map(|name| {
            Operation::DeleteRange(DeleteRangeRequest::key(format!("{ENTRY_PREFIX}{name}")))
        }));
        if let Some(GroupId(next)) = change.next {
            success.push(Operation::Put(PutRequest::new(NEXT_KEY, next.to_string())));
        }
        let after_read = i64::try_from(read.revision.next().get()).unwrap_or(i64::MAX);
        let unchanged = Compare {
            range_end: RANGE_END.into(),
            ..Compare::new(
                ENTRY_PREFIX,
                CompareResult::Less,
                CompareTarget::ModRevision(after_read),
            )
        };
        let txn = TxnRequest { compare: vec![unchanged], success, failure: vec![] };
        Ok(self.kv.txn(txn).await?.succeeded)
    }
}

fn put(record: &Record) -> Operation {
    let value = serde_json::to_vec(record).expect("plain data always serializes");
    Operation::Put(PutRequest::new(format!("{ENTRY_PREFIX}{}", record.name), value))
}

impl Catalog {
    /// Takes up one key of the system keyspace.
    ///
    /// # Errors
    /// When the record does not decode.
    pub(super) fn learn(&mut self, found: &KeyValue) -> Result<(), CatalogError> {
        let KeyValue { key, value, .. } = found;
        self.revision = self.revision.max(found.mod_revision);
        let undecodable = |reason: String| {
            let key = String::from_utf8_lossy(key).into_owned();
            CatalogError::Undecodable { key, reason }
        };
        if key == NEXT_KEY.as_bytes() {
            let text = String::from_utf8_lossy(value);
            let next: u64 = text
                .parse()
                .map_err(|error: std::num::ParseIntError| undecodable(error.to_string()))?;
            if !GroupId(next).is_keyspace() {
                return Err(undecodable(format!("{next} is a group of the cluster's own")));
            }
            self.next = next;
        } else {
            let record: Record =
                serde_json::from_slice(value).map_err(|error| undecodable(error.to_string()))?;
            self.records.insert(record.name.clone(), record);
        }
        Ok(())
    }

    /// A key of the system keyspace is gone.
    pub(super) fn unlearn(&mut self, found: &KeyValue) {
        self.revision = self.revision.max(found.mod_revision);
        let name = found.key.strip_prefix(ENTRY_PREFIX.as_bytes());
        if let Some(name) = name.and_then(|name| std::str::from_utf8(name).ok()) {
            self.records.remove(name);
        }
    }
}
