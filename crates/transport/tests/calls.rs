//! Calls: answers, errors, deadlines, cancellation, overload, large bodies.

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{
    Act, Echo, LONG, NODE_1, NODE_2, OVERLOADED, RESPONSE, RawFrame, Running, cell, client,
    echo_router, eventually, node, peers_of_node_1, raw_accept, raw_client, soon,
};
use onefold_transport::{CallError, Class, Limits, RemoteCode, RemoteError, Router};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};

/// Tells when it is dropped.
struct DropNotice(mpsc::UnboundedSender<()>);

impl Drop for DropNotice {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// A handler that never ends, and a receiver that hears when a run of it is dropped.
fn endless_router() -> (Router, mpsc::UnboundedReceiver<()>, mpsc::UnboundedReceiver<()>) {
    let (started, starts) = mpsc::unbounded_channel();
    let (dropped, drops) = mpsc::unbounded_channel();
    let mut router = echo_router();
    router.call::<Act, _, _>(move |_, _, _| {
        let notice = DropNotice(dropped.clone());
        let _ = started.send(());
        async move {
            std::future::pending::<()>().await;
            drop(notice);
            Ok((String::new(), Bytes::new()))
        }
    });
    (router, starts, drops)
}

#[tokio::test]
async fn a_call_is_answered_with_head_and_body() {
    let server = Running::start(node(NODE_2), echo_router()).await;
    let peers = peers_of_node_1(server.address);
    for class in [Class::Consensus, Class::Call, Class::Bulk] {
        let body = Bytes::from_static(b"bulk");
        let answer = peers.call::<Echo>(NODE_2, class, &1, body.clone(), LONG).await;
        assert_eq!(answer.expect("an answer"), (2, body));
        assert!(peers.is_connected(NODE_2, class));
    }
    assert_eq!(peers.status().connections_open.get(), 3, "one connection for each class");
    assert_eq!(server.status.calls_total.get(), 3);
}

#[tokio::test]
async fn the_handler_learns_who_calls() {
    let mut router = Router::default();
    router.call::<Act, _, _>(|caller, _, _| async move {
        Ok((format!("{:?}", caller.node), Bytes::new()))
    });
    let server = Running::start(node(NODE_2), router).await;
    let address = server.address.to_string();
    let by_node = peers_of_node_1(server.address)
        .call::<Act>(NODE_2, Class::Call, &0, Bytes::new(), LONG)
        .await;
    assert_eq!(by_node.expect("an answer").0, format!("{:?}", Some(NODE_1)));
    let by_client =
        client().call_address::<Act>(&address, Class::Call, &0, Bytes::new(), LONG).await;
    assert_eq!(by_client.expect("an answer").0, "None");
}

#[tokio::test]
async fn concurrent_calls_share_a_connection_and_are_answered_out_of_order() {
    let gate = Arc::new(Semaphore::new(0));
    let mut router = echo_router();
    let handler_gate = Arc::clone(&gate);
    router.call::<Act, _, _>(move |_, request, body| {
        let gate = Arc::clone(&handler_gate);
        async move {
            let permit = gate.acquire().await.expect("never closed");
            permit.forget();
            Ok((request.to_string(), body))
        }
    });
    let server = Running::start(node(NODE_2), router).await;
    let peers = peers_of_node_1(server.address);
    let waiting: Vec<_> = (0..100_u64)
        .map(|number| {
            let peers = peers.clone();
            tokio::spawn(async move {
                let body = Bytes::from(number.to_le_bytes().to_vec());
                peers.call::<Act>(NODE_2, Class::Call, &number, body, LONG).await
            })
        })
        .collect();
    eventually("all calls are in their handlers", || server.status.calls_in_flight.get() == 100)
        .await;

    // A later call on the same connection is answered while the earlier ones wait.
    let later = peers.call::<Echo>(NODE_2, Class::Call, &1, Bytes::new(), LONG).await;
    assert_eq!(later.expect("an answer").0, 2);
    assert_eq!(peers.status().connections_total.get(), 1);

    gate.add_permits(100);
    for (number, call) in waiting.into_iter().enumerate() {
        let answer = call.await.expect("no panic").expect("an answer");
        assert_eq!(answer.0, number.to_string());
        assert_eq!(answer.1, number.to_le_bytes()[..]);
    }
    assert_eq!(peers.status().calls_in_flight.get(), 0);
}

#[tokio::test]
async fn a_handlers_error_arrives_unchanged() {
    let error =
        RemoteError::new(RemoteCode::NotLeader, "node 3 leads").with_detail(&(3_u64, "hint"));
    let mut router = Router::default();
    let answer = error.clone();
    router.call::<Act, _, _>(move |_, _, _| {
        let answer = answer.clone();
        async move { Err(answer) }
    });
    let server = Running::start(node(NODE_2), router).await;
    let peers = peers_of_node_1(server.address);
    let outcome = peers.call::<Act>(NODE_2, Class::Call, &0, Bytes::new(), LONG).await;
    let Err(CallError::Remote(received)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(received, error);
    assert_eq!(received.detail::<(u64, String)>(), Some((3, "hint".to_owned())));
}

#[tokio::test]
async fn unknown_methods_and_requests_that_do_not_decode_are_answered() {
    let server = Running::start(node(NODE_2), echo_router()).await;
    let peers = peers_of_node_1(server.address);
    let body = Bytes::from_static(b"to be skipped");
    let outcome = peers.call::<Act>(NODE_2, Class::Call, &0, body, LONG).await;
    let error = outcome.expect_err("the server has no such method");
    assert_eq!(error.remote_code(), Some(RemoteCode::Unsupported));

    let mut stream = raw_client(server.address).await;
    let mut request = RawFrame::echo(5, 0, Vec::new());
    request.head = Vec::new();
    stream.write_all(&request.bytes()).await.expect("an open socket");
    let answer = RawFrame::read(&mut stream).await.expect("an answer");
    assert_eq!((answer.kind, answer.request), (common::ERROR, 5));
    let error: RemoteError = postcard::from_bytes(&answer.head).expect("an error");
    assert_eq!(error.code, RemoteCode::Invalid);
}

#[tokio::test]
async fn a_panic_in_a_handler_is_answered_and_harms_nobody_else() {
    let mut router = echo_router();
    router.call::<Act, _, _>(|_, _, _| async move { panic!("on purpose, in a test") });
    let server = Running::start(node(NODE_2), router).await;
    let peers = peers_of_node_1(server.address);
    let outcome = peers.call::<Act>(NODE_2, Class::Call, &0, Bytes::new(), LONG).await;
    let error = outcome.expect_err("the handler panicked");
    assert_eq!(error.remote_code(), Some(RemoteCode::Internal));
    assert_eq!(server.status.handlers_panicked_total.get(), 1);
    let next = peers.call::<Echo>(NODE_2, Class::Call, &1, Bytes::new(), LONG).await;
    assert_eq!(next.expect("the connection lives on").0, 2);
    assert_eq!(peers.status().connections_total.get(), 1);
}

#[tokio::test]
async fn a_call_that_times_out_stops_its_handler() {
    let (router, _starts, mut drops) = endless_router();
    let server = Running::start(node(NODE_2), router).await;
    let peers = peers_of_node_1(server.address);
    // Connect first, so that the time goes by in the handler.
    peers.call::<Echo>(NODE_2, Class::Call, &1, Bytes::new(), LONG).await.expect("an answer");
    let timeout = Duration::from_millis(100);
    let outcome = peers.call::<Act>(NODE_2, Class::Call, &0, Bytes::new(), timeout).await;
    let error = outcome.expect_err("the handler never answers");
    assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
    assert!(!error.is_unsent(), "the peer may have acted");
    soon("the handler is dropped", drops.recv()).await.expect("a drop");
    eventually("the request left the list", || server.status.calls_in_flight.get() == 0).await;
    assert_eq!(peers.status().calls_timed_out_total.get(), 1);
    assert_eq!(peers.status().calls_in_flight.get(), 0);
}

#[tokio::test]
async fn a_call_that_times_out_before_it_is_written_is_unsent() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let peers = peers_of_node_1(listener.local_addr().expect("it is bound"));
    let first = {
        let peers = peers.clone();
        let large = Bytes::from(vec![0; 19 << 20]);
        tokio::spawn(async move { peers.call::<Echo>(NODE_2, Class::Call, &1, large, LONG).await })
    };
    let mut stream = raw_accept(&listener, node(NODE_2)).await;
    let mut request = [0; 40];
    stream.read_exact(&mut request).await.expect("the first request has begun");

    // The peer reads no further: the first request fills the socket, the second one waits behind.
    let timeout = Duration::from_millis(50);
    let outcome = peers.call::<Echo>(NODE_2, Class::Call, &2, Bytes::new(), timeout).await;
    let error = outcome.expect_err("nobody reads");
    assert!(matches!(error, CallError::TimedOut { unsent: true, .. }), "{error:?}");
    assert!(error.is_unsent());

    drop(stream);
    let error = first.await.expect("no panic").expect_err("the peer is gone");
    assert!(matches!(error, CallError::Disconnected { unsent: false, .. }), "{error:?}");
}

#[tokio::test]
async fn a_withdrawn_request_is_never_written() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let peers = peers_of_node_1(listener.local_addr().expect("it is bound"));
    let call = |number, body, timeout| {
        let peers = peers.clone();
        tokio::spawn(async move {
            peers.call::<Echo>(NODE_2, Class::Call, &number, body, timeout).await
        })
    };
    let first = call(1, Bytes::from(vec![0; 19 << 20]), LONG);
    let mut stream = raw_accept(&listener, node(NODE_2)).await;
    let second = call(2, Bytes::new(), Duration::from_millis(50));
    let error = second.await.expect("no panic").expect_err("nobody reads");
    assert!(error.is_unsent(), "{error}");
    let third = call(3, Bytes::new(), LONG);

    for number in [1, 3] {
        let request = loop {
            let frame = RawFrame::read(&mut stream).await.expect("a frame");
            if frame.kind != common::PING {
                break frame;
            }
        };
        assert_eq!((request.kind, &request.head[..]), (common::REQUEST, &[number][..]));
        let head = vec![number + 1];
        let answer = RawFrame { request: request.request, head, ..RawFrame::new(RESPONSE) };
        stream.write_all(&answer.bytes()).await.expect("an open socket");
    }
    assert_eq!(first.await.expect("no panic").expect("an answer").0, 2);
    assert_eq!(third.await.expect("no panic").expect("an answer").0, 4);
}

#[tokio::test]
async fn a_cancelled_request_may_give_its_number_to_another() {
    let (router, mut starts, mut drops) = endless_router();
    let server = Running::start(node(NODE_2), router).await;
    let mut stream = raw_client(server.address).await;
    let request =
        RawFrame { method: 8, request: 1, head: vec![0], ..RawFrame::new(common::REQUEST) };
    let cancel = RawFrame { request: 1, ..RawFrame::new(common::CANCEL) };
    let echo = RawFrame::echo(1, 5, Vec::new());
    let frames = [request.bytes(), cancel.bytes(), request.bytes(), cancel.bytes(), echo.bytes()];
    stream.write_all(&frames.concat()).await.expect("an open socket");
    let answer = soon("an answer", RawFrame::read(&mut stream)).await.expect("a frame");
    assert_eq!((answer.kind, answer.request, answer.head), (RESPONSE, 1, vec![6]));
    eventually("all left the list", || server.status.calls_in_flight.get() == 0).await;
    assert_eq!(server.status.calls_cancelled_total.get(), 2);
    // A handler that was cancelled before it first ran never starts.
    let counts = (std::iter::from_fn(|| starts.try_recv().ok()).count(), {
        std::iter::from_fn(|| drops.try_recv().ok()).count()
    });
    assert_eq!(counts.0, counts.1);
}

#[tokio::test]
async fn the_deadline_travels_and_ends_a_handler_without_the_callers_help() {
    let (router, _starts, mut drops) = endless_router();
    let server = Running::start(node(NODE_2), router).await;
    let mut stream = raw_client(server.address).await;
    let request = RawFrame {
        method: 8,
        request: 1,
        timeout_ms: 20,
        head: vec![0],
        ..RawFrame::new(common::REQUEST)
    };
    stream.write_all(&request.bytes()).await.expect("an open socket");
    soon("the handler is dropped", drops.recv()).await.expect("a drop");
    eventually("it is counted", || server.status.calls_timed_out_total.get() == 1).await;
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_its_handler() {
    let (router, mut starts, mut drops) = endless_router();
    let server = Running::start(node(NODE_2), router).await;
    let peers = peers_of_node_1(server.address);
    let caller = peers.clone();
    let task = tokio::spawn(async move {
        caller.call::<Act>(NODE_2, Class::Call, &0, Bytes::new(), LONG).await
    });
    soon("the handler starts", starts.recv()).await.expect("a start");
    task.abort();
    soon("the handler is dropped", drops.recv()).await.expect("a drop");
    assert_eq!(server.status.calls_cancelled_total.get(), 1);
    assert_eq!(server.status.connections_open.get(), 1, "the connection stays");

    // So does one whose whole process goes away.
    let mut stream = raw_client(server.address).await;
    let request =
        RawFrame { method: 8, request: 1, head: vec![0], ..RawFrame::new(common::REQUEST) };
    stream.write_all(&request.bytes()).await.expect("an open socket");
    soon("the handler starts", starts.recv()).await.expect("a start");
    drop(stream);
    soon("the handler is dropped", drops.recv()).await.expect("a drop");
}

#[tokio::test]
async fn a_server_with_too_many_bytes_in_handlers_answers_overloaded_and_recovers() {
    let gate = Arc::new(Semaphore::new(0));
    let handler_gate = Arc::clone(&gate);
    let mut router = echo_router();
    router.call::<Act, _, _>(move |_, _, _| {
        let gate = Arc::clone(&handler_gate);
        async move {
            drop(gate.acquire().await);
            Ok((String::new(), Bytes::new()))
        }
    });
    let limits = Limits { handler_bytes_max: 1 << 20, ..Limits::default() };
    let server = Running::start_with(cell(node(NODE_2)), router, limits, "127.0.0.1:0").await;
    let peers = peers_of_node_1(server.address);
    let big = Bytes::from(vec![1; 700 << 10]);
    let first = {
        let (peers, big) = (peers.clone(), big.clone());
        tokio::spawn(async move { peers.call::<Act>(NODE_2, Class::Bulk, &0, big, LONG).await })
    };
    eventually("the first is in its handler", || server.status.calls_in_flight.get() == 1).await;
    let outcome = peers.call::<Act>(NODE_2, Class::Bulk, &0, big, LONG).await;
    let error = outcome.expect_err("two are more than the server may hold");
    assert!(matches!(error, CallError::Overloaded { .. }), "{error}");
    assert!(error.is_unsent());
    assert_eq!(server.status.calls_overloaded_total.get(), 1);
    // What fits is served on the same connection, right behind the payload that was skipped.
    let small = peers.call::<Echo>(NODE_2, Class::Bulk, &1, Bytes::new(), LONG).await;
    assert_eq!(small.expect("an answer").0, 2);
    gate.add_permits(1);
    first.await.expect("no panic").expect("an answer");
}

#[tokio::test]
async fn bodies_of_16_mib_go_both_ways() {
    let server = Running::start(node(NODE_2), echo_router()).await;
    let peers = peers_of_node_1(server.address);
    let body: Bytes = (0..16_u32 << 20).map(|at| (at ^ (at >> 8)) as u8).collect();
    for round in 0..3 {
        let answer = peers.call::<Echo>(NODE_2, Class::Bulk, &round, body.clone(), LONG).await;
        let (head, echoed) = answer.expect("an answer");
        assert_eq!(head, round + 1);
        assert!(echoed == body, "the body came back changed");
    }
}

#[tokio::test]
async fn what_does_not_fit_into_a_frame_is_refused_before_it_is_sent() {
    let mut router = echo_router();
    router.call::<Act, _, _>(|_, _, _| async move {
        Ok((String::new(), Bytes::from(vec![0; 21 << 20])))
    });
    let server = Running::start(node(NODE_2), router).await;
    let peers = peers_of_node_1(server.address);
    let outcome =
        peers.call::<Echo>(NODE_2, Class::Bulk, &1, Bytes::from(vec![0; 21 << 20]), LONG).await;
    let error = outcome.expect_err("larger than a frame");
    assert!(matches!(error, CallError::Protocol { .. }), "{error}");
    assert!(error.is_unsent());
    let outcome = peers.call::<Act>(NODE_2, Class::Bulk, &1, Bytes::new(), LONG).await;
    let error = outcome.expect_err("the response is larger than a frame");
    assert_eq!(error.remote_code(), Some(RemoteCode::Internal));
}

#[tokio::test]
async fn a_client_that_does_not_read_bounds_what_is_held_for_it() {
    let mut router = Router::default();
    router.call::<Echo, _, _>(|_, request, _| async move {
        Ok((request, Bytes::from(vec![request as u8; 1 << 20])))
    });
    let limits = Limits { queued_bytes_max: 2 << 20, silence_timeout: LONG, ..Limits::default() };
    let server = Running::start_with(cell(node(NODE_2)), router, limits, "127.0.0.1:0").await;
    let mut stream = raw_client(server.address).await;
    let requests = 200;
    for id in 1..=requests {
        let request = RawFrame::echo(id, id, Vec::new());
        stream.write_all(&request.bytes()).await.expect("requests are small");
    }
    let in_flight_max = Class::Bulk.calls_in_flight_max() as u64;
    eventually("as many start as may", || server.status.calls_total.get() >= in_flight_max).await;
    // Time for a server without bounds to start them all.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(server.status.calls_in_flight.get() <= in_flight_max);
    assert!(server.status.calls_total.get() < requests, "the others were not started");

    // Once it reads, each request has its answer, and what was over the bound was told so.
    let mut answered = std::collections::BTreeSet::new();
    for _ in 0..requests {
        let answer = soon("an answer", RawFrame::read(&mut stream)).await.expect("a frame");
        assert!(answered.insert(answer.request));
        match answer.kind {
            RESPONSE => assert!(answer.body.iter().all(|byte| *byte == answer.request as u8)),
            OVERLOADED => {}
            kind => panic!("kind {kind}"),
        }
    }
}

#[tokio::test]
async fn responses_that_nobody_reads_are_bounded_in_bytes_for_each_connection_and_all_together() {
    const RESPONSE_BYTES: usize = 1 << 20;
    const CONNECTION_MAX: usize = 4 << 20;
    const SERVER_MAX: usize = 16 << 20;
    let mut router = Router::default();
    router.call::<Echo, _, _>(|_, request, _| async move {
        Ok((request, Bytes::from(vec![7; RESPONSE_BYTES])))
    });
    let limits = Limits {
        queued_bytes_max: CONNECTION_MAX,
        response_bytes_max: SERVER_MAX,
        silence_timeout: LONG,
        ..Limits::default()
    };
    let server = Running::start_with(cell(node(NODE_2)), router, limits, "127.0.0.1:0").await;
    // One call that is read teaches the server what the method's responses come to.
    let address = server.address.to_string();
    let call = client();
    call.call_address::<Echo>(&address, Class::Bulk, &1, Bytes::new(), LONG).await.expect("one");
    eventually("it is written", || server.status.response_bytes.get() == 0).await;

    let mut streams = Vec::new();
    for _ in 0..16 {
        let mut stream = raw_client(server.address).await;
        for id in 1..=32 {
            let request = RawFrame::echo(id, id, Vec::new());
            stream.write_all(&request.bytes()).await.expect("requests are small");
        }
        streams.push(stream);
        let held = server.status.response_bytes.get();
        assert!(held <= SERVER_MAX as u64, "{held} bytes are held for who does not read");
    }
    // 512 MiB were asked for; without bounds they would all be in memory by now.
    eventually("further ones are refused", || server.status.calls_overloaded_total.get() > 0).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let held = server.status.response_bytes.get();
    assert!(held <= SERVER_MAX as u64, "{held} bytes are held for who does not read");
    drop(streams);
    eventually("all is given back", || server.status.response_bytes.get() == 0).await;
    let answer = call.call_address::<Echo>(&address, Class::Bulk, &2, Bytes::new(), LONG).await;
    assert_eq!(answer.expect("it serves on").0, 2);
}

#[tokio::test]
async fn callers_beyond_the_bound_of_a_class_wait_their_turn() {
    let server = Running::start(node(NODE_2), echo_router()).await;
    let peers = peers_of_node_1(server.address);
    let calls = (0..10 * Class::Bulk.calls_in_flight_max() as u64).map(|number| {
        let peers = peers.clone();
        async move { peers.call::<Echo>(NODE_2, Class::Bulk, &number, Bytes::new(), LONG).await }
    });
    for (number, answer) in futures::future::join_all(calls).await.into_iter().enumerate() {
        assert_eq!(answer.expect("never overloaded").0, number as u64 + 1);
    }
    assert_eq!(server.status.calls_overloaded_total.get(), 0);
}

#[tokio::test]
async fn nobody_there_is_unreachable_and_unsent() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let address = free.local_addr().expect("it is bound");
    drop(free);
    let peers = peers_of_node_1(address);
    let outcome = peers.call::<Echo>(NODE_2, Class::Call, &1, Bytes::new(), LONG).await;
    let error = outcome.expect_err("nobody listens");
    assert!(matches!(&error, CallError::Unreachable { .. }) && error.is_unsent(), "{error}");
    let outcome = peers.call::<Echo>(NODE_1, Class::Call, &1, Bytes::new(), LONG).await;
    let error = outcome.expect_err("no address");
    assert!(matches!(&error, CallError::Unreachable { .. }) && error.is_unsent(), "{error}");
    let outcome =
        peers.call_address::<Echo>("no such address", Class::Call, &1, Bytes::new(), LONG).await;
    let error = outcome.expect_err("no address at all");
    assert!(matches!(&error, CallError::Unreachable { .. }), "{error}");
}
