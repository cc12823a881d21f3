//! A node's side: it answers calls from the keyspaces that it hosts.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use onefold_transport::{Method, RemoteCode, RemoteError, Router};
use onefold_types::GroupId;

use super::methods::{
    AskAuth, At, Authenticate, ChangeAuth, Compact, DeleteRange, Identify, Import, KeepAliveHere,
    LeaseGrant, LeaseKeepAlive, LeaseRevoke, LeaseTimeToLive, Leases, LeftHere, Once, Poll, Put,
    Range, RangePage, Status, Txn,
};
use super::to_remote;
use crate::limits::ANSWER_BYTES_MAX;
use crate::{Auth, Caller, Kv, KvError, LocalKv};

/// The keyspaces that a node hosts.
type Keyspaces = Arc<BTreeMap<GroupId, LocalKv>>;

/// Enters the methods through which other processes reach these keyspaces into a node's router.
pub fn register(keyspaces: &[LocalKv], router: &mut Router) {
    let keyspaces = keyspaces.iter().map(|kv| (kv.group(), kv.clone()));
    let keyspaces: Keyspaces = Arc::new(keyspaces.collect());

    on::<Range, _, _, _>(router, &keyspaces, |kv, At { request, .. }| async move {
        let page = kv.range_page(request, ANSWER_BYTES_MAX).await?;
        Ok(RangePage { response: page.response, cut: page.cut })
    });
    on::<Put, _, _, _>(router, &keyspaces, |kv, Once { session, request, .. }| async move {
        kv.put_in(request, session).await
    });
    on::<DeleteRange, _, _, _>(
        router,
        &keyspaces,
        |kv, Once { session, request, .. }| async move { kv.delete_range_in(request, session).await },
    );
    on::<Txn, _, _, _>(router, &keyspaces, |kv, Once { session, request, .. }| async move {
        kv.txn_in(request, session).await
    });
    on::<Compact, _, _, _>(router, &keyspaces, |kv, Once { session, request, .. }| async move {
        kv.compact_in(request, session).await
    });
    on::<LeaseGrant, _, _, _>(router, &keyspaces, |kv, Once { session, request, .. }| async move {
        kv.lease_grant_in(request, session).await
    });
    on::<LeaseRevoke, _, _, _>(
        router,
        &keyspaces,
        |kv, Once { session, request, .. }| async move { kv.lease_revoke_in(request, session).await },
    );
    on::<LeaseKeepAlive, _, _, _>(router, &keyspaces, |kv, At { request, .. }| async move {
        kv.lease_keep_alive(request).await
    });
    on::<LeaseTimeToLive, _, _, _>(router, &keyspaces, |kv, At { request, .. }| async move {
        kv.lease_time_to_live(request).await
    });
    on::<Status, _, _, _>(router, &keyspaces, |kv, _| async move { kv.status().await });
    on::<Leases, _, _, _>(router, &keyspaces, |kv, _| async move { kv.leases().await });
    on::<Poll, _, _, _>(router, &keyspaces, |kv, At { request, .. }| async move {
        kv.watch_poll(request).await
    });
    on::<Import, _, _, _>(router, &keyspaces, |kv, Once { session, request, .. }| async move {
        kv.import_in(request, session).await
    });
    on::<KeepAliveHere, _, _, _>(router, &keyspaces, |kv, At { request, .. }| async move {
        kv.keep_alive_here(request).await?.ok_or_else(not_leader)
    });
    on::<LeftHere, _, _, _>(router, &keyspaces, |kv, At { request, .. }| async move {
        kv.left_here(request).await?.ok_or_else(not_leader)
    });
    on::<ChangeAuth, _, _, _>(router, &keyspaces, |kv, Once { session, request, .. }| async move {
        kv.auth_change_in(request, session).await
    });
    on::<AskAuth, _, _, _>(router, &keyspaces, |kv, At { request, .. }| async move {
        kv.ask(request).await
    });
    on::<Authenticate, _, _, _>(router, &keyspaces, |kv, At { request, .. }| async move {
        let (name, password) = request;
        kv.authenticate(name, password).await
    });
    on::<Identify, _, _, _>(router, &keyspaces, |kv, At { request, .. }| async move {
        kv.identify(&request).await
    });
}

/// Has `answer` answer the method for whichever keyspace a request names.
fn on<M, T, F, Fut>(router: &mut Router, keyspaces: &Keyspaces, answer: F)
where
    M: Method<Request = T>,
    T: OfGroup + Send + 'static,
    F: Fn(LocalKv, T) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<M::Response, KvError>> + Send + 'static,
{
    let keyspaces = keyspaces.clone();
    router.call::<M, _, _>(move |_, request, _| {
        let (group, caller) = (request.group(), request.caller());
        let kv = keyspaces.get(&group).map(|kv| kv.for_caller(caller));
        let answer = answer.clone();
        async move {
            let Some(kv) = kv else {
                let text = format!("this node does not host the keyspace of group {group}");
                return Err(RemoteError::new(RemoteCode::Unavailable, text));
            };
            let response = answer(kv, request).await.map_err(to_remote)?;
            Ok((response, Bytes::new()))
        }
    });
}

trait OfGroup {
    fn group(&self) -> GroupId;

    /// For whom the other process asks. It is trusted in this: whoever reaches the peer port may
    /// ask for everything.
    fn caller(&self) -> Caller;
}

impl<T> OfGroup for At<T> {
    fn group(&self) -> GroupId {
        self.group
    }

    fn caller(&self) -> Caller {
        self.caller.clone()
    }
}

impl<T> OfGroup for Once<T> {
    fn group(&self) -> GroupId {
        self.group
    }

    fn caller(&self) -> Caller {
        self.caller.clone()
    }
}

fn not_leader() -> KvError {
    KvError::Unavailable { reason: "the node that was asked does not lead".to_owned() }
}
