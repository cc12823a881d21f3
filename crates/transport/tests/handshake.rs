//! Whom a process refuses to talk to, and how the other side learns why.

mod common;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::Bytes;
use common::{
    CLUSTER, Echo, HELLO, LONG, NODE_1, NODE_2, REFUSAL, RawFrame, Running, assert_serves, cell,
    client, echo_router, eventually, node, peers_of_node_1, raw_accept, raw_connection, soon,
};
use onefold_transport::{CallError, Class, Identity, IdentityCell, Limits, Peers, Refusal};
use onefold_types::{ClusterId, NodeId};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const OTHER_CLUSTER: ClusterId = ClusterId(0xC2);

async fn call_node(peers: &Peers, to: NodeId) -> Result<u64, CallError> {
    let answer = peers.call::<Echo>(to, Class::Call, &1, Bytes::new(), LONG).await;
    answer.map(|(number, _)| number)
}

async fn refusal_of_call(peers: &Peers, to: NodeId) -> Refusal {
    let error = call_node(peers, to).await.expect_err("the connection is refused");
    assert!(error.is_unsent());
    match error {
        CallError::Refused { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

fn peers_as(identity: Identity, address: SocketAddr, of: NodeId) -> Peers {
    let peers = Peers::new(cell(identity), Limits::default());
    peers.set_address(of, address.to_string());
    peers
}

#[tokio::test]
async fn another_cluster_is_refused() {
    let server = Running::start(node(NODE_2), echo_router()).await;
    let peers = peers_as(Identity::node(OTHER_CLUSTER, NODE_1), server.address, NODE_2);
    let refusal = refusal_of_call(&peers, NODE_2).await;
    assert_eq!(refusal, Refusal::OtherCluster { dialler: OTHER_CLUSTER, listener: CLUSTER });
    assert_eq!(server.status.handshakes_refused_total.get(), 1);
    assert_eq!(server.status.calls_total.get(), 0);
    assert_eq!(peers.status().handshakes_refused_total.get(), 1);
}

#[tokio::test]
async fn the_wrong_node_is_refused() {
    let server = Running::start(node(NODE_2), echo_router()).await;
    let peers = peers_as(node(NODE_1), server.address, NodeId(3));
    let refusal = refusal_of_call(&peers, NodeId(3)).await;
    assert_eq!(refusal, Refusal::WrongNode { expected: NodeId(3), actual: Some(NODE_2) });

    let unformed = Running::start(Identity::default(), echo_router()).await;
    let peers = peers_as(node(NODE_1), unformed.address, NodeId(3));
    let refusal = refusal_of_call(&peers, NodeId(3)).await;
    assert_eq!(refusal, Refusal::WrongNode { expected: NodeId(3), actual: None });
}

#[tokio::test]
async fn another_process_that_claims_to_be_the_listener_is_refused() {
    let identity = cell(node(NODE_2));
    let server =
        Running::start_with(identity.clone(), echo_router(), Limits::default(), "127.0.0.1:0")
            .await;
    let copy = peers_as(node(NODE_2), server.address, NODE_2);
    assert_eq!(refusal_of_call(&copy, NODE_2).await, Refusal::DuplicateNode { node: NODE_2 });

    // The listener's own process may call itself.
    let own = Peers::new(identity, Limits::default());
    own.set_address(NODE_2, server.address.to_string());
    assert_eq!(call_node(&own, NODE_2).await.expect("an answer"), 2);
}

#[tokio::test]
async fn two_processes_that_claim_to_be_one_node_are_told_apart() {
    let server = Running::start(node(NODE_2), echo_router()).await;
    let original = peers_of_node_1(server.address);
    assert_eq!(call_node(&original, NODE_2).await.expect("an answer"), 2);
    let copy = peers_of_node_1(server.address);
    assert_eq!(refusal_of_call(&copy, NODE_2).await, Refusal::DuplicateNode { node: NODE_1 });
    assert_eq!(call_node(&original, NODE_2).await.expect("the first one goes on"), 2);

    // Once the original is gone, the other may come in: a node that was started again.
    drop(original);
    eventually("the original left", || server.status.connections_open.get() == 0).await;
    let successor = peers_of_node_1(server.address);
    assert_eq!(call_node(&successor, NODE_2).await.expect("an answer"), 2);
}

#[tokio::test]
async fn a_node_that_was_started_again_is_let_in_once_its_former_connection_is_found_dead() {
    let limits = Limits { silence_timeout: LONG, ..Limits::default() };
    let server =
        Running::start_with(cell(node(NODE_2)), echo_router(), limits, "127.0.0.1:0").await;
    let mut former = raw_connection(server.address, node(NODE_1)).await;
    // Its machine lost power: nothing closed the connection. Up again, the machine answers with a
    // reset what comes for it, which it never did before somebody asked.
    let machine = tokio::spawn(async move {
        let frame = RawFrame::read(&mut former).await.expect("a question");
        assert_eq!(frame.kind, common::PING);
    });
    let successor = peers_of_node_1(server.address);
    assert_eq!(call_node(&successor, NODE_2).await.expect("let in at once"), 2);
    machine.await.expect("no panic");
}

#[tokio::test]
async fn a_slow_process_keeps_its_place_before_another_one_of_its_node() {
    let server = Running::start(node(NODE_2), echo_router()).await;
    let mut slow = raw_connection(server.address, node(NODE_1)).await;
    let copy = peers_of_node_1(server.address);
    assert_eq!(refusal_of_call(&copy, NODE_2).await, Refusal::DuplicateNode { node: NODE_1 });
    assert_eq!(RawFrame::read(&mut slow).await.expect("a question").kind, common::PING);
    let answer = [RawFrame::new(common::PONG).bytes(), RawFrame::echo(1, 1, Vec::new()).bytes()];
    slow.write_all(&answer.concat()).await.expect("an open socket");
    let answer = soon("an answer", RawFrame::read(&mut slow)).await.expect("it goes on");
    assert_eq!((answer.kind, answer.request), (common::RESPONSE, 1));
}

#[tokio::test]
async fn a_dialler_gives_a_sign_of_life_when_it_is_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let peers = peers_of_node_1(listener.local_addr().expect("it is bound"));
    let call = tokio::spawn(async move { call_node(&peers, NODE_2).await });
    let mut stream = raw_accept(&listener, node(NODE_2)).await;
    stream.write_all(&RawFrame::new(common::PING).bytes()).await.expect("an open socket");
    loop {
        let frame = soon("a sign", RawFrame::read(&mut stream)).await.expect("it goes on");
        if frame.kind == common::PONG {
            break;
        }
    }
    call.abort();
}

#[tokio::test]
async fn another_version_is_refused_by_the_listener() {
    let server = Running::start(node(NODE_2), echo_router()).await;
    let mut stream = TcpStream::connect(server.address).await.expect("a listening server");
    let hello = RawFrame { version: 7, ..RawFrame::hello(Identity::CLIENT, 1, None) };
    stream.write_all(&hello.bytes()).await.expect("an open socket");
    let answer = RawFrame::read(&mut stream).await.expect("a refusal");
    assert_eq!(answer.kind, REFUSAL);
    let refusal: Refusal = postcard::from_bytes(&answer.head).expect("a refusal");
    assert_eq!(refusal, Refusal::OtherVersion { dialler: 7, listener: 1 });
    assert_eq!(stream.read(&mut [0; 1]).await.expect("a clean end"), 0);
}

#[tokio::test]
async fn another_version_is_refused_by_the_dialler() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let address = listener.local_addr().expect("it is bound");
    let newer = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        assert_eq!(RawFrame::read(&mut stream).await.expect("a hello").kind, HELLO);
        let answer = RawFrame { version: 2, ..RawFrame::new(REFUSAL) };
        stream.write_all(&answer.bytes()).await.expect("an open socket");
        let _ = stream.read(&mut [0; 1]).await;
    });
    let peers = peers_of_node_1(address);
    let refusal = refusal_of_call(&peers, NODE_2).await;
    assert_eq!(refusal, Refusal::OtherVersion { dialler: 1, listener: 2 });
    newer.await.expect("no panic");
}

#[tokio::test]
async fn a_listener_that_does_not_check_is_refused_by_the_dialler() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let address = listener.local_addr().expect("it is bound");
    for (identity, expected) in [
        (
            Identity::node(OTHER_CLUSTER, NODE_2),
            Refusal::OtherCluster { dialler: CLUSTER, listener: OTHER_CLUSTER },
        ),
        (node(NodeId(5)), Refusal::WrongNode { expected: NODE_2, actual: Some(NodeId(5)) }),
    ] {
        let peers = peers_of_node_1(address);
        let (refusal, _stream) =
            tokio::join!(refusal_of_call(&peers, NODE_2), raw_accept(&listener, identity));
        assert_eq!(refusal, expected);
    }
}

#[tokio::test]
async fn a_full_server_says_so() {
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let server =
        Running::start_with(cell(node(NODE_2)), echo_router(), limits, "127.0.0.1:0").await;
    let first = peers_of_node_1(server.address);
    assert_eq!(call_node(&first, NODE_2).await.expect("an answer"), 2);
    let second = client();
    let address = server.address.to_string();
    let outcome = second.call_address::<Echo>(&address, Class::Call, &1, Bytes::new(), LONG).await;
    let error = outcome.expect_err("no room");
    assert!(
        matches!(&error, CallError::Refused { reason: Refusal::Full { connections_max: 1 }, .. }),
        "{error}"
    );
    drop(first);
    eventually("there is room", || server.status.connections_open.get() == 0).await;
    assert_serves(server.address).await;
}

#[tokio::test]
async fn a_refused_peer_is_let_in_once_the_reason_is_gone() {
    let identity: Arc<IdentityCell> = cell(Identity::default());
    let server =
        Running::start_with(identity.clone(), echo_router(), Limits::default(), "127.0.0.1:0")
            .await;
    let peers = peers_of_node_1(server.address);
    refusal_of_call(&peers, NODE_2).await;
    identity.set(node(NODE_2));
    for _ in 0..1000 {
        if call_node(&peers, NODE_2).await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("never let in");
}

#[tokio::test]
async fn forming_a_cluster_changes_the_identity_without_losing_calls() {
    let own = cell(Identity { cluster: None, node: Some(NODE_1) });
    let server_identity = cell(Identity::default());
    let mut router = echo_router();
    let forming = Arc::clone(&server_identity);
    router.call::<common::Act, _, _>(move |_, _, _| {
        // What the call itself changes must not cost the call.
        forming.set(node(NODE_2));
        async { Ok((String::new(), Bytes::new())) }
    });
    let server =
        Running::start_with(server_identity, router, Limits::default(), "127.0.0.1:0").await;
    let peers = Peers::new(Arc::clone(&own), Limits::default());
    let address = server.address.to_string();
    peers
        .call_address::<common::Act>(&address, Class::Call, &0, Bytes::new(), LONG)
        .await
        .expect("an answer");
    own.set(node(NODE_1));
    let answer = peers.call_address::<Echo>(&address, Class::Call, &1, Bytes::new(), LONG).await;
    assert_eq!(answer.expect("an answer").0, 2);
    assert_eq!(peers.status().connections_total.get(), 2, "it introduced itself anew");
    eventually("the old connection is gone", || server.status.connections_open.get() == 1).await;
}

#[tokio::test]
async fn a_change_of_cluster_closes_what_it_forbids() {
    let identity = cell(node(NODE_2));
    let server =
        Running::start_with(identity.clone(), echo_router(), Limits::default(), "127.0.0.1:0")
            .await;
    let mut member = raw_connection(server.address, node(NODE_1)).await;
    let mut stranger = raw_connection(server.address, Identity::CLIENT).await;
    identity.set(Identity::node(OTHER_CLUSTER, NODE_2));
    let read = soon("the member is cut off", member.read(&mut [0; 1])).await;
    assert!(matches!(read, Ok(0) | Err(_)));
    let request = RawFrame::echo(1, 1, Vec::new());
    stranger.write_all(&request.bytes()).await.expect("an open socket");
    assert!(soon("an answer", RawFrame::read(&mut stranger)).await.is_some());
}

#[tokio::test]
async fn nobody_who_answers_the_hello_is_not_waited_for_forever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let address = listener.local_addr().expect("it is bound");
    let limits =
        Limits { handshake_timeout: std::time::Duration::from_millis(50), ..Limits::default() };
    let peers = Peers::new(cell(node(NODE_1)), limits);
    peers.set_address(NODE_2, address.to_string());
    let error = call_node(&peers, NODE_2).await.expect_err("no hello");
    assert!(matches!(error, CallError::Unreachable { .. }), "{error}");
    drop(listener);
}

#[tokio::test]
async fn a_removed_node_is_cut_off_and_told_so_whoever_dials() {
    let identity = cell(node(NODE_2));
    let server =
        Running::start_with(identity.clone(), echo_router(), Limits::default(), "127.0.0.1:0")
            .await;
    let mut member = raw_connection(server.address, node(NODE_1)).await;
    let mut other = raw_connection(server.address, node(NodeId(3))).await;
    identity.set_removed(BTreeSet::from([NODE_1]));
    let read = soon("the removed node is cut off", member.read(&mut [0; 1])).await;
    assert!(matches!(read, Ok(0) | Err(_)));
    let peers = peers_of_node_1(server.address);
    assert_eq!(refusal_of_call(&peers, NODE_2).await, Refusal::Removed { node: NODE_1 });
    assert_eq!(server.status.handshakes_refused_total.get(), 1);
    other.write_all(&RawFrame::echo(1, 1, Vec::new()).bytes()).await.expect("an open socket");
    assert!(soon("an answer", RawFrame::read(&mut other)).await.is_some(), "a member goes on");

    // It does not get in by being dialled either.
    let removed = Running::start(node(NODE_1), echo_router()).await;
    let own = Peers::new(identity, Limits::default());
    own.set_address(NODE_1, removed.address.to_string());
    assert_eq!(refusal_of_call(&own, NODE_1).await, Refusal::Removed { node: NODE_1 });
    assert_eq!(removed.status.calls_total.get(), 0);
}
