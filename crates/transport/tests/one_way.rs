//! One-way messages: delivered in order while all is well, dropped within bounds when it is not.

mod common;

use bytes::Bytes;
use common::{
    Echo, LONG, NODE_1, NODE_2, NOTE, ONE_WAY, RawFrame, Running, assert_serves, cell, echo_router,
    eventually, node, peers_of_node_1, raw_accept, raw_client, raw_connection, soon,
};
use onefold_transport::{Class, Identity, Limits, Peers, Router};
use onefold_types::{ClusterId, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

type Notes = mpsc::UnboundedReceiver<(NodeId, Bytes)>;

fn note_router() -> (Router, Notes) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut router = echo_router();
    router.one_way(NOTE, move |from, payload| {
        let _ = sender.send((from, payload));
    });
    (router, receiver)
}

#[tokio::test]
async fn messages_arrive_in_order_from_the_first_one_on() {
    let (router, mut notes) = note_router();
    let server = Running::start(node(NODE_2), router).await;
    let peers = peers_of_node_1(server.address);
    // The first ones are sent before there is a connection.
    for number in 0..1000_u32 {
        assert!(peers.send(NODE_2, NOTE, Bytes::from(number.to_le_bytes().to_vec())));
    }
    for number in 0..1000_u32 {
        let (from, payload) = soon("a message", notes.recv()).await.expect("a message");
        assert_eq!(from, NODE_1);
        assert_eq!(payload, number.to_le_bytes()[..]);
    }
    assert_eq!(peers.status().one_way_total.get(), 1000);
    assert_eq!(peers.status().one_way_dropped_total.get(), 0);
    assert!(!peers.is_connected(NODE_2, Class::Call), "messages need one connection only");
}

#[tokio::test]
async fn a_peer_without_address_or_that_is_down_costs_nothing() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let address = free.local_addr().expect("it is bound");
    drop(free);
    let peers = peers_of_node_1(address);
    assert!(!peers.send(NodeId(9), NOTE, Bytes::new()), "no address");
    let status = peers.status();
    eventually("sending fails at once", || !peers.send(NODE_2, NOTE, Bytes::new())).await;
    let attempts = status.connect_failures_total.get();
    assert!(attempts >= 1);
    for _ in 0..100_000 {
        peers.send(NODE_2, NOTE, Bytes::new());
    }
    assert!(status.connect_failures_total.get() <= attempts + 1, "it is not dialled each time");
    assert!(status.one_way_dropped_total.get() >= 90_000);
}

#[tokio::test]
async fn a_peer_that_does_not_read_bounds_the_queue_in_bytes_and_in_messages() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let address = listener.local_addr().expect("it is bound");
    let limits = Limits {
        one_way_messages_max: 100,
        one_way_bytes_max: 1 << 20,
        silence_timeout: LONG,
        ..Limits::default()
    };
    let peers = Peers::new(cell(node(NODE_1)), limits);
    peers.set_address(NODE_2, address.to_string());
    assert!(peers.send(NODE_2, NOTE, Bytes::new()));
    let mut stream = raw_accept(&listener, node(NODE_2)).await;

    // Bytes: the socket takes some, the queue one mebibyte, and then it is full.
    let payload = Bytes::from(vec![0; 100 << 10]);
    let mut refused = 0;
    let mut accepted = 0_u64;
    while refused < 100 {
        if peers.send(NODE_2, NOTE, payload.clone()) {
            accepted += 1;
            refused = 0;
        } else {
            refused += 1;
        }
        tokio::task::yield_now().await;
    }
    assert!(accepted < 1000, "{accepted} messages of 100 KiB are not a bounded queue");
    assert_eq!(peers.status().one_way_dropped_total.get() > 0, refused > 0);

    // Messages: empty ones take no bytes to speak of, yet only so many wait.
    let waiting = (0..1000).filter(|_| peers.send(NODE_2, NOTE, Bytes::new())).count();
    assert!(waiting <= 100, "{waiting} messages wait");

    // What was accepted arrives as soon as the peer reads.
    let mut payloads = 0;
    while payloads < accepted {
        let frame = soon("a frame", RawFrame::read(&mut stream)).await.expect("an open socket");
        payloads += u64::from(frame.kind == ONE_WAY && frame.body.len() == payload.len());
    }
    eventually("there is room again", || peers.send(NODE_2, NOTE, payload.clone())).await;
}

#[tokio::test]
async fn a_message_larger_than_a_frame_is_not_sent() {
    let (router, _notes) = note_router();
    let server = Running::start(node(NODE_2), router).await;
    let peers = peers_of_node_1(server.address);
    assert!(!peers.send(NODE_2, NOTE, Bytes::from(vec![0; 20 << 20])));
    assert!(peers.send(NODE_2, NOTE, Bytes::from(vec![0; 19 << 20])));
}

#[tokio::test]
async fn messages_without_a_handler_are_dropped_and_counted() {
    let server = Running::start(node(NODE_2), echo_router()).await;
    let peers = peers_of_node_1(server.address);
    assert!(peers.send(NODE_2, NOTE, Bytes::from_static(b"nobody wants this")));
    eventually("it is counted", || server.status.one_way_dropped_total.get() == 1).await;
    let answer = peers.call::<Echo>(NODE_2, Class::Consensus, &1, Bytes::new(), LONG).await;
    assert_eq!(answer.expect("the same connection serves on").0, 2);
    assert_eq!(server.status.connections_total.get(), 1);
}

#[tokio::test]
async fn a_client_cannot_send_as_a_node() {
    let (router, mut notes) = note_router();
    let server = Running::start(node(NODE_2), router).await;
    let mut stream = raw_client(server.address).await;
    let note = RawFrame { method: NOTE.0, ..RawFrame::new(ONE_WAY) };
    stream.write_all(&note.bytes()).await.expect("an open socket");
    let read = soon("the server hangs up", stream.read(&mut [0; 1])).await;
    assert!(matches!(read, Ok(0) | Err(_)));
    assert_serves(server.address).await;
    assert!(notes.try_recv().is_err());
}

#[tokio::test]
async fn a_message_from_a_node_that_knows_no_cluster_is_dropped() {
    let (router, mut notes) = note_router();
    let server = Running::start(node(NODE_2), router).await;
    let unformed = Identity { cluster: None, node: Some(NODE_1) };
    let mut stream = raw_connection(server.address, unformed).await;
    let note = RawFrame { method: NOTE.0, ..RawFrame::new(ONE_WAY) };
    stream.write_all(&note.bytes()).await.expect("an open socket");
    eventually("it is dropped", || server.status.one_way_dropped_total.get() == 1).await;
    assert!(notes.try_recv().is_err());
    drop(stream);
    // The same message of a node of the cluster arrives.
    let member = Identity::node(ClusterId(0xC1), NodeId(3));
    let mut stream = raw_connection(server.address, member).await;
    stream.write_all(&note.bytes()).await.expect("an open socket");
    assert_eq!(soon("a message", notes.recv()).await.expect("a message").0, NodeId(3));
}
