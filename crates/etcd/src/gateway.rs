//! What all services share.

use std::sync::Arc;

use onefold_kv::limits::REQUEST_BYTES_MAX;
use onefold_kv::{Header, Kv, KvError, RangeRequest};
use onefold_types::Revision;
use prost::Message;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use crate::admission::Admission;
use crate::convert::number;
use crate::proto::etcdserverpb::ResponseHeader;
use crate::{ClusterView, Options, errors};

/// Metadata by which clients ask to be refused rather than kept waiting without a leader.
const REQUIRE_LEADER: &str = "hasleader";

/// The store, the cluster and the bounds, behind every service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Gateway {
    pub(crate) kv: Arc<dyn Kv>,
    pub(crate) cluster: Arc<dyn ClusterView>,
    pub(crate) admission: Admission,
    pub(crate) options: Options,
    pub(crate) shutdown: CancellationToken,
}

impl Gateway {
    /// The header of an answer of the store.
    pub(crate) fn header(&self, header: Header) -> Option<ResponseHeader> {
        Some(ResponseHeader {
            cluster_id: self.cluster.cluster_id(),
            member_id: self.cluster.member_id(),
            revision: number(header.revision.get()),
            raft_term: header.raft_term.get(),
        })
    }

    /// The header of an answer that does not concern the store.
    pub(crate) fn cluster_header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader {
            cluster_id: self.cluster.cluster_id(),
            member_id: self.cluster.member_id(),
            revision: 0,
            raft_term: self.cluster.status().raft_term,
        })
    }

    /// Where the store stands as far as the nearest replica knows.
    pub(crate) async fn present(&self) -> Result<Header, KvError> {
        self.header_at(Revision::ZERO).await
    }

    /// The same, unless the history at `start` is given up.
    pub(crate) async fn present_with(&self, start: Revision) -> Result<Header, KvError> {
        match self.header_at(start).await {
            Err(KvError::FutureRevision { .. }) => self.present().await,
            result => result,
        }
    }

    async fn header_at(&self, revision: Revision) -> Result<Header, KvError> {
        let nothing = RangeRequest {
            revision,
            serializable: true,
            count_only: true,
            ..RangeRequest::key(&[0][..])
        };
        Ok(self.kv.range(nothing).await?.header)
    }

    /// Takes a request in. It counts as in work until the permit is dropped.
    pub(crate) fn admit<T: Message>(
        &self,
        request: Request<T>,
    ) -> Result<(T, OwnedSemaphorePermit), Status> {
        self.check_leader(request.metadata())?;
        let request = request.into_inner();
        let bytes = request.encoded_len();
        if bytes > REQUEST_BYTES_MAX {
            return Err(errors::request_too_large());
        }
        let permit = self.admission.request(bytes)?;
        Ok((request, permit))
    }

    /// Refuses a client that requires a leader when there is none.
    pub(crate) fn check_leader(&self, metadata: &MetadataMap) -> Result<(), Status> {
        if requires_leader(metadata) && self.cluster.leader().is_none() {
            return Err(errors::no_leader());
        }
        Ok(())
    }
}

/// Whether a client wants to be refused when there is no leader.
pub(crate) fn requires_leader(metadata: &MetadataMap) -> bool {
    metadata.get(REQUIRE_LEADER).is_some_and(|value| value.as_bytes() == b"true")
}
