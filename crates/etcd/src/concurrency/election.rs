//! The Election service.

use std::sync::Arc;

use bytes::Bytes;
use onefold_kv::{EventKind, Header, KeyValue, Kv, KvError, WatchFilters, WatchRequest};
use onefold_types::Revision;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, async_trait};

use super::place::{Place, Taken, first, if_since, lease, row};
use crate::convert::{key_value, number, revision};
use crate::errors::{self, status};
use crate::gateway::Gateway;
use crate::proto::v3electionpb::election_server::Election;
use crate::proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};

/// Answers that wait for the connection of one who observes.
const ANSWERS_QUEUED_MAX: usize = 4;

type Answers = mpsc::Sender<Result<LeaderResponse, Status>>;

#[async_trait]
impl Election for Gateway {
    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let call = self.admit(request).await?;
        let CampaignRequest { name, lease: id, value } = call.request.clone();
        let lease = lease(&*call.kv, id).await?;
        let taken = Place::take(call.kv.clone(), name.clone(), lease, value.clone()).await?;
        let is_first = taken.is_first();
        let Taken { mut place, mut header, found, .. } = taken;
        place.give_up();
        if found.is_some_and(|found| found.value != value) {
            header = place.proclaim(value, lease).await?;
        }
        if !is_first {
            self.wait(call, place.turn()).await?;
        }
        let rev = number(place.since.get());
        let leader = LeaderKey { name, key: place.keep(), rev, lease: lease.0 };
        let header = self.header(header);
        Ok(Response::new(CampaignResponse { header, leader: Some(leader) }))
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        let call = self.admit(request).await?;
        let leader = call.request.leader.ok_or_else(errors::missing_leader_key)?;
        let lease = lease(&*call.kv, leader.lease).await?;
        let value = Some((call.request.value, lease));
        let request = if_since(leader.key, revision(leader.rev), value);
        let response = call.kv.txn(request).await.map_err(status)?;
        if !response.succeeded {
            return Err(errors::not_elected());
        }
        Ok(Response::new(ProclaimResponse { header: self.header(response.header) }))
    }

    async fn leader(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<LeaderResponse>, Status> {
        let call = self.admit(request).await?;
        let response = call.kv.range(first(&call.request.name)).await.map_err(status)?;
        let leader = response.kvs.into_iter().next().ok_or_else(errors::nobody_elected)?;
        Ok(Response::new(self.leader_response(response.header, leader)))
    }

    type ObserveStream = ReceiverStream<Result<LeaderResponse, Status>>;

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let call = self.admit(request).await?;
        let permit = self.admission.watch().ok_or_else(errors::too_many_requests)?;
        let (answers, queue) = mpsc::channel(ANSWERS_QUEUED_MAX);
        let observer = Observer {
            gateway: self.clone(),
            kv: call.kv,
            name: call.request.name,
            answers: answers.clone(),
        };
        tokio::spawn(async move {
            let _permit = permit;
            let end = tokio::select! {
                () = observer.gateway.shutdown.cancelled() => Err(errors::stopped()),
                () = answers.closed() => return,
                end = observer.run() => end,
            };
            if let Err(status) = end {
                // Fails only when the client is gone, which needs no answer.
                let _ = answers.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(queue)))
    }

    async fn resign(
        &self,
        request: Request<ResignRequest>,
    ) -> Result<Response<ResignResponse>, Status> {
        let call = self.admit(request).await?;
        let leader = call.request.leader.ok_or_else(errors::missing_leader_key)?;
        let request = if_since(leader.key, revision(leader.rev), None);
        let response = call.kv.txn(request).await.map_err(status)?;
        Ok(Response::new(ResignResponse { header: self.header(response.header) }))
    }
}

impl Gateway {
    fn leader_response(&self, header: Header, leader: KeyValue) -> LeaderResponse {
        LeaderResponse { header: self.header(header), kv: Some(key_value(leader)) }
    }
}

/// One stream that tells of an election.
struct Observer {
    gateway: Gateway,
    kv: Arc<dyn Kv>,
    name: Bytes,
    answers: Answers,
}

impl Observer {
    /// Tells of one leader after the other until it fails.
    async fn run(&self) -> Result<(), Status> {
        loop {
            let response = self.kv.range(first(&self.name)).await.map_err(status)?;
            let next = response.header.revision.next();
            let Some(leader) = response.kvs.into_iter().next() else {
                self.candidate(next).await?;
                continue;
            };
            let key = leader.key.clone();
            self.tell(response.header, leader).await?;
            self.reign(key, next).await?;
        }
    }

    /// Waits for somebody to be a candidate.
    async fn candidate(&self, from_revision: Revision) -> Result<(), Status> {
        let (key, range_end) = row(&self.name);
        let filters = WatchFilters { no_delete: true, ..WatchFilters::default() };
        let request =
            WatchRequest { key, range_end, from_revision, filters, ..WatchRequest::default() };
        match self.kv.watch(request).await {
            Err(KvError::Compacted { .. }) => Ok(()),
            watcher => {
                watcher.map_err(status)?.next().await.map_err(status)?;
                Ok(())
            }
        }
    }

    /// Tells what a leader proclaims until it is gone.
    async fn reign(&self, key: Bytes, from_revision: Revision) -> Result<(), Status> {
        let request = WatchRequest { key, from_revision, ..WatchRequest::default() };
        let mut watcher = match self.kv.watch(request).await {
            Err(KvError::Compacted { .. }) => return Ok(()),
            watcher => watcher.map_err(status)?,
        };
        loop {
            let batch = watcher.next().await.map_err(status)?;
            for event in batch.events {
                if event.kind == EventKind::Delete {
                    return Ok(());
                }
                self.tell(batch.header, event.kv).await?;
            }
            if batch.compacted.is_some() {
                return Ok(());
            }
        }
    }

    async fn tell(&self, header: Header, leader: KeyValue) -> Result<(), Status> {
        let answer = self.gateway.leader_response(header, leader);
        // Who is gone ends this task anyhow.
        let _ = self.answers.send(Ok(answer)).await;
        Ok(())
    }
}
