//! What the transport's tests share: methods, servers on free ports, and a peer made by hand that
//! knows the wire format only from its document.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onefold_transport::{
    Identity, IdentityCell, Limits, Method, MethodId, Peers, Router, Server, TransportStatus,
};
use onefold_types::{ClusterId, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const CLUSTER: ClusterId = ClusterId(0xC1);
pub(crate) const NODE_1: NodeId = NodeId(1);
pub(crate) const NODE_2: NodeId = NodeId(2);

/// Long enough that no test meets it unless something hangs.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Answers its request plus one, and its body unchanged.
pub(crate) struct Echo;

impl Method for Echo {
    const ID: MethodId = MethodId(7);
    const NAME: &'static str = "test.echo";
    type Request = u64;
    type Response = u64;
}

/// Whatever the test wants.
pub(crate) struct Act;

impl Method for Act {
    const ID: MethodId = MethodId(8);
    const NAME: &'static str = "test.act";
    type Request = u64;
    type Response = String;
}

/// The number of the one-way message of these tests.
pub(crate) const NOTE: MethodId = MethodId(9);

pub(crate) fn echo_router() -> Router {
    let mut router = Router::default();
    router.call::<Echo, _, _>(|_, request, body| async move { Ok((request + 1, body)) });
    router
}

/// A server that runs until it is stopped or dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) status: Arc<TransportStatus>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start(identity: Identity, router: Router) -> Self {
        Self::start_with(cell(identity), router, Limits::default(), "127.0.0.1:0").await
    }

    pub(crate) async fn start_with(
        identity: Arc<IdentityCell>,
        router: Router,
        limits: Limits,
        address: &str,
    ) -> Self {
        let server = Server::bind_with(address, limits).await.expect("a loopback port");
        let (address, status) = (server.local_address(), server.status());
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(server.serve(identity, router, shutdown.clone()));
        Self { address, status, shutdown, task }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("serving does not panic");
    }
}

pub(crate) fn cell(identity: Identity) -> Arc<IdentityCell> {
    Arc::new(IdentityCell::new(identity))
}

pub(crate) fn node(node: NodeId) -> Identity {
    Identity::node(CLUSTER, node)
}

/// The peers of node 1, which knows where node 2 is.
pub(crate) fn peers_of_node_1(address_of_node_2: SocketAddr) -> Peers {
    let peers = Peers::new(cell(node(NODE_1)), Limits::default());
    peers.set_address(NODE_2, address_of_node_2.to_string());
    peers
}

pub(crate) fn client() -> Peers {
    Peers::new(cell(Identity::CLIENT), Limits::default())
}

/// Waits until a condition that other tasks bring about holds.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..4000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never happened: {what}");
}

/// Fails instead of hanging.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(LONG, future).await {
        Ok(output) => output,
        Err(_) => panic!("never happened: {what}"),
    }
}

// Kinds of frames.
pub(crate) const HELLO: u8 = 1;
pub(crate) const REFUSAL: u8 = 2;
pub(crate) const ONE_WAY: u8 = 3;
pub(crate) const REQUEST: u8 = 4;
pub(crate) const RESPONSE: u8 = 5;
pub(crate) const ERROR: u8 = 6;
pub(crate) const OVERLOADED: u8 = 7;
pub(crate) const PING: u8 = 8;
pub(crate) const PONG: u8 = 9;
pub(crate) const CANCEL: u8 = 10;

fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// A frame as the format document describes it.
#[derive(Clone, Debug)]
pub(crate) struct RawFrame {
    pub(crate) version: u16,
    pub(crate) kind: u8,
    pub(crate) method: u16,
    pub(crate) timeout_ms: u32,
    pub(crate) request: u64,
    pub(crate) head: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl RawFrame {
    pub(crate) fn new(kind: u8) -> Self {
        let (head, body) = (Vec::new(), Vec::new());
        Self { version: 1, kind, method: 0, timeout_ms: 0, request: 0, head, body }
    }

    pub(crate) fn echo(request: u64, value: u64, body: Vec<u8>) -> Self {
        let head = postcard::to_stdvec(&value).expect("a number serializes");
        Self { request, method: Echo::ID.0, head, body, ..Self::new(REQUEST) }
    }

    /// The hello of a dialler: cluster, node, process, expected node, class.
    pub(crate) fn hello(identity: Identity, process: u64, expected: Option<NodeId>) -> Self {
        let class = onefold_transport::Class::Bulk;
        let hello = (identity.cluster, identity.node, process, expected, class);
        let head = postcard::to_stdvec(&hello).expect("a hello serializes");
        Self { head, ..Self::new(HELLO) }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let payload = [self.head.as_slice(), &self.body].concat();
        let mut bytes = b"1FLD".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend([self.kind, 0]);
        bytes.extend(self.method.to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend(self.timeout_ms.to_le_bytes());
        bytes.extend(self.request.to_le_bytes());
        bytes.extend((self.head.len() as u32).to_le_bytes());
        bytes.extend((self.body.len() as u32).to_le_bytes());
        bytes.extend(crc32c(&payload).to_le_bytes());
        bytes.extend(crc32c(&bytes).to_le_bytes());
        bytes.extend(payload);
        bytes
    }

    /// Reads a frame; none when the connection ends first.
    pub(crate) async fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut header = [0; 40];
        stream.read_exact(&mut header).await.ok()?;
        let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        assert_eq!(&header[..4], b"1FLD");
        assert_eq!(u32_at(36), crc32c(&header[..36]), "the header's checksum");
        let mut head = vec![0; u32_at(24) as usize];
        stream.read_exact(&mut head).await.ok()?;
        let mut body = vec![0; u32_at(28) as usize];
        stream.read_exact(&mut body).await.ok()?;
        assert_eq!(
            u32_at(32),
            crc32c(&[head.as_slice(), &body].concat()),
            "the payload's checksum"
        );
        Some(Self {
            version: u16_at(4),
            kind: header[6],
            method: u16_at(8),
            timeout_ms: u32_at(12),
            request: u64::from(u32_at(16)) | u64::from(u32_at(20)) << 32,
            head,
            body,
        })
    }
}

/// A connection made by hand, after its handshake as a client.
pub(crate) async fn raw_client(address: SocketAddr) -> TcpStream {
    raw_connection(address, Identity::CLIENT).await
}

/// A connection made by hand, after its handshake.
pub(crate) async fn raw_connection(address: SocketAddr, identity: Identity) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("a listening server");
    let hello = RawFrame::hello(identity, 42, None);
    stream.write_all(&hello.bytes()).await.expect("an open socket");
    let welcome = RawFrame::read(&mut stream).await.expect("a welcome");
    assert_eq!(welcome.kind, HELLO);
    stream
}

/// Accepts one connection and answers its hello as `identity` would.
pub(crate) async fn raw_accept(
    listener: &tokio::net::TcpListener,
    identity: Identity,
) -> TcpStream {
    let (mut stream, _) = listener.accept().await.expect("a connection");
    let hello = RawFrame::read(&mut stream).await.expect("a hello");
    assert_eq!(hello.kind, HELLO);
    let welcome = RawFrame::hello(identity, 43, None);
    stream.write_all(&welcome.bytes()).await.expect("an open socket");
    stream
}

/// Checks that a server still answers.
pub(crate) async fn assert_serves(address: SocketAddr) {
    let call = client();
    let body = Bytes::from_static(b"still here");
    let answer = call
        .call_address::<Echo>(
            &address.to_string(),
            onefold_transport::Class::Call,
            &41,
            body.clone(),
            LONG,
        )
        .await
        .expect("the server answers");
    assert_eq!(answer, (42, body));
}
