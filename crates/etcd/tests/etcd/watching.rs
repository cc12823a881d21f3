//! A client of one stream of watches.

use onefold_etcd::proto::etcdserverpb::watch_client::WatchClient;
use onefold_etcd::proto::etcdserverpb::watch_request::RequestUnion;
use onefold_etcd::proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use onefold_etcd::proto::mvccpb::Event;
use onefold_etcd::proto::mvccpb::event::EventType;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::fixture::{LONG, Node, bytes, connect};

/// Requests that wait to be sent.
const REQUESTS_MAX: usize = 4096;

pub(crate) struct Watching {
    requests: Option<mpsc::Sender<WatchRequest>>,
    answers: Streaming<WatchResponse>,
}

impl Watching {
    pub(crate) async fn start(node: &Node) -> Self {
        Self::start_with(node, |_| {}).await
    }

    /// A stream on a connection of its own, so that it shares no window with others.
    pub(crate) async fn start_apart(node: &Node) -> Self {
        let client = WatchClient::new(connect(node.address).await);
        Self::open(client, |_| {}).await
    }

    pub(crate) async fn start_with(
        node: &Node,
        prepare: impl FnOnce(&mut Request<ReceiverStream<WatchRequest>>),
    ) -> Self {
        Self::open(node.watch(), prepare).await
    }

    async fn open(
        mut client: WatchClient<Channel>,
        prepare: impl FnOnce(&mut Request<ReceiverStream<WatchRequest>>),
    ) -> Self {
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let mut request = Request::new(ReceiverStream::new(queue));
        prepare(&mut request);
        let response = client.watch(request).await.expect("a stream");
        Self { requests: Some(requests), answers: response.into_inner() }
    }

    pub(crate) async fn send(&self, request: RequestUnion) {
        let requests = self.requests.as_ref().expect("the client still asks");
        let request = WatchRequest { request_union: Some(request) };
        requests.send(request).await.expect("the stream takes requests");
    }

    /// Creates a watch and gives the answer.
    pub(crate) async fn create(&mut self, request: WatchCreateRequest) -> WatchResponse {
        self.send(RequestUnion::CreateRequest(request)).await;
        let response = self.next().await;
        assert!(response.created, "a creation is answered first: {response:?}");
        assert!(response.events.is_empty());
        response
    }

    pub(crate) async fn cancel(&self, watch_id: i64) {
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id })).await;
    }

    pub(crate) async fn ask_for_progress(&self) {
        self.send(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
    }

    /// Ends the requests; answers still come.
    pub(crate) fn stop_asking(&mut self) {
        self.requests = None;
    }

    pub(crate) async fn next(&mut self) -> WatchResponse {
        self.end_or_next().await.expect("a good answer").expect("an answer")
    }

    pub(crate) async fn end_or_next(&mut self) -> Result<Option<WatchResponse>, Status> {
        timeout(LONG, self.answers.message()).await.expect("an answer in time")
    }

    /// The events of the next answer, as text.
    pub(crate) async fn events(&mut self) -> Vec<String> {
        let response = self.next().await;
        assert!(!response.created && !response.canceled, "{response:?}");
        response.events.iter().map(text).collect()
    }
}

fn text(event: &Event) -> String {
    let kv = event.kv.as_ref().expect("every event has a record");
    let key = String::from_utf8_lossy(&kv.key);
    match event.r#type() {
        EventType::Put => format!("put {key}={}", String::from_utf8_lossy(&kv.value)),
        EventType::Delete => format!("delete {key}"),
    }
}

/// A watch of one key.
pub(crate) fn key(key: &str) -> WatchCreateRequest {
    WatchCreateRequest { key: bytes(key), ..Default::default() }
}

/// A watch of all keys.
pub(crate) fn all() -> WatchCreateRequest {
    WatchCreateRequest { key: bytes("\0"), range_end: bytes("\0"), ..Default::default() }
}
