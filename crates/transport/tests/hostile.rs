//! Bytes that no peer of ours sends. The connection ends, is counted once, and nothing else
//! happens.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{
    CANCEL, ERROR, Echo, HELLO, LONG, NODE_2, NOTE, ONE_WAY, OVERLOADED, PING, PONG, REFUSAL,
    REQUEST, RESPONSE, RawFrame, Running, assert_serves, cell, echo_router, eventually, node,
    peers_of_node_1, raw_accept, raw_client, raw_connection, soon,
};
use onefold_transport::{CallError, Class, Identity, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn server() -> Running {
    let mut router = echo_router();
    router.one_way(NOTE, |_, _| {});
    Running::start(node(NODE_2), router).await
}

/// Sends bytes and expects the server to hang up, having counted one malformed frame.
async fn assert_cut_off(server: &Running, mut stream: TcpStream, bytes: &[u8]) {
    let before = server.status.frames_malformed_total.get();
    // The server may hang up before it has read everything.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = soon("the server hangs up", stream.read_to_end(&mut answer)).await;
    eventually("it is counted", || server.status.frames_malformed_total.get() == before + 1).await;
}

/// What can be wrong with a frame at any stage.
fn damaged(frame: &RawFrame) -> Vec<(&'static str, Vec<u8>)> {
    let good = frame.bytes();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    vec![
        (
            "another protocol",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: x\r\n\r\n".to_vec(),
        ),
        ("magic", flipped(0)),
        ("kind", flipped(6)),
        ("method", flipped(8)),
        ("request", flipped(16)),
        ("head length", flipped(24)),
        ("body length", flipped(31)),
        ("payload checksum", flipped(32)),
        ("header checksum", flipped(39)),
        ("payload", flipped(good.len() - 1)),
        ("cut in the header", good[..17].to_vec()),
        ("cut in the payload", good[..good.len() - 1].to_vec()),
        ("unknown kind", RawFrame { kind: 200, ..frame.clone() }.bytes()),
        ("kind zero", RawFrame { kind: 0, ..frame.clone() }.bytes()),
    ]
}

#[tokio::test]
async fn damaged_hellos_are_cut_off() {
    let server = server().await;
    for (what, bytes) in damaged(&RawFrame::hello(Identity::CLIENT, 1, None)) {
        println!("{what}");
        let stream = TcpStream::connect(server.address).await.expect("a listening server");
        assert_cut_off(&server, stream, &bytes).await;
    }
    assert_serves(server.address).await;
}

#[tokio::test]
async fn hellos_that_do_not_decode_or_are_too_large_are_cut_off() {
    let server = server().await;
    let nonsense = RawFrame { head: vec![0xFF; 10], ..RawFrame::new(HELLO) };
    let empty = RawFrame::new(HELLO);
    let large = RawFrame { head: vec![0; 5 << 10], ..RawFrame::new(HELLO) };
    for hello in [nonsense, empty, large] {
        let stream = TcpStream::connect(server.address).await.expect("a listening server");
        assert_cut_off(&server, stream, &hello.bytes()).await;
    }
    assert_serves(server.address).await;
}

#[tokio::test]
async fn anything_but_a_hello_first_is_cut_off() {
    let server = server().await;
    for kind in [REFUSAL, ONE_WAY, REQUEST, RESPONSE, ERROR, OVERLOADED, PING, PONG, CANCEL] {
        let stream = TcpStream::connect(server.address).await.expect("a listening server");
        assert_cut_off(&server, stream, &RawFrame::new(kind).bytes()).await;
    }
    assert_serves(server.address).await;
}

#[tokio::test]
async fn damaged_requests_are_cut_off() {
    let server = server().await;
    for (what, bytes) in damaged(&RawFrame::echo(1, 1, vec![1, 2, 3])) {
        println!("{what}");
        let stream = raw_client(server.address).await;
        assert_cut_off(&server, stream, &bytes).await;
    }
    assert_serves(server.address).await;
}

#[tokio::test]
async fn damaged_messages_are_cut_off() {
    let server = server().await;
    let note = RawFrame { method: NOTE.0, body: vec![1, 2, 3], ..RawFrame::new(ONE_WAY) };
    for (what, bytes) in damaged(&note) {
        println!("{what}");
        let stream = raw_connection(server.address, node(common::NODE_1)).await;
        assert_cut_off(&server, stream, &bytes).await;
    }
    assert_eq!(server.status.one_way_total.get(), 0);
    assert_serves(server.address).await;
}

#[tokio::test]
async fn frames_that_a_dialler_does_not_send_are_cut_off() {
    let server = server().await;
    for kind in [HELLO, REFUSAL, RESPONSE, ERROR, OVERLOADED] {
        let stream = raw_client(server.address).await;
        assert_cut_off(&server, stream, &RawFrame::new(kind).bytes()).await;
    }
    assert_serves(server.address).await;
}

#[tokio::test]
async fn a_frame_that_announces_too_much_is_cut_off_before_its_payload() {
    let server = server().await;
    let stream = raw_client(server.address).await;
    let mut bytes = RawFrame::echo(1, 1, vec![0; 21 << 20]).bytes();
    bytes.truncate(40);
    assert_cut_off(&server, stream, &bytes).await;
    assert_serves(server.address).await;
}

#[tokio::test]
async fn a_request_number_that_is_in_use_is_cut_off() {
    let mut router = echo_router();
    router.call::<common::Act, _, _>(|_, _, _| async { std::future::pending().await });
    let server = Running::start(node(NODE_2), router).await;
    let stream = raw_client(server.address).await;
    let request = RawFrame { method: 8, request: 1, head: vec![0], ..RawFrame::new(REQUEST) };
    assert_cut_off(&server, stream, &[request.bytes(), request.bytes()].concat()).await;
    assert_serves(server.address).await;
}

#[tokio::test]
async fn what_was_wrong_is_counted_by_its_kind() {
    let server = server().await;
    let hello = RawFrame::hello(Identity::CLIENT, 1, None).bytes();
    let flipped = |at: usize| {
        let mut bytes = hello.clone();
        bytes[at] ^= 1;
        bytes
    };
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: x\r\n\r\n".to_vec(),
        flipped(39),
        flipped(hello.len() - 1),
        RawFrame { head: vec![0; 5 << 10], ..RawFrame::new(HELLO) }.bytes(),
        hello[..17].to_vec(),
        RawFrame::new(PING).bytes(),
        RawFrame { head: vec![0xFF; 10], ..RawFrame::new(HELLO) }.bytes(),
    ] {
        let stream = TcpStream::connect(server.address).await.expect("a listening server");
        assert_cut_off(&server, stream, &bytes).await;
    }
    for (kind, count) in server.status.frames_malformed_total.kinds() {
        // A frame of another version is no malformed one: it is refused, with the reason.
        assert_eq!(count, u64::from(kind != "version"), "{kind}");
    }
}

#[tokio::test]
async fn a_cancel_of_nothing_and_a_ping_with_a_payload_are_harmless() {
    let server = server().await;
    let mut stream = raw_client(server.address).await;
    let cancel = RawFrame { request: 77, ..RawFrame::new(CANCEL) };
    let ping = RawFrame { body: vec![1; 100], ..RawFrame::new(PING) };
    stream.write_all(&[cancel.bytes(), ping.bytes()].concat()).await.expect("an open socket");
    let pong = soon("a pong", RawFrame::read(&mut stream)).await.expect("a frame");
    assert_eq!(pong.kind, PONG);
}

#[tokio::test]
async fn a_stranger_who_says_nothing_is_cut_off() {
    let limits = Limits { handshake_timeout: Duration::from_millis(50), ..Limits::default() };
    let server =
        Running::start_with(cell(node(NODE_2)), echo_router(), limits, "127.0.0.1:0").await;
    let mut stream = TcpStream::connect(server.address).await.expect("a listening server");
    let read = soon("the server hangs up", stream.read(&mut [0; 1])).await;
    assert!(matches!(read, Ok(0) | Err(_)));
}

/// Calls a listener that completes the handshake and then answers with these bytes.
async fn call_answered_with(bytes: Vec<u8>) -> CallError {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let address = listener.local_addr().expect("it is bound");
    let peers = peers_of_node_1(address);
    let listening = async {
        let mut stream = raw_accept(&listener, node(NODE_2)).await;
        let request = RawFrame::read(&mut stream).await.expect("a request");
        assert_eq!((request.kind, request.request), (REQUEST, 1));
        stream.write_all(&bytes).await.expect("an open socket");
        stream.shutdown().await.expect("an open socket");
        stream
    };
    let call = peers.call::<Echo>(NODE_2, Class::Call, &1, Bytes::new(), LONG);
    let (outcome, _stream) = tokio::join!(call, listening);
    outcome.expect_err("no valid answer")
}

#[tokio::test]
async fn a_caller_whose_peer_answers_nonsense_gets_an_error() {
    let answer = RawFrame { request: 1, head: vec![2], ..RawFrame::new(RESPONSE) };
    for (what, bytes) in damaged(&answer) {
        let error = call_answered_with(bytes).await;
        assert!(matches!(error, CallError::Disconnected { .. }), "{what}: {error}");
        assert!(!error.is_unsent(), "{what}: the request was written");
    }
    for kind in [HELLO, REFUSAL, ONE_WAY, REQUEST, CANCEL] {
        let error =
            call_answered_with(RawFrame { request: 1, ..RawFrame::new(kind) }.bytes()).await;
        assert!(matches!(error, CallError::Disconnected { .. }), "{kind}: {error}");
    }
    for kind in [RESPONSE, ERROR] {
        let bytes = RawFrame { request: 1, ..RawFrame::new(kind) }.bytes();
        let error = call_answered_with(bytes).await;
        assert!(matches!(error, CallError::Protocol { .. }), "{kind}: {error}");
    }
}

#[tokio::test]
async fn answers_to_calls_that_nobody_made_are_passed_over() {
    let stray = RawFrame { request: 99, body: vec![7; 100_000], ..RawFrame::new(RESPONSE) };
    let answer = RawFrame { request: 1, ..RawFrame::new(OVERLOADED) };
    let error = call_answered_with([stray.bytes(), answer.bytes()].concat()).await;
    assert!(matches!(error, CallError::Overloaded { .. }), "{error}");
}

#[tokio::test]
async fn a_listener_that_is_no_node_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let address = listener.local_addr().expect("it is bound");
    let web_server = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let answer = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer).await.expect("an open socket");
        stream
    };
    let peers = peers_of_node_1(address);
    let call = peers.call::<Echo>(NODE_2, Class::Call, &1, Bytes::new(), LONG);
    let (outcome, _stream) = tokio::join!(call, web_server);
    let error = outcome.expect_err("no node");
    assert!(matches!(error, CallError::Unreachable { .. }) && error.is_unsent(), "{error}");
}
