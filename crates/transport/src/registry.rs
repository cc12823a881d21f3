//! Which process is connected as which node: two processes must not both be one.
//!
//! A node that was started again after its machine lost power comes back while the connections of
//! its former process look alive: nothing came to close them. Each of them is asked for a sign of
//! life then. The machine, up again, answers for connections that it does not know with a reset, and
//! the new process is let in at once. Where nothing answers, the other process may just be slow, and
//! keeps its place until it fell silent for as long as any peer may.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onefold_types::NodeId;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::frame::{Frame, Header, Kind};
use crate::wire::{WeakOutQueue, lock};

/// How long a process waits for the connections of its node's former process to end.
const FORMER_PROCESS_GRACE: Duration = Duration::from_millis(500);

/// The nodes that are connected to a server.
#[derive(Clone, Default)]
pub(crate) struct Registry {
    nodes: Arc<Mutex<BTreeMap<NodeId, Present>>>,
    left: Arc<Notify>,
}

struct Present {
    process: u64,
    /// By serial number; the queue of those that got so far.
    connections: BTreeMap<u64, Option<WeakOutQueue>>,
    next_serial: u64,
    /// When its connections were last asked for a sign of life.
    asked_at: Option<Instant>,
}

/// A connection's entry in the registry; given back when dropped.
pub(crate) struct Registered {
    registry: Registry,
    node: NodeId,
    serial: u64,
}

impl Registry {
    /// Enters a connection once no other process is connected as the node; nothing if that does not
    /// come soon.
    pub(crate) async fn enter(&self, node: NodeId, process: u64) -> Option<Registered> {
        let entered = async {
            loop {
                // Before looking, so that a departure in between is not missed.
                let left = self.left.notified();
                if let Some(serial) = self.try_enter(node, process) {
                    return Registered { registry: self.clone(), node, serial };
                }
                left.await;
            }
        };
        timeout(FORMER_PROCESS_GRACE, entered).await.ok()
    }

    fn try_enter(&self, node: NodeId, process: u64) -> Option<u64> {
        let mut nodes = lock(&self.nodes);
        let present = nodes.entry(node).or_insert_with(|| Present {
            process,
            connections: BTreeMap::new(),
            next_serial: 0,
            asked_at: None,
        });
        if present.process != process {
            present.ask();
            return None;
        }
        let serial = present.next_serial;
        present.next_serial += 1;
        present.connections.insert(serial, None);
        Some(serial)
    }
}

impl Present {
    /// Asks for signs of life, but not more often than somebody waits for them.
    fn ask(&mut self) {
        let now = Instant::now();
        if self.asked_at.is_some_and(|asked_at| now - asked_at < FORMER_PROCESS_GRACE) {
            return;
        }
        self.asked_at = Some(now);
        for queue in self.connections.values().flatten() {
            queue.push_if_room(Frame::bare(Header::new(Kind::Ping)));
        }
    }
}

impl Registered {
    /// Where to ask the connection for a sign of life.
    pub(crate) fn attach(&self, queue: WeakOutQueue) {
        if let Some(present) = lock(&self.registry.nodes).get_mut(&self.node) {
            present.connections.insert(self.serial, Some(queue));
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut nodes = lock(&self.registry.nodes);
        let present = nodes.get_mut(&self.node).expect("an entry outlives its connections");
        present.connections.remove(&self.serial);
        if present.connections.is_empty() {
            nodes.remove(&self.node);
            self.registry.left.notify_waiters();
        }
    }
}
