//! Filling an empty keyspace with the content of another store.
//!
//! The steps of an import go through the log like any write: begin, leases, records in the order of
//! their revisions, end. From its begin to its end the keyspace answers nothing else
//! ([`KvError::Importing`](crate::KvError::Importing)), so that half of an import is never taken for
//! the whole. It survives restarts and is resumed where it stood.

use onefold_types::Revision;
use serde::{Deserialize, Serialize};

use crate::{Header, KeyValue, LeaseId};

/// What is imported: the digest of its file, so that a repeated import is known again.
pub type ImportId = [u8; 32];

/// One step of an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImportStep {
    /// Begins an import, or tells how far the same import has come. The keyspace must be empty.
    Begin(ImportBegin),
    /// Grants leases, before the first record.
    Leases {
        /// The import.
        id: ImportId,
        /// How many leases came before.
        after: u64,
        /// Leases with the seconds that they live after each keep-alive.
        leases: Vec<(LeaseId, i64)>,
    },
    /// Writes records, in the order of revisions and of the operations within one.
    Records {
        /// The import.
        id: ImportId,
        /// How many records came before.
        after: u64,
        /// The records.
        records: Vec<ImportRecord>,
    },
    /// Ends an import: the keyspace is at its revision from now on.
    End {
        /// The import.
        id: ImportId,
        /// How many leases and records there were in all.
        expected: ImportProgress,
    },
    /// Removes some of what an unfinished import has written: a bounded step, repeated until it is
    /// done.
    Abort {
        /// Most entries of the table to remove.
        entries_max: u32,
    },
}

/// What an import will have made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportBegin {
    /// The import.
    pub id: ImportId,
    /// The revision at its end.
    pub revision: Revision,
    /// The oldest readable revision; zero when nothing was compacted yet.
    pub compacted: Revision,
}

/// A version of a key, or its deletion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportRecord {
    /// Which operation of its revision it was.
    pub sub: u32,
    /// The version; of a deletion only the key and the revision of the deletion.
    pub kv: KeyValue,
    /// Whether the key was deleted.
    pub is_deletion: bool,
}

/// How far an import is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportProgress {
    /// Leases granted.
    pub leases: u64,
    /// Records written.
    pub records: u64,
}

/// What a step of an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportResponse {
    /// Where the store stands.
    pub header: Header,
    /// How far the import is.
    pub progress: ImportProgress,
    /// Whether the keyspace is open: after the end, and once an abort has removed everything.
    pub is_open: bool,
}
