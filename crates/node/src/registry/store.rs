//! The registry's records in the system keyspace.

use std::sync::Arc;

use onefold_kv::{
    Compare, CompareResult, CompareTarget, KeyValue, Kv, KvError, Operation, PutRequest,
    RangeRequest, TxnRequest,
};
use onefold_types::{NodeId, Revision};

use super::change::{self, Change, ChangeRefused};
use super::{Directory, MEMBER_PREFIX, NEXT_KEY, RANGE_END, Record};
use crate::folder::Formed;

/// Attempts at a change that others keep overtaking.
const ATTEMPTS_MAX: usize = 16;

/// Why the registry was not read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    /// The change is not allowed.
    #[error(transparent)]
    Refused(#[from] ChangeRefused),
    /// The system keyspace does not answer.
    #[error("the cluster cannot decide on its nodes now: {0}")]
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
    /// The formed cluster has no registry yet.
    #[error("the cluster was just formed and has not listed its nodes yet; try again in a moment")]
    NotReady,
    /// Others changed the registry each time.
    #[error("the cluster's list of nodes keeps changing; try again")]
    Contended,
}

/// The registry, changed from any node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Registry {
    kv: Arc<dyn Kv>,
}

impl Registry {
    /// The registry in `kv`, the system keyspace.
    pub(crate) fn new(kv: Arc<dyn Kv>) -> Self {
        Self { kv }
    }

    /// The keyspace.
    pub(super) fn kv(&self) -> &dyn Kv {
        &*self.kv
    }

    /// The registry as it is now.
    ///
    /// # Errors
    /// When the keyspace does not answer, or a record does not decode.
    pub(crate) async fn read(&self) -> Result<Directory, RegistryError> {
        Ok(self.read_at().await?.0)
    }

    /// The registry as it is now, and the revision that the keyspace is at.
    pub(super) async fn read_at(&self) -> Result<(Directory, Revision), RegistryError> {
        let range = RangeRequest {
            key: MEMBER_PREFIX.into(),
            range_end: RANGE_END.into(),
            ..RangeRequest::default()
        };
        let found = self.kv.range(range).await?;
        let mut directory = Directory::default();
        for record in &found.kvs {
            directory.learn(record)?;
        }
        Ok((directory, found.header.revision))
    }

    /// Writes the first records, if nobody has done so. Says whether there are records now.
    ///
    /// # Errors
    /// When the keyspace does not answer.
    pub(super) async fn bootstrap(&self, formed: &Formed) -> Result<(), RegistryError> {
        let records = change::bootstrap(formed);
        let next = records.iter().map(|record| record.id).max().unwrap_or_default().next();
        let mut success = puts(&records);
        success.push(put_next(next));
        let txn = TxnRequest { compare: vec![Compare::absent(NEXT_KEY)], success, failure: vec![] };
        self.kv.txn(txn).await?;
        Ok(())
    }

    /// Changes the registry as `decide` says, on a state that nobody changed meanwhile.
    ///
    /// # Errors
    /// What `decide` refuses, or when the keyspace does not answer: then the change may be made or
    /// not, and asking again is harmless.
    pub(crate) async fn change<T>(
        &self,
        decide: impl Fn(&Directory) -> Result<Change<T>, ChangeRefused>,
    ) -> Result<T, RegistryError> {
        for _ in 0..ATTEMPTS_MAX {
            let directory = self.read().await?;
            if directory.next == 0 {
                return Err(RegistryError::NotReady);
            }
            let Change { answer, records } = decide(&directory)?;
            if records.is_empty() || self.write(&directory, &records).await? {
                return Ok(answer);
            }
        }
        Err(RegistryError::Contended)
    }

    /// Writes records unless the registry has changed; says whether it did.
    async fn write(&self, read: &Directory, records: &[Record]) -> Result<bool, RegistryError> {
        let mut success = puts(records);
        let highest = records.iter().map(|record| record.id).max().unwrap_or_default();
        if highest.get() >= read.next {
            success.push(put_next(highest.next()));
        }
        let after_read = i64::try_from(read.revision.next().get()).unwrap_or(i64::MAX);
        let unchanged = Compare {
            range_end: RANGE_END.into(),
            ..Compare::new(
                MEMBER_PREFIX,
                CompareResult::Less,
                CompareTarget::ModRevision(after_read),
            )
        };
        let txn = TxnRequest { compare: vec![unchanged], success, failure: vec![] };
        Ok(self.kv.txn(txn).await?.succeeded)
    }
}

impl Directory {
    /// Takes up one key of the keyspace.
    ///
    /// # Errors
    /// When the record does not decode.
    pub(super) fn learn(&mut self, found: &KeyValue) -> Result<(), RegistryError> {
        let KeyValue { key, value, .. } = found;
        self.revision = self.revision.max(found.mod_revision);
        let undecodable = |reason: String| {
            let key = String::from_utf8_lossy(key).into_owned();
            RegistryError::Undecodable { key, reason }
        };
        if key == NEXT_KEY.as_bytes() {
            let text =
                std::str::from_utf8(value).map_err(|error| undecodable(error.to_string()))?;
            self.next = text
                .parse()
                .map_err(|error: std::num::ParseIntError| undecodable(error.to_string()))?;
        } else {
            let record: Record =
                serde_json::from_slice(value).map_err(|error| undecodable(error.to_string()))?;
            self.nodes.insert(record.id, record);
        }
        Ok(())
    }
}

fn puts(records: &[Record]) -> Vec<Operation> {
    let put = |record: &Record| {
        let value = serde_json::to_vec(record).expect("plain data always serializes");
        Operation::Put(PutRequest::new(format!("{MEMBER_PREFIX}{}", record.id), value))
    };
    records.iter().map(put).collect()
}

fn put_next(next: NodeId) -> Operation {
    Operation::Put(PutRequest::new(NEXT_KEY, next.to_string()))
}
