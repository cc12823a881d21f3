//! Between what is recorded and the messages of the etcd API.

use bytes::Bytes;
use onefold_checker::history::{Action, Answer, Compare, Event, Record, Span};
use onefold_etcd::proto::etcdserverpb as api;
use onefold_etcd::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use onefold_etcd::proto::etcdserverpb::request_op::Request;
use onefold_etcd::proto::etcdserverpb::response_op::Response;
use onefold_etcd::proto::mvccpb;
use onefold_types::Revision;

/// Marks where the filler of a long value begins.
const FILLER_MARK: char = '#';

/// The bytes of a recorded value. `NAME+COUNT` stands for that name and so many bytes of filler, so
/// that histories with long values stay short.
fn long(value: &str) -> Bytes {
    match value.rsplit_once('+').and_then(|(_, count)| count.parse::<usize>().ok()) {
        Some(count) => Bytes::from(format!("{value}{FILLER_MARK}{}", "x".repeat(count))),
        None => Bytes::copy_from_slice(value.as_bytes()),
    }
}

/// What is recorded of a value's bytes.
fn short(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let Some((short, filler)) = text.split_once(FILLER_MARK) else { return text.into_owned() };
    let count = short.rsplit_once('+').and_then(|(_, count)| count.parse::<usize>().ok());
    if count == Some(filler.len()) && filler.bytes().all(|byte| byte == b'x') {
        return short.to_owned();
    }
    format!("{short}, damaged, {} bytes", value.len())
}

fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

fn bytes(key: &str) -> Bytes {
    Bytes::copy_from_slice(key.as_bytes())
}

/// A number that the API promises not to be negative.
pub fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// A number that the API takes with a sign.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The two ends of a span.
pub fn ends(span: &Span) -> (Bytes, Bytes) {
    (bytes(&span.from), span.until.as_deref().map(bytes).unwrap_or_default())
}

/// The revision in a header.
pub fn revision(header: Option<&api::ResponseHeader>) -> Revision {
    Revision(header.map_or(0, |header| unsigned(header.revision)))
}

/// One version of a key.
pub fn record(kv: &mvccpb::KeyValue) -> Record {
    Record {
        key: text(&kv.key),
        value: short(&kv.value),
        created: Revision(unsigned(kv.create_revision)),
        modified: Revision(unsigned(kv.mod_revision)),
        version: unsigned(kv.version),
        lease: unsigned(kv.lease),
    }
}

/// One event of a watch.
pub fn event(event: &mvccpb::Event) -> Event {
    let kv = event.kv.clone().unwrap_or_default();
    let is_put = event.r#type() == mvccpb::event::EventType::Put;
    Event {
        key: text(&kv.key),
        revision: Revision(unsigned(kv.mod_revision)),
        record: is_put.then(|| record(&kv)),
        previous: event.prev_kv.as_ref().map(record),
    }
}

/// A range's request.
pub fn range_request(span: &Span, at: Option<Revision>, serializable: bool) -> api::RangeRequest {
    let (key, range_end) = ends(span);
    let revision = at.map_or(0, |at| signed(at.get()));
    api::RangeRequest { key, range_end, revision, serializable, ..Default::default() }
}

/// A put's request.
pub fn put_request(key: &str, value: &str, lease: u64, previous: bool) -> api::PutRequest {
    api::PutRequest {
        key: bytes(key),
        value: long(value),
        lease: signed(lease),
        prev_kv: previous,
        ..Default::default()
    }
}

/// A deletion's request.
pub fn delete_request(span: &Span, previous: bool) -> api::DeleteRangeRequest {
    let (key, range_end) = ends(span);
    api::DeleteRangeRequest { key, range_end, prev_kv: previous }
}

/// A transaction's request.
pub fn txn_request(
    compares: &[Compare],
    success: &[Action],
    failure: &[Action],
) -> api::TxnRequest {
    let list = |actions: &[Action]| actions.iter().filter_map(inner_request).collect();
    api::TxnRequest {
        compare: compares.iter().map(compare).collect(),
        success: list(success),
        failure: list(failure),
    }
}

fn inner_request(action: &Action) -> Option<api::RequestOp> {
    let request = match action {
        Action::Range { span, at, serializable } => {
            Request::RequestRange(range_request(span, *at, *serializable))
        }
        Action::Put { key, value, lease, previous } => {
            Request::RequestPut(put_request(key, value, *lease, *previous))
        }
        Action::Delete { span, previous } => {
            Request::RequestDeleteRange(delete_request(span, *previous))
        }
        Action::Txn { compares, success, failure } => {
            Request::RequestTxn(txn_request(compares, success, failure))
        }
        // They are no part of a transaction.
        Action::Compact { .. }
        | Action::Grant { .. }
        | Action::Revoke { .. }
        | Action::KeepAlive { .. } => return None,
    };
    Some(api::RequestOp { request: Some(request) })
}

fn compare(compare: &Compare) -> api::Compare {
    let (key, target, union) = match compare {
        Compare::Value { key, value } => {
            (key, CompareTarget::Value, TargetUnion::Value(long(value)))
        }
        Compare::Modified { key, at } => {
            (key, CompareTarget::Mod, TargetUnion::ModRevision(signed(at.get())))
        }
    };
    api::Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: bytes(key),
        target_union: Some(union),
        ..Default::default()
    }
}

/// A range's answer.
pub fn range_answer(response: &api::RangeResponse) -> Answer {
    Answer::Range(response.kvs.iter().map(record).collect())
}

/// A put's answer.
pub fn put_answer(response: &api::PutResponse) -> Answer {
    Answer::Put(response.prev_kv.as_ref().map(record))
}

/// A deletion's answer.
pub fn delete_answer(response: &api::DeleteRangeResponse) -> Answer {
    Answer::Delete {
        deleted: unsigned(response.deleted),
        previous: response.prev_kvs.iter().map(record).collect(),
    }
}

/// A transaction's answer.
pub fn txn_answer(response: &api::TxnResponse) -> Answer {
    let inner = |op: &api::ResponseOp| match &op.response {
        Some(Response::ResponseRange(response)) => Some(range_answer(response)),
        Some(Response::ResponsePut(response)) => Some(put_answer(response)),
        Some(Response::ResponseDeleteRange(response)) => Some(delete_answer(response)),
        Some(Response::ResponseTxn(response)) => Some(txn_answer(response)),
        // An answer to nothing: the replay finds that one is missing.
        None => None,
    };
    Answer::Txn {
        succeeded: response.succeeded,
        answers: response.responses.iter().filter_map(inner).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_recorded_short_and_damage_is_seen() {
        for value in ["plain", "100:17", "m1.7+5", "m1.7+0"] {
            assert_eq!(short(&long(value)), value);
        }
        assert_eq!(long("m1.7+5").len(), "m1.7+5#xxxxx".len());
        for damaged in ["m1.7+5#xxxx", "m1.7+5#xxxyx"] {
            assert!(short(damaged.as_bytes()).contains("damaged"), "{damaged}");
        }
    }
}
