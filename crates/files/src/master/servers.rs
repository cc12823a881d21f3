//! What the leader knows of chunkservers: soft state, learned from heartbeats and lost with the
//! leadership. Pure; time is the milliseconds since this leader began.

use std::collections::{BTreeMap, BTreeSet};

use onefold_types::limits::CHUNK_BYTES_MAX;
use onefold_types::{ChunkId, NodeId};

use crate::api::ServerUsage;

/// Silence after which a chunkserver is taken for dead.
pub(super) const DEAD_AFTER_MS: u64 = 5_000;

/// Space on each disk that new chunks do not use.
const RESERVED_BYTES: u64 = 512 << 20;

/// One chunkserver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Server {
    heard_ms: u64,
    /// A call failed since the last heartbeat.
    suspect: bool,
    free_bytes: u64,
    used_bytes: u64,
    chunks: u64,
    /// Open chunks that this leader placed there.
    open: BTreeSet<ChunkId>,
}

/// All chunkservers that were heard of.
#[derive(Debug, Default)]
pub(super) struct Servers(BTreeMap<NodeId, Server>);

/// Why no chunk can be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// So many nodes answer; so many are needed.
    TooFew { alive: usize, needed: usize },
    /// Nodes answer, but their disks are full.
    NoSpace { full: Vec<NodeId> },
}

impl Servers {
    /// Takes up a heartbeat.
    pub(super) fn heard(&mut self, node: NodeId, now: u64, (free, used, chunks): (u64, u64, u64)) {
        let server = self.0.entry(node).or_default();
        server.heard_ms = now;
        server.suspect = false;
        (server.free_bytes, server.used_bytes, server.chunks) = (free, used, chunks);
    }

    /// A call to the node failed: nothing is placed there before its next heartbeat.
    pub(super) fn suspect(&mut self, node: NodeId) {
        if let Some(server) = self.0.get_mut(&node) {
            server.suspect = true;
        }
    }

    /// Whether the node answered lately.
    pub(super) fn is_alive(&self, node: NodeId, now: u64) -> bool {
        self.0.get(&node).is_some_and(|server| server.is_alive(now))
    }

    /// Nodes that answered lately.
    pub(super) fn alive(&self, now: u64) -> BTreeSet<NodeId> {
        self.0.iter().filter(|(_, server)| server.is_alive(now)).map(|(node, _)| *node).collect()
    }

    /// These nodes and all that were heard of.
    pub(super) fn members(&self, expected: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        self.0.keys().chain(expected).copied().collect()
    }

    /// The nodes for a new chunk, the primary first: the writer's own node if possible, because its
    /// bytes then need not travel to reach the primary; then those with the fewest open chunks and
    /// the most free space.
    pub(super) fn place(
        &self,
        now: u64,
        writer: NodeId,
        without: &BTreeSet<NodeId>,
        wanted: usize,
        needed: usize,
    ) -> Result<Vec<NodeId>, NoPlace> {
        let mut chosen = self.candidates(now, without);
        chosen.sort_by_key(|node| *node != writer);
        chosen.truncate(wanted);
        if chosen.len() >= needed {
            return Ok(chosen);
        }
        let usable =
            |node: &NodeId, server: &Server| server.is_usable(now) && !without.contains(node);
        let alive: Vec<_> = self.0.iter().filter(|(node, server)| usable(node, server)).collect();
        if alive.len() < needed {
            return Err(NoPlace::TooFew { alive: alive.len(), needed });
        }
        let full = alive.iter().filter(|(_, server)| !server.has_space());
        Err(NoPlace::NoSpace { full: full.map(|(node, _)| **node).collect() })
    }

    /// Nodes where a chunk could go, best first.
    pub(super) fn candidates(&self, now: u64, without: &BTreeSet<NodeId>) -> Vec<NodeId> {
        let usable = |node: &NodeId, server: &Server| {
            server.is_usable(now) && server.has_space() && !without.contains(node)
        };
        let mut usable: Vec<_> =
            self.0.iter().filter(|(node, server)| usable(node, server)).collect();
        usable.sort_by_key(|(_, server)| (server.open.len(), server.fullness()));
        usable.into_iter().map(|(node, _)| *node).collect()
    }

    /// An open chunk was placed on the nodes.
    pub(super) fn opened(&mut self, chunk: ChunkId, nodes: &[NodeId]) {
        for node in nodes {
            self.0.entry(*node).or_default().open.insert(chunk);
        }
    }

    /// The chunk is not open any more.
    pub(super) fn closed(&mut self, chunk: ChunkId) {
        for server in self.0.values_mut() {
            server.open.remove(&chunk);
        }
    }

    /// For status: these nodes and all that were heard of.
    pub(super) fn usage(&self, expected: &BTreeSet<NodeId>, now: u64) -> Vec<ServerUsage> {
        let unheard = Server::default();
        let usage = |node: NodeId| {
            let server = self.0.get(&node).unwrap_or(&unheard);
            ServerUsage {
                node,
                alive: server.is_alive(now),
                free_bytes: server.free_bytes,
                used_bytes: server.used_bytes,
                chunks: server.chunks,
            }
        };
        self.members(expected).into_iter().map(usage).collect()
    }
}

impl Server {
    fn is_alive(&self, now: u64) -> bool {
        self.heard_ms > 0 && now.saturating_sub(self.heard_ms) < DEAD_AFTER_MS
    }

    fn is_usable(&self, now: u64) -> bool {
        self.is_alive(now) && !self.suspect
    }

    /// Room for its open chunks and one more.
    fn has_space(&self) -> bool {
        let spoken_for = (self.open.len() as u64 + 1) * CHUNK_BYTES_MAX;
        // An open chunk may have most of its bytes on disk already: asking for a quarter of what is
        // spoken for keeps small disks usable; a disk that fills up nonetheless fails the append,
        // and the writer goes elsewhere.
        self.free_bytes > RESERVED_BYTES + spoken_for / 4
    }

    /// Thousandths of the disk that chunks use.
    fn fullness(&self) -> u64 {
        let all = self.free_bytes.saturating_add(self.used_bytes).max(1);
        self.used_bytes.saturating_mul(1000) / all
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GIB: u64 = 1 << 30;

    fn servers(free: &[u64]) -> Servers {
        let mut servers = Servers::default();
        for (place, free) in free.iter().enumerate() {
            servers.heard(NodeId(place as u64 + 1), 1, (*free, GIB, 0));
        }
        servers
    }

    fn nodes(numbers: &[u64]) -> Vec<NodeId> {
        numbers.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn the_writer_comes_first_and_then_the_emptiest() {
        let servers = servers(&[2 * GIB, 4 * GIB, 8 * GIB, 16 * GIB]);
        assert_eq!(servers.place(2, NodeId(1), &BTreeSet::new(), 3, 2), Ok(nodes(&[1, 4, 3])));
        assert_eq!(servers.place(2, NodeId(9), &BTreeSet::new(), 3, 2), Ok(nodes(&[4, 3, 2])));
    }

    #[test]
    fn dead_suspect_and_full_servers_get_no_chunks() {
        let mut servers = servers(&[GIB, GIB, 100 << 20]);
        assert_eq!(servers.place(2, NodeId(3), &BTreeSet::new(), 3, 2), Ok(nodes(&[1, 2])));
        servers.suspect(NodeId(2));
        let too_few = NoPlace::TooFew { alive: 1, needed: 2 };
        servers.heard(NodeId(3), 1 + DEAD_AFTER_MS, (8 * GIB, 0, 0));
        assert_eq!(
            servers.place(1 + DEAD_AFTER_MS, NodeId(3), &BTreeSet::new(), 3, 2),
            Err(too_few)
        );
        servers.heard(NodeId(3), 1, (0, 0, 0));
        servers.heard(NodeId(2), 1, (0, 0, 0));
        let full = NoPlace::NoSpace { full: nodes(&[2, 3]) };
        assert_eq!(servers.place(2, NodeId(3), &BTreeSet::new(), 3, 2), Err(full));
    }

    #[test]
    fn leaving_servers_get_no_chunks() {
        let servers = servers(&[GIB, GIB, GIB]);
        let leaving = [NodeId(1)].into();
        assert_eq!(servers.place(2, NodeId(1), &leaving, 3, 2), Ok(nodes(&[2, 3])));
        let leaving = [NodeId(1), NodeId(2)].into();
        let too_few = NoPlace::TooFew { alive: 1, needed: 2 };
        assert_eq!(servers.place(2, NodeId(1), &leaving, 3, 2), Err(too_few));
    }

    #[test]
    fn a_member_that_was_never_heard_of_counts_as_dead() {
        let expected = [NodeId(1), NodeId(3)].into();
        let usage = servers(&[GIB, GIB]).usage(&expected, 2);
        let alive: Vec<_> = usage.into_iter().map(|server| (server.node.0, server.alive)).collect();
        assert_eq!(alive, vec![(1, true), (2, true), (3, false)]);
    }

    #[test]
    fn open_chunks_are_spread() {
        let mut servers = servers(&[8 * GIB, 8 * GIB, 8 * GIB, 8 * GIB]);
        servers.opened(ChunkId(1), &nodes(&[1, 2]));
        assert_eq!(servers.place(2, NodeId(9), &BTreeSet::new(), 2, 1), Ok(nodes(&[3, 4])));
        servers.closed(ChunkId(1));
        assert_eq!(servers.place(2, NodeId(9), &BTreeSet::new(), 2, 1), Ok(nodes(&[1, 2])));
    }
}
