//! The client's side: any node that answers will do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use onefold_transport::{Class, Method, Peers};
use onefold_types::GroupId;
use tokio::time::{Instant, sleep};

use super::error_of_call;
use super::methods::{
    AskAuth, At, Authenticate, ChangeAuth, Compact, DeleteRange, Hash, Identify, Import,
    LeaseGrant, LeaseKeepAlive, LeaseRevoke, LeaseTimeToLive, Leases, Once, Part, Poll, Put, Range,
    RangePage, Status, Txn,
};
use super::session::Session;
use super::watcher::PollWatcher;
use crate::limits::{REQUEST_TIMEOUT, WATCH_WAIT_MAX};
use crate::{
    Auth, AuthAnswer, AuthChange, AuthQuery, AuthToken, Caller, CompactRequest, CompactResponse,
    DeleteRangeRequest, DeleteRangeResponse, HashResponse, HashScope, Header, ImportResponse,
    ImportStep, Kv, KvError, LeaseGrantRequest, LeaseGrantResponse, LeaseId,
    LeaseKeepAliveResponse, LeaseRevokeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
    LeasesResponse, PutRequest, PutResponse, RangePart, RangePartRequest, RangeRequest,
    RangeResponse, SortOrder, SortTarget, StatusResponse, TxnRequest, TxnResponse, WatchBatch,
    WatchPoll, WatchRequest, Watcher,
};

/// Rest after every address has failed, doubled each round up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(20);

/// Longest rest between two rounds over the addresses.
const RETRY_MAX: Duration = Duration::from_millis(500);

/// How long one node may take for one attempt: a node that does not answer is worth another one's
/// try within the request's time.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);

/// A keyspace reached through any of a list of nodes. Cheap to clone.
///
/// Writes carry a session, so that one which is sent again after a broken connection is executed
/// once.
#[derive(Clone)]
pub struct RemoteKv {
    inner: Arc<Inner>,
    caller: Caller,
}

struct Inner {
    peers: Peers,
    group: GroupId,
    addresses: Vec<String>,
    /// The address that answered last.
    current: AtomicUsize,
    session: Session,
}

impl RemoteKv {
    /// Reaches the keyspace of `group` through the nodes at these peer addresses, `host:port`.
    pub fn new(peers: Peers, group: GroupId, addresses: Vec<String>) -> Self {
        let current = AtomicUsize::new(0);
        let session = Session::new();
        let inner = Arc::new(Inner { peers, group, addresses, current, session });
        Self { inner, caller: Caller::Trusted }
    }

    fn at<T>(&self, request: T) -> At<T> {
        At { group: self.inner.group, caller: self.caller.clone(), request }
    }

    /// Calls until a node answers, or the time is over.
    async fn call<M: Method>(&self, request: &M::Request) -> Result<M::Response, KvError> {
        self.call_for::<M>(request, ATTEMPT_TIMEOUT).await
    }

    async fn call_for<M: Method>(
        &self,
        request: &M::Request,
        attempt: Duration,
    ) -> Result<M::Response, KvError> {
        let until = Instant::now() + REQUEST_TIMEOUT.max(attempt);
        let mut rest = RETRY_MIN;
        let mut last = KvError::Unavailable { reason: "no address of a node is given".to_owned() };
        loop {
            for _ in 0..self.inner.addresses.len() {
                let at = self.inner.current.load(Ordering::Relaxed) % self.inner.addresses.len();
                let time = attempt.min(until.saturating_duration_since(Instant::now()));
                if time.is_zero() {
                    return Err(last);
                }
                let address = &self.inner.addresses[at];
                let peers = &self.inner.peers;
                let answer =
                    peers.call_address::<M>(address, Class::Call, request, Bytes::new(), time);
                let error = match answer.await {
                    Ok((response, _)) => return Ok(response),
                    Err(error) => error_of_call(error),
                };
                if !is_worth_another_try(&error) {
                    return Err(error);
                }
                last = error;
                // Another call may have found a better one meanwhile.
                let next = (at + 1) % self.inner.addresses.len();
                let relaxed = Ordering::Relaxed;
                let _ = self.inner.current.compare_exchange(at, next, relaxed, relaxed);
            }
            if self.inner.addresses.is_empty() || Instant::now() + rest >= until {
                return Err(last);
            }
            sleep(rest).await;
            rest = (2 * rest).min(RETRY_MAX);
        }
    }

    /// Sends a command until it is answered, executed once.
    async fn once<M, T>(&self, request: T) -> Result<M::Response, KvError>
    where
        M: Method<Request = Once<T>>,
    {
        let number = self.inner.session.number().await;
        let session = Some(number.tag());
        let (group, caller) = (self.inner.group, self.caller.clone());
        self.call::<M>(&Once { group, caller, session, request }).await
    }

    /// A poll waits as long as it was asked to, and then for the answer.
    pub(super) async fn poll(&self, request: WatchPoll) -> Result<WatchBatch, KvError> {
        let wait = request.wait.min(WATCH_WAIT_MAX);
        self.call_for::<Poll>(&self.at(request), wait + ATTEMPT_TIMEOUT).await
    }

    /// Fetches what did not fit into the first page, from the same revision.
    async fn rest_of_range(
        &self,
        request: RangeRequest,
        first: RangePage,
    ) -> Result<RangeResponse, KvError> {
        let mut response = first.response;
        let mut is_cut = first.cut;
        let limit = request.limit;
        // Another replica may answer the next page: it must have the revision.
        let revision = response.header.revision;
        let mut request = RangeRequest { revision, serializable: false, ..request };
        while is_cut {
            let Some(last) = response.kvs.last() else { break };
            request.key = after(&last.key);
            if limit > 0 {
                request.limit = limit - response.kvs.len() as u64;
            }
            let page = self.call::<Range>(&self.at(request.clone())).await?;
            is_cut = page.cut;
            response.kvs.extend(page.response.kvs);
        }
        Ok(response)
    }
}

#[async_trait]
impl Kv for RemoteKv {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        let page = self.call::<Range>(&self.at(request.clone())).await?;
        if !page.cut {
            return Ok(page.response);
        }
        let in_key_order =
            request.sort_target == SortTarget::Key && request.sort_order != SortOrder::Descend;
        if !in_key_order {
            return Err(KvError::AnswerTooLarge);
        }
        self.rest_of_range(request, page).await
    }

    async fn range_part(&self, request: RangePartRequest) -> Result<RangePart, KvError> {
        self.call::<Part>(&self.at(request)).await
    }

    async fn put(&self, request: PutRequest) -> Result<PutResponse, KvError> {
        self.once::<Put, _>(request).await
    }

    async fn delete_range(
        &self,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, KvError> {
        self.once::<DeleteRange, _>(request).await
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, KvError> {
        self.once::<Txn, _>(request).await
    }

    async fn compact(&self, request: CompactRequest) -> Result<CompactResponse, KvError> {
        self.once::<Compact, _>(request).await
    }

    async fn status(&self) -> Result<StatusResponse, KvError> {
        self.call::<Status>(&self.at(())).await
    }

    async fn hash(&self, scope: HashScope) -> Result<HashResponse, KvError> {
        self.call::<Hash>(&self.at(scope)).await
    }

    async fn lease_grant(&self, request: LeaseGrantRequest) -> Result<LeaseGrantResponse, KvError> {
        self.once::<LeaseGrant, _>(request).await
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<LeaseRevokeResponse, KvError> {
        self.once::<LeaseRevoke, _>(id).await
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<LeaseKeepAliveResponse, KvError> {
        self.call::<LeaseKeepAlive>(&self.at(id)).await
    }

    async fn lease_time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, KvError> {
        self.call::<LeaseTimeToLive>(&self.at(request)).await
    }

    async fn leases(&self) -> Result<LeasesResponse, KvError> {
        self.call::<Leases>(&self.at(())).await
    }

    async fn watch_poll(&self, request: WatchPoll) -> Result<WatchBatch, KvError> {
        self.poll(request).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<Box<dyn Watcher>, KvError> {
        Ok(Box::new(PollWatcher::start(self.clone(), request).await?))
    }

    async fn import(&self, step: ImportStep) -> Result<ImportResponse, KvError> {
        self.once::<Import, _>(step).await
    }

    fn auth(&self) -> &dyn Auth {
        self
    }

    fn on_behalf_of(&self, caller: Caller) -> Arc<dyn Kv> {
        Arc::new(Self { inner: self.inner.clone(), caller })
    }
}

#[async_trait]
impl Auth for RemoteKv {
    async fn change(&self, change: AuthChange) -> Result<Header, KvError> {
        self.once::<ChangeAuth, _>(change).await
    }

    async fn ask(&self, query: AuthQuery) -> Result<AuthAnswer, KvError> {
        self.call::<AskAuth>(&self.at(query)).await
    }

    async fn authenticate(&self, name: String, password: String) -> Result<AuthToken, KvError> {
        self.call::<Authenticate>(&self.at((name, password))).await
    }

    async fn identify(&self, token: &str) -> Result<Caller, KvError> {
        self.call::<Identify>(&self.at(token.to_owned())).await
    }
}

/// Whether another node, or the same one a little later, may do better.
fn is_worth_another_try(error: &KvError) -> bool {
    matches!(
        error,
        KvError::Unavailable { .. } | KvError::TimedOut { .. } | KvError::Overloaded { .. }
    )
}

/// The smallest key after this one.
fn after(key: &Bytes) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}
