//! The store without a node around it: what a simulated driver needs to run the pure core.
//!
//! [`LocalKv`](crate::LocalKv) is the driver of real nodes; it uses the same core.

use bytes::Bytes;
use onefold_table::View;

use crate::store::auth::AuthState;
use crate::store::command::{self, Answer, Command};
use crate::store::{Observer, Position, Round, range, state::State};
use crate::{
    DeleteRangeRequest, DeleteRangeResponse, KvError, KvStore, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse,
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

/// What the state machine answered to a command.
///
/// # Errors
/// The store's refusal, or [`KvError::Internal`] if these bytes are no answer.
pub fn response(answer: &[u8]) -> Result<Response, KvError> {
    Ok(match command::decode_outcome(answer)? {
        Answer::Put(response) => Response::Put(response),
        Answer::DeleteRange(response) => Response::DeleteRange(response),
        Answer::Txn(response) => Response::Txn(response),
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
