//! Streams of bytes against live processes: random ones, damaged ones, and those in `corpus/`.
//!
//! A file of the corpus is text. Its first line says to whom the bytes go: a `listener` that knows
//! nothing yet, a listener that `greeted` a node, or a `dialler` that waits for the answer to its
//! request 1. The other lines are bytes in hexadecimal; what follows a `#` says what they are.
//!
//! A random stream that fails is printed like that: put it into `corpus/` under a name that says
//! what it is.

mod common;

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use common::{
    Echo, LONG, NODE_1, NODE_2, NOTE, RawFrame, Running, assert_serves, echo_router, eventually,
    node, peers_of_node_1, raw_accept, raw_connection, soon,
};
use onefold_transport::{CallError, Class};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone, Copy, Debug)]
enum To {
    Listener,
    Greeted,
    Dialler,
}

/// Bytes and whom they are sent to.
#[derive(Clone, Debug)]
struct Stream {
    to: To,
    bytes: Vec<u8>,
}

impl Stream {
    fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let to = match lines.next().map(str::trim) {
            Some("listener") => To::Listener,
            Some("greeted") => To::Greeted,
            Some("dialler") => To::Dialler,
            other => panic!("{other:?} is nobody to send bytes to"),
        };
        let digits = lines.filter_map(|line| line.split('#').next()).collect::<String>();
        let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| {
            let pair = std::str::from_utf8(pair).expect("digits are ASCII");
            u8::from_str_radix(pair, 16).expect("a pair of digits is a byte")
        };
        Self { to, bytes: digits.chunks_exact(2).map(byte).collect() }
    }

    /// As it would stand in the corpus.
    fn text(&self) -> String {
        let mut text = format!("{:?}\n", self.to).to_lowercase();
        for line in self.bytes.chunks(40) {
            for byte in line {
                write!(text, "{byte:02x}").expect("text grows");
            }
            text.push('\n');
        }
        text
    }
}

/// One server for all streams, and whom streams to a dialler reach.
struct World {
    server: Running,
    listener: TcpListener,
    lured: SocketAddr,
}

impl World {
    async fn start() -> Self {
        let mut router = echo_router();
        router.one_way(NOTE, |_, _| {});
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let lured = listener.local_addr().expect("it is bound");
        Self { server: Running::start(node(NODE_2), router).await, listener, lured }
    }

    /// Sends a stream. It must end, and the process that got it must go on.
    async fn send(&self, stream: &Stream) {
        match stream.to {
            To::Listener => {
                let socket = TcpStream::connect(self.server.address).await;
                pour(socket.expect("a listening server"), &stream.bytes).await;
            }
            To::Greeted => {
                pour(raw_connection(self.server.address, node(NODE_1)).await, &stream.bytes).await;
            }
            To::Dialler => self.answer_with(&stream.bytes).await,
        }
    }

    async fn answer_with(&self, bytes: &[u8]) {
        let peers = peers_of_node_1(self.lured);
        let listening = async {
            let mut socket = raw_accept(&self.listener, node(NODE_2)).await;
            let _ = RawFrame::read(&mut socket).await.expect("the request");
            pour(socket, bytes).await;
        };
        let call = peers.call::<Echo>(NODE_2, Class::Call, &1, Bytes::new(), LONG);
        let (outcome, ()) = tokio::join!(soon("the call ends", call), listening);
        match outcome {
            // Only a response that says so is one.
            Ok((answer, body)) => assert_eq!((answer, body.len()), (2, 0)),
            Err(CallError::Disconnected { unsent, .. }) => assert!(!unsent, "it was written"),
            Err(
                CallError::Protocol { .. } | CallError::Remote(_) | CallError::Overloaded { .. },
            ) => {}
            Err(other) => panic!("{other}"),
        }
    }

    async fn assert_unharmed(self) {
        assert_serves(self.server.address).await;
        assert_eq!(self.server.status.handlers_panicked_total.get(), 0);
        eventually("all are gone", || self.server.status.connections_open.get() == 0).await;
        assert_eq!(self.server.status.response_bytes.get(), 0);
        self.server.stop().await;
    }
}

/// Writes bytes and reads until the other side hangs up.
async fn pour(mut socket: TcpStream, bytes: &[u8]) {
    // The other side may hang up before it has read everything.
    let _ = socket.write_all(bytes).await;
    let _ = socket.shutdown().await;
    let mut answer = Vec::new();
    let _ = soon("the other side hangs up", socket.read_to_end(&mut answer)).await;
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime")
}

fn to() -> impl Strategy<Value = To> {
    prop_oneof![Just(To::Listener), Just(To::Greeted), Just(To::Dialler)]
}

/// Runs a property against one world for all cases.
fn against_a_live_world(streams: impl Strategy<Value = Stream>) {
    let runtime = runtime();
    let world = runtime.block_on(World::start());
    let config =
        ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&streams.prop_map(Shown), |Shown(stream)| {
        runtime.block_on(world.send(&stream));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    runtime.block_on(world.assert_unharmed());
}

/// A stream that is printed as it would stand in the corpus.
#[derive(Clone)]
struct Shown(Stream);

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.text())
    }
}

#[test]
fn every_stream_of_the_corpus_only_ends_its_connection() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let entries = std::fs::read_dir(folder).expect("the corpus is there");
    let paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    assert!(paths.len() >= 10, "the corpus is not where it is looked for");
    let runtime = runtime();
    runtime.block_on(async {
        let world = World::start().await;
        for path in paths {
            println!("{}", path.display());
            let text = std::fs::read_to_string(&path).expect("a stream is text");
            world.send(&Stream::parse(&text)).await;
        }
        world.assert_unharmed().await;
    });
}

#[test]
fn a_stream_is_read_as_it_was_printed() {
    let stream = Stream { to: To::Dialler, bytes: (0..=255).collect() };
    let read = Stream::parse(&stream.text());
    assert_eq!(read.bytes, stream.bytes);
    assert!(matches!(read.to, To::Dialler));
}

#[test]
fn random_bytes_only_end_their_connection() {
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    against_a_live_world((to(), bytes).prop_map(|(to, bytes)| Stream { to, bytes }));
}

#[test]
fn damaged_streams_of_frames_only_end_their_connection() {
    let frames = prop::collection::vec((0..12_u8, any::<u16>(), 0..3_u64, 0..200_usize), 1..6);
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    let cut = any::<prop::sample::Index>();
    let streams = (to(), frames, damage, cut).prop_map(|(to, frames, damage, cut)| {
        let mut bytes = Vec::new();
        for (kind, method, request, length) in frames {
            let (method, head) = if method % 2 == 0 { (7, vec![1]) } else { (method, vec![]) };
            let body = vec![kind; length];
            let frame = RawFrame { method, request, head, body, ..RawFrame::new(kind) };
            // An answer that fits the request would be one.
            if !matches!((to, kind), (To::Dialler, 5..=7)) || request != 1 {
                bytes.extend(frame.bytes());
            }
        }
        for (at, value) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        Stream { to, bytes }
    });
    against_a_live_world(streams);
}

#[test]
fn heads_with_right_checksums_and_any_contents_only_end_their_connection() {
    let head = prop::collection::vec(any::<u8>(), 0..60);
    let streams =
        (to(), prop::sample::select(vec![1_u8, 2, 4, 5, 6]), head).prop_map(|(to, kind, head)| {
            let request = RawFrame { method: 7, request: 1, head, ..RawFrame::new(kind) };
            // A response with any other number would not be one to the request.
            let kind = if matches!(to, To::Dialler) && kind == 5 { 6 } else { kind };
            Stream { to, bytes: RawFrame { kind, ..request }.bytes() }
        });
    against_a_live_world(streams);
}
