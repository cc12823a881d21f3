//! One client's connection to one node after the other.

use std::sync::Arc;
use std::time::Duration;

use onefold_checker::history::{Action, Answer, Operation, Outcome, Refusal};
use onefold_etcd::proto::etcdserverpb as api;
use onefold_etcd::proto::etcdserverpb::kv_client::KvClient;
use onefold_etcd::proto::etcdserverpb::lease_client::LeaseClient;
use onefold_types::{NodeId, Revision};
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::convert::{
    delete_answer, delete_request, put_answer, put_request, range_answer, range_request, revision,
    signed, txn_answer, txn_request, unsigned,
};
use super::recorder::Recorder;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a client waits for an answer before it goes on without knowing.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// Rest after a node could not be reached.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(50);
/// Of so many requests, one goes to another node than the one before.
const REQUESTS_PER_NODE: u32 = 40;

/// Where etcd clients reach a node.
#[derive(Clone, Debug)]
pub struct Address {
    pub node: NodeId,
    pub etcd: String,
}

impl Address {
    /// Connects to the node.
    pub async fn connect(&self) -> Result<Channel, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.etcd))?;
        endpoint.connect_timeout(CONNECT_TIMEOUT).connect().await
    }
}

/// A client that asks, and has everything written down.
pub struct Session {
    pub client: u64,
    pub recorder: Arc<Recorder>,
    pub random: SmallRng,
    addresses: Arc<[Address]>,
    connected: Option<(NodeId, Channel)>,
}

impl Session {
    pub fn new(
        client: u64,
        recorder: Arc<Recorder>,
        random: SmallRng,
        addresses: Arc<[Address]>,
    ) -> Self {
        Self { client, recorder, random, addresses, connected: None }
    }

    /// A value that nobody wrote before.
    pub fn fresh_value(&mut self) -> String {
        format!("{}.{}", self.client, self.recorder.unique())
    }

    /// Sleeps for a random time of less than `below`.
    pub async fn rest(&mut self, below: Duration) {
        let nanos = self.random.random_range(0..u64::try_from(below.as_nanos()).unwrap_or(1));
        tokio::time::sleep(Duration::from_nanos(nanos)).await;
    }

    /// Any node and a fresh connection to it; none if it cannot be reached now.
    pub async fn connect_anywhere(&mut self) -> Option<(NodeId, Channel)> {
        let address = self.addresses.choose(&mut self.random)?.clone();
        match address.connect().await {
            Ok(channel) => Some((address.node, channel)),
            Err(_) => {
                tokio::time::sleep(UNREACHABLE_PAUSE).await;
                None
            }
        }
    }

    /// Does something at any node, writes it down and tells how it ended; nothing if no node could
    /// be asked.
    pub async fn perform(&mut self, action: Action) -> Option<Outcome> {
        self.perform_within(action, ANSWER_TIMEOUT).await
    }

    /// Does something, and hangs up if the answer is not there in time.
    pub async fn vanish(&mut self, action: Action, patience: Duration) {
        self.perform_within(action, patience).await;
        self.connected = None;
    }

    async fn perform_within(&mut self, action: Action, patience: Duration) -> Option<Outcome> {
        if self.random.random_ratio(1, REQUESTS_PER_NODE) {
            self.connected = None;
        }
        if self.connected.is_none() {
            self.connected = self.connect_anywhere().await;
        }
        let (node, channel) = self.connected.clone()?;
        let called = self.recorder.now();
        let answer = tokio::time::timeout(patience, call(channel, &action)).await;
        let returned = self.recorder.now();
        let outcome = match answer {
            Ok(Ok((revision, answer))) => Outcome::Answered { revision, answer },
            Ok(Err(status)) => failure(&status),
            Err(_) => Outcome::Unknown("no answer in time".to_owned()),
        };
        if matches!(outcome, Outcome::Unknown(_) | Outcome::Refused(Refusal::Other(_))) {
            self.connected = None;
        }
        let client = self.client;
        let operation =
            Operation { client, node, called, returned, action, outcome: outcome.clone() };
        self.recorder.operation(operation);
        Some(outcome)
    }

    /// Does something and gives its answer, if there is one.
    pub async fn ask(&mut self, action: Action) -> Option<(Revision, Answer)> {
        match self.perform(action).await? {
            Outcome::Answered { revision, answer } => Some((revision, answer)),
            Outcome::Refused(_) | Outcome::Unknown(_) => None,
        }
    }
}

async fn call(channel: Channel, action: &Action) -> Result<(Revision, Answer), Status> {
    let mut kv = KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
    let mut leases = LeaseClient::new(channel);
    Ok(match action {
        Action::Range { span, at, serializable } => {
            let response = kv.range(range_request(span, *at, *serializable)).await?.into_inner();
            (revision(response.header.as_ref()), range_answer(&response))
        }
        Action::Put { key, value, lease, previous } => {
            let request = put_request(key, value, *lease, *previous);
            let response = kv.put(request).await?.into_inner();
            (revision(response.header.as_ref()), put_answer(&response))
        }
        Action::Delete { span, previous } => {
            let response = kv.delete_range(delete_request(span, *previous)).await?.into_inner();
            (revision(response.header.as_ref()), delete_answer(&response))
        }
        Action::Txn { compares, success, failure } => {
            let request = txn_request(compares, success, failure);
            let response = kv.txn(request).await?.into_inner();
            (revision(response.header.as_ref()), txn_answer(&response))
        }
        Action::Compact { at } => {
            let request = api::CompactionRequest { revision: signed(at.get()), physical: false };
            let response = kv.compact(request).await?.into_inner();
            (revision(response.header.as_ref()), Answer::Done)
        }
        Action::Grant { ttl_seconds } => {
            let request = api::LeaseGrantRequest { ttl: signed(*ttl_seconds), id: 0 };
            let response = leases.lease_grant(request).await?.into_inner();
            let (lease, ttl_seconds) = (unsigned(response.id), unsigned(response.ttl));
            let answer = Answer::Granted { lease, ttl_seconds };
            (revision(response.header.as_ref()), answer)
        }
        Action::Revoke { lease } => {
            let request = api::LeaseRevokeRequest { id: signed(*lease) };
            let response = leases.lease_revoke(request).await?.into_inner();
            (revision(response.header.as_ref()), Answer::Done)
        }
        Action::KeepAlive { lease } => {
            let request = api::LeaseKeepAliveRequest { id: signed(*lease) };
            let request = futures::stream::once(std::future::ready(request));
            let mut answers = leases.lease_keep_alive(request).await?.into_inner();
            let nothing = || Status::unavailable("the stream ended without an answer");
            let response = answers.message().await?.ok_or_else(nothing)?;
            let answer = Answer::KeptAlive { ttl_seconds: unsigned(response.ttl) };
            (revision(response.header.as_ref()), answer)
        }
    })
}

/// What a failure says about the request: only what the API promises to have had no effect counts as
/// refused.
fn failure(status: &Status) -> Outcome {
    let refusal = match (status.code(), status.message()) {
        (Code::OutOfRange, text) if text.contains("has been compacted") => Refusal::Compacted,
        (Code::OutOfRange, text) if text.contains("is a future revision") => Refusal::Future,
        (Code::NotFound, "etcdserver: requested lease not found") => Refusal::LeaseNotFound,
        (Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented, text)
        | (Code::ResourceExhausted, text @ "etcdserver: too many requests")
        | (Code::Unavailable, text @ "etcdserver: no leader") => Refusal::Other(text.to_owned()),
        (code, text) => return Outcome::Unknown(format!("{code:?}: {text}")),
    };
    Outcome::Refused(refusal)
}
