//! Why a request is not done.

use onefold_types::Revision;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::{KEY_BYTES_MAX, LEASE_TTL_SECONDS_MAX, REQUEST_BYTES_LIMIT};
use crate::{AuthError, LeaseId};

/// Why a request is not done.
///
/// The kinds above [`TimedOut`](Self::TimedOut) are answers of the store itself: the request had no
/// effect. Gateways map each kind to their own protocol's code and text.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum KvError {
    /// A key is missing in the request.
    #[error("the request names no key; give a key of at least one byte")]
    EmptyKey,
    /// `ignore_value` or `ignore_lease` for a key that does not exist, or an empty operation.
    #[error("the key does not exist; write it once with a value before keeping the old one")]
    KeyNotFound,
    /// A value beside `ignore_value`.
    #[error("a value was given although the old one is to be kept; give one or the other")]
    ValueProvided,
    /// A lease beside `ignore_lease`.
    #[error("a lease was given although the old one is to be kept; give one or the other")]
    LeaseProvided,
    /// Too many operations in a transaction.
    #[error("the transaction has more operations than are allowed; split it")]
    TooManyOperations,
    /// A transaction would write one key twice.
    #[error("the transaction writes one key more than once; write each key once")]
    DuplicateKey,
    /// The revision is no longer readable.
    #[error("revision {requested} is compacted; the oldest readable one is {compacted}")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// The oldest revision that can still be read.
        compacted: Revision,
    },
    /// The revision does not exist yet.
    #[error("revision {requested} is in the future; the store is at {current}")]
    FutureRevision {
        /// What was asked for.
        requested: Revision,
        /// The store's revision.
        current: Revision,
    },
    /// No such lease.
    #[error("there is no lease {id}; it expired or was revoked: grant a new one")]
    LeaseNotFound {
        /// The lease.
        id: LeaseId,
    },
    /// A lease with the wished id exists.
    #[error("a lease {id} exists already; choose another id or let one be chosen")]
    LeaseExists {
        /// The lease.
        id: LeaseId,
    },
    /// A time to live beyond the bound.
    #[error("a time to live of {ttl_seconds} s is more than {LEASE_TTL_SECONDS_MAX} s")]
    LeaseTtlTooLarge {
        /// What was asked for.
        ttl_seconds: i64,
    },
    /// The request is too large.
    #[error("the request has {bytes} bytes, more than the {REQUEST_BYTES_LIMIT} allowed; split it")]
    RequestTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// A key is too long.
    #[error("a key has {bytes} bytes, more than the {KEY_BYTES_MAX} allowed; choose shorter keys")]
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The answer would be too large to travel in one piece. Nothing was written.
    #[error(
        "the answer would have too many bytes; nothing was written: limit its ranges, leave \
         previous values out, or read in parts"
    )]
    AnswerTooLarge,
    /// The store has reached its quota. Nothing was written; deletions and compaction go on.
    #[error(
        "the store has reached its quota of {quota_bytes} bytes; delete keys, compact, or raise \
         the quota"
    )]
    NoSpace {
        /// The quota.
        quota_bytes: u64,
    },
    /// No answer in time. A write may have happened or happen yet.
    #[error("no answer in time ({reason}); a write may still take effect: read before repeating")]
    TimedOut {
        /// What was waited for.
        reason: String,
    },
    /// The store cannot be reached or has no leader now. The request had no effect.
    #[error("the store is unavailable: {reason}; try again")]
    Unavailable {
        /// Why.
        reason: String,
    },
    /// Too much work at once. The request had no effect.
    #[error("too many requests: {reason}; try again later")]
    Overloaded {
        /// Which bound was reached.
        reason: String,
    },
    /// A replica's storage is broken, or replicas do not understand each other.
    #[error("internal error of the store: {reason}")]
    Internal {
        /// What.
        reason: String,
    },
    /// The keyspace is being filled. It answers when that is done.
    #[error(
        "an import into this keyspace has begun and not ended; repeat the same import to finish it, \
         or give it up with `onefold kv import-etcd --abort`"
    )]
    Importing,
    /// A step of an import does not fit the keyspace, or the steps before.
    #[error("the import is refused: {reason}")]
    ImportRefused {
        /// Why.
        reason: String,
    },
    /// Who asks may not, or what is asked about users and roles cannot be done. The request had no
    /// effect.
    #[error(transparent)]
    Auth(#[from] AuthError),
}
