//! The listener: connections, HTTP settings, what is served, shutdown.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use onefold_kv::Kv;
use onefold_kv::limits::{REQUEST_BYTES_MAX, TXN_OPERATIONS_MAX};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tower::layer::util::{Identity, Stack};
use tracing::warn;

use crate::choice::{Choice, ChooseLayer};
use crate::connections;
use crate::gateway::Gateway;
use crate::keyspace::{Directory, Keyspace, NoOther, Served};
use crate::metrics::CountCallsLayer;
use crate::proto::etcdserverpb::auth_server::AuthServer;
use crate::proto::etcdserverpb::cluster_server::ClusterServer;
use crate::proto::etcdserverpb::kv_server::KvServer;
use crate::proto::etcdserverpb::lease_server::LeaseServer;
use crate::proto::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::proto::etcdserverpb::watch_server::WatchServer;
use crate::proto::health::health_server::HealthServer;
use crate::proto::v3electionpb::election_server::ElectionServer;
use crate::proto::v3lockpb::lock_server::LockServer;
use crate::room::Room;
use crate::{ClusterControl, ClusterView};

/// Most calls at once on a connection; a client waits with further ones.
const STREAMS_PER_CONNECTION_MAX: u32 = 16_384;

/// Bytes that a client may send ahead in one call.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// Bytes that a client may send ahead on one connection.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Most bytes of a call's metadata.
const METADATA_BYTES_MAX: u32 = 16 << 10;

/// How long a connection may be silent before the client is asked whether it is there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// How long a client may take to answer that.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long calls in work may take to end after the shutdown.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// What can be chosen about the service.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often a watch that asked for it hears of progress when it has no events. Etcd's
    /// `--watch-progress-notify-interval`.
    pub progress_interval: Duration,
    /// Where a snapshot is put together before it is sent: it takes as much room as the store.
    pub scratch_dir: PathBuf,
    /// Most bytes in a request. Etcd's `--max-request-bytes`.
    pub request_bytes_max: usize,
    /// Most operations in a transaction. Etcd's `--max-txn-ops`.
    pub txn_operations_max: usize,
}

impl Options {
    /// Most bytes of a message that are read at all. Between the bound of requests and this one a
    /// client gets etcd's own error.
    pub(crate) fn message_bytes_max(&self) -> usize {
        2 * self.request_bytes_max
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            progress_interval: Duration::from_secs(600),
            scratch_dir: std::env::temp_dir(),
            request_bytes_max: REQUEST_BYTES_MAX,
            txn_operations_max: TXN_OPERATIONS_MAX,
        }
    }
}

/// Why serving ended.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The HTTP/2 server failed.
    #[error("the etcd API on {address} cannot be served: {source}; restart the node")]
    Transport {
        /// Where it listened.
        address: SocketAddr,
        /// What failed.
        source: tonic::transport::Error,
    },
    /// The listener is not usable.
    #[error("the listener of the etcd API is not usable: {0}; restart the node")]
    Listener(#[from] std::io::Error),
}

/// Serves the etcd API on `listener` until `shutdown`, with the default [`Options`].
///
/// # Errors
/// When the listener or the server fails.
pub async fn serve(
    listener: TcpListener,
    kv: Arc<dyn Kv>,
    cluster: Arc<dyn ClusterView>,
    control: Arc<dyn ClusterControl>,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    serve_with(listener, kv, cluster, control, Options::default(), shutdown).await
}

/// Serves one keyspace on `listener` until `shutdown`, as [`serve_keyspace`] does.
///
/// # Errors
/// When the listener or the server fails.
pub async fn serve_with(
    listener: TcpListener,
    kv: Arc<dyn Kv>,
    cluster: Arc<dyn ClusterView>,
    control: Arc<dyn ClusterControl>,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let (name, bounds) = ("default".to_owned(), (options, Room::default()));
    let keyspace = Keyspace::new(name, kv, cluster, control, bounds, shutdown.clone());
    serve_keyspace(listener, Arc::new(keyspace), Arc::new(NoOther), shutdown).await
}

/// Serves a keyspace on `listener` until `shutdown`, to gRPC and to plain HTTP clients, and those of
/// `others` to clients that choose them. Calls in work then have a few seconds to end; streams are
/// told that the server stopped once their keyspace is closed.
///
/// # Errors
/// When the listener or the server fails.
pub async fn serve_keyspace(
    listener: TcpListener,
    keyspace: Arc<Keyspace>,
    others: Arc<dyn Directory>,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let address = listener.local_addr()?;
    let metrics = Arc::clone(&keyspace.served().gateway.metrics);
    let served = router(keyspace, others).serve_with_incoming_shutdown(
        connections::accept(listener, metrics),
        shutdown.clone().cancelled_owned(),
    );
    let drained = async {
        shutdown.cancelled().await;
        time::sleep(DRAIN_TIME_MAX).await;
    };
    tokio::select! {
        result = served => result.map_err(|source| ServeError::Transport { address, source }),
        () = drained => {
            warn!(%address, "calls of the etcd API were cut off at the shutdown");
            Ok(())
        }
    }
}

fn router(
    keyspace: Arc<Keyspace>,
    others: Arc<dyn Directory>,
) -> Router<Stack<CountCallsLayer, Stack<ChooseLayer, Identity>>> {
    let Served { gateway, routes } = keyspace.served();
    let (metrics, routes) = (Arc::clone(&gateway.metrics), routes.clone());
    Server::builder()
        // Plain HTTP clients mostly speak HTTP/1.1.
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .http2_max_header_list_size(METADATA_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .layer(ChooseLayer(Choice::new(keyspace, others)))
        .layer(CountCallsLayer(metrics))
        .add_routes(routes)
}

/// The gRPC services of a keyspace.
pub(crate) fn services(gateway: &Gateway) -> Routes {
    let maximum = gateway.options.message_bytes_max();
    Routes::default()
        .add_service(KvServer::new(gateway.clone()).max_decoding_message_size(maximum))
        .add_service(WatchServer::new(gateway.clone()).max_decoding_message_size(maximum))
        .add_service(LeaseServer::new(gateway.clone()).max_decoding_message_size(maximum))
        .add_service(ClusterServer::new(gateway.clone()).max_decoding_message_size(maximum))
        .add_service(MaintenanceServer::new(gateway.clone()).max_decoding_message_size(maximum))
        .add_service(AuthServer::new(gateway.clone()).max_decoding_message_size(maximum))
        .add_service(LockServer::new(gateway.clone()).max_decoding_message_size(maximum))
        .add_service(ElectionServer::new(gateway.clone()).max_decoding_message_size(maximum))
        .add_service(HealthServer::new(gateway.clone()).max_decoding_message_size(maximum))
}
