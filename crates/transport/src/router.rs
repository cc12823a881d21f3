//! Which handler takes which method.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use onefold_types::NodeId;

use crate::{Method, MethodId, RemoteCode, RemoteError};

/// Who made a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The calling node; none for a client.
    pub node: Option<NodeId>,
    /// Where the connection came from.
    pub address: SocketAddr,
}

/// A handler's answer: the response as postcard (after `HEADER_BYTES` left free) and its body.
pub(crate) type Answer = Result<(Vec<u8>, Bytes), RemoteError>;
pub(crate) type AnswerFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;
type Handle = dyn Fn(Caller, Bytes, Bytes) -> AnswerFuture + Send + Sync;
pub(crate) type OneWayHandler = Arc<dyn Fn(NodeId, Bytes) + Send + Sync>;

/// What answers one method's calls.
pub(crate) struct CallHandler {
    handle: Box<Handle>,
    /// The largest of the responses lately, which fades with each smaller one.
    response_bytes: AtomicUsize,
}

impl CallHandler {
    pub(crate) fn handle(&self, caller: Caller, head: Bytes, body: Bytes) -> AnswerFuture {
        (self.handle)(caller, head, body)
    }

    /// How large the next response is likely to be at most.
    pub(crate) fn expected_bytes(&self) -> usize {
        self.response_bytes.load(Ordering::Relaxed)
    }

    /// Learns how large a response was.
    pub(crate) fn answered(&self, bytes: usize) {
        let faded = |before: usize| Some(bytes.max(before - before / 8));
        // The closure never refuses.
        let _ = self.response_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, faded);
    }
}

/// The handlers of a server.
#[derive(Default)]
pub struct Router {
    calls: BTreeMap<MethodId, Arc<CallHandler>>,
    one_ways: BTreeMap<MethodId, OneWayHandler>,
}

impl Router {
    /// Has `handler` answer calls of the method `M`.
    ///
    /// Each call runs in a task of its own. The task is dropped at its next `.await` when the
    /// caller's deadline passes, the caller cancels, or the connection ends: work that must not
    /// stop half-way belongs in a task that the handler spawns. A panic is answered as an internal
    /// error.
    ///
    /// Small heads and bodies are slices of a read buffer of 64 KiB: a handler that keeps one for
    /// long copies it.
    ///
    /// # Panics
    /// When the method already has a handler.
    pub fn call<M, F, Fut>(&mut self, handler: F)
    where
        M: Method,
        F: Fn(Caller, M::Request, Bytes) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(M::Response, Bytes), RemoteError>> + Send + 'static,
    {
        let handle: Box<Handle> = Box::new(move |caller, head: Bytes, body| {
            let future = match postcard::from_bytes::<M::Request>(&head) {
                Ok(request) => Ok(handler(caller, request, body)),
                Err(error) => Err(RemoteError::new(
                    RemoteCode::Invalid,
                    format!("the request of {} does not decode: {error}", M::NAME),
                )),
            };
            Box::pin(async move {
                let (response, body) = future?.await?;
                let head = crate::frame::head_after_header(&response).map_err(|error| {
                    let message = format!("the response of {} does not encode: {error}", M::NAME);
                    RemoteError::new(RemoteCode::Internal, message)
                })?;
                Ok((head, body))
            })
        });
        let handler = CallHandler { handle, response_bytes: AtomicUsize::new(0) };
        let before = self.calls.insert(M::ID, Arc::new(handler));
        assert!(before.is_none(), "method {} ({}) has two handlers", M::ID, M::NAME);
    }

    /// Has `handler` take the one-way messages numbered `method`, with the node that sent each.
    ///
    /// It runs on the connection's reading task, in the order of arrival, and must not block: it
    /// passes the message on to a bounded queue or drops it.
    ///
    /// # Panics
    /// When the number already has a handler.
    pub fn one_way(
        &mut self,
        method: MethodId,
        handler: impl Fn(NodeId, Bytes) + Send + Sync + 'static,
    ) {
        let before = self.one_ways.insert(method, Arc::new(handler));
        assert!(before.is_none(), "one-way message {method} has two handlers");
    }

    pub(crate) fn call_handler(&self, method: MethodId) -> Option<&Arc<CallHandler>> {
        self.calls.get(&method)
    }

    pub(crate) fn one_way_handler(&self, method: MethodId) -> Option<&OneWayHandler> {
        self.one_ways.get(&method)
    }
}
