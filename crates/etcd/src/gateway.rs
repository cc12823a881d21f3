//! What all services share.

use std::net::SocketAddr;
use std::sync::Arc;

use onefold_kv::{AuthQuery, AuthToken, Caller, Header, Kv, KvError, Proof, RangeRequest};
use onefold_types::Revision;
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Status, Streaming};

use crate::admission::{Admission, Permit};
use crate::convert::number;
use crate::metrics::Metrics;
use crate::proto::etcdserverpb::ResponseHeader;
use crate::room::Room;
use crate::{ClusterControl, ClusterView, Options, errors};

/// Metadata in which clients show their token, in the order of their weight.
const TOKEN: [&str; 2] = ["token", "authorization"];

/// What stands before a token in an `authorization`, if anything does.
pub(crate) const TOKEN_SCHEME: &str = "Bearer ";

/// Metadata by which clients ask to be refused rather than kept waiting without a leader.
const REQUIRE_LEADER: &str = "hasleader";

/// The store, the cluster and the bounds, behind every service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Gateway {
    /// For callers who do not say who they are. Calls take theirs from [`Admitted`].
    kv: Arc<dyn Kv>,
    /// For the node itself, which may read whatever the users of the store may.
    own: Arc<dyn Kv>,
    pub(crate) cluster: Arc<dyn ClusterView>,
    pub(crate) control: Arc<dyn ClusterControl>,
    pub(crate) admission: Admission,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) options: Options,
    pub(crate) shutdown: CancellationToken,
}

impl Gateway {
    pub(crate) fn new(
        kv: Arc<dyn Kv>,
        cluster: Arc<dyn ClusterView>,
        control: Arc<dyn ClusterControl>,
        (options, room): (Options, &Room),
        shutdown: CancellationToken,
    ) -> Self {
        let own = kv.on_behalf_of(Caller::Trusted);
        let kv = kv.on_behalf_of(Caller::Anonymous);
        let (admission, metrics) = (Admission::new(room), Arc::default());
        Self { kv, own, cluster, control, admission, metrics, options, shutdown }
    }

    /// The node's own store, for what no call asks for.
    pub(crate) fn own_store(&self) -> &dyn Kv {
        &*self.own
    }

    /// A token for a user's password.
    pub(crate) async fn authenticate(
        &self,
        name: String,
        password: String,
    ) -> Result<AuthToken, KvError> {
        self.kv.auth().authenticate(name, password).await
    }

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

    /// Takes a call in: whether it may be served now, and by which store for whom.
    pub(crate) async fn admit<T: Message>(
        &self,
        request: Request<T>,
    ) -> Result<Admitted<T>, Status> {
        let client = request.remote_addr();
        let (metadata, extensions, request) = request.into_parts();
        let kv = self.enter(&metadata, &extensions).await?;
        let kv = identified(kv, &metadata).await.map_err(errors::status)?;
        self.count(client, request, kv)
    }

    /// The same for a call whose caller is still to be found out.
    pub(crate) async fn admit_stranger<T: Message>(
        &self,
        request: Request<T>,
    ) -> Result<Admitted<T>, Status> {
        let client = request.remote_addr();
        let (metadata, extensions, request) = request.into_parts();
        let kv = self.enter(&metadata, &extensions).await?;
        self.count(client, request, kv)
    }

    /// Takes a stream of requests in. What each of them costs is counted where it is served.
    ///
    /// As in etcd, one with a token that is not valid comes in, and each of its requests is refused.
    pub(crate) async fn admit_stream<T>(
        &self,
        request: Request<Streaming<T>>,
    ) -> Result<AdmittedStream<T>, Status> {
        let (metadata, extensions, requests) = request.into_parts();
        let kv = self.enter(&metadata, &extensions).await?;
        let kv = match identified(kv.clone(), &metadata).await {
            Err(KvError::Auth(_)) => kv.on_behalf_of(nobody()),
            result => result.map_err(errors::status)?,
        };
        Ok(AdmittedStream { requests, kv, requires_leader: requires_leader(&metadata) })
    }

    /// The one door for every call: what is known of it beside its message decides whether it comes
    /// in and which store serves it.
    async fn enter(
        &self,
        metadata: &MetadataMap,
        connection: &Extensions,
    ) -> Result<Arc<dyn Kv>, Status> {
        if requires_leader(metadata) && self.cluster.leader().is_none() {
            return Err(errors::no_leader());
        }
        self.store(metadata, connection).await
    }

    /// The store that serves a call, for those that are let in whatever state this node is in; so
    /// far for a caller who does not say who it is.
    pub(crate) async fn store(
        &self,
        _metadata: &MetadataMap,
        _connection: &Extensions,
    ) -> Result<Arc<dyn Kv>, Status> {
        Ok(self.kv.clone())
    }

    fn count<T: Message>(
        &self,
        client: Option<SocketAddr>,
        request: T,
        kv: Arc<dyn Kv>,
    ) -> Result<Admitted<T>, Status> {
        let bytes = request.encoded_len();
        if bytes > self.options.request_bytes_max {
            return Err(errors::request_too_large());
        }
        let _permit = self.admission.request(client, bytes)?;
        Ok(Admitted { request, kv, _permit })
    }
}

/// The store for whom the token says, if there is one.
pub(crate) async fn identified(
    kv: Arc<dyn Kv>,
    metadata: &MetadataMap,
) -> Result<Arc<dyn Kv>, KvError> {
    let Some(token) = TOKEN.iter().find_map(|name| metadata.get(*name)) else { return Ok(kv) };
    // What is not text is nobody's token.
    let token = token.to_str().unwrap_or_default();
    let token = token.strip_prefix(TOKEN_SCHEME).unwrap_or(token);
    let caller = kv.auth().identify(token).await?;
    Ok(kv.on_behalf_of(caller))
}

/// A caller whose token is not valid.
fn nobody() -> Caller {
    Caller::User(Proof { name: String::new(), revision: 0 })
}

/// A call that was let in.
pub(crate) struct Admitted<T> {
    pub(crate) request: T,
    /// The store that the call is for.
    pub(crate) kv: Arc<dyn Kv>,
    /// Counts the call as in work.
    _permit: Permit,
}

impl<T> Admitted<T> {
    /// Refuses whoever may not do everything.
    pub(crate) async fn root(&self) -> Result<(), Status> {
        require(&*self.kv, AuthQuery::IsRoot).await
    }

    /// Refuses whoever is nobody.
    pub(crate) async fn user(&self) -> Result<(), Status> {
        require(&*self.kv, AuthQuery::IsUser).await
    }
}

/// Refuses a caller of whom the question is not answered with yes.
pub(crate) async fn require(kv: &dyn Kv, question: AuthQuery) -> Result<(), Status> {
    kv.auth().ask(question).await.map(drop).map_err(errors::status)
}

/// A stream that was let in.
pub(crate) struct AdmittedStream<T> {
    pub(crate) requests: Streaming<T>,
    /// The store that the stream is for.
    pub(crate) kv: Arc<dyn Kv>,
    /// Whether the stream is to end when there is no leader.
    pub(crate) requires_leader: bool,
}

/// Where a store stands as far as the nearest replica knows.
pub(crate) async fn present(kv: &dyn Kv) -> Result<Header, KvError> {
    header_at(kv, Revision::ZERO).await
}

/// The same, unless the history at `start` is given up.
pub(crate) async fn present_with(kv: &dyn Kv, start: Revision) -> Result<Header, KvError> {
    match header_at(kv, start).await {
        Err(KvError::FutureRevision { .. }) => present(kv).await,
        result => result,
    }
}

async fn header_at(kv: &dyn Kv, revision: Revision) -> Result<Header, KvError> {
    let nothing = RangeRequest {
        revision,
        serializable: true,
        count_only: true,
        ..RangeRequest::key(&[0][..])
    };
    // Where the store stands is everybody's to know.
    let kv = kv.on_behalf_of(Caller::Trusted);
    Ok(kv.range(nothing).await?.header)
}

/// Whether a client wants to be refused when there is no leader.
fn requires_leader(metadata: &MetadataMap) -> bool {
    metadata.get(REQUIRE_LEADER).is_some_and(|value| value.as_bytes() == b"true")
}
