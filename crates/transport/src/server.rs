//! The inbound side: the listener, and who may come in.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::complaints::SharedComplaints;
use crate::frame::{DecodeError, Kind, PAYLOAD_BYTES_MAX, VERSION};
use crate::hello::{self, HELLO_BYTES_MAX, Hello, Refusal};
use crate::link::hello_frame;
use crate::registry::{Registered, Registry};
use crate::session::{self, Accepted};
use crate::wire::{Activity, End, FrameReader};
use crate::{IdentityCell, Limits, Router, ServeError, TransportStatus};

/// Connections beyond [`Limits::connections_max`] that are being told so; more are just closed.
const REFUSALS_MAX: usize = 64;
/// How long a refused peer may take to read why.
const REFUSAL_LINGER: Duration = Duration::from_secs(1);
/// Pause after the system could not accept a connection (no file descriptors, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener on the peer port.
pub struct Server {
    listener: TcpListener,
    local_address: SocketAddr,
    limits: Limits,
    status: Arc<TransportStatus>,
}

impl Server {
    /// Listens on `host:port` with the default limits; port 0 takes a free one.
    ///
    /// # Errors
    /// When the port is in use or the address is not one of this machine.
    pub async fn bind(address: &str) -> Result<Self, ServeError> {
        Self::bind_with(address, Limits::default()).await
    }

    /// Listens on `host:port` within `limits`.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub async fn bind_with(address: &str, limits: Limits) -> Result<Self, ServeError> {
        let failed = |source: io::Error| {
            let address = address.to_owned();
            match source.kind() {
                ErrorKind::AddrInUse => ServeError::AddressInUse { address },
                _ => ServeError::Bind { address, source },
            }
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local_address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, local_address, limits, status: Arc::default() })
    }

    /// Where it listens, with the port that was taken.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// What was received and answered so far.
    pub fn status(&self) -> Arc<TransportStatus> {
        Arc::clone(&self.status)
    }

    /// Serves connections until `shutdown` is cancelled; then closes them all, drops the handlers
    /// that still run, and returns.
    pub async fn serve(
        self,
        identity: Arc<IdentityCell>,
        router: Router,
        shutdown: CancellationToken,
    ) {
        let permits = |bound: usize| Arc::new(Semaphore::new(bound.min(Semaphore::MAX_PERMITS)));
        let shared = Arc::new(Shared {
            handler_bytes: permits(self.limits.handler_bytes_max),
            handlers: permits(self.limits.handlers_max),
            registry: Registry::default(),
            complaints: SharedComplaints::default(),
            identity,
            router,
            limits: self.limits,
            status: self.status,
            shutdown,
        });
        accept_until_shutdown(&self.listener, &shared).await;
    }
}

/// What all connections of a server share.
pub(crate) struct Shared {
    pub(crate) identity: Arc<IdentityCell>,
    pub(crate) router: Router,
    pub(crate) limits: Limits,
    pub(crate) status: Arc<TransportStatus>,
    /// Bytes of requests that handlers may still be given.
    pub(crate) handler_bytes: Arc<Semaphore>,
    /// Handlers that may still be started.
    pub(crate) handlers: Arc<Semaphore>,
    registry: Registry,
    complaints: SharedComplaints,
    shutdown: CancellationToken,
}

async fn accept_until_shutdown(listener: &TcpListener, shared: &Arc<Shared>) {
    let connections = Arc::new(Semaphore::new(shared.limits.connections_max));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let mut tasks = JoinSet::new();
    loop {
        let (stream, address) = tokio::select! {
            () = shared.shutdown.cancelled() => break,
            Some(ended) = tasks.join_next() => {
                note_panic(ended, &shared.status);
                continue;
            }
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let shared = Arc::clone(shared);
        if let Ok(permit) = Arc::clone(&connections).try_acquire_owned() {
            tasks.spawn(async move {
                attend(stream, address, &shared, None).await;
                drop(permit);
            });
        } else if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
            let connections_max = shared.limits.connections_max as u64;
            let full = Refusal::Full { connections_max };
            tasks.spawn(async move {
                attend(stream, address, &shared, Some(full)).await;
                drop(permit);
            });
        }
    }
    while let Some(ended) = tasks.join_next().await {
        note_panic(ended, &shared.status);
    }
}

/// A panic in a one-way handler ends its connection and nothing else.
fn note_panic(ended: Result<(), tokio::task::JoinError>, status: &TransportStatus) {
    if ended.is_err_and(|error| error.is_panic()) {
        status.handlers_panicked_total.increment();
    }
}

/// The whole life of one connection. `refusal` is given when it must not stay in any case.
async fn attend(
    stream: TcpStream,
    address: SocketAddr,
    shared: &Arc<Shared>,
    refusal: Option<Refusal>,
) {
    let end = tokio::select! {
        () = shared.shutdown.cancelled() => End::ShuttingDown,
        end = greet_and_serve(stream, address, shared, refusal) => end,
    };
    match &end {
        End::Malformed(error) => {
            shared.status.frames_malformed_total.increment(error.kind());
            if shared.complaints.is_news(&address.ip().to_string(), error.kind()) {
                tracing::warn!(
                    %address, reason = %end,
                    "closed a connection; more of this kind from there is only counted"
                );
            }
        }
        End::Silent => {
            shared.status.connections_silent_total.increment();
            tracing::debug!(%address, %end, "closed a connection");
        }
        _ => tracing::debug!(%address, %end, "closed a connection"),
    }
}

async fn greet_and_serve(
    stream: TcpStream,
    address: SocketAddr,
    shared: &Arc<Shared>,
    refusal: Option<Refusal>,
) -> End {
    let greeting = greet(stream, address, shared, refusal);
    match timeout(shared.limits.handshake_timeout, greeting).await {
        Ok(Ok(accepted)) => {
            let _open = Open::new(&shared.status);
            session::serve(accepted, shared).await
        }
        Ok(Err(end)) => end,
        Err(_) => End::Silent,
    }
}

/// The listener's half of the handshake.
async fn greet(
    stream: TcpStream,
    address: SocketAddr,
    shared: &Arc<Shared>,
    refusal: Option<Refusal>,
) -> Result<Accepted, End> {
    stream.set_nodelay(true)?;
    let activity = Arc::new(Activity::default());
    let status = Arc::clone(&shared.status);
    let (reader, mut writer) = stream.into_split();
    let mut reader = FrameReader::new(reader, HELLO_BYTES_MAX, Arc::clone(&activity), status);

    let identity = shared.identity.get();
    let process = shared.identity.process();
    let verdict = match read_hello(&mut reader).await {
        Ok(hello) => match refusal {
            Some(refusal) => Err(refusal),
            None => hello::check(&shared.identity, &hello, hello.expected, false).map(|()| hello),
        },
        Err(End::Malformed(DecodeError::Version(dialler))) => {
            Err(Refusal::OtherVersion { dialler, listener: VERSION })
        }
        Err(end) => return Err(end),
    };
    let admitted = match verdict {
        Ok(hello) => shared.register(&hello).await.map(|registered| (hello, registered)),
        Err(refusal) => Err(refusal),
    };
    let (hello, registered) = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => return Err(shared.refuse(refusal, address, reader, writer).await),
    };

    let welcome =
        Hello { cluster: identity.cluster, node: identity.node, process, ..hello.clone() };
    writer.write_all(&hello_frame(Kind::Hello, &welcome).prefix).await?;
    reader.set_payload_max(PAYLOAD_BYTES_MAX);
    Ok(Accepted { address, hello, reader, writer, activity, registered })
}

async fn read_hello(reader: &mut FrameReader<OwnedReadHalf>) -> Result<Hello, End> {
    let header = reader.header().await?;
    if header.kind != Kind::Hello {
        return Err(DecodeError::Unexpected(header.kind).into());
    }
    let (head, _) = reader.payload(&header).await?;
    postcard::from_bytes(&head).map_err(|_| DecodeError::Hello.into())
}

impl Shared {
    /// Enters a dialling node, unless another process is connected as the same node.
    async fn register(&self, hello: &Hello) -> Result<Option<Registered>, Refusal> {
        let Some(node) = hello.node else {
            return Ok(None);
        };
        match self.registry.enter(node, hello.process).await {
            Some(registered) => Ok(Some(registered)),
            None => Err(Refusal::DuplicateNode { node }),
        }
    }

    /// Tells a peer why it cannot stay, and lets it read that before the socket closes.
    async fn refuse(
        &self,
        refusal: Refusal,
        address: SocketAddr,
        mut reader: FrameReader<OwnedReadHalf>,
        mut writer: OwnedWriteHalf,
    ) -> End {
        self.status.handshakes_refused_total.increment(refusal.kind());
        if self.complaints.is_news(&address.ip().to_string(), refusal.kind()) {
            tracing::warn!(%address, reason = %refusal, "refused a connection");
        }
        let farewell = async {
            writer.write_all(&hello_frame(Kind::Refusal, &refusal).prefix).await?;
            writer.shutdown().await?;
            // Closing with unread bytes would reset the connection and take the reason along.
            reader.drain().await
        };
        // Whether the peer stayed to hear the reason changes nothing.
        let _ = timeout(REFUSAL_LINGER, farewell).await;
        End::Refused(refusal)
    }
}

/// Counts a connection as open for as long as it lives.
struct Open<'a>(&'a TransportStatus);

impl<'a> Open<'a> {
    fn new(status: &'a TransportStatus) -> Self {
        status.connections_total.increment();
        status.connections_open.increment();
        Self(status)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connections_open.decrement();
    }
}
