//! Accepting connections, up to a bound.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::warn;

use crate::authority::{self, AuthorityRepair};
use crate::metrics::Metrics;

/// Most connections at once; further ones are closed as soon as they are made.
const CONNECTIONS_MAX: usize = 20_000;

/// How long to wait after the system had no room for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections that come in on `listener`, without end.
pub(crate) fn accept(
    listener: TcpListener,
    metrics: Arc<Metrics>,
) -> impl Stream<Item = io::Result<Connection>> {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    stream::unfold((listener, room, metrics), |(listener, room, metrics)| async move {
        let connection = next(&listener, &room, &metrics).await;
        Some((Ok(connection), (listener, room, metrics)))
    })
}

async fn next(listener: &TcpListener, room: &Arc<Semaphore>, metrics: &Arc<Metrics>) -> Connection {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a connection of the etcd API; trying again");
                time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(room).try_acquire_owned() else {
            warn!("closed a connection of the etcd API: {CONNECTIONS_MAX} are open");
            continue;
        };
        // Answers leave at once. Where this fails the client is gone already.
        if stream.set_nodelay(true).is_ok() {
            let (authority, metrics) = (AuthorityRepair::new(), Arc::clone(metrics));
            return Connection { stream, authority, metrics, _permit: permit };
        }
    }
}

/// A connection, counted while it is open, as are its bytes.
pub(crate) struct Connection {
    stream: TcpStream,
    authority: AuthorityRepair,
    metrics: Arc<Metrics>,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl Connection {
    fn sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.metrics.sent_bytes.add(*bytes as u64);
        }
        written
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let Self { stream, authority, .. } = &mut *self;
        let outcome = authority::poll_read(stream, authority, context, buffer);
        self.metrics.received_bytes.add((buffer.filled().len() - before) as u64);
        outcome
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
