//! A set of records, read and changed from any node.

use std::marker::PhantomData;
use std::sync::Arc;

use onefold_kv::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, KeyValue, Kv, KvError, Operation,
    PutRequest, RangeRequest, TxnRequest, WatchRequest, Watcher,
};
use onefold_types::Revision;

use super::{Change, Record, Records};

/// Attempts at a change that others keep overtaking.
const ATTEMPTS_MAX: usize = 16;

/// Why records were not read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordsError<E> {
    /// The change is not allowed.
    #[error(transparent)]
    Refused(E),
    /// The system keyspace does not answer.
    #[error("the cluster cannot decide on its {subject} now: {source}")]
    Kv {
        /// What the records are about.
        subject: &'static str,
        /// What the keyspace said.
        source: KvError,
    },
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
    /// Others changed the records each time.
    #[error("the cluster's list of {subject} keeps changing; try again")]
    Contended {
        /// What the records are about.
        subject: &'static str,
    },
}

type Outcome<R, T> = Result<T, RecordsError<<R as Record>::Refused>>;

/// A set of records in the system keyspace. Cheap to clone.
pub(crate) struct RecordsStore<R> {
    kv: Arc<dyn Kv>,
    records: PhantomData<fn() -> R>,
}

impl<R> Clone for RecordsStore<R> {
    fn clone(&self) -> Self {
        Self { kv: Arc::clone(&self.kv), records: PhantomData }
    }
}

impl<R: Record> RecordsStore<R> {
    /// The set in `kv`, the system keyspace.
    pub(crate) fn new(kv: Arc<dyn Kv>) -> Self {
        Self { kv, records: PhantomData }
    }

    /// The set as it is now.
    ///
    /// # Errors
    /// When the keyspace does not answer, or a record does not decode.
    pub(crate) async fn read(&self) -> Outcome<R, Records<R>> {
        Ok(self.read_at().await?.0)
    }

    /// The set as it is now, and the revision that the keyspace is at.
    pub(super) async fn read_at(&self) -> Outcome<R, (Records<R>, Revision)> {
        let range = RangeRequest {
            key: R::PREFIX.into(),
            range_end: range_end::<R>().into(),
            ..RangeRequest::default()
        };
        let found = self.kv.range(range).await.map_err(unanswered::<R>)?;
        let mut records = Records::default();
        for record in &found.kvs {
            records.learn(record)?;
        }
        Ok((records, found.header.revision))
    }

    /// Watches the set from a revision on.
    pub(super) async fn watch(&self, from_revision: Revision) -> Outcome<R, Box<dyn Watcher>> {
        let request = WatchRequest {
            key: R::PREFIX.into(),
            range_end: range_end::<R>().into(),
            from_revision,
            ..WatchRequest::default()
        };
        self.kv.watch(request).await.map_err(unanswered::<R>)
    }

    /// Writes the first records, unless somebody has written to the set.
    pub(super) async fn begin(&self, first: &Change<R>) -> Outcome<R, ()> {
        self.write(Compare::absent(R::NEXT_KEY), first).await.map(drop)
    }

    /// Changes the set as `decide` says, on a state that nobody changed meanwhile.
    ///
    /// # Errors
    /// What `decide` refuses, or when the keyspace does not answer: then the change may be made or
    /// not, and asking again is harmless.
    pub(crate) async fn change<T>(
        &self,
        decide: impl Fn(&Records<R>) -> Result<Change<R, T>, R::Refused>,
    ) -> Outcome<R, T> {
        for _ in 0..ATTEMPTS_MAX {
            let records = self.read().await?;
            if records.next == 0 {
                R::begin().map_err(RecordsError::Refused)?;
            }
            let change = decide(&records).map_err(RecordsError::Refused)?;
            if change.is_empty() || self.write(unchanged(&records), &change).await? {
                return Ok(change.answer);
            }
        }
        Err(RecordsError::Contended { subject: R::SUBJECT })
    }

    /// Writes a change if `condition` holds; says whether it did.
    async fn write<T>(&self, condition: Compare, change: &Change<R, T>) -> Outcome<R, bool> {
        let mut success: Vec<_> = change.put.iter().map(put).collect();
        success.extend(change.remove.iter().map(|key| {
            Operation::DeleteRange(DeleteRangeRequest::key(format!("{}{key}", R::PREFIX)))
        }));
        if let Some(next) = change.next {
            success.push(Operation::Put(PutRequest::new(R::NEXT_KEY, next.to_string())));
        }
        let txn = TxnRequest { compare: vec![condition], success, failure: vec![] };
        Ok(self.kv.txn(txn).await.map_err(unanswered::<R>)?.succeeded)
    }
}

/// The end of the range of the records and the next number.
fn range_end<R: Record>() -> String {
    format!("{}\0", R::NEXT_KEY)
}

fn unanswered<R: Record>(source: KvError) -> RecordsError<R::Refused> {
    RecordsError::Kv { subject: R::SUBJECT, source }
}

/// That nothing of the set was changed since it was read.
fn unchanged<R: Record>(read: &Records<R>) -> Compare {
    let after_read = i64::try_from(read.revision.next().get()).unwrap_or(i64::MAX);
    let target = CompareTarget::ModRevision(after_read);
    let compare = Compare::new(R::PREFIX, CompareResult::Less, target);
    Compare { range_end: range_end::<R>().into(), ..compare }
}

fn put<R: Record>(record: &R) -> Operation {
    let value = serde_json::to_vec(record).expect("plain data always serializes");
    Operation::Put(PutRequest::new(format!("{}{}", R::PREFIX, record.key()), value))
}

impl<R: Record> Records<R> {
    /// Takes up one key of the keyspace.
    ///
    /// # Errors
    /// When the record does not decode.
    pub(super) fn learn(&mut self, found: &KeyValue) -> Outcome<R, ()> {
        let undecodable = |reason: String| {
            let key = String::from_utf8_lossy(&found.key).into_owned();
            RecordsError::Undecodable { key, reason }
        };
        self.revision = self.revision.max(found.mod_revision);
        if found.key == R::NEXT_KEY.as_bytes() {
            self.next = number::<R>(&found.value).map_err(undecodable)?;
        } else {
            let record: R = serde_json::from_slice(&found.value)
                .map_err(|error| undecodable(error.to_string()))?;
            self.all.insert(record.key(), record);
        }
        Ok(())
    }

    /// A key of the keyspace is gone.
    pub(super) fn unlearn(&mut self, found: &KeyValue) {
        self.revision = self.revision.max(found.mod_revision);
        let name = found.key.strip_prefix(R::PREFIX.as_bytes()).unwrap_or_default();
        self.all.retain(|key, _| key.to_string().as_bytes() != name);
    }
}

/// A number that can be given next.
fn number<R: Record>(value: &[u8]) -> Result<u64, String> {
    let text = String::from_utf8_lossy(value);
    let number = text.parse::<u64>().map_err(|error| error.to_string())?;
    if number < R::NUMBER_MIN {
        return Err(format!("{number} is never given; the first number is {}", R::NUMBER_MIN));
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Pet {
        name: String,
        legs: u8,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("no")]
    struct No;

    impl Record for Pet {
        type Key = String;
        type Refused = No;

        const SUBJECT: &'static str = "pets";
        const PREFIX: &'static str = "pets/entry/";
        const NEXT_KEY: &'static str = "pets/next";
        const NUMBER_MIN: u64 = 16;

        fn key(&self) -> String {
            self.name.clone()
        }
    }

    fn stored(key: &str, value: &str, revision: u64) -> KeyValue {
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        KeyValue { key, value, mod_revision: Revision(revision), ..KeyValue::default() }
    }

    #[test]
    fn a_set_learns_its_records_and_the_next_number_and_forgets_what_is_gone() {
        let mut pets = Records::<Pet>::default();
        pets.learn(&stored("pets/entry/a", r#"{"name":"a","legs":4}"#, 7)).unwrap();
        pets.learn(&stored("pets/entry/ab", r#"{"name":"ab","legs":2}"#, 5)).unwrap();
        pets.learn(&stored("pets/next", "18", 6)).unwrap();
        assert_eq!((pets.revision, pets.next, pets.all.len()), (Revision(7), 18, 2));
        pets.unlearn(&stored("pets/entry/a", "", 9));
        assert_eq!(pets.all.keys().collect::<Vec<_>>(), ["ab"]);
        assert_eq!(pets.revision, Revision(9));
    }

    #[test]
    fn what_a_newer_program_wrote_is_named_and_not_guessed() {
        let mut pets = Records::<Pet>::default();
        for (key, value) in [("pets/entry/a", "{}"), ("pets/next", "x"), ("pets/next", "15")] {
            let error = pets.learn(&stored(key, value, 1)).unwrap_err();
            assert!(matches!(&error, RecordsError::Undecodable { key: named, .. } if named == key));
        }
    }
}
