//! Sealing: fence the replicas, find out what all survivors have, make that the chunk for good.

use std::time::Duration;

use bytes::Bytes;
use onefold_transport::Class;
use onefold_types::{ChunkId, NodeId};

use super::{Master, plan};
use crate::api::FilesError;
use crate::chunk::methods::{At, Fence, FenceRequest, Seal, SealRequest};
use crate::chunk::{ChunkError, ReplicaReport, chunk_error};
use crate::namespace::{ChunkRecord, ChunkState, Command, Reply};

/// How long a replica may take to accept a fence or a seal.
const FENCE_TIMEOUT: Duration = Duration::from_secs(4);

/// Most chunks that are sealed at once.
const SEALING_MAX: usize = 64;

impl Master {
    /// Seals a chunk in the background, if this node leads. The tick does again what fails.
    pub(super) fn seal_soon(&self, chunk: ChunkId) {
        let Ok(term) = self.term() else { return };
        {
            let mut state = self.state(term);
            if state.sealing.len() >= SEALING_MAX || !state.sealing.insert(chunk) {
                // Of all that waits, the lease ends, and then it comes here again.
                return;
            }
        }
        let master = self.clone();
        self.spawn(async move {
            if let Err(error) = master.seal(term, chunk).await {
                tracing::warn!(%chunk, %error, "a chunk is not sealed yet");
            }
            let mut state = master.state(term);
            state.sealing.remove(&chunk);
        });
    }

    async fn seal(&self, term: u64, chunk: ChunkId) -> Result<(), FilesError> {
        let begun = self.0.commands.run(&Command::BeginSeal { chunk }).await?;
        let Reply::Chunk { record: Some(record), .. } = begun else { return Ok(()) };
        if record.state == ChunkState::Sealed {
            return Ok(());
        }
        let at = At { chunk, version: record.version };
        let fences = record.replicas.iter().map(|node| self.fence(term, at, *node));
        let results = futures::future::join_all(fences).await;
        let (mut fenced, mut silent) = (Vec::new(), 0);
        for (node, result) in record.replicas.iter().zip(results) {
            match result {
                Ok(report) => fenced.push((*node, report)),
                Err(error) => {
                    // A node that says it has none will not have one later.
                    silent += usize::from(!matches!(error, ChunkError::NotFound { .. }));
                    tracing::warn!(%chunk, %node, %error, "a replica is not fenced");
                }
            }
        }
        let Some((length, survivors)) = plan::seal(&record, &fenced) else {
            let reason = format!("no replica with all committed bytes of chunk {chunk} answers");
            return Err(FilesError::Unavailable { reason });
        };
        let now = self.now();
        let since = *self.state(term).seals.entry(chunk).or_insert(now);
        let tried_for_ms = now.saturating_sub(since);
        if !plan::may_finish(&record, survivors.len(), silent, tried_for_ms) {
            let reason = format!("only one replica of chunk {chunk} answers; waiting for others");
            return Err(FilesError::Unavailable { reason });
        }
        let version = record.version;
        let finish = Command::FinishSeal { chunk, version, length, survivors };
        let finished = self.0.commands.run(&finish).await?;
        {
            let mut state = self.state(term);
            state.leases.remove(&chunk);
            state.seals.remove(&chunk);
            state.servers.closed(chunk);
        }
        if let Reply::Chunk { record: Some(record), .. } = finished
            && record.state == ChunkState::Sealed
        {
            self.tell_sealed(term, chunk, &record).await;
        }
        Ok(())
    }

    /// Tells the replicas where their chunk ends. One that does not hear it is told when it reports.
    async fn tell_sealed(&self, term: u64, chunk: ChunkId, record: &ChunkRecord) {
        let at = At { chunk, version: record.version };
        let seals = record
            .replicas
            .iter()
            .map(|node| self.seal_replica(*node, SealRequest { term, at, length: record.length }));
        for result in futures::future::join_all(seals).await {
            if let Err(error) = result {
                tracing::info!(%chunk, %error, "a replica does not know yet that it is sealed");
            }
        }
    }

    async fn fence(&self, term: u64, at: At, node: NodeId) -> Result<ReplicaReport, ChunkError> {
        let request = FenceRequest { term, at };
        if node == self.node() {
            return self.0.chunks.fence(request).await;
        }
        let peers = &self.0.peers;
        let call =
            peers.call::<Fence>(node, Class::Call, &request, Bytes::new(), FENCE_TIMEOUT).await;
        call.map(|(report, _)| report).map_err(|error| chunk_error(at.chunk, node, &error))
    }

    pub(super) async fn seal_replica(
        &self,
        node: NodeId,
        request: SealRequest,
    ) -> Result<(), ChunkError> {
        if node == self.node() {
            return self.0.chunks.seal(request).await;
        }
        let chunk = request.at.chunk;
        let peers = &self.0.peers;
        let call =
            peers.call::<Seal>(node, Class::Call, &request, Bytes::new(), FENCE_TIMEOUT).await;
        call.map(drop).map_err(|error| chunk_error(chunk, node, &error))
    }
}
