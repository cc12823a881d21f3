//! The outbound side: an address book, and connections made when they are needed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onefold_types::NodeId;

use crate::{CallError, Class, IdentityCell, Limits, Method, MethodId, TransportStatus};

/// Everybody that this process talks to. Cheap to clone; the connections close with the last clone.
#[derive(Clone)]
pub struct Peers {}

impl Peers {
    /// An empty address book for a process with this identity.
    pub fn new(identity: Arc<IdentityCell>, limits: Limits) -> Self {
        todo!("{identity:?} {limits:?}")
    }

    /// Enters or changes a node's address, `host:port`. A change closes the connections to the old
    /// address once their calls are answered.
    pub fn set_address(&self, node: NodeId, address: impl Into<String>) {
        todo!("{node} {}", address.into())
    }

    /// Forgets a node that was removed from the cluster.
    pub fn remove_address(&self, node: NodeId) {
        todo!("{node}")
    }

    /// The address of one node, if it is known.
    pub fn address(&self, node: NodeId) -> Option<String> {
        todo!("{node}")
    }

    /// The whole address book.
    pub fn addresses(&self) -> BTreeMap<NodeId, String> {
        todo!()
    }

    /// Whether a connection of the class to the node is open now.
    pub fn is_connected(&self, node: NodeId, class: Class) -> bool {
        todo!("{node} {class:?}")
    }

    /// Sends a one-way message, best effort, and never waits.
    ///
    /// False when it was dropped at once: address unknown, peer not reachable lately, queue full, or
    /// larger than a frame. True is no promise that it arrives.
    pub fn send(&self, to: NodeId, method: MethodId, payload: Bytes) -> bool {
        todo!("{to} {method} {}", payload.len())
    }

    /// Calls a method of a node and waits for the answer, at most `timeout` in all.
    ///
    /// Dropping the future cancels the call. Nothing is tried twice.
    ///
    /// # Errors
    /// See [`CallError`]; [`CallError::is_unsent`] tells whether trying again is harmless.
    pub async fn call<M: Method>(
        &self,
        to: NodeId,
        class: Class,
        request: &M::Request,
        body: Bytes,
        timeout: Duration,
    ) -> Result<(M::Response, Bytes), CallError> {
        let _ = (to, class, request, body, timeout);
        todo!()
    }

    /// Calls whatever node listens at an address: for clients, and for nodes that are being formed.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn call_address<M: Method>(
        &self,
        address: &str,
        class: Class,
        request: &M::Request,
        body: Bytes,
        timeout: Duration,
    ) -> Result<(M::Response, Bytes), CallError> {
        let _ = (address, class, request, body, timeout);
        todo!()
    }

    /// What was sent and received so far.
    pub fn status(&self) -> Arc<TransportStatus> {
        todo!()
    }
}
