//! Connections over time: peers that restart, move, fall silent; servers that start and stop.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{
    Echo, LONG, NODE_1, NODE_2, Running, cell, client, echo_router, eventually, node,
    peers_of_node_1, raw_accept, raw_client, soon,
};
use onefold_transport::{CallError, Class, Limits, Peers, Routes, ServeError, Server};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

async fn call(peers: &Peers) -> Result<u64, CallError> {
    let answer = peers.call::<Echo>(NODE_2, Class::Call, &1, Bytes::new(), LONG).await;
    answer.map(|(number, _)| number)
}

/// Calls until it works; every failure on the way must be safe to repeat or a lost connection.
async fn call_until_answered(peers: &Peers) {
    for _ in 0..2000 {
        match call(peers).await {
            Ok(_) => return,
            Err(error) => assert!(
                error.is_unsent() || matches!(error, CallError::Disconnected { .. }),
                "{error}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never answered again");
}

#[tokio::test]
async fn calls_work_again_after_the_peer_restarts() {
    let mut server = Running::start(node(NODE_2), echo_router()).await;
    let peers = peers_of_node_1(server.address);
    call(&peers).await.expect("an answer");
    for _ in 0..3 {
        let address = server.address.to_string();
        server.stop().await;
        let error = call(&peers).await.expect_err("nobody is there");
        assert!(error.is_unsent() || matches!(error, CallError::Disconnected { .. }), "{error}");
        server =
            Running::start_with(cell(node(NODE_2)), echo_router(), Limits::default(), &address)
                .await;
        call_until_answered(&peers).await;
    }
    eventually("the dead connections are gone", || peers.status().connections_open.get() == 1)
        .await;
}

#[tokio::test]
async fn an_address_with_a_route_is_dialled_there_and_keeps_its_name() {
    let server = Running::start(node(NODE_2), echo_router()).await;
    let known = "node-2.example:7000".to_owned();
    let routes = Routes::from([(known.clone(), server.address.to_string())]);
    let peers = Peers::with_routes(cell(node(NODE_1)), Limits::default(), routes);
    peers.set_address(NODE_2, known.clone());
    call(&peers).await.expect("an answer");
    assert_eq!(peers.address(NODE_2), Some(known));
    server.stop().await;
}

#[tokio::test]
async fn a_peer_that_moves_is_found_at_its_new_address() {
    let old = Running::start(node(NODE_2), echo_router()).await;
    let new = Running::start(node(NODE_2), echo_router()).await;
    let peers = peers_of_node_1(old.address);
    call(&peers).await.expect("an answer");
    peers.set_address(NODE_2, new.address.to_string());
    assert_eq!(peers.address(NODE_2), Some(new.address.to_string()));
    call(&peers).await.expect("an answer");
    assert_eq!((old.status.calls_total.get(), new.status.calls_total.get()), (1, 1));
    eventually("the old connection is closed", || old.status.connections_open.get() == 0).await;

    peers.remove_address(NODE_2);
    assert!(peers.addresses().is_empty());
    assert!(call(&peers).await.expect_err("forgotten").is_unsent());
    eventually("so is the new one", || new.status.connections_open.get() == 0).await;
}

#[tokio::test]
async fn connections_close_with_the_last_handle() {
    let server = Running::start(node(NODE_2), echo_router()).await;
    let peers = peers_of_node_1(server.address);
    let other = peers.clone();
    call(&peers).await.expect("an answer");
    drop(peers);
    call(&other).await.expect("another handle still works");
    drop(other);
    eventually("it is closed", || server.status.connections_open.get() == 0).await;
}

#[tokio::test]
async fn a_silent_peer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let address = listener.local_addr().expect("it is bound");
    let limits = Limits {
        ping_interval: Duration::from_millis(10),
        silence_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let peers = Peers::new(cell(node(NODE_1)), limits);
    peers.set_address(NODE_2, address.to_string());
    let (outcome, _stream) = tokio::join!(call(&peers), raw_accept(&listener, node(NODE_2)));
    let error = outcome.expect_err("no sign of life");
    assert!(matches!(&error, CallError::Disconnected { unsent: false, .. }), "{error}");
    assert_eq!(peers.status().connections_silent_total.get(), 1);
}

#[tokio::test]
async fn a_silent_client_is_given_up() {
    let limits = Limits {
        ping_interval: Duration::from_millis(10),
        silence_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let server =
        Running::start_with(cell(node(NODE_2)), echo_router(), limits, "127.0.0.1:0").await;
    let mut stream = raw_client(server.address).await;
    let read = soon("the server hangs up", stream.read(&mut [0; 1])).await;
    assert!(matches!(read, Ok(0) | Err(_)));
    assert_eq!(server.status.connections_silent_total.get(), 1);
}

#[tokio::test]
async fn pings_keep_an_idle_connection_until_it_is_unused_for_long() {
    let limits = Limits {
        ping_interval: Duration::from_millis(10),
        silence_timeout: Duration::from_millis(200),
        unused_timeout: Duration::from_millis(800),
        ..Limits::default()
    };
    let server =
        Running::start_with(cell(node(NODE_2)), echo_router(), limits.clone(), "127.0.0.1:0").await;
    let peers = Peers::new(cell(node(NODE_1)), limits);
    peers.set_address(NODE_2, server.address.to_string());
    call(&peers).await.expect("an answer");
    eventually("it is closed", || server.status.connections_open.get() == 0).await;
    let frames = server.status.frames_received_total.get();
    assert!(frames > 20, "{frames} frames: a hello, a request, and pings for the whole time");
    assert_eq!(server.status.connections_silent_total.get(), 0);
    assert_eq!(peers.status().connections_silent_total.get(), 0);
    call(&peers).await.expect("a new connection is made when needed");
}

#[tokio::test]
async fn shutting_down_ends_connections_and_their_calls() {
    let mut router = echo_router();
    router.call::<common::Act, _, _>(|_, _, _| async { std::future::pending().await });
    let server = Running::start(node(NODE_2), router).await;
    let status = server.status.clone();
    let peers = peers_of_node_1(server.address);
    let waiting = {
        let peers = peers.clone();
        tokio::spawn(async move {
            peers.call::<common::Act>(NODE_2, Class::Call, &0, Bytes::new(), LONG).await
        })
    };
    eventually("the call is in its handler", || status.calls_in_flight.get() == 1).await;
    server.stop().await;
    let error = waiting.await.expect("no panic").expect_err("the server stopped");
    assert!(matches!(&error, CallError::Disconnected { unsent: false, .. }), "{error}");
    eventually("its handler is dropped", || status.calls_in_flight.get() == 0).await;
    assert_eq!(status.connections_open.get(), 0);
}

#[tokio::test]
async fn a_port_in_use_and_a_foreign_address_are_named() {
    let server = Server::bind("127.0.0.1:0").await.expect("a loopback port");
    let address = server.local_address().to_string();
    let Err(error) = Server::bind(&address).await else { panic!("bound twice") };
    assert!(matches!(&error, ServeError::AddressInUse { .. }), "{error}");
    assert!(error.to_string().contains(&address), "{error}");
    let Err(error) = Server::bind("192.0.2.1:0").await else { panic!("bound elsewhere") };
    assert!(matches!(&error, ServeError::Bind { .. }), "{error}");
    let Err(error) = Server::bind("not an address").await else { panic!("bound to nothing") };
    assert!(matches!(&error, ServeError::Bind { .. }), "{error}");
}

#[tokio::test]
async fn many_addresses_are_remembered_within_a_bound() {
    let server = Running::start(node(NODE_2), echo_router()).await;
    let port = server.address.port();
    let peers = client();
    // Loopback has millions of addresses; the listener is on one of them.
    for number in 0..300 {
        let address = format!("127.0.{}.{}:{port}", 1 + number / 200, 1 + number % 200);
        let outcome =
            peers.call_address::<Echo>(&address, Class::Call, &1, Bytes::new(), LONG).await;
        assert!(outcome.expect_err("nobody listens there").is_unsent());
    }
    let address = server.address.to_string();
    let answer = peers.call_address::<Echo>(&address, Class::Call, &1, Bytes::new(), LONG).await;
    assert_eq!(answer.expect("an answer").0, 2);
}
