//! A node's side: it answers calls from the keyspaces that it hosts, and passes on those for others.

use std::time::Duration;

use bytes::Bytes;
use onefold_transport::{CallError, Class, Method, Peers, RemoteCode, RemoteError, Router};
use onefold_types::GroupId;

use super::keyspaces::{Keyspaces, Place, Seats};
use super::methods::{
    AskAuth, At, Authenticate, ChangeAuth, Compact, DeleteRange, Hash, Identify, Import,
    KeepAliveHere, LeaseGrant, LeaseKeepAlive, LeaseRevoke, LeaseTimeToLive, Leases, LeftHere,
    Once, Part, Poll, Put, Range, RangePage, Status, Txn,
};
use super::{error_of_call, to_remote};
use crate::limits::{ANSWER_BYTES_MAX, WATCH_WAIT_MAX};
use crate::{
    Auth, AuthQuery, Caller, HashScope, Kv, KvError, LeaseId, LeaseTimeToLiveRequest, LocalKv,
    RangePartRequest, RangeRequest, WatchPoll,
};

/// How long one of the other nodes may take to answer what is passed on to it, beside the time that
/// a request itself waits: a node that does not answer leaves time for another one.
const PASSING_TIMEOUT: Duration = Duration::from_secs(2);

/// Enters the methods through which other processes reach these keyspaces into a node's router.
/// `peers` reaches the nodes that have what this one has not.
pub fn register(keyspaces: &Keyspaces, peers: &Peers, router: &mut Router) {
    let entry = &Entry { keyspaces: keyspaces.clone(), peers: peers.clone() };

    on::<Range, _, _, _>(router, entry, |kv, At { request, .. }| async move {
        let page = kv.range_page(request, ANSWER_BYTES_MAX).await?;
        Ok(RangePage { response: page.response, cut: page.cut })
    });
    on::<Part, _, _, _>(router, entry, |kv, At { mut request, .. }| async move {
        request.bytes_max = request.bytes_max.min(ANSWER_BYTES_MAX as u64);
        kv.range_part(request).await
    });
    on::<Hash, _, _, _>(
        router,
        entry,
        |kv, At { request, .. }| async move { kv.hash(request).await },
    );
    on::<Put, _, _, _>(router, entry, |kv, Once { session, request, .. }| async move {
        kv.put_in(request, session).await
    });
    on::<DeleteRange, _, _, _>(router, entry, |kv, Once { session, request, .. }| async move {
        kv.delete_range_in(request, session).await
    });
    on::<Txn, _, _, _>(router, entry, |kv, Once { session, request, .. }| async move {
        kv.txn_in(request, session).await
    });
    on::<Compact, _, _, _>(router, entry, |kv, Once { session, request, .. }| async move {
        kv.compact_in(request, session).await
    });
    on::<LeaseGrant, _, _, _>(router, entry, |kv, Once { session, request, .. }| async move {
        kv.lease_grant_in(request, session).await
    });
    on::<LeaseRevoke, _, _, _>(router, entry, |kv, Once { session, request, .. }| async move {
        kv.lease_revoke_in(request, session).await
    });
    on::<LeaseKeepAlive, _, _, _>(router, entry, |kv, At { request, .. }| async move {
        kv.lease_keep_alive(request).await
    });
    on::<LeaseTimeToLive, _, _, _>(router, entry, |kv, At { request, .. }| async move {
        kv.lease_time_to_live(request).await
    });
    on::<Status, _, _, _>(router, entry, |kv, _| async move { kv.status().await });
    on::<Leases, _, _, _>(router, entry, |kv, _| async move { kv.leases().await });
    on::<Poll, _, _, _>(router, entry, |kv, At { request, .. }| async move {
        kv.watch_poll(request).await
    });
    on::<Import, _, _, _>(router, entry, |kv, Once { session, request, .. }| async move {
        kv.import_in(request, session).await
    });
    on::<KeepAliveHere, _, _, _>(router, entry, |kv, At { request, .. }| async move {
        kv.keep_alive_here(request).await?.ok_or_else(not_leader)
    });
    on::<LeftHere, _, _, _>(router, entry, |kv, At { request, .. }| async move {
        kv.left_here(request).await?.ok_or_else(not_leader)
    });
    on::<ChangeAuth, _, _, _>(router, entry, |kv, Once { session, request, .. }| async move {
        kv.auth_change_in(request, session).await
    });
    on::<AskAuth, _, _, _>(
        router,
        entry,
        |kv, At { request, .. }| async move { kv.ask(request).await },
    );
    on::<Authenticate, _, _, _>(router, entry, |kv, At { request, .. }| async move {
        let (name, password) = request;
        kv.authenticate(name, password).await
    });
    on::<Identify, _, _, _>(router, entry, |kv, At { request, .. }| async move {
        kv.identify(&request).await
    });
}

/// What answers are given from.
#[derive(Clone)]
struct Entry {
    keyspaces: Keyspaces,
    peers: Peers,
}

/// Has `answer` answer the method for whichever keyspace a request names. What a client asks of a
/// keyspace that is elsewhere is passed on.
fn on<M, T, F, Fut>(router: &mut Router, entry: &Entry, answer: F)
where
    M: Method<Request = T>,
    M::Response: Send,
    T: OfGroup + Send + Sync + 'static,
    F: Fn(LocalKv, T) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<M::Response, KvError>> + Send + 'static,
{
    let entry = entry.clone();
    router.call::<M, _, _>(move |asker, request, _| {
        let place = entry.keyspaces.find(request.group());
        let (answer, entry) = (answer.clone(), entry.clone());
        async move {
            match place {
                Some(Place::Here(kv)) => {
                    let kv = kv.for_caller(request.caller());
                    let response = answer(kv, request).await.map_err(to_remote)?;
                    Ok((response, Bytes::new()))
                }
                // Nodes know where to ask; one that asks here knows an older state than this one.
                Some(Place::There(seats)) if asker.node.is_none() => {
                    pass_on::<M, T>(&entry.peers, &seats, &request).await
                }
                _ => Err(not_hosted(request.group())),
            }
        }
    });
}

fn not_hosted(group: GroupId) -> RemoteError {
    let text = format!("this node does not host the keyspace of group {group}");
    RemoteError::new(RemoteCode::Unavailable, text)
}

/// Asks one node after the other, beginning with the one that answered last. The caller tries again
/// itself, so that each is asked once.
async fn pass_on<M, T>(
    peers: &Peers,
    seats: &Seats,
    request: &T,
) -> Result<(M::Response, Bytes), RemoteError>
where
    M: Method<Request = T>,
    T: OfGroup,
{
    let mut last = not_hosted(request.group());
    for node in seats.in_turn() {
        let time = request.wait() + PASSING_TIMEOUT;
        match peers.call::<M>(node, Class::Call, request, Bytes::new(), time).await {
            Ok(answer) => {
                seats.answered(node);
                return Ok(answer);
            }
            Err(CallError::Remote(error)) if error.code != RemoteCode::Unavailable => {
                return Err(error);
            }
            Err(CallError::Remote(error)) => last = error,
            // Whether it was executed is not known, unless it was never sent.
            Err(error) if !request.is_repeatable() && !error.is_unsent() => {
                return Err(to_remote(error_of_call(error)));
            }
            Err(error) => last = to_remote(error_of_call(error)),
        }
    }
    Err(last)
}

/// What is known of every request.
trait OfGroup {
    fn group(&self) -> GroupId;

    /// For whom the other process asks. It is trusted in this: whoever reaches the peer port may
    /// ask for everything.
    fn caller(&self) -> Caller;

    /// How long the answer may wait for something to happen.
    fn wait(&self) -> Duration;

    /// Whether it does no harm to send it twice.
    fn is_repeatable(&self) -> bool;
}

impl<T: Waits> OfGroup for At<T> {
    fn group(&self) -> GroupId {
        self.group
    }

    fn caller(&self) -> Caller {
        self.caller.clone()
    }

    fn wait(&self) -> Duration {
        self.request.wait()
    }

    fn is_repeatable(&self) -> bool {
        true
    }
}

impl<T> OfGroup for Once<T> {
    fn group(&self) -> GroupId {
        self.group
    }

    fn caller(&self) -> Caller {
        self.caller.clone()
    }

    fn wait(&self) -> Duration {
        Duration::ZERO
    }

    /// With a session it is executed once.
    fn is_repeatable(&self) -> bool {
        self.session.is_some()
    }
}

/// A request that may be answered late on purpose.
trait Waits {
    fn wait(&self) -> Duration {
        Duration::ZERO
    }
}

impl Waits for () {}
impl Waits for (String, String) {}
impl Waits for String {}
impl Waits for AuthQuery {}
impl Waits for LeaseId {}
impl Waits for LeaseTimeToLiveRequest {}
impl Waits for HashScope {}
impl Waits for RangePartRequest {}
impl Waits for RangeRequest {}

impl Waits for WatchPoll {
    fn wait(&self) -> Duration {
        self.wait.min(WATCH_WAIT_MAX)
    }
}

fn not_leader() -> KvError {
    KvError::Unavailable { reason: "the node that was asked does not lead".to_owned() }
}
