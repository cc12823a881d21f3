//! The trait over the node's replica of the group.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use onefold_replica::{Consistency, Leadership, ReadError, SessionTag};
use onefold_table::{SpaceView, View};
use onefold_transport::{Class, Method};
use onefold_types::{NodeId, Term};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::book::Found;
use super::errors::{from_propose, from_read};
use super::watcher::LocalWatcher;
use super::watching::Watching;
use super::{LocalKv, blocking, header, propose};
use crate::limits::{REQUEST_BYTES_LIMIT, REQUEST_TIMEOUT, WATCH_WAIT_MAX};
use crate::remote::error_of_call;
use crate::remote::methods::{At, KeepAliveHere, LeftHere};
use crate::store::auth::permit;
use crate::store::command::{Answer, Command, decode_outcome};
use crate::store::error::StoreError;
use crate::store::range::Page;
use crate::store::state::State;
use crate::store::{check, hash, lease, range, read_only_txn};
use crate::{
    Auth, Caller, CompactRequest, CompactResponse, DeleteRangeRequest, DeleteRangeResponse, Export,
    HashResponse, HashScope, Header, ImportResponse, ImportStep, KeySpan, Kv, KvError,
    LeaseGrantRequest, LeaseGrantResponse, LeaseId, LeaseKeepAliveResponse, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, LeasesResponse, PutRequest, PutResponse,
    RangePart, RangePartRequest, RangeRequest, RangeResponse, StatusResponse, TxnRequest,
    TxnResponse, WatchBatch, WatchPoll, WatchRequest, Watcher,
};

/// Rest between two attempts to find the leader.
const LEADER_RETRY: Duration = Duration::from_millis(20);

/// How long local reads and new watches wait for what clients of this node were told already. Beyond
/// it the node is cut off, and what it has is better than nothing.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);

/// Bytes of events after which a watcher's batch begins no further revision. Each watcher that nobody
/// reads from holds a batch, and there may be thousands.
const STREAM_BATCH_BYTES: usize = 64 << 10;

/// Bytes of keys and values up to which an answer is small.
const SMALL_ANSWER_BYTES_MAX: usize = 4 << 20;

/// Most bytes of keys and values in an answer.
const LARGE_ANSWER_BYTES_MAX: usize = 512 << 20;

/// Most keys of a lease that one answer names.
const LEASE_KEYS_MAX: usize = 100_000;

#[async_trait]
impl Kv for LocalKv {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        let page = self.range_page(request.clone(), SMALL_ANSWER_BYTES_MAX).await?;
        if !page.cut {
            return Ok(page.response);
        }
        // Few large answers are made at once, each alone with its share of the memory.
        let _permit = self.turn(&self.inner.large_ranges).await?;
        let page = self.range_page(request, LARGE_ANSWER_BYTES_MAX).await?;
        if page.cut { Err(KvError::AnswerTooLarge) } else { Ok(page.response) }
    }

    async fn range_part(&self, request: RangePartRequest) -> Result<RangePart, KvError> {
        check::range_part(&request)?;
        let view = self.view(request.serializable).await?;
        let state = State::read(&view)?;
        self.permit(&view, &state, |rights| Ok(rights.read(&request.span())?))?;
        let read = move || range::part(&view, &state, &request);
        let mut part = self.read(false, read).await?;
        part.header.raft_term = self.term();
        Ok(part)
    }

    async fn put(&self, request: PutRequest) -> Result<PutResponse, KvError> {
        self.put_in(request, None).await
    }

    async fn delete_range(
        &self,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, KvError> {
        self.delete_range_in(request, None).await
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, KvError> {
        self.txn_in(request, None).await
    }

    async fn compact(&self, request: CompactRequest) -> Result<CompactResponse, KvError> {
        self.compact_in(request, None).await
    }

    async fn status(&self) -> Result<StatusResponse, KvError> {
        self.catch_up().await;
        self.status_here()
    }

    async fn hash(&self, scope: HashScope) -> Result<HashResponse, KvError> {
        let view = self.view(true).await?;
        let state = State::read(&view)?;
        self.permit(&view, &state, |rights| Ok(rights.root()?))?;
        let mut hashed = self.read(false, move || hash::hash(&view, &state, scope)).await?;
        hashed.header.raft_term = self.term();
        Ok(hashed)
    }

    async fn lease_grant(&self, request: LeaseGrantRequest) -> Result<LeaseGrantResponse, KvError> {
        self.lease_grant_in(request, None).await
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<LeaseRevokeResponse, KvError> {
        self.lease_revoke_in(id, None).await
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<LeaseKeepAliveResponse, KvError> {
        if self.caller != Caller::Trusted && self.inner.shared.auth.is_enabled() {
            let view = self.view(false).await?;
            let state = State::read(&view)?;
            self.permit(&view, &state, |rights| permit::lease_writes(rights, &view, id))?;
        }
        self.at_leader::<KeepAliveHere, _>(id, || self.keep_alive_here(id)).await
    }

    async fn lease_time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, KvError> {
        let id = request.id;
        let left = self.at_leader::<LeftHere, _>(id, || self.left_here(id)).await?;
        let view = self.view(false).await?;
        let state = State::read(&view)?;
        let header = self.header_at(&state);
        self.permit(&view, &state, |rights| match request.keys {
            true => permit::lease_reads(rights, &view, id),
            false => Ok(()),
        })?;
        let granted = lease::ttl_seconds(&view, id)?;
        let (Some(left), Some(granted_ttl_seconds)) = (left, granted) else {
            let gone =
                LeaseTimeToLiveResponse { header, id, ttl_seconds: -1, ..Default::default() };
            return Ok(gone);
        };
        let keys = if request.keys {
            blocking(move || Ok(lease::attached(&view, id, LEASE_KEYS_MAX)?)).await?
        } else {
            Vec::new()
        };
        let ttl_seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        Ok(LeaseTimeToLiveResponse { header, id, ttl_seconds, granted_ttl_seconds, keys })
    }

    async fn leases(&self) -> Result<LeasesResponse, KvError> {
        let view = self.view(false).await?;
        let state = State::read(&view)?;
        let header = self.header_at(&state);
        let kv = self.clone();
        let leases = blocking(move || {
            let leases = lease::all(&view)?;
            kv.permit(&view, &state, |rights| {
                leases.iter().try_for_each(|(id, _)| permit::lease_reads(rights, &view, *id))
            })?;
            Ok(leases)
        });
        let leases = leases.await?;
        Ok(LeasesResponse { header, leases: leases.into_iter().map(|(id, _)| id).collect() })
    }

    async fn watch_poll(&self, request: WatchPoll) -> Result<WatchBatch, KvError> {
        self.catch_up().await;
        let mut watcher = self.watcher(request.watch, request.bytes_max)?;
        let wait = request.wait.min(WATCH_WAIT_MAX);
        match timeout(wait, watcher.next()).await {
            Ok(batch) => batch,
            Err(_) => Ok(watcher.batch(Vec::new())),
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<Box<dyn Watcher>, KvError> {
        self.catch_up().await;
        Ok(Box::new(self.watcher(request, STREAM_BATCH_BYTES)?))
    }

    async fn import(&self, step: ImportStep) -> Result<ImportResponse, KvError> {
        self.import_in(step, None).await
    }

    async fn export(&self) -> Result<Export, KvError> {
        let view = self.view(false).await?;
        let state = State::read(&view)?;
        self.permit(&view, &state, |rights| Ok(rights.root()?))?;
        Export::new(view, self.term())
    }

    fn auth(&self) -> &dyn Auth {
        self
    }

    fn on_behalf_of(&self, caller: Caller) -> Arc<dyn Kv> {
        Arc::new(self.for_caller(caller))
    }
}

/// The same operations with what only other processes need: sessions, pages, the leader's own part.
impl LocalKv {
    /// How this node's replica stands.
    ///
    /// # Errors
    /// When the table fails.
    pub fn status_here(&self) -> Result<StatusResponse, KvError> {
        let state = State::read(&self.inner.group.view())?;
        let usage = state.usage;
        Ok(StatusResponse {
            header: header(&self.inner.group, state.revision),
            compacted: state.compacted,
            keys: usage.keys,
            live_bytes: usage.live_bytes,
            history_bytes: usage.history_bytes,
            quota_bytes: usage.quota_bytes,
            is_full: usage.is_full,
        })
    }

    pub(crate) async fn range_page(
        &self,
        request: RangeRequest,
        bytes_max: usize,
    ) -> Result<Page, KvError> {
        check::range(&request)?;
        let view = self.view(request.serializable).await?;
        let is_small = matches!(request.span(), KeySpan::One(_));
        let state = State::read(&view)?;
        self.permit(&view, &state, |rights| Ok(rights.read(&request.span())?))?;
        let read = move || range::range(&view, &state, &request, bytes_max);
        let mut page = self.read(is_small, read).await?;
        page.response.header.raft_term = self.term();
        Ok(page)
    }

    pub(crate) async fn put_in(
        &self,
        request: PutRequest,
        session: Option<SessionTag>,
    ) -> Result<PutResponse, KvError> {
        check::put(&request)?;
        match self.propose(Command::Put(request), session).await? {
            Answer::Put(mut response) => {
                response.header.raft_term = self.term();
                Ok(response)
            }
            other => Err(misfit(&other)),
        }
    }

    pub(crate) async fn delete_range_in(
        &self,
        request: DeleteRangeRequest,
        session: Option<SessionTag>,
    ) -> Result<DeleteRangeResponse, KvError> {
        check::delete_range(&request)?;
        match self.propose(Command::DeleteRange(request), session).await? {
            Answer::DeleteRange(mut response) => {
                response.header.raft_term = self.term();
                Ok(response)
            }
            other => Err(misfit(&other)),
        }
    }

    pub(crate) async fn txn_in(
        &self,
        request: TxnRequest,
        session: Option<SessionTag>,
    ) -> Result<TxnResponse, KvError> {
        check::txn(&request)?;
        let mut response = if request.is_read_only() {
            let view = self.view(request.is_serializable()).await?;
            let state = State::read(&view)?;
            self.permit(&view, &state, |rights| permit::txn(rights, &view, &request))?;
            self.read(false, move || read_only_txn(&view, &state, &request)).await?
        } else {
            match self.propose(Command::Txn(request), session).await? {
                Answer::Txn(response) => response,
                other => return Err(misfit(&other)),
            }
        };
        response.header.raft_term = self.term();
        Ok(response)
    }

    pub(crate) async fn compact_in(
        &self,
        request: CompactRequest,
        session: Option<SessionTag>,
    ) -> Result<CompactResponse, KvError> {
        match self.propose(Command::Compact(request.revision), session).await? {
            Answer::Compact(mut response) => {
                response.header.raft_term = self.term();
                if request.physical {
                    let group = &self.inner.group;
                    let done = || Ok(State::read(&group.view())?.swept >= request.revision);
                    if !self.reaches(REQUEST_TIMEOUT, done).await? {
                        let reason = "the history is unreadable but not removed yet".to_owned();
                        return Err(KvError::TimedOut { reason });
                    }
                } else {
                    // So that a watch of the same client does not find what is gone.
                    let done = || Ok(self.inner.shared.compacted() >= request.revision);
                    self.reaches(CATCH_UP_MAX, done).await?;
                }
                Ok(response)
            }
            other => Err(misfit(&other)),
        }
    }

    pub(crate) async fn lease_grant_in(
        &self,
        request: LeaseGrantRequest,
        session: Option<SessionTag>,
    ) -> Result<LeaseGrantResponse, KvError> {
        match self.propose(Command::LeaseGrant(request), session).await? {
            Answer::LeaseGrant(mut response) => {
                response.header.raft_term = self.term();
                Ok(response)
            }
            other => Err(misfit(&other)),
        }
    }

    pub(crate) async fn lease_revoke_in(
        &self,
        id: LeaseId,
        session: Option<SessionTag>,
    ) -> Result<LeaseRevokeResponse, KvError> {
        match self.propose(Command::LeaseRevoke(id), session).await? {
            Answer::LeaseRevoke(mut response) => {
                response.header.raft_term = self.term();
                Ok(response)
            }
            other => Err(misfit(&other)),
        }
    }

    pub(crate) async fn import_in(
        &self,
        step: ImportStep,
        session: Option<SessionTag>,
    ) -> Result<ImportResponse, KvError> {
        match self.propose(Command::Import(step), session).await? {
            Answer::Import(mut response) => {
                response.header.raft_term = self.term();
                Ok(response)
            }
            other => Err(misfit(&other)),
        }
    }

    /// Renews a lease in this node's book; nothing when this node does not lead.
    pub(crate) async fn keep_alive_here(
        &self,
        id: LeaseId,
    ) -> Result<Option<LeaseKeepAliveResponse>, KvError> {
        let Some((term, view)) = self.lead_here().await? else { return Ok(None) };
        let header = self.header_of(&view)?;
        let ttl = match self.inner.shared.book.renew(term, id, self.inner.shared.now()) {
            Found::Closed => return Ok(None),
            Found::Over => Duration::ZERO,
            Found::Alive { left, is_noted: false } => left,
            Found::Alive { left, is_noted: true } => {
                if !self.clear_note(term, id).await? {
                    return Ok(None);
                }
                left
            }
        };
        let ttl_seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        Ok(Some(LeaseKeepAliveResponse { header, id, ttl_seconds }))
    }

    /// The time that a lease has left by this node's book; nothing when this node does not lead.
    pub(crate) async fn left_here(&self, id: LeaseId) -> Result<Option<Option<Duration>>, KvError> {
        let Some((term, _)) = self.lead_here().await? else { return Ok(None) };
        Ok(match self.inner.shared.book.left(term, id, self.inner.shared.now()) {
            Found::Closed => None,
            Found::Over => Some(None),
            Found::Alive { left, .. } => Some(Some(left)),
        })
    }

    /// Has the log forget that a lease had less time, before its client hears that it has all of it:
    /// the next leader would go on from the note. False when that leader may have gone on already.
    async fn clear_note(&self, term: Term, id: LeaseId) -> Result<bool, KvError> {
        let _not_while_noting = self.inner.shared.notes.read().await;
        let command = Command::LeaseCheckpoint { term, left: vec![(id, 0)] };
        propose(&self.inner.group, command).await?;
        // A later leader to whom the command was sent on has found it out of date, and the note as it
        // was. That this one has led all the while says that it was not sent on.
        let now = *self.inner.leadership.borrow();
        if !now.is_self || now.term != term {
            return Ok(false);
        }
        self.inner.shared.book.cleared(term, id);
        Ok(true)
    }

    /// The term in which this node leads, confirmed by a majority after the call began, and a view
    /// of then.
    ///
    /// A deposed leader that does not know it yet must not renew leases: its successor counts them.
    async fn lead_here(&self) -> Result<Option<(Term, SpaceView)>, KvError> {
        let before = *self.inner.leadership.borrow();
        if !before.is_self {
            return Ok(None);
        }
        let view = self.view(false).await?;
        let after = *self.inner.leadership.borrow();
        Ok((before == after).then_some((after.term, view)))
    }

    /// Asks the leader, wherever it is, and waits for one up to the request's time.
    async fn at_leader<M, F>(
        &self,
        id: LeaseId,
        here: impl Fn() -> F,
    ) -> Result<M::Response, KvError>
    where
        M: Method<Request = At<LeaseId>>,
        F: Future<Output = Result<Option<M::Response>, KvError>>,
    {
        let until = Instant::now() + REQUEST_TIMEOUT;
        let mut last = KvError::Unavailable { reason: "no leader is known".to_owned() };
        while Instant::now() < until {
            let leadership = *self.inner.leadership.borrow();
            if leadership.is_self {
                if let Some(answer) = here().await? {
                    return Ok(answer);
                }
            } else if let Some(leader) = leadership.leader {
                let caller = Caller::Trusted;
                let request = At { group: self.group(), caller, request: id };
                let left = until.saturating_duration_since(Instant::now());
                let peers = &self.inner.peers;
                let asked = peers.call::<M>(leader, Class::Call, &request, Bytes::new(), left);
                tokio::select! {
                    answer = asked => match answer {
                        Ok((answer, _)) => return Ok(answer),
                        Err(error) => last = error_of_call(error),
                    },
                    // One that stands still would hold what is asked for until it is too late.
                    () = self.succeeded(leader) => continue,
                }
            }
            sleep(LEADER_RETRY).await;
        }
        Err(last)
    }

    /// Returns when another node than this one leads.
    async fn succeeded(&self, leader: NodeId) {
        let mut leadership = self.inner.leadership.clone();
        let is_other = |now: &Leadership| now.leader.is_some_and(|other| other != leader);
        if leadership.wait_for(is_other).await.is_err() {
            // The group is gone; so is whoever would have told us.
            std::future::pending::<()>().await;
        }
    }

    fn watcher(&self, request: WatchRequest, bytes_max: usize) -> Result<LocalWatcher, KvError> {
        check::watch(&request)?;
        let inner = &self.inner;
        if inner.group.status().is_state_lost {
            return Err(from_read(ReadError::StateLost { group: inner.group.id() }));
        }
        let mut permit = self.watch_permit(request.span());
        permit.check()?;
        let seat = inner.shared.hub.sit(request.span(), request.from_revision);
        let watching = Watching::new(seat, request, bytes_max);
        let looks = inner.history_looks.clone();
        Ok(LocalWatcher::new(inner.group.clone(), watching, looks, permit))
    }

    /// Waits until this replica has what clients of this node were told: a follower hears of a
    /// commit after the leader's answer went out. So everybody finds their own writes at the node
    /// that took them, in local reads and as the beginning of watches, as at an etcd.
    async fn catch_up(&self) {
        let shared = &self.inner.shared;
        // What others are told meanwhile is none of this one's business.
        let told = shared.told();
        if shared.applied() >= told {
            return;
        }
        let until = Instant::now() + CATCH_UP_MAX;
        let mut applied = self.inner.group.applied_updates();
        loop {
            applied.borrow_and_update();
            if shared.applied() >= told {
                return;
            }
            if !matches!(timeout_at(until, applied.changed()).await, Ok(Ok(()))) {
                // One has waited for all.
                shared.stop_waiting();
                return;
            }
        }
    }

    pub(super) async fn view(&self, local: bool) -> Result<SpaceView, KvError> {
        if local {
            self.catch_up().await;
        }
        let consistency = if local { Consistency::Local } else { Consistency::Linearizable };
        let view = self.inner.group.read(consistency, REQUEST_TIMEOUT).await;
        view.map_err(from_read)
    }

    /// Reads here when it is little, else where it stops nobody and not too many at once.
    async fn read<T: Send + 'static>(
        &self,
        is_small: bool,
        read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, KvError> {
        if is_small {
            return Ok(read()?);
        }
        let permit = self.turn(&self.inner.ranges).await?;
        blocking(move || {
            let _permit = permit;
            Ok(read()?)
        })
        .await
    }

    /// Waits until not too many others do the same.
    async fn turn(&self, turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, KvError> {
        match timeout(REQUEST_TIMEOUT, turns.clone().acquire_owned()).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_) => {
                let reason = "other ranges took all the time of this one".to_owned();
                Err(KvError::Overloaded { reason })
            }
        }
    }

    pub(super) async fn propose(
        &self,
        command: Command,
        session: Option<SessionTag>,
    ) -> Result<Answer, KvError> {
        let answer_size = command.answer_size();
        let command = command.encode_for(&self.caller);
        if command.len() > REQUEST_BYTES_LIMIT {
            return Err(KvError::RequestTooLarge { bytes: command.len() });
        }
        let answer =
            self.inner.group.propose_sized(command, session, answer_size, REQUEST_TIMEOUT).await;
        let answer = decode_outcome(&answer.map_err(from_propose)?)?;
        if let Some(revision) = answer.revision() {
            self.inner.shared.tell(revision);
        }
        Ok(answer)
    }

    /// Waits until this replica is so far. False when time is up.
    async fn reaches(
        &self,
        time: Duration,
        is_reached: impl Fn() -> Result<bool, KvError>,
    ) -> Result<bool, KvError> {
        let until = Instant::now() + time;
        let mut applied = self.inner.group.applied_updates();
        loop {
            applied.borrow_and_update();
            if is_reached()? {
                return Ok(true);
            }
            if !matches!(timeout_at(until, applied.changed()).await, Ok(Ok(()))) {
                return Ok(false);
            }
        }
    }

    fn header_of(&self, view: &dyn View) -> Result<Header, KvError> {
        Ok(self.header_at(&State::read(view)?))
    }

    /// Where the store stands in this state.
    pub(super) fn header_at(&self, state: &State) -> Header {
        header(&self.inner.group, state.revision)
    }

    pub(super) fn term(&self) -> Term {
        self.inner.leadership.borrow().term
    }
}

/// A replica answered another question.
pub(super) fn misfit(answer: &Answer) -> KvError {
    KvError::Internal { reason: format!("the store's answer does not fit the request: {answer:?}") }
}
