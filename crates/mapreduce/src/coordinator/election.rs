//! Which node's coordinator decides: a key with a lease, written by whoever finds it absent.

use std::sync::Arc;
use std::time::Duration;

use onefold_files::FileSystem;
use onefold_kv::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, Kv, KvError, LeaseGrantRequest,
    LeaseId, Operation, PutRequest, RangeRequest, TxnRequest,
};
use onefold_transport::Peers;
use onefold_types::NodeId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::records::{COORDINATOR, CoordinatorRecord, decode, encode};
use super::store::Store;
use super::term::{Call, HeartbeatReply, Term};
use crate::job::Heartbeat;
use crate::timing::Timing;

/// Heartbeats that wait for the coordinator.
const CALLS_MAX: usize = 1024;

/// The elected coordinator, as this node knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leadership {
    /// Where it is.
    pub(crate) node: NodeId,
    /// Which one it is: later ones have greater numbers.
    pub(crate) epoch: u64,
}

/// What a coordinator works with.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) node: NodeId,
    pub(super) store: Store,
    pub(super) files: Arc<dyn FileSystem>,
    pub(super) peers: Peers,
    pub(super) timing: Timing,
}

/// This node's candidate, and the way to it while it is the elected one.
#[derive(Clone)]
pub(crate) struct Coordinator {
    leadership: watch::Receiver<Option<Leadership>>,
    calls: watch::Receiver<Option<mpsc::Sender<Call>>>,
}

impl Coordinator {
    /// Starts to observe who is elected, and to stand for election.
    pub(crate) fn start(
        node: NodeId,
        store: Store,
        files: Arc<dyn FileSystem>,
        peers: Peers,
        timing: Timing,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let (leadership_sender, leadership) = watch::channel(None);
        let (calls_sender, calls) = watch::channel(None);
        let context = Context { node, store, files, peers, timing };
        let candidate =
            Candidate { context, leadership: leadership_sender, calls: calls_sender, stop };
        tasks.spawn(candidate.run());
        Self { leadership, calls }
    }

    /// Who is elected, as far as this node knows.
    pub(crate) fn leadership(&self) -> Option<Leadership> {
        *self.leadership.borrow()
    }

    /// Passes a heartbeat to the coordinator. `None` when it is not here.
    pub(crate) async fn heartbeat(&self, heartbeat: Heartbeat) -> Option<HeartbeatReply> {
        let calls = self.calls.borrow().clone()?;
        let (reply, answer) = oneshot::channel();
        calls.send(Call { heartbeat, reply }).await.ok()?;
        answer.await.ok()
    }
}

struct Candidate {
    context: Context,
    leadership: watch::Sender<Option<Leadership>>,
    calls: watch::Sender<Option<mpsc::Sender<Call>>>,
    stop: CancellationToken,
}

impl Candidate {
    async fn run(self) {
        while !self.stop.is_cancelled() {
            if let Err(error) = self.observe_or_lead().await {
                tracing::debug!(%error, "the election of a coordinator has to wait");
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = sleep(self.context.timing.election_poll) => {}
            }
        }
    }

    fn kv(&self) -> &dyn Kv {
        self.context.store.kv().as_ref()
    }

    async fn observe_or_lead(&self) -> Result<(), KvError> {
        let mut request = RangeRequest::key(COORDINATOR);
        // A stale answer is as good: what matters is decided by a transaction.
        request.serializable = true;
        let response = self.kv().range(request).await?;
        let Some(found) = response.kvs.first() else { return self.campaign().await };
        let epoch = found.create_revision.get();
        match decode::<CoordinatorRecord>(&found.key, &found.value) {
            Ok(record) if record.node != self.context.node => {
                self.publish(Some(Leadership { node: record.node, epoch }));
            }
            // An earlier life of this node, or its last term: nobody else may end it sooner.
            Ok(_) => self.resign(epoch).await?,
            Err(error) => tracing::error!(%error, "the coordinator's record cannot be read"),
        }
        Ok(())
    }

    fn publish(&self, leadership: Option<Leadership>) {
        self.leadership.send_if_modified(|current| {
            let is_news = *current != leadership;
            *current = leadership;
            is_news
        });
    }

    async fn resign(&self, epoch: u64) -> Result<(), KvError> {
        self.publish(None);
        let mine = CompareTarget::CreateRevision(epoch as i64);
        let request = TxnRequest {
            compare: vec![Compare::new(COORDINATOR, CompareResult::Equal, mine)],
            success: vec![Operation::DeleteRange(DeleteRangeRequest::key(COORDINATOR))],
            failure: Vec::new(),
        };
        self.kv().txn(request).await.map(|_| ())
    }

    async fn campaign(&self) -> Result<(), KvError> {
        self.publish(None);
        let ttl_seconds = self.context.timing.lease_seconds;
        let granted = Instant::now();
        let request = LeaseGrantRequest { id: LeaseId::NONE, ttl_seconds };
        let lease = self.kv().lease_grant(request).await?.id;
        let elected = self.stand(lease).await;
        if let Ok(Some(epoch)) = elected {
            self.lead(epoch, lease, granted).await;
        }
        // Whether elected, beaten or stopped: the lease is of no more use.
        self.kv().lease_revoke(lease).await?;
        elected.map(|_| ())
    }

    /// The epoch, if this candidate is elected.
    async fn stand(&self, lease: LeaseId) -> Result<Option<u64>, KvError> {
        let record = CoordinatorRecord { node: self.context.node };
        let mut put = PutRequest::new(COORDINATOR, encode(&record));
        put.lease = lease;
        let request = TxnRequest {
            compare: vec![Compare::absent(COORDINATOR)],
            success: vec![Operation::Put(put)],
            failure: Vec::new(),
        };
        let response = self.kv().txn(request).await?;
        Ok(response.succeeded.then(|| response.header.revision.get()))
    }

    async fn lead(&self, epoch: u64, lease: LeaseId, granted: Instant) {
        let node = self.context.node;
        tracing::info!(%node, epoch, "this node coordinates the jobs now");
        let (calls, inbox) = mpsc::channel(CALLS_MAX);
        self.calls.send_replace(Some(calls));
        self.publish(Some(Leadership { node, epoch }));
        let term = Term::new(self.context.clone(), epoch);
        let why = tokio::select! {
            () = self.stop.cancelled() => "it is stopping",
            () = self.keep(lease, granted) => "its lease was lost",
            () = term.run(inbox) => "another one was elected",
        };
        self.calls.send_replace(None);
        self.publish(None);
        tracing::info!(%node, epoch, "this node does not coordinate the jobs any more: {why}");
    }

    /// Keeps the lease alive; returns when it may have run out.
    async fn keep(&self, lease: LeaseId, granted: Instant) {
        let ttl = Duration::from_secs(self.context.timing.lease_seconds.unsigned_abs());
        let mut deadline = granted + ttl;
        loop {
            sleep(ttl / 4).await;
            let asked = Instant::now();
            match timeout(ttl / 4, self.kv().lease_keep_alive(lease)).await {
                Ok(Ok(response)) if response.ttl_seconds <= 0 => return,
                Ok(Ok(_)) => deadline = asked + ttl,
                // Not answered: the lease may still be good.
                Ok(Err(_)) | Err(_) => {}
            }
            if Instant::now() + ttl / 4 >= deadline {
                return;
            }
        }
    }
}
