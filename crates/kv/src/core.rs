//! The store without a node around it: what a simulated driver needs to run the pure core, and the
//! parts of a node's driver that do not wait.
//!
//! [`LocalKv`](crate::LocalKv) is the driver of real nodes; it uses the same core.

use bytes::Bytes;
use onefold_table::View;
use onefold_types::{Revision, Term};

pub use crate::local::attendant::{Attendant, Change, Found, Watching};
use crate::store::auth::AuthState;
use crate::store::command::{self, Answer, Command};
use crate::store::history::{self, Query};
use crate::store::{Observer, Position, Round, hash, lease, range, read_only_txn, state::State};
use crate::{
    CompactResponse, DeleteRangeRequest, DeleteRangeResponse, Event, HashResponse, HashScope,
    KeySpan, KvError, KvStore, LeaseGrantRequest, LeaseGrantResponse, LeaseId, LeaseRevokeResponse,
    PutRequest, PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse, WatchFilters,
};

/// What a command was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// To [`put`].
    Put(PutResponse),
    /// To [`delete_range`].
    DeleteRange(DeleteRangeResponse),
    /// To [`txn`].
    Txn(TxnResponse),
    /// To [`compact`].
    Compact(CompactResponse),
    /// To [`lease_grant`].
    LeaseGrant(LeaseGrantResponse),
    /// To [`lease_revoke`].
    LeaseRevoke(LeaseRevokeResponse),
    /// To another command.
    Other,
}

/// A store that tells nobody what it commits.
pub fn store() -> KvStore {
    KvStore::with_observer(Box::new(Nobody))
}

/// The command that writes one key.
pub fn put(request: PutRequest) -> Bytes {
    Command::Put(request).encode()
}

/// The command that deletes a span.
pub fn delete_range(request: DeleteRangeRequest) -> Bytes {
    Command::DeleteRange(request).encode()
}

/// The command that runs a transaction.
pub fn txn(request: TxnRequest) -> Bytes {
    Command::Txn(request).encode()
}

/// The command that makes the history below a revision unreadable.
pub fn compact(revision: Revision) -> Bytes {
    Command::Compact(revision).encode()
}

/// The command that removes some of what is unreadable: what at most so many events have left.
pub fn sweep(events_max: u32) -> Bytes {
    Command::Sweep { events_max }.encode()
}

/// The command that creates a lease.
pub fn lease_grant(request: LeaseGrantRequest) -> Bytes {
    Command::LeaseGrant(request).encode()
}

/// The command that ends a lease because a client says so.
pub fn lease_revoke(id: LeaseId) -> Bytes {
    Command::LeaseRevoke(id).encode()
}

/// The command with which the leader of a term begins to count the time of leases.
pub fn lead(term: Term) -> Bytes {
    Command::Lead(term).encode()
}

/// The command that ends a lease whose time is over.
pub fn lease_expire(id: LeaseId, term: Term) -> Bytes {
    Command::LeaseExpire { id, term }.encode()
}

/// The command that notes the seconds that leases have left; 0 for all of a lease's time.
pub fn lease_checkpoint(term: Term, left: Vec<(LeaseId, i64)>) -> Bytes {
    Command::LeaseCheckpoint { term, left }.encode()
}

/// What the state machine answered to a command.
///
/// # Errors
/// The store's refusal, or [`KvError::Internal`] if these bytes are no answer.
pub fn response(answer: &[u8]) -> Result<Response, KvError> {
    Ok(match command::decode_outcome(answer)? {
        Answer::Put(response) => Response::Put(response),
        Answer::DeleteRange(response) => Response::DeleteRange(response),
        Answer::Txn(response) => Response::Txn(response),
        Answer::Compact(response) => Response::Compact(response),
        Answer::LeaseGrant(response) => Response::LeaseGrant(response),
        Answer::LeaseRevoke(response) => Response::LeaseRevoke(response),
        _ => Response::Other,
    })
}

/// Reads a range from a view of the store's own key space.
///
/// # Errors
/// What the request did wrong, or that the view does not hold a store.
pub fn read(view: &dyn View, request: &RangeRequest) -> Result<RangeResponse, KvError> {
    let state = State::read(view)?;
    let page = range::range(view, &state, request, usize::MAX)?;
    Ok(page.response)
}

/// Runs a transaction that only reads on a view of the store.
///
/// # Errors
/// What the request did wrong, or that the view does not hold a store.
pub fn read_txn(view: &dyn View, request: &TxnRequest) -> Result<TxnResponse, KvError> {
    Ok(read_only_txn(view, &State::read(view)?, request)?)
}

/// The newest and the oldest readable revision in a view.
///
/// # Errors
/// When the view does not hold a store.
pub fn revisions(view: &dyn View) -> Result<(Revision, Revision), KvError> {
    let state = State::read(view)?;
    Ok((state.revision, state.compacted))
}

/// All events from a revision on, with what was before each.
///
/// # Errors
/// [`KvError::Compacted`] if some of them are gone, or that the view does not hold a store.
pub fn events(view: &dyn View, from: Revision) -> Result<Vec<Event>, KvError> {
    let query = Query {
        span: KeySpan::From(Bytes::from_static(&[0])),
        filters: WatchFilters::default(),
        prev_kv: true,
        from,
        bytes_max: usize::MAX,
        looks_max: usize::MAX,
    };
    Ok(history::read(view, &State::read(view)?, &query)?.events)
}

/// The hash of the readable history in a view.
///
/// # Errors
/// When the view does not hold a store.
pub fn hash_history(view: &dyn View) -> Result<HashResponse, KvError> {
    Ok(hash::hash(view, &State::read(view)?, HashScope::History(Revision::ZERO))?)
}

/// The leases in a view.
///
/// # Errors
/// When the view does not hold a store.
pub fn leases(view: &dyn View) -> Result<Vec<LeaseId>, KvError> {
    Ok(lease::all(view)?.into_iter().map(|(id, _)| id).collect())
}

struct Nobody;

impl Observer for Nobody {
    fn committed(&mut self, _: Round) {}

    fn restored(&mut self, _: Position, _: &AuthState) {}
}

#[cfg(test)]
mod tests {
    use onefold_replica::{Apply, StateMachine};
    use onefold_table::{MemoryTable, Overlay};
    use onefold_types::{LogIndex, Timestamp};

    use super::*;

    #[test]
    fn a_bare_store_answers_commands_and_reads() {
        let table = MemoryTable::new();
        let mut overlay = Overlay::new(&table);
        let mut context = Apply { index: LogIndex(1), time: Timestamp::ZERO, table: &mut overlay };
        let answer = store().apply(&mut context, &put(PutRequest::new("key", "value")));
        let answer = response(&answer.expect("memory does not fail")).expect("a good request");
        assert!(matches!(answer, Response::Put(_)), "{answer:?}");
        let read = read(&overlay, &RangeRequest::key("key")).expect("a store");
        assert_eq!(read.kvs[0].value, "value");
    }
}
