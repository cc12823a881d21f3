//! What a key-value store can be asked, what it answers, and the trait that hides where it runs.
//!
//! Plain values without behaviour beyond their own well-formedness. The names are those of etcd's
//! public API reference, and so is the meaning unless a field says otherwise.

mod auth;
mod error;
mod hash;
mod import;
mod lease;
pub mod limits;
mod range;
mod record;
mod span;
mod status;
mod txn;
mod watch;
mod write;

use std::sync::Arc;

use async_trait::async_trait;

use crate::Export;

pub use auth::{
    Auth, AuthAnswer, AuthChange, AuthError, AuthQuery, AuthToken, Caller, Password, Permission,
    PermissionKind, Proof, ROOT,
};
pub use error::KvError;
pub use hash::{HashResponse, HashScope};
pub use import::{ImportBegin, ImportId, ImportProgress, ImportRecord, ImportResponse, ImportStep};
pub use lease::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveResponse, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, LeasesResponse,
};
pub use range::{RangePart, RangePartRequest, RangeRequest, RangeResponse, SortOrder, SortTarget};
pub use record::{Event, EventKind, Header, KeyValue, LeaseId};
pub use span::KeySpan;
pub use status::StatusResponse;
pub use txn::{
    Compare, CompareResult, CompareTarget, Operation, OperationResponse, TxnRequest, TxnResponse,
};
pub use watch::{WatchBatch, WatchFilters, WatchPoll, WatchRequest, Watcher};
pub use write::{
    CompactRequest, CompactResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse,
};

/// One keyspace. Any implementation can be asked for everything on any node.
///
/// Writes and reads are strictly serializable unless a request asks for less. A call that has not
/// answered within [`limits::REQUEST_TIMEOUT`] fails with [`KvError::TimedOut`].
#[async_trait]
pub trait Kv: Send + Sync {
    /// Reads the keys of a span at one revision.
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError>;

    /// Reads keys of a span in their order, as many as fit, and says where to go on. Whoever reads a
    /// long range so holds one part of it at a time, and so does the store.
    async fn range_part(&self, request: RangePartRequest) -> Result<RangePart, KvError>;

    /// Writes one key.
    async fn put(&self, request: PutRequest) -> Result<PutResponse, KvError>;

    /// Deletes the keys of a span, all in one revision.
    async fn delete_range(
        &self,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, KvError>;

    /// Compares, then runs one of two branches, all at one revision.
    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, KvError>;

    /// Gives up the history below a revision.
    async fn compact(&self, request: CompactRequest) -> Result<CompactResponse, KvError>;

    /// How the store stands, as the nearest replica knows it.
    async fn status(&self) -> Result<StatusResponse, KvError>;

    /// Hashes what the replica that answers has stored.
    async fn hash(&self, scope: HashScope) -> Result<HashResponse, KvError>;

    /// Creates a lease.
    async fn lease_grant(&self, request: LeaseGrantRequest) -> Result<LeaseGrantResponse, KvError>;

    /// Ends a lease and deletes the keys attached to it, all in one revision.
    async fn lease_revoke(&self, id: LeaseId) -> Result<LeaseRevokeResponse, KvError>;

    /// Gives a lease its full time again. An answer without time left means that there is no such
    /// lease (any more).
    async fn lease_keep_alive(&self, id: LeaseId) -> Result<LeaseKeepAliveResponse, KvError>;

    /// The time that a lease has left and, if asked for, its keys.
    async fn lease_time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, KvError>;

    /// All leases.
    async fn leases(&self) -> Result<LeasesResponse, KvError>;

    /// Waits for events from a revision on: a long poll, resumable and without state on the server.
    ///
    /// Answers as soon as there are events, and without any once `wait` is over.
    async fn watch_poll(&self, request: WatchPoll) -> Result<WatchBatch, KvError>;

    /// Follows the events of a span until the watcher is dropped.
    async fn watch(&self, request: WatchRequest) -> Result<Box<dyn Watcher>, KvError>;

    /// Takes a step of an import of another store's content.
    async fn import(&self, step: ImportStep) -> Result<ImportResponse, KvError> {
        let _ = step;
        Err(KvError::Unavailable { reason: "imports are not taken here".to_owned() })
    }

    /// The whole keyspace at one moment, which only a node that hosts it can give.
    async fn export(&self) -> Result<Export, KvError> {
        Err(KvError::Unavailable { reason: "this is no node that hosts the keyspace".to_owned() })
    }

    /// The users and roles of the keyspace.
    fn auth(&self) -> &dyn Auth;

    /// The same keyspace for one who may not do everything in it.
    fn on_behalf_of(&self, caller: Caller) -> Arc<dyn Kv>;
}
