//! Requests and answers, in the words of the store and in those of the checkers.

use bytes::Bytes;
use onefold_checker::history::{Action, Answer, Compare, Event, NO_END, Record, Refusal, Span};
use onefold_kv::{
    self as kv, CompareResult, CompareTarget, DeleteRangeRequest, EventKind, KeyValue, KvError,
    LeaseGrantRequest, LeaseId, OperationResponse, PutRequest, RangeRequest, TxnRequest,
    core::{self, Response},
};
use onefold_types::Revision;

/// What a client asks a replica for, once it is clear whether that is a command or a question.
pub(in super::super) enum Asking {
    /// For the log.
    Command(Bytes),
    /// For a view.
    Range(RangeRequest),
    /// For a view.
    Txn(TxnRequest),
    /// For the leader's book.
    KeepAlive(LeaseId),
}

/// An answer with the revision of its header, or a refusal.
pub(in super::super) type Answered = Result<(Revision, Answer), Refusal>;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn lease_id(lease: u64) -> LeaseId {
    LeaseId(lease.cast_signed())
}

/// The two ends of a span, as requests have them.
pub(in super::super) fn ends(span: &Span) -> (Bytes, Bytes) {
    let end = |end: &str| if end == NO_END { Bytes::from_static(&[0]) } else { bytes(end) };
    let from = if span.from == NO_END { Bytes::from_static(&[0]) } else { bytes(&span.from) };
    (from, span.until.as_deref().map_or(Bytes::new(), end))
}

/// What an action asks for.
pub(in super::super) fn asking(action: &Action) -> Asking {
    match action {
        Action::Range { span, at, serializable } => {
            Asking::Range(range_request(span, *at, *serializable))
        }
        Action::Txn { .. } => {
            let request = txn_request(action);
            if request.is_read_only() {
                Asking::Txn(request)
            } else {
                Asking::Command(core::txn(request))
            }
        }
        Action::Put { key, value, lease, previous } => {
            Asking::Command(core::put(put_request(key, value, *lease, *previous)))
        }
        Action::Delete { span, previous } => {
            Asking::Command(core::delete_range(delete_request(span, *previous)))
        }
        Action::Compact { at } => Asking::Command(core::compact(*at)),
        Action::Grant { ttl_seconds } => {
            let ttl_seconds = ttl_seconds.cast_signed();
            let request = LeaseGrantRequest { id: LeaseId::NONE, ttl_seconds };
            Asking::Command(core::lease_grant(request))
        }
        Action::Revoke { lease } => Asking::Command(core::lease_revoke(lease_id(*lease))),
        Action::KeepAlive { lease } => Asking::KeepAlive(lease_id(*lease)),
    }
}

fn range_request(span: &Span, at: Option<Revision>, serializable: bool) -> RangeRequest {
    let (key, range_end) = ends(span);
    let revision = at.unwrap_or_default();
    RangeRequest { key, range_end, revision, serializable, ..RangeRequest::default() }
}

fn put_request(key: &str, value: &str, lease: u64, previous: bool) -> PutRequest {
    let request = PutRequest::new(bytes(key), bytes(value));
    PutRequest { lease: lease_id(lease), prev_kv: previous, ..request }
}

fn delete_request(span: &Span, previous: bool) -> DeleteRangeRequest {
    let (key, range_end) = ends(span);
    DeleteRangeRequest { key, range_end, prev_kv: previous }
}

fn txn_request(action: &Action) -> TxnRequest {
    let Action::Txn { compares, success, failure } = action else {
        unreachable!("only transactions are asked for as such")
    };
    let operations = |actions: &[Action]| actions.iter().map(operation).collect();
    TxnRequest {
        compare: compares.iter().map(compare).collect(),
        success: operations(success),
        failure: operations(failure),
    }
}

fn operation(action: &Action) -> kv::Operation {
    match action {
        Action::Range { span, at, serializable } => {
            kv::Operation::Range(range_request(span, *at, *serializable))
        }
        Action::Put { key, value, lease, previous } => {
            kv::Operation::Put(put_request(key, value, *lease, *previous))
        }
        Action::Delete { span, previous } => {
            kv::Operation::DeleteRange(delete_request(span, *previous))
        }
        Action::Txn { .. } => kv::Operation::Txn(txn_request(action)),
        _ => unreachable!("transactions are about keys"),
    }
}

fn compare(compare: &Compare) -> kv::Compare {
    let (key, target) = match compare {
        Compare::Value { key, value } => (key, CompareTarget::Value(bytes(value))),
        Compare::Modified { key, at } => (key, CompareTarget::ModRevision(at.get().cast_signed())),
    };
    kv::Compare::new(bytes(key), CompareResult::Equal, target)
}

/// A version of a key.
pub(in super::super) fn record(kv: &KeyValue) -> Record {
    Record {
        key: text(&kv.key),
        value: text(&kv.value),
        created: kv.create_revision,
        modified: kv.mod_revision,
        version: kv.version,
        lease: kv.lease.0.cast_unsigned(),
    }
}

/// A change of a key.
pub(in super::super) fn event(event: &kv::Event) -> Event {
    let written = (event.kind == EventKind::Put).then(|| record(&event.kv));
    Event {
        key: text(&event.kv.key),
        revision: event.kv.mod_revision,
        record: written,
        previous: event.prev_kv.as_ref().map(record),
    }
}

/// The state machine's answer to a client's command.
pub(in super::super) fn answered(answer: &Bytes) -> Answered {
    let response = core::response(answer).map_err(|error| refused(&error))?;
    Ok(match response {
        Response::Put(it) => (it.header.revision, put_answer(&it)),
        Response::DeleteRange(it) => (it.header.revision, delete_answer(&it)),
        Response::Txn(it) => (it.header.revision, txn_answer(&it)),
        Response::Compact(it) => (it.header.revision, Answer::Done),
        Response::LeaseGrant(it) => {
            let (lease, ttl_seconds) = (it.id.0.cast_unsigned(), it.ttl_seconds.cast_unsigned());
            (it.header.revision, Answer::Granted { lease, ttl_seconds })
        }
        Response::LeaseRevoke(it) => (it.header.revision, Answer::Done),
        Response::Other => return Err(Refusal::Other("no client asked for that".to_owned())),
    })
}

/// The answer to a range.
pub(in super::super) fn ranged(response: &kv::RangeResponse) -> (Revision, Answer) {
    (response.header.revision, range_answer(response))
}

/// The answer to a transaction that only reads.
pub(in super::super) fn transacted(response: &kv::TxnResponse) -> (Revision, Answer) {
    (response.header.revision, txn_answer(response))
}

fn put_answer(response: &kv::PutResponse) -> Answer {
    Answer::Put(response.prev_kv.as_ref().map(record))
}

fn delete_answer(response: &kv::DeleteRangeResponse) -> Answer {
    let previous = response.prev_kvs.iter().map(record).collect();
    Answer::Delete { deleted: response.deleted, previous }
}

fn range_answer(response: &kv::RangeResponse) -> Answer {
    Answer::Range(response.kvs.iter().map(record).collect())
}

fn txn_answer(response: &kv::TxnResponse) -> Answer {
    let answer = |response: &OperationResponse| match response {
        OperationResponse::Range(it) => range_answer(it),
        OperationResponse::Put(it) => put_answer(it),
        OperationResponse::DeleteRange(it) => delete_answer(it),
        OperationResponse::Txn(it) => txn_answer(it),
    };
    let answers = response.responses.iter().map(answer).collect();
    Answer::Txn { succeeded: response.succeeded, answers }
}

/// Why the store refuses.
pub(in super::super) fn refused(error: &KvError) -> Refusal {
    match error {
        KvError::Compacted { .. } => Refusal::Compacted,
        KvError::FutureRevision { .. } => Refusal::Future,
        KvError::LeaseNotFound { .. } => Refusal::LeaseNotFound,
        other => Refusal::Other(other.to_string()),
    }
}
