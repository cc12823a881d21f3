//! The outbound side: an address book, and connections made when they are needed.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use onefold_types::NodeId;
use tokio::time::{Instant, timeout_at};

use crate::connection::Request;
use crate::frame::head_after_header;
use crate::link::{Context, Link};
use crate::wire::lock;
use crate::{CallError, Class, IdentityCell, Limits, Method, MethodId, TransportStatus};

/// Most addresses without a node that are remembered; the one unused for longest is forgotten.
const ADDRESS_LINKS_MAX: usize = 256;
/// Longest time that a call can be given: what the header's milliseconds can say.
const TIMEOUT_MAX: Duration = Duration::from_millis(u32::MAX as u64);

/// Where to dial instead of the address that a peer is known by: for networks that reach a node
/// through a relay of their own. Names, messages and the address book keep the known address.
pub type Routes = BTreeMap<String, String>;

/// Everybody that this process talks to. Cheap to clone; the connections close with the last clone.
#[derive(Clone)]
pub struct Peers {
    context: Arc<Context>,
    book: Arc<Mutex<Book>>,
}

#[derive(Default)]
struct Book {
    addresses: BTreeMap<NodeId, String>,
    nodes: BTreeMap<(NodeId, Class), Arc<Link>>,
    others: BTreeMap<(String, Class), Other>,
    /// Raised by each look-up among `others`.
    uses: u64,
}

/// The link to an address called without a node.
struct Other {
    link: Arc<Link>,
    last_use: u64,
}

impl Peers {
    /// An empty address book for a process with this identity.
    ///
    /// # Panics
    /// When called outside a Tokio runtime. Later calls may come from any thread.
    pub fn new(identity: Arc<IdentityCell>, limits: Limits) -> Self {
        Self::with_routes(identity, limits, Routes::default())
    }

    /// The same, for a process that dials some addresses elsewhere.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn with_routes(identity: Arc<IdentityCell>, limits: Limits, routes: Routes) -> Self {
        let context = Context {
            identity,
            limits,
            routes,
            status: Arc::default(),
            complaints: Arc::default(),
            runtime: tokio::runtime::Handle::current(),
        };
        Self { context: Arc::new(context), book: Arc::default() }
    }

    /// Enters or changes a node's address, `host:port`. A change closes the connections to the old
    /// address once their calls are answered.
    pub fn set_address(&self, node: NodeId, address: impl Into<String>) {
        let address = address.into();
        let mut book = lock(&self.book);
        if book.addresses.get(&node) != Some(&address) {
            book.nodes.retain(|(other, _), _| *other != node);
            book.addresses.insert(node, address);
        }
    }

    /// Forgets a node that was removed from the cluster.
    pub fn remove_address(&self, node: NodeId) {
        let mut book = lock(&self.book);
        book.nodes.retain(|(other, _), _| *other != node);
        book.addresses.remove(&node);
    }

    /// The address of one node, if it is known.
    pub fn address(&self, node: NodeId) -> Option<String> {
        lock(&self.book).addresses.get(&node).cloned()
    }

    /// The whole address book.
    pub fn addresses(&self) -> BTreeMap<NodeId, String> {
        lock(&self.book).addresses.clone()
    }

    /// Whether a connection of the class to the node is open now.
    pub fn is_connected(&self, node: NodeId, class: Class) -> bool {
        lock(&self.book).nodes.get(&(node, class)).is_some_and(|link| link.is_open())
    }

    /// Sends a one-way message, best effort, and never waits.
    ///
    /// False when it was dropped at once: address unknown, peer not reachable lately, queue full,
    /// or larger than a frame. True is no promise that it arrives.
    pub fn send(&self, to: NodeId, method: MethodId, payload: Bytes) -> bool {
        let link = self.node_link(to, Class::Consensus);
        let queued = link.is_some_and(|link| link.send(method, payload));
        let status = &self.context.status;
        if queued {
            status.one_way_total.increment();
        } else {
            status.one_way_dropped_total.increment();
        }
        queued
    }

    /// Calls a method of a node and waits for the answer, at most `timeout` in all.
    ///
    /// Dropping the future cancels the call. Nothing is tried twice. While an attempt to connect
    /// has just failed (for at most [`Limits::backoff_max`]) calls fail at once.
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
        let link = self.node_link(to, class).ok_or_else(|| CallError::Unreachable {
            address: format!("node {to}"),
            source: io::Error::new(io::ErrorKind::NotFound, "its address is not known"),
        })?;
        call::<M>(&link, request, body, timeout).await
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
        let link = self.address_link(address, class);
        call::<M>(&link, request, body, timeout).await
    }

    /// What was sent and received so far.
    pub fn status(&self) -> Arc<TransportStatus> {
        Arc::clone(&self.context.status)
    }

    fn node_link(&self, node: NodeId, class: Class) -> Option<Arc<Link>> {
        let mut book = lock(&self.book);
        let Book { addresses, nodes, .. } = &mut *book;
        let address = addresses.get(&node)?;
        let link = nodes.entry((node, class)).or_insert_with(|| {
            Link::new(Arc::clone(&self.context), Some(node), address.clone(), class)
        });
        Some(Arc::clone(link))
    }

    fn address_link(&self, address: &str, class: Class) -> Arc<Link> {
        let mut book = lock(&self.book);
        book.uses += 1;
        let last_use = book.uses;
        let key = (address.to_owned(), class);
        if let Some(other) = book.others.get_mut(&key) {
            other.last_use = last_use;
            return Arc::clone(&other.link);
        }
        if book.others.len() >= ADDRESS_LINKS_MAX {
            let oldest = book.others.iter().min_by_key(|(_, other)| other.last_use);
            let oldest = oldest.map(|(key, _)| key.clone());
            book.others.remove(&oldest.expect("a full map has an oldest entry"));
        }
        let link = Link::new(Arc::clone(&self.context), None, address.to_owned(), class);
        book.others.insert(key, Other { link: Arc::clone(&link), last_use });
        link
    }
}

async fn call<M: Method>(
    link: &Arc<Link>,
    request: &M::Request,
    body: Bytes,
    timeout: Duration,
) -> Result<(M::Response, Bytes), CallError> {
    let protocol = |reason: String, unsent| CallError::Protocol {
        address: link.address().to_owned(),
        method: M::NAME,
        reason,
        unsent,
    };
    let deadline = Instant::now() + timeout.min(TIMEOUT_MAX);
    let head = head_after_header(request)
        .map_err(|error| protocol(format!("the request does not encode: {error}"), true))?;
    let connection = timeout_at(deadline, link.connection()).await.unwrap_or_else(|_| {
        let source = io::Error::new(io::ErrorKind::TimedOut, "no connection in the time allowed");
        Err(CallError::Unreachable { address: link.address().to_owned(), source })
    })?;
    let request = Request { method: M::ID, name: M::NAME, head, body, deadline, timeout };
    let (head, body) = connection.call(request).await?;
    let response = postcard::from_bytes(&head)
        .map_err(|error| protocol(format!("the response does not decode: {error}"), false))?;
    Ok((response, body))
}
