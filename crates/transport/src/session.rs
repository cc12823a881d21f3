//! One inbound connection: handshake, admission of requests, their handlers, and the answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{AbortHandle, Abortable};
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::OwnedSemaphorePermit;

use crate::frame::{DecodeError, Frame, Header, Kind, head_after_header};
use crate::hello::{self, Hello};
use crate::registry::Registered;
use crate::router::CallHandler;
use crate::server::Shared;
use crate::wire::{
    Activity, End, FrameReader, OutQueue, Outgoing, Share, Tally, lock, out_queue, watch_silence,
    write_frames,
};
use crate::{Caller, RemoteCode, RemoteError, TransportStatus};

/// A connection whose handshake succeeded.
pub(crate) struct Accepted {
    pub(crate) address: SocketAddr,
    pub(crate) hello: Hello,
    pub(crate) reader: FrameReader<OwnedReadHalf>,
    pub(crate) writer: tokio::net::tcp::OwnedWriteHalf,
    pub(crate) activity: Arc<Activity>,
    /// The connection's place among those of its node, held for as long as it lasts.
    pub(crate) registered: Option<Registered>,
}

/// Serves the connection until it ends; then drops the handlers that still run.
pub(crate) async fn serve(accepted: Accepted, server: &Shared) -> End {
    let Accepted { address, hello, reader, writer, activity, registered } = accepted;
    let status = &server.status;
    let (queue, mut receiver) = out_queue(server.limits.queued_bytes_max);
    let mut session = Session {
        server,
        caller: Caller { node: hello.node, address },
        running: Running::new(Arc::clone(status)),
        hello,
        reader,
        queue,
        responses: Arc::default(),
    };
    if let Some(registered) = &registered {
        registered.attach(session.queue.downgrade());
    }
    let hello = session.hello.clone();
    tokio::select! {
        end = session.read_requests() => end,
        end = write_frames(&writer, &mut receiver, &activity, status, |_| true) => end,
        end = watch_silence(&activity, &server.limits, |_| Ok(())) => end,
        end = until_refused(server, &hello) => end,
    }
}

/// Waits until a change of the own identity forbids the connection.
async fn until_refused(server: &Shared, hello: &Hello) -> End {
    let mut changes = server.identity.subscribe();
    loop {
        if hello::check(&server.identity, hello, hello.expected, false).is_err() {
            return End::IdentityChanged;
        }
        if changes.changed().await.is_err() {
            // Nobody can change it any more.
            std::future::pending::<()>().await;
        }
    }
}

/// A request's shares of the server's bounds.
struct Admitted {
    /// What its response is expected to come to.
    expected: Share,
    /// Bytes of the request, and its handler.
    _permits: [OwnedSemaphorePermit; 2],
}

struct Session<'a> {
    server: &'a Shared,
    caller: Caller,
    hello: Hello,
    reader: FrameReader<OwnedReadHalf>,
    queue: OutQueue,
    /// Bytes of responses that wait to be written.
    responses: Arc<Tally>,
    running: Running,
}

impl Session<'_> {
    async fn read_requests(&mut self) -> End {
        loop {
            if let Err(end) = self.read_one().await {
                return end;
            }
        }
    }

    async fn read_one(&mut self) -> Result<(), End> {
        let header = self.reader.header().await?;
        match header.kind {
            Kind::Request => self.request(header).await,
            Kind::OneWay => self.one_way(header).await,
            Kind::Cancel => {
                self.running.cancel(header.request);
                self.reader.skip(&header).await
            }
            Kind::Ping => {
                self.reader.skip(&header).await?;
                self.push(Frame::bare(Header::new(Kind::Pong))).await;
                Ok(())
            }
            Kind::Pong => self.reader.skip(&header).await,
            Kind::Hello | Kind::Refusal | Kind::Response | Kind::Error | Kind::Overloaded => {
                Err(DecodeError::Unexpected(header.kind).into())
            }
        }
    }

    async fn one_way(&mut self, header: Header) -> Result<(), End> {
        let Some(node) = self.caller.node else {
            return Err(DecodeError::Unexpected(Kind::OneWay).into());
        };
        let status = &self.server.status;
        let handler = self.server.router.one_way_handler(header.method);
        // A message between processes that do not both know that they share a cluster is nobody's.
        let same_cluster = self.hello.cluster == self.server.identity.get().cluster;
        let Some(handler) = handler.filter(|_| same_cluster) else {
            status.one_way_dropped_total.increment();
            return self.reader.skip(&header).await;
        };
        let (_, payload) = self.reader.payload(&header).await?;
        status.one_way_total.increment();
        handler(node, payload);
        Ok(())
    }

    async fn request(&mut self, header: Header) -> Result<(), End> {
        let id = header.request;
        if self.running.contains(id) {
            return Err(DecodeError::DuplicateRequest(id).into());
        }
        // A peer that does not read its responses is not read from either.
        self.responses.below(self.server.limits.queued_bytes_max).await;
        let handler = self.server.router.call_handler(header.method).cloned();
        let expected_bytes = handler.as_ref().map_or(0, |handler| handler.expected_bytes());
        let Some(admitted) = self.admit(&header, expected_bytes) else {
            self.server.status.calls_overloaded_total.increment();
            self.reader.skip(&header).await?;
            self.push(Frame::bare(Header::new(Kind::Overloaded).request(id))).await;
            return Ok(());
        };
        let Some(handler) = handler else {
            self.reader.skip(&header).await?;
            let message = format!(
                "the node does not know method {}; it may run an older version or not that service",
                header.method
            );
            let error = RemoteError::new(RemoteCode::Unsupported, message);
            self.push(error_frame(id, error)).await;
            return Ok(());
        };
        let (head, body) = self.reader.payload(&header).await?;
        self.start(header, handler, head, body, admitted);
        Ok(())
    }

    /// The request's shares of the server's bounds, before a byte of its payload is read.
    fn admit(&self, header: &Header, expected_bytes: usize) -> Option<Admitted> {
        let Shared { limits, status, handlers, handler_bytes, .. } = self.server;
        if self.running.len() >= self.hello.class.calls_in_flight_max() {
            return None;
        }
        let response_bytes = status.response_bytes.get() + expected_bytes as u64;
        if response_bytes > limits.response_bytes_max as u64 {
            return None;
        }
        let bytes = u32::try_from(header.payload_length()).ok()?;
        let bytes = Arc::clone(handler_bytes).try_acquire_many_owned(bytes).ok()?;
        let handler = Arc::clone(handlers).try_acquire_owned().ok()?;
        let expected = Share::expected(status, expected_bytes);
        Some(Admitted { expected, _permits: [bytes, handler] })
    }

    fn start(
        &self,
        header: Header,
        handler: Arc<CallHandler>,
        head: Bytes,
        body: Bytes,
        admitted: Admitted,
    ) {
        let caller = self.caller;
        let (queue, responses) = (self.queue.clone(), Arc::clone(&self.responses));
        let status = Arc::clone(&self.server.status);
        let (entry, registration) = self.running.enter(header.request);
        let work = async move {
            let call = AssertUnwindSafe(async { handler.handle(caller, head, body).await });
            let answer = call.catch_unwind().await.unwrap_or_else(|_| {
                status.handlers_panicked_total.increment();
                Err(RemoteError::new(
                    RemoteCode::Internal,
                    "the handler panicked; the node's log says where",
                ))
            });
            let frame = answer_frame(header.request, answer);
            handler.answered(frame.len());
            let Admitted { expected, _permits } = admitted;
            drop(expected);
            let share = Share::made(&status, &responses, frame.len());
            let permit = queue.reserve(frame.len()).await;
            // Off the list before the caller can see the answer and call again.
            drop(entry);
            queue.push(Outgoing { share: Some(share), ..Outgoing::data(frame, permit) });
        };
        let status = Arc::clone(&self.server.status);
        tokio::spawn(Abortable::new(
            within_deadline(header.timeout_ms, work, status),
            registration,
        ));
    }

    /// Queues a frame that the reader itself answers, waiting for room: a peer that does not read
    /// its answers is not read from either.
    async fn push(&self, frame: Frame) {
        let permit = self.queue.reserve(frame.len()).await;
        self.queue.push(Outgoing::data(frame, permit));
    }
}

/// Runs a handler until its caller no longer waits. 0 ms means no deadline.
async fn within_deadline(
    timeout_ms: u32,
    work: impl Future<Output = ()>,
    status: Arc<TransportStatus>,
) {
    if timeout_ms == 0 {
        return work.await;
    }
    let timeout = Duration::from_millis(timeout_ms.into());
    if tokio::time::timeout(timeout, work).await.is_err() {
        status.calls_timed_out_total.increment();
    }
}

fn answer_frame(id: u64, answer: crate::router::Answer) -> Frame {
    let (head, body) = match answer {
        Ok(answer) => answer,
        Err(error) => return error_frame(id, error),
    };
    Frame::seal(Header::new(Kind::Response).request(id), head, body).unwrap_or_else(|error| {
        let message = format!("the response is too large: {error}");
        error_frame(id, RemoteError::new(RemoteCode::Internal, message))
    })
}

fn error_frame(id: u64, error: RemoteError) -> Frame {
    let header = Header::new(Kind::Error).request(id);
    let code = error.code;
    let sealed = head_after_header(&error)
        .ok()
        .and_then(|head| Frame::seal(header, head, Bytes::new()).ok());
    sealed.unwrap_or_else(|| {
        let error = RemoteError::new(code, "the error's description is too large to send");
        let head = head_after_header(&error).expect("a short error serializes");
        Frame::seal(header, head, Bytes::new()).expect("a short error fits into a frame")
    })
}

/// The requests of one connection that are in their handlers. Dropping it drops them.
struct Running {
    requests: Arc<Mutex<Requests>>,
    status: Arc<TransportStatus>,
}

/// The handlers by the number of their request, each with its own serial number: a peer may use
/// the request's number again before a cancelled handler is gone.
#[derive(Default)]
struct Requests {
    handlers: BTreeMap<u64, (u64, AbortHandle)>,
    started: u64,
}

/// A request's place on the list; leaves it when the handler's task ends in whatever way.
struct Entry {
    id: u64,
    serial: u64,
    requests: Arc<Mutex<Requests>>,
    status: Arc<TransportStatus>,
}

impl Running {
    fn new(status: Arc<TransportStatus>) -> Self {
        Self { requests: Arc::default(), status }
    }

    fn len(&self) -> usize {
        lock(&self.requests).handlers.len()
    }

    fn contains(&self, id: u64) -> bool {
        lock(&self.requests).handlers.contains_key(&id)
    }

    fn enter(&self, id: u64) -> (Entry, futures::future::AbortRegistration) {
        let (handle, registration) = AbortHandle::new_pair();
        let serial = {
            let mut requests = lock(&self.requests);
            requests.started += 1;
            let serial = requests.started;
            let before = requests.handlers.insert(id, (serial, handle));
            assert!(before.is_none(), "a request's number is checked before it starts");
            serial
        };
        self.status.calls_total.increment();
        self.status.calls_in_flight.increment();
        let requests = Arc::clone(&self.requests);
        let entry = Entry { id, serial, requests, status: Arc::clone(&self.status) };
        (entry, registration)
    }

    fn cancel(&self, id: u64) {
        let cancelled = lock(&self.requests).handlers.remove(&id);
        if let Some((_, handle)) = cancelled {
            self.status.calls_cancelled_total.increment();
            handle.abort();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let handlers = std::mem::take(&mut lock(&self.requests).handlers);
        self.status.calls_cancelled_total.add(handlers.len() as u64);
        for (_, handle) in handlers.into_values() {
            handle.abort();
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut requests = lock(&self.requests);
        if requests.handlers.get(&self.id).is_some_and(|(serial, _)| *serial == self.serial) {
            requests.handlers.remove(&self.id);
        }
        drop(requests);
        self.status.calls_in_flight.decrement();
    }
}
