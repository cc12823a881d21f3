//! Sets of records in the system keyspace, each read, followed and changed as a whole.
//!
//! ```text
//! <prefix><key>   one record, as JSON
//! <next>          the number that is given next; numbers are never given twice
//! ```
//!
//! Every change is one transaction that fails if anything of the set has changed since it was read,
//! so what is decided is decided on a state that still holds. The decisions themselves are pure
//! functions from a [`Records`] to a [`Change`]; they belong to whoever knows what the records mean.

mod follow;
mod store;

use std::collections::BTreeMap;
use std::fmt;

use onefold_types::Revision;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) use follow::{Followed, follow};
pub(crate) use store::{RecordsError, RecordsStore};

/// One record of a set.
pub(crate) trait Record:
    Clone + fmt::Debug + PartialEq + Eq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// What tells the records of the set apart; its text ends the record's key.
    type Key: Clone + fmt::Debug + fmt::Display + Ord + Serialize + DeserializeOwned + Send + Sync;
    /// Why a change is not allowed.
    type Refused: std::error::Error + Send + Sync + 'static;

    /// What the records are about, as errors call it.
    const SUBJECT: &'static str;
    /// What the keys of the records begin with.
    const PREFIX: &'static str;
    /// The key of the next number: the records and this key are one range, which it ends.
    const NEXT_KEY: &'static str;
    /// The lowest number that may be given.
    const NUMBER_MIN: u64;

    /// The record's place in the set.
    fn key(&self) -> Self::Key;

    /// Whether a set that nobody has written to may be changed.
    ///
    /// # Errors
    /// Why not yet.
    fn begin() -> Result<(), Self::Refused> {
        Ok(())
    }
}

/// A set of records at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) struct Records<R: Record> {
    /// The revision of the system keyspace at which the set was changed last; zero for what a node
    /// knows before it has read anything.
    pub(crate) revision: Revision,
    /// The number that is given next; zero while nobody has written to the set.
    pub(crate) next: u64,
    /// The records.
    pub(crate) all: BTreeMap<R::Key, R>,
}

impl<R: Record> Default for Records<R> {
    fn default() -> Self {
        Self { revision: Revision::ZERO, next: 0, all: BTreeMap::new() }
    }
}

/// What is to be written, and what it means for who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change<R: Record, T = ()> {
    /// The answer.
    pub(crate) answer: T,
    /// Records to be written.
    pub(crate) put: Vec<R>,
    /// Records to be removed.
    pub(crate) remove: Vec<R::Key>,
    /// The number that is given next, if it is to be written.
    pub(crate) next: Option<u64>,
}

impl<R: Record, T> Change<R, T> {
    /// All is as it shall be.
    pub(crate) fn none(answer: T) -> Self {
        Self { answer, put: Vec::new(), remove: Vec::new(), next: None }
    }

    /// Some records are written.
    pub(crate) fn put(answer: T, put: Vec<R>) -> Self {
        Self { put, ..Self::none(answer) }
    }

    /// Whether nothing is to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.put.is_empty() && self.remove.is_empty() && self.next.is_none()
    }
}

#[cfg(test)]
impl<R: Record> Records<R> {
    /// What the set is after a change, as the store would write it.
    pub(crate) fn apply<T>(&mut self, change: Change<R, T>) -> T {
        for record in change.put {
            self.all.insert(record.key(), record);
        }
        for key in change.remove {
            self.all.remove(&key);
        }
        self.next = change.next.unwrap_or(self.next);
        change.answer
    }
}
