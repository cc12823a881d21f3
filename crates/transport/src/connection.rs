//! One open outbound connection: the calls that wait on it, and the task that drives it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::complaints::SharedComplaints;
use crate::frame::{DecodeError, Frame, Header, Kind};
use crate::link::Context;
use crate::wire::{
    Activity, End, FrameReader, OutQueue, Outgoing, Tick, WeakOutQueue, lock, out_queue,
    watch_silence, write_frames,
};
use crate::{CallError, Class, Identity, Limits, MethodId, RemoteError, TransportStatus};

/// An open connection. Its task ends when the last holder lets go of it.
pub(crate) struct Connection {
    address: String,
    /// As whom this process introduced itself.
    pub(crate) identity: Identity,
    pub(crate) opened_at: Instant,
    queue: OutQueue,
    slots: Semaphore,
    next_request: AtomicU64,
    shared: Arc<Shared>,
}

/// What the connection's holders share with its task.
struct Shared {
    calls: Mutex<Calls>,
    /// Calls and messages that were queued.
    used: AtomicU64,
    status: Arc<TransportStatus>,
    complaints: Arc<SharedComplaints>,
}

#[derive(Default)]
struct Calls {
    waiting: BTreeMap<u64, Waiting>,
    ended: Option<Ended>,
}

/// That a connection ended.
#[derive(Clone)]
pub(crate) struct Ended {
    pub(crate) reason: String,
    /// Whether this side closed it because nobody used it.
    pub(crate) unused: bool,
}

struct Waiting {
    answer: oneshot::Sender<Reply>,
    /// Whether writing the request has begun.
    started: bool,
}

enum Reply {
    Response { head: Bytes, body: Bytes },
    Error { head: Bytes },
    Overloaded,
    Ended { reason: String, unsent: bool },
}

/// What is needed to make one call.
pub(crate) struct Request {
    pub(crate) method: MethodId,
    pub(crate) name: &'static str,
    /// The head, after room for the header.
    pub(crate) head: Vec<u8>,
    pub(crate) body: Bytes,
    pub(crate) deadline: Instant,
    pub(crate) timeout: Duration,
}

/// The parts of a socket after its handshake.
pub(crate) struct Established {
    pub(crate) address: String,
    pub(crate) peer: SocketAddr,
    pub(crate) class: Class,
    pub(crate) identity: Identity,
    pub(crate) reader: FrameReader<OwnedReadHalf>,
    pub(crate) writer: OwnedWriteHalf,
    pub(crate) activity: Arc<Activity>,
}

impl Connection {
    /// Takes over a socket after its handshake and starts the task that drives it.
    pub(crate) fn start(socket: Established, context: &Context) -> Arc<Self> {
        let Context { limits, status, complaints, .. } = context;
        let (queue, receiver) = out_queue(limits.queued_bytes_max);
        let shared = Arc::new(Shared {
            calls: Mutex::default(),
            used: AtomicU64::new(0),
            status: Arc::clone(status),
            complaints: Arc::clone(complaints),
        });
        let connection = Self {
            address: socket.address.clone(),
            identity: socket.identity,
            opened_at: Instant::now(),
            slots: Semaphore::new(socket.class.calls_in_flight_max()),
            next_request: AtomicU64::new(1),
            shared: Arc::clone(&shared),
            queue,
        };
        let signs = connection.queue.downgrade();
        tokio::spawn(drive(socket, receiver, signs, shared, limits.clone()));
        Arc::new(connection)
    }

    /// How the connection ended, once it has.
    pub(crate) fn ended(&self) -> Option<Ended> {
        lock(&self.shared.calls).ended.clone()
    }

    /// Queues a one-way message, which already holds its share of the bounds.
    pub(crate) fn push_one_way(&self, outgoing: Outgoing) -> bool {
        self.shared.used.fetch_add(1, Ordering::Relaxed);
        self.queue.push(outgoing)
    }

    /// Makes a call and waits for its answer. Dropping the future cancels it.
    pub(crate) async fn call(&self, request: Request) -> Result<(Bytes, Bytes), CallError> {
        let Request { method, name, head, body, deadline, timeout } = request;
        let address = &self.address;
        let timed_out = |unsent| {
            self.shared.status.calls_timed_out_total.increment();
            CallError::TimedOut { address: address.clone(), method: name, timeout, unsent }
        };
        let protocol = |reason: String, unsent| CallError::Protocol {
            address: address.clone(),
            method: name,
            reason,
            unsent,
        };

        let Ok(slot) = timeout_at(deadline, self.slots.acquire()).await else {
            return Err(timed_out(true));
        };
        let _slot = slot.expect("the semaphore is never closed");
        let id = self.next_request.fetch_add(1, Ordering::Relaxed);
        let header = Header::new(Kind::Request)
            .method(method)
            .request(id)
            .timeout_ms(milliseconds_left(deadline));
        let frame =
            Frame::seal(header, head, body).map_err(|error| protocol(error.to_string(), true))?;
        let Ok(permit) = timeout_at(deadline, self.queue.reserve(frame.len())).await else {
            return Err(timed_out(true));
        };

        let (mut call, answer) = InFlight::register(self, id);
        let outgoing = Outgoing { starts_call: Some(id), ..Outgoing::data(frame, permit) };
        self.queue.push(outgoing);
        let Ok(reply) = timeout_at(deadline, answer).await else {
            return Err(timed_out(call.withdraw()));
        };
        match reply.expect("whoever takes a call off the list answers it") {
            Reply::Response { head, body } => Ok((head, body)),
            Reply::Error { head } => Err(match postcard::from_bytes::<RemoteError>(&head) {
                Ok(error) => CallError::Remote(error),
                Err(error) => protocol(format!("its error does not decode: {error}"), false),
            }),
            Reply::Overloaded => {
                self.shared.status.calls_overloaded_total.increment();
                Err(CallError::Overloaded { address: address.clone(), method: name })
            }
            Reply::Ended { reason, unsent } => Err(CallError::Disconnected {
                address: address.clone(),
                method: name,
                reason,
                unsent,
            }),
        }
    }
}

/// The time to a deadline, rounded up; at least one millisecond, since 0 means no deadline.
fn milliseconds_left(deadline: Instant) -> u32 {
    let left = deadline.saturating_duration_since(Instant::now());
    u32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u32::MAX).max(1)
}

/// A call on the list of those that wait. Dropping it withdraws the call.
struct InFlight<'a> {
    connection: &'a Connection,
    id: u64,
}

impl<'a> InFlight<'a> {
    fn register(connection: &'a Connection, id: u64) -> (Self, oneshot::Receiver<Reply>) {
        let (answer, receiver) = oneshot::channel();
        connection.shared.used.fetch_add(1, Ordering::Relaxed);
        connection.shared.status.calls_total.increment();
        connection.shared.status.calls_in_flight.increment();
        let mut calls = lock(&connection.shared.calls);
        if let Some(Ended { reason, .. }) = calls.ended.clone() {
            // The receiver is at hand, two lines up: it cannot be gone.
            let _ = answer.send(Reply::Ended { reason, unsent: true });
        } else {
            calls.waiting.insert(id, Waiting { answer, started: false });
        }
        (Self { connection, id }, receiver)
    }

    /// Leaves the list of those that wait, and tells the peer if it may be working on the call.
    /// True when no byte of the request was or will be written.
    fn withdraw(&mut self) -> bool {
        let shared = &self.connection.shared;
        // One step with the removal: the writer drops what is no longer on the list.
        let Some(waiting) = lock(&shared.calls).waiting.remove(&self.id) else {
            return false;
        };
        shared.status.calls_cancelled_total.increment();
        if waiting.started {
            let header = Header::new(Kind::Cancel).request(self.id);
            self.connection.queue.push(Outgoing::control(Frame::bare(header)));
        }
        !waiting.started
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.connection.shared.status.calls_in_flight.decrement();
        self.withdraw();
    }
}

impl Shared {
    /// Whether a queued frame is still to be written. Notes the start of a call.
    fn wanted(&self, outgoing: &Outgoing) -> bool {
        let Some(id) = outgoing.starts_call else {
            return true;
        };
        match lock(&self.calls).waiting.get_mut(&id) {
            Some(waiting) => {
                waiting.started = true;
                true
            }
            None => false,
        }
    }

    fn answer(&self, id: u64, reply: Reply) {
        if let Some(waiting) = lock(&self.calls).waiting.remove(&id) {
            // A caller that went away this instant takes its answer with it.
            let _ = waiting.answer.send(reply);
        }
    }

    fn is_waiting(&self, id: u64) -> bool {
        lock(&self.calls).waiting.contains_key(&id)
    }

    /// Answers all calls that still wait.
    fn end(&self, end: &End) {
        let reason = end.to_string();
        let waiting = {
            let mut calls = lock(&self.calls);
            let unused = matches!(end, End::Unused);
            calls.ended = Some(Ended { reason: reason.clone(), unused });
            std::mem::take(&mut calls.waiting)
        };
        for (_, Waiting { answer, started }) in waiting {
            let _ = answer.send(Reply::Ended { reason: reason.clone(), unsent: !started });
        }
    }
}

async fn drive(
    mut socket: Established,
    mut queue: mpsc::UnboundedReceiver<Outgoing>,
    signs: WeakOutQueue,
    shared: Arc<Shared>,
    limits: Limits,
) {
    let status = Arc::clone(&shared.status);
    status.connections_total.increment();
    status.connections_open.increment();
    let mut unused = UnusedWatch::new(&shared, &limits);
    let end = tokio::select! {
        end = read_answers(&mut socket.reader, &shared, &signs) => end,
        end = write_frames(&socket.writer, &mut queue, &socket.activity, &status, |outgoing| {
            shared.wanted(outgoing)
        }) => end,
        end = watch_silence(&socket.activity, &limits, |tick| {
            ping_when_quiet(tick, &signs);
            unused.tick()
        }) => end,
    };
    let Established { address, peer, class, .. } = &socket;
    match &end {
        End::Malformed(error) => {
            status.frames_malformed_total.increment(error.kind());
            if shared.complaints.is_news(address, error.kind()) {
                tracing::warn!(
                    %address, %peer, ?class, reason = %end,
                    "closed a connection; more of this kind from there is only counted"
                );
            }
        }
        End::Silent => {
            status.connections_silent_total.increment();
            tracing::debug!(%address, %peer, ?class, %end, "closed a connection");
        }
        _ => tracing::debug!(%address, %peer, ?class, %end, "closed a connection"),
    }
    shared.end(&end);
    queue.close();
    while let Ok(outgoing) = queue.try_recv() {
        if outgoing.one_way {
            status.one_way_dropped_total.increment();
        }
    }
    status.connections_open.decrement();
}

async fn read_answers(
    reader: &mut FrameReader<OwnedReadHalf>,
    shared: &Shared,
    signs: &WeakOutQueue,
) -> End {
    loop {
        if let Err(end) = read_answer(reader, shared, signs).await {
            return end;
        }
    }
}

async fn read_answer(
    reader: &mut FrameReader<OwnedReadHalf>,
    shared: &Shared,
    signs: &WeakOutQueue,
) -> Result<(), End> {
    let header = reader.header().await?;
    let reply = match header.kind {
        Kind::Pong => return reader.skip(&header).await,
        Kind::Ping => {
            signs.push_if_room(Frame::bare(Header::new(Kind::Pong)));
            return reader.skip(&header).await;
        }
        // Nobody waits any more: its bytes need no memory.
        Kind::Response | Kind::Error | Kind::Overloaded if !shared.is_waiting(header.request) => {
            return reader.skip(&header).await;
        }
        Kind::Response => {
            let (head, body) = reader.payload(&header).await?;
            Reply::Response { head, body }
        }
        Kind::Error => Reply::Error { head: reader.payload(&header).await?.0 },
        Kind::Overloaded => {
            reader.skip(&header).await?;
            Reply::Overloaded
        }
        Kind::Hello | Kind::Refusal | Kind::OneWay | Kind::Request | Kind::Cancel => {
            return Err(DecodeError::Unexpected(header.kind).into());
        }
    };
    shared.answer(header.request, reply);
    Ok(())
}

/// Asks for a sign of life, and gives one, when the last interval did not see both.
fn ping_when_quiet(tick: Tick, signs: &WeakOutQueue) {
    if !tick.received || !tick.sent {
        signs.push_if_room(Frame::bare(Header::new(Kind::Ping)));
    }
}

/// Notices that nobody uses a connection.
struct UnusedWatch<'a> {
    shared: &'a Shared,
    used: u64,
    ticks: u64,
    ticks_max: u64,
}

impl<'a> UnusedWatch<'a> {
    fn new(shared: &'a Shared, limits: &Limits) -> Self {
        let interval = limits.ping_interval.max(Duration::from_millis(1));
        let ticks_max = limits.unused_timeout.div_duration_f64(interval).ceil().max(1.0) as u64;
        Self { shared, used: 0, ticks: 0, ticks_max }
    }

    fn tick(&mut self) -> Result<(), End> {
        let used = self.shared.used.load(Ordering::Relaxed);
        let busy = !lock(&self.shared.calls).waiting.is_empty();
        self.ticks = if busy || used != self.used { 0 } else { self.ticks + 1 };
        self.used = used;
        if self.ticks >= self.ticks_max { Err(End::Unused) } else { Ok(()) }
    }
}
