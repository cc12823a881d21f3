//! A key in the row of those who wait under a name.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use onefold_kv::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, EventKind, Header, KeySpan,
    KeyValue, Kv, KvError, LeaseGrantRequest, LeaseId, Operation, OperationResponse, PutRequest,
    RangeRequest, SortOrder, SortTarget, TxnRequest, TxnResponse, WatchRequest,
};
use onefold_types::Revision;
use tokio::runtime::Handle;
use tonic::Status;
use tracing::debug;

use crate::convert::number;
use crate::errors::{self, status};

/// Seconds that a lease lives which is made for a caller without one; as in etcd.
const LEASE_SECONDS: i64 = 60;

/// The keys of all who wait under a name.
pub(super) fn prefix(name: &[u8]) -> Bytes {
    let mut prefix = BytesMut::with_capacity(name.len() + 1);
    prefix.put_slice(name);
    prefix.put_u8(b'/');
    prefix.freeze()
}

/// The oldest key of a row: the one that has its turn.
pub(super) fn first(name: &[u8]) -> RangeRequest {
    RangeRequest {
        sort_order: SortOrder::Ascend,
        sort_target: SortTarget::Create,
        limit: 1,
        ..RangeRequest::prefix(prefix(name))
    }
}

/// The lease itself, or a new one for none.
pub(super) async fn lease(kv: &dyn Kv, id: i64) -> Result<LeaseId, Status> {
    if id != 0 {
        return Ok(LeaseId(id));
    }
    let request = LeaseGrantRequest { id: LeaseId::NONE, ttl_seconds: LEASE_SECONDS };
    Ok(kv.lease_grant(request).await.map_err(status)?.id)
}

/// A key in a row. It is taken out of it when this is dropped, unless it is [kept](Self::keep):
/// a caller who is gone must not hold up those behind it.
pub(super) struct Place {
    kv: Arc<dyn Kv>,
    name: Bytes,
    key: Bytes,
    /// The revision that created the key.
    pub(super) since: Revision,
    is_kept: bool,
}

/// How a place was taken.
pub(super) struct Taken {
    pub(super) place: Place,
    pub(super) header: Header,
    /// What the key was before, if the lease had its place already.
    pub(super) found: Option<KeyValue>,
    /// The oldest key of the row.
    first: Option<KeyValue>,
}

impl Taken {
    /// Whether it is its turn.
    pub(super) fn is_first(&self) -> bool {
        self.first.as_ref().is_none_or(|first| first.create_revision == self.place.since)
    }
}

impl Place {
    /// Takes the lease's place in the row, at its end unless it is in the row already.
    pub(super) async fn take(
        kv: Arc<dyn Kv>,
        name: Bytes,
        lease: LeaseId,
        value: Bytes,
    ) -> Result<Taken, Status> {
        let key = key(&name, lease);
        let put = PutRequest { lease, ..PutRequest::new(key.clone(), value) };
        let request = TxnRequest {
            compare: vec![Compare::absent(key.clone())],
            success: vec![Operation::Put(put), Operation::Range(first(&name))],
            failure: vec![
                Operation::Range(RangeRequest::key(key.clone())),
                Operation::Range(first(&name)),
            ],
        };
        let response = kv.txn(request).await.map_err(status)?;
        let header = response.header;
        let found = if response.succeeded { None } else { record(&response, 0) };
        let since = found.as_ref().map_or(header.revision, |found| found.create_revision);
        let first = record(&response, 1);
        // A place that was there before is the other call's, too.
        let is_kept = found.is_some();
        let place = Self { kv, name, key, since, is_kept };
        Ok(Taken { place, header, found, first })
    }

    /// Waits until every older key of the row is gone; the answer is where the store stood when the
    /// key had its turn and was still there.
    pub(super) async fn turn(&self) -> Result<Header, Status> {
        loop {
            let response = self.kv.range(self.before()).await.map_err(status)?;
            let Some(older) = response.kvs.into_iter().next() else { break };
            self.gone(older.key, response.header.revision.next()).await?;
        }
        let still = self.kv.range(RangeRequest::key(self.key.clone())).await.map_err(status)?;
        let is_there = still.kvs.first().is_some_and(|kv| kv.create_revision == self.since);
        if is_there { Ok(still.header) } else { Err(errors::session_expired()) }
    }

    /// The youngest of the older keys.
    fn before(&self) -> RangeRequest {
        RangeRequest {
            sort_order: SortOrder::Descend,
            sort_target: SortTarget::Create,
            limit: 1,
            keys_only: true,
            max_create_revision: Some(Revision(self.since.get().saturating_sub(1))),
            ..RangeRequest::prefix(prefix(&self.name))
        }
    }

    /// Waits for the deletion of a key. It may end early, when the history is gone.
    async fn gone(&self, key: Bytes, from_revision: Revision) -> Result<(), Status> {
        let request = WatchRequest { key, from_revision, ..WatchRequest::default() };
        let mut watcher = match self.kv.watch(request).await {
            Err(KvError::Compacted { .. }) => return Ok(()),
            result => result.map_err(status)?,
        };
        loop {
            let batch = watcher.next().await.map_err(status)?;
            let is_deleted = batch.events.iter().any(|event| event.kind == EventKind::Delete);
            if is_deleted || batch.compacted.is_some() {
                return Ok(());
            }
        }
    }

    /// Replaces the key's value.
    pub(super) async fn proclaim(&self, value: Bytes, lease: LeaseId) -> Result<Header, Status> {
        let request = if_since(self.key.clone(), self.since, Some((value, lease)));
        let response = self.kv.txn(request).await.map_err(status)?;
        if response.succeeded { Ok(response.header) } else { Err(errors::not_elected()) }
    }

    /// Leaves the key in the row: it is the caller's now.
    pub(super) fn keep(mut self) -> Bytes {
        self.is_kept = true;
        self.key.clone()
    }

    /// Takes the key out of the row when this is dropped, even if it was there before.
    pub(super) fn give_up(&mut self) {
        self.is_kept = false;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        // Without a runtime the process ends.
        let Ok(runtime) = Handle::try_current() else { return };
        let (kv, key, since) = (self.kv.clone(), self.key.clone(), self.since);
        runtime.spawn(async move {
            // Where this fails, the key goes with its lease.
            if let Err(error) = kv.txn(if_since(key, since, None)).await {
                debug!(%error, "a key that waited in vain was not deleted");
            }
        });
    }
}

/// Writes a value to a key, or deletes it for none, if it is still the one that `since` created.
pub(super) fn if_since(key: Bytes, since: Revision, value: Option<(Bytes, LeaseId)>) -> TxnRequest {
    let target = CompareTarget::CreateRevision(number(since.get()));
    let operation = match value {
        Some((value, lease)) => {
            Operation::Put(PutRequest { lease, ..PutRequest::new(key.clone(), value) })
        }
        None => Operation::DeleteRange(DeleteRangeRequest::key(key.clone())),
    };
    TxnRequest {
        compare: vec![Compare::new(key, CompareResult::Equal, target)],
        success: vec![operation],
        failure: Vec::new(),
    }
}

/// The first record of a range within a transaction.
fn record(response: &TxnResponse, place: usize) -> Option<KeyValue> {
    match response.responses.get(place)? {
        OperationResponse::Range(range) => range.kvs.first().cloned(),
        _ => None,
    }
}

/// A lease's key in the row of a name. A negative number is written with a sign, as Go does.
fn key(name: &[u8], lease: LeaseId) -> Bytes {
    let sign = if lease.0 < 0 { "-" } else { "" };
    let mut key = BytesMut::from(prefix(name));
    key.put_slice(format!("{sign}{:x}", lease.0.unsigned_abs()).as_bytes());
    key.freeze()
}

/// The span of a row, for a watch.
pub(super) fn row(name: &[u8]) -> (Bytes, Bytes) {
    let prefix = prefix(name);
    let end = KeySpan::prefix_end(&prefix);
    (prefix, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_go_client() {
        assert_eq!(key(b"job", LeaseId(0x694d_71dd)), "job/694d71dd");
        assert_eq!(key(b"", LeaseId(-255)), "/-ff");
    }
}
