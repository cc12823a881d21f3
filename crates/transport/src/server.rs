//! The inbound side: the listener.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{IdentityCell, Limits, Router, ServeError, TransportStatus};

/// A listener on the peer port.
pub struct Server {}

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
        todo!("{address} {limits:?}")
    }

    /// Where it listens, with the port that was taken.
    pub fn local_address(&self) -> SocketAddr {
        todo!()
    }

    /// What was received and answered so far.
    pub fn status(&self) -> Arc<TransportStatus> {
        todo!()
    }

    /// Serves connections until `shutdown` is cancelled; then closes them all, drops the handlers
    /// that still run, and returns.
    pub async fn serve(
        self,
        identity: Arc<IdentityCell>,
        router: Router,
        shutdown: CancellationToken,
    ) {
        let _ = (identity, router, shutdown);
        todo!()
    }
}
