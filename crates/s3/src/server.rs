//! The listener and its connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use onefold_files::{VersionedFiles, validate_bucket_name};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::validation::NameValidation;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::access::Policy;
use crate::admission::Admission;
use crate::config::Config;
use crate::credentials::{ConnectionAuth, Credentials};
use crate::front::{Front, Shared};
use crate::gateway::Gateway;
use crate::stall::StallGuard;

/// Bytes of a connection's read buffer, and so the bound on a request's headers.
const READ_BUFFER_BYTES: usize = 256 << 10;
/// Most headers of a request.
const HEADERS_MAX: usize = 200;
/// Pause after an accept that failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves S3 until `shutdown` is cancelled and the open requests are answered, or
/// [`Config::shutdown_grace`] is over.
pub async fn serve(
    listener: TcpListener,
    files: Arc<dyn VersionedFiles>,
    credentials: Arc<dyn Credentials>,
    config: Config,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(config.connections_max));
    let grace = config.shutdown_grace;
    let listening = Arc::new(Listening::new(files, credentials, config));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = shutdown.cancelled() => break,
        };
        let Some((stream, peer, place)) = accepted else { continue };
        let (listening, shutdown) = (Arc::clone(&listening), shutdown.clone());
        connections.spawn(async move {
            listening.connection(stream, peer, shutdown).await;
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, ended).await.is_err() {
        tracing::warn!("S3 requests were cut off by the shutdown");
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, place)),
        Err(error) => {
            tracing::warn!(%error, "an S3 connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// What every connection is made from.
struct Listening {
    gateway: Gateway,
    credentials: Arc<dyn Credentials>,
    library_config: Arc<StaticConfigProvider>,
    shared: Arc<Shared>,
}

impl Listening {
    fn new(
        files: Arc<dyn VersionedFiles>,
        credentials: Arc<dyn Credentials>,
        config: Config,
    ) -> Self {
        let admission = Arc::new(Admission::new(&config));
        let mut library = S3Config::default();
        library.xml_max_body_size = config.xml_bytes_max;
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            gateway: Gateway::new(Arc::clone(&files), Arc::clone(&admission)),
            credentials,
            library_config: Arc::new(StaticConfigProvider::new(Arc::new(library))),
            shared: Arc::new(Shared {
                config,
                admission,
                files,
                // Requests of different lives of a node have different ids.
                next_request: AtomicU64::new((started.as_secs() << 32) | 1),
            }),
        }
    }

    /// The service as this peer sees it: some keys work only on the node's own machine.
    fn service(&self, peer: SocketAddr) -> S3Service {
        let mut builder = S3ServiceBuilder::new(self.gateway.clone());
        builder.set_config(Arc::clone(&self.library_config) as Arc<_>);
        builder.set_auth(ConnectionAuth::new(Arc::clone(&self.credentials), peer.ip()));
        builder.set_access(Policy);
        builder.set_validation(BucketNames);
        builder.build()
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr, shutdown: CancellationToken) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, %peer, "TCP_NODELAY was refused");
        }
        let config = &self.shared.config;
        let io = TokioIo::new(StallGuard::new(stream, config.response_stall_timeout));
        let front = Front { service: self.service(peer), shared: Arc::clone(&self.shared) };
        let service = service_fn(move |request| front.clone().handle(request));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(config.header_timeout)
            .max_buf_size(READ_BUFFER_BYTES)
            .max_headers(HEADERS_MAX)
            .serve_connection(io, service);
        let mut connection = std::pin::pin!(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, %peer, "an S3 connection ended");
        }
    }
}

/// The one set of rules for bucket names.
struct BucketNames;

impl NameValidation for BucketNames {
    fn validate_bucket_name(&self, name: &str) -> bool {
        validate_bucket_name(name).is_ok()
    }
}
