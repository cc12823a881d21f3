//! The way to one peer for one class: connects when needed, and not too often.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use onefold_types::NodeId;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout};

use crate::complaints::SharedComplaints;
use crate::connection::{Connection, Established};
use crate::frame::{
    DecodeError, Frame, HEADER_BYTES, Header, Kind, PAYLOAD_BYTES_MAX, empty_head,
    head_after_header,
};
use crate::hello::{self, HELLO_BYTES_MAX, Hello, Refusal};
use crate::peers::Routes;
use crate::wire::{Activity, End, FrameReader, Outgoing, lock};
use crate::{CallError, Class, IdentityCell, Limits, MethodId, TransportStatus};

/// What all links of a process share.
pub(crate) struct Context {
    pub(crate) identity: Arc<IdentityCell>,
    pub(crate) limits: Limits,
    pub(crate) routes: Routes,
    pub(crate) status: Arc<TransportStatus>,
    pub(crate) complaints: Arc<SharedComplaints>,
    pub(crate) runtime: tokio::runtime::Handle,
}

/// One peer and class.
pub(crate) struct Link {
    context: Arc<Context>,
    expected: Option<NodeId>,
    address: String,
    class: Class,
    state: Mutex<State>,
    one_way_messages: Arc<Semaphore>,
    one_way_bytes: Arc<Semaphore>,
}

struct State {
    phase: Phase,
    /// Attempts that failed since the last connection that held.
    failures: u32,
    /// No attempt before this.
    retry_at: Instant,
    /// Why there is no connection.
    error: Option<ConnectError>,
}

enum Phase {
    Idle,
    Connecting { waiters: Vec<Waiter>, backlog: Vec<Outgoing> },
    Open(Arc<Connection>),
}

/// A call that waits for a connection.
type Waiter = oneshot::Sender<Result<Arc<Connection>, ConnectError>>;

/// Why there is no connection; the same for all who waited for it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ConnectError {
    Unreachable { kind: io::ErrorKind, message: String },
    Refused(Refusal),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Unreachable { kind: error.kind(), message: error.to_string() }
    }
}

impl ConnectError {
    fn unreachable(kind: io::ErrorKind, message: &str) -> Self {
        Self::Unreachable { kind, message: message.to_owned() }
    }

    fn into_call_error(self, address: &str) -> CallError {
        let address = address.to_owned();
        match self {
            Self::Unreachable { kind, message } => {
                CallError::Unreachable { address, source: io::Error::new(kind, message) }
            }
            Self::Refused(reason) => CallError::Refused { address, reason },
        }
    }
}

impl Link {
    pub(crate) fn new(
        context: Arc<Context>,
        expected: Option<NodeId>,
        address: String,
        class: Class,
    ) -> Arc<Self> {
        let permits = |bound: usize| Arc::new(Semaphore::new(bound.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self {
            expected,
            address,
            class,
            state: Mutex::new(State {
                phase: Phase::Idle,
                failures: 0,
                retry_at: Instant::now(),
                error: None,
            }),
            one_way_messages: permits(context.limits.one_way_messages_max),
            one_way_bytes: permits(context.limits.one_way_bytes_max),
            context,
        })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Whether a connection is open now.
    pub(crate) fn is_open(&self) -> bool {
        matches!(&lock(&self.state).phase, Phase::Open(open) if open.ended().is_none())
    }

    /// The open connection, or a new one. Fails at once while a failed attempt is fresh.
    pub(crate) async fn connection(self: &Arc<Self>) -> Result<Arc<Connection>, CallError> {
        let receiver = {
            let mut state = lock(&self.state);
            self.refresh(&mut state);
            match &mut state.phase {
                Phase::Open(open) => return Ok(Arc::clone(open)),
                Phase::Connecting { waiters, .. } => {
                    let (sender, receiver) = oneshot::channel();
                    waiters.push(sender);
                    receiver
                }
                Phase::Idle => {
                    if let Some(error) = state.error_while_backing_off() {
                        return Err(error.into_call_error(&self.address));
                    }
                    let (sender, receiver) = oneshot::channel();
                    self.start(&mut state, vec![sender], Vec::new());
                    receiver
                }
            }
        };
        let outcome = receiver.await.unwrap_or_else(|_| {
            Err(ConnectError::unreachable(io::ErrorKind::Other, "this process is shutting down"))
        });
        outcome.map_err(|error| error.into_call_error(&self.address))
    }

    /// Queues a one-way message if the bounds and the state of the connection allow it.
    pub(crate) fn send(self: &Arc<Self>, method: MethodId, payload: Bytes) -> bool {
        let length = HEADER_BYTES + payload.len();
        let Ok(share) = u32::try_from(length) else {
            return false;
        };
        let Ok(message) = Arc::clone(&self.one_way_messages).try_acquire_owned() else {
            return false;
        };
        let Ok(bytes) = Arc::clone(&self.one_way_bytes).try_acquire_many_owned(share) else {
            return false;
        };
        let header = Header::new(Kind::OneWay).method(method);
        let Ok(frame) = Frame::seal(header, empty_head(), payload) else {
            return false;
        };
        let permits = [Some(message), Some(bytes)];
        let outgoing = Outgoing { one_way: true, permits, ..Outgoing::control(frame) };

        let mut state = lock(&self.state);
        self.refresh(&mut state);
        let backing_off = state.error_while_backing_off().is_some();
        match &mut state.phase {
            Phase::Open(open) => open.push_one_way(outgoing),
            Phase::Connecting { backlog, .. } => {
                backlog.push(outgoing);
                true
            }
            Phase::Idle if backing_off => false,
            Phase::Idle => {
                self.start(&mut state, Vec::new(), vec![outgoing]);
                true
            }
        }
    }

    /// Lets go of a connection that ended or that carries an old identity.
    fn refresh(&self, state: &mut State) {
        let Phase::Open(open) = &state.phase else {
            return;
        };
        if let Some(ended) = open.ended() {
            let held = ended.unused || open.opened_at.elapsed() >= self.context.limits.backoff_max;
            let error = ConnectError::unreachable(io::ErrorKind::ConnectionReset, &ended.reason);
            state.phase = Phase::Idle;
            if held {
                state.failures = 0;
                state.error = None;
            } else {
                // A peer that accepts and hangs up again is not to be dialled in a tight loop.
                self.back_off(state, error);
            }
        } else if open.identity != self.context.identity.get() {
            state.phase = Phase::Idle;
        }
    }

    fn start(self: &Arc<Self>, state: &mut State, waiters: Vec<Waiter>, backlog: Vec<Outgoing>) {
        state.phase = Phase::Connecting { waiters, backlog };
        let link = Arc::clone(self);
        self.context.runtime.spawn(async move {
            let outcome = link.connect().await;
            link.finish(outcome);
        });
    }

    /// Tells all who wait how the attempt went.
    fn finish(&self, outcome: Result<Arc<Connection>, ConnectError>) {
        let mut state = lock(&self.state);
        let Phase::Connecting { waiters, backlog } =
            std::mem::replace(&mut state.phase, Phase::Idle)
        else {
            unreachable!("only the attempt itself ends the phase of connecting");
        };
        match &outcome {
            Ok(open) => {
                for outgoing in backlog {
                    open.push_one_way(outgoing);
                }
                state.phase = Phase::Open(Arc::clone(open));
                state.error = None;
            }
            Err(error) => {
                self.report(error);
                self.context.status.one_way_dropped_total.add(backlog.len() as u64);
                self.back_off(&mut state, error.clone());
            }
        }
        drop(state);
        for waiter in waiters {
            // Whoever stopped waiting does not need the connection.
            let _ = waiter.send(outcome.clone());
        }
    }

    fn back_off(&self, state: &mut State, error: ConnectError) {
        let limits = &self.context.limits;
        let pause = limits.backoff_min.saturating_mul(1 << state.failures.min(16));
        state.retry_at = Instant::now() + pause.min(limits.backoff_max);
        state.failures = state.failures.saturating_add(1);
        state.error = Some(error);
    }

    /// Counts a failed attempt, and logs a refusal that is news.
    fn report(&self, error: &ConnectError) {
        let Context { status, complaints, .. } = &*self.context;
        let (address, class) = (&self.address, self.class);
        match error {
            ConnectError::Refused(reason) => {
                status.handshakes_refused_total.increment(reason.kind());
                if complaints.is_news(address, reason.kind()) {
                    tracing::warn!(%address, ?class, %reason, "a connection was refused");
                }
            }
            ConnectError::Unreachable { message, .. } => {
                status.connect_failures_total.increment();
                tracing::debug!(%address, ?class, %message, "cannot connect");
            }
        }
    }

    async fn connect(&self) -> Result<Arc<Connection>, ConnectError> {
        let limits = &self.context.limits;
        let late = |what| ConnectError::unreachable(io::ErrorKind::TimedOut, what);
        let dialled = self.context.routes.get(&self.address).unwrap_or(&self.address);
        let stream = timeout(limits.connect_timeout, TcpStream::connect(dialled.as_str()))
            .await
            .map_err(|_| late("no answer to the attempt to connect"))??;
        stream.set_nodelay(true)?;
        let socket = timeout(limits.handshake_timeout, self.handshake(stream))
            .await
            .map_err(|_| late("connected, but nobody answered the hello"))??;
        Ok(Connection::start(socket, &self.context))
    }

    async fn handshake(&self, stream: TcpStream) -> Result<Established, ConnectError> {
        let identity = self.context.identity.get();
        let process = self.context.identity.process();
        let hello = Hello {
            cluster: identity.cluster,
            node: identity.node,
            process,
            expected: self.expected,
            class: self.class,
        };
        let peer = stream.peer_addr()?;
        let activity = Arc::new(Activity::default());
        let status = Arc::clone(&self.context.status);
        let (reader, mut writer) = stream.into_split();
        let mut reader = FrameReader::new(reader, HELLO_BYTES_MAX, Arc::clone(&activity), status);
        writer.write_all(&hello_frame(Kind::Hello, &hello).prefix).await?;

        let theirs = read_welcome(&mut reader).await?;
        hello::check(&self.context.identity, &theirs, self.expected, true)
            .map_err(ConnectError::Refused)?;
        reader.set_payload_max(PAYLOAD_BYTES_MAX);
        let address = self.address.clone();
        Ok(Established { address, peer, class: self.class, identity, reader, writer, activity })
    }
}

impl State {
    /// The error of the last attempt, while it is too early for another one.
    fn error_while_backing_off(&self) -> Option<ConnectError> {
        self.error.clone().filter(|_| Instant::now() < self.retry_at)
    }
}

/// A frame of the handshake.
pub(crate) fn hello_frame<T: serde::Serialize>(kind: Kind, head: &T) -> Frame {
    let head = head_after_header(head).expect("a plain struct serializes");
    Frame::seal(Header::new(kind), head, Bytes::new()).expect("a hello is far smaller than a frame")
}

/// The listener's hello, or why there is none.
async fn read_welcome<R: tokio::io::AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
) -> Result<Hello, ConnectError> {
    let stranger = |message: &str| ConnectError::unreachable(io::ErrorKind::InvalidData, message);
    let answer = async {
        let header = reader.header().await?;
        let (head, _) = reader.payload(&header).await?;
        Ok::<_, End>((header.kind, head))
    };
    match answer.await {
        Ok((Kind::Hello, head)) => postcard::from_bytes(&head)
            .map_err(|error| stranger(&format!("its hello does not decode: {error}"))),
        Ok((Kind::Refusal, head)) => {
            let refusal = postcard::from_bytes(&head);
            Err(ConnectError::Refused(
                refusal.unwrap_or_else(|error| Refusal::Unknown(error.to_string())),
            ))
        }
        Ok((kind, _)) => Err(stranger(&format!("it answered the hello with {kind:?}"))),
        Err(End::Malformed(DecodeError::Version(listener))) => {
            Err(ConnectError::Refused(Refusal::version_of_listener(listener)))
        }
        Err(End::Io(error)) => Err(error.into()),
        Err(end @ End::Closed) => Err(ConnectError::unreachable(
            io::ErrorKind::ConnectionReset,
            &format!("{end} before it said hello"),
        )),
        Err(end) => Err(stranger(&end.to_string())),
    }
}
