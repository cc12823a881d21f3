//! A store that fails on command.

use std::sync::Arc;

use async_trait::async_trait;
use onefold_kv::*;
use tokio::sync::watch;

/// Passes everything on until it is told an error, which it then answers to all.
pub(crate) struct Faulty {
    inner: Arc<dyn Kv>,
    fault: watch::Sender<Option<KvError>>,
    is_held: watch::Sender<bool>,
}

impl Faulty {
    pub(crate) fn new(inner: impl Kv + 'static) -> Self {
        let (fault, is_held) = (watch::Sender::new(None), watch::Sender::new(false));
        Self { inner: Arc::new(inner), fault, is_held }
    }

    pub(crate) fn fail(&self, error: KvError) {
        self.fault.send_replace(Some(error));
    }

    /// Has puts wait until they are let go.
    pub(crate) fn hold(&self, is_held: bool) {
        self.is_held.send_replace(is_held);
    }

    fn inner(&self) -> Result<&dyn Kv, KvError> {
        match &*self.fault.borrow() {
            Some(error) => Err(error.clone()),
            None => Ok(&*self.inner),
        }
    }
}

#[async_trait]
impl Kv for Faulty {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        self.inner()?.range(request).await
    }

    async fn range_part(&self, request: RangePartRequest) -> Result<RangePart, KvError> {
        self.inner()?.range_part(request).await
    }

    async fn hash(&self, scope: HashScope) -> Result<HashResponse, KvError> {
        self.inner()?.hash(scope).await
    }

    async fn put(&self, request: PutRequest) -> Result<PutResponse, KvError> {
        let let_go = self.is_held.subscribe().wait_for(|is_held| !is_held).await.map(|_| ());
        let_go.expect("the sender lives as long as this");
        self.inner()?.put(request).await
    }

    async fn delete_range(
        &self,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, KvError> {
        self.inner()?.delete_range(request).await
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, KvError> {
        self.inner()?.txn(request).await
    }

    async fn compact(&self, request: CompactRequest) -> Result<CompactResponse, KvError> {
        self.inner()?.compact(request).await
    }

    async fn status(&self) -> Result<StatusResponse, KvError> {
        self.inner()?.status().await
    }

    async fn lease_grant(&self, request: LeaseGrantRequest) -> Result<LeaseGrantResponse, KvError> {
        self.inner()?.lease_grant(request).await
    }

    async fn import(&self, step: ImportStep) -> Result<ImportResponse, KvError> {
        self.inner()?.import(step).await
    }

    async fn export(&self) -> Result<Export, KvError> {
        self.inner()?.export().await
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<LeaseRevokeResponse, KvError> {
        self.inner()?.lease_revoke(id).await
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<LeaseKeepAliveResponse, KvError> {
        self.inner()?.lease_keep_alive(id).await
    }

    async fn lease_time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, KvError> {
        self.inner()?.lease_time_to_live(request).await
    }

    async fn leases(&self) -> Result<LeasesResponse, KvError> {
        self.inner()?.leases().await
    }

    async fn watch_poll(&self, request: WatchPoll) -> Result<WatchBatch, KvError> {
        self.inner()?.watch_poll(request).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<Box<dyn Watcher>, KvError> {
        let inner = self.inner()?.watch(request).await?;
        Ok(Box::new(FaultyWatcher { inner, fault: self.fault.subscribe() }))
    }

    fn auth(&self) -> &dyn Auth {
        self.inner.auth()
    }

    fn on_behalf_of(&self, caller: Caller) -> Arc<dyn Kv> {
        let inner = self.inner.on_behalf_of(caller);
        let (fault, is_held) = (self.fault.clone(), self.is_held.clone());
        Arc::new(Faulty { inner, fault, is_held })
    }
}

struct FaultyWatcher {
    inner: Box<dyn Watcher>,
    fault: watch::Receiver<Option<KvError>>,
}

#[async_trait]
impl Watcher for FaultyWatcher {
    async fn next(&mut self) -> Result<WatchBatch, KvError> {
        tokio::select! {
            batch = self.inner.next() => batch,
            fault = self.fault.wait_for(Option::is_some) => {
                let fault = fault.expect("the store lives as long as its watchers");
                Err(fault.clone().expect("it was waited for"))
            }
        }
    }

    fn next_revision(&self) -> onefold_types::Revision {
        self.inner.next_revision()
    }

    fn header(&self) -> Header {
        self.inner.header()
    }
}
