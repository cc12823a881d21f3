//! Which nodes are alive, from beats between nodes and not from heartbeats of groups.
//!
//! Nodes that share a group send each other a [`Beat`] a few times in an election timeout, one for
//! all the groups together. A quiet group sends nothing at all: that its leader's node still beats is what
//! its followers know of it. So a beat says two things: the process is alive, and it is the same
//! process as before, hence still leads what it led.
//!
//! A pure core: it counts the ticks that it is given, and answers what changed.

use std::collections::{BTreeMap, BTreeSet};

use onefold_types::NodeId;
use serde::{Deserialize, Serialize};

/// The sign of life that a node sends to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Beat {
    /// Drawn at random when the process starts: a node that restarted forgot what it led.
    pub process: u64,
    /// Rises with each beat of the process, from 1.
    pub count: u64,
}

/// What became of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LivenessChange {
    /// The node fell silent, or the process that it was is gone.
    Down(NodeId),
    /// The node beats again.
    Up(NodeId),
}

/// What one node knows of the life of the others.
#[derive(Clone, Debug)]
pub struct Liveness {
    process: u64,
    count: u64,
    silence_ticks: u32,
    now: u64,
    peers: BTreeMap<NodeId, Peer>,
}

/// Another node.
#[derive(Clone, Debug)]
struct Peer {
    /// The tick of its last beat, or that from which on it is watched.
    heard_at: u64,
    /// Its last beat.
    beat: Option<Beat>,
    /// The last beat of the process that the present one replaced: others of it that come late say
    /// nothing.
    replaced: Option<Beat>,
    is_down: bool,
}

impl Liveness {
    /// A process that knows of nobody yet. A node is down that does not beat for `silence_ticks`.
    ///
    /// # Panics
    /// When `silence_ticks` is 0.
    pub fn new(process: u64, silence_ticks: u32) -> Self {
        assert!(silence_ticks > 0, "everybody would be down all the time");
        Self { process, count: 0, silence_ticks, now: 0, peers: BTreeMap::new() }
    }

    /// Watches exactly these nodes from now on. A new one has the whole time to beat before it
    /// counts as down.
    pub fn watch(&mut self, nodes: &BTreeSet<NodeId>) {
        self.peers.retain(|node, _| nodes.contains(node));
        let new = Peer { heard_at: self.now, beat: None, replaced: None, is_down: false };
        for node in nodes {
            self.peers.entry(*node).or_insert_with(|| new.clone());
        }
    }

    /// The nodes that are watched: those to which each [`Self::beat`] is sent.
    pub fn watched(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.peers.keys().copied()
    }

    /// The next beat of this process, for all that it watches.
    pub fn beat(&mut self) -> Beat {
        self.count += 1;
        Beat { process: self.process, count: self.count }
    }

    /// A beat arrived. Beats may be lost, doubled, late and in any order.
    pub fn receive(&mut self, from: NodeId, beat: Beat) -> Vec<LivenessChange> {
        let Some(peer) = self.peers.get_mut(&from) else { return Vec::new() };
        let replaced = peer.replaced.filter(|replaced| replaced.process == beat.process);
        if let Some(replaced) = replaced
            // Unless it beats on while the one that seemed to replace it is silent: then it was a
            // beat of that one which came late, from a process before both.
            && !(peer.is_down && beat.count > replaced.count)
        {
            return Vec::new();
        }
        let mut changes = Vec::new();
        match peer.beat {
            Some(last) if last.process == beat.process && beat.count <= last.count => {
                return changes;
            }
            Some(last) if last.process != beat.process => {
                peer.replaced = Some(last);
                if !peer.is_down {
                    peer.is_down = true;
                    changes.push(LivenessChange::Down(from));
                }
            }
            Some(_) | None => {}
        }
        peer.beat = Some(beat);
        peer.heard_at = self.now;
        if std::mem::take(&mut peer.is_down) {
            changes.push(LivenessChange::Up(from));
        }
        changes
    }

    /// Ticks passed.
    pub fn tick(&mut self, ticks: u32) -> Vec<LivenessChange> {
        self.now += u64::from(ticks);
        let mut changes = Vec::new();
        for (&node, peer) in &mut self.peers {
            let silent = self.now - peer.heard_at;
            if !peer.is_down && silent >= u64::from(self.silence_ticks) {
                peer.is_down = true;
                changes.push(LivenessChange::Down(node));
            }
        }
        changes
    }

    /// Whether a node is watched.
    pub fn watches(&self, node: NodeId) -> bool {
        self.peers.contains_key(&node)
    }

    /// Whether a node is watched and down.
    pub fn is_down(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.is_down)
    }

    /// The nodes that are down.
    pub fn down(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.peers.iter().filter(|(_, peer)| peer.is_down).map(|(node, _)| *node)
    }
}

#[cfg(test)]
mod tests {
    use super::LivenessChange::{Down, Up};
    use super::*;

    const OTHER: NodeId = NodeId(2);
    const SILENCE_TICKS: u32 = 15;

    fn watching() -> Liveness {
        let mut liveness = Liveness::new(1, SILENCE_TICKS);
        liveness.watch(&BTreeSet::from([OTHER, NodeId(3)]));
        liveness
    }

    fn beat(process: u64, count: u64) -> Beat {
        Beat { process, count }
    }

    #[test]
    fn a_node_that_beats_stays_up_and_a_silent_one_goes_down_once() {
        let mut liveness = watching();
        for count in 1..20 {
            assert_eq!(liveness.receive(OTHER, beat(7, count)), []);
            let silent = liveness.tick(5);
            assert_eq!(silent, if count == 3 { vec![Down(NodeId(3))] } else { vec![] });
        }
        assert!(liveness.is_down(NodeId(3)) && !liveness.is_down(OTHER));
        assert_eq!(liveness.tick(10), [Down(OTHER)]);
        assert_eq!(liveness.tick(1000), []);
        assert_eq!(liveness.down().collect::<Vec<_>>(), [OTHER, NodeId(3)]);
    }

    #[test]
    fn a_node_that_beats_again_is_up() {
        let mut liveness = watching();
        liveness.receive(OTHER, beat(7, 1));
        liveness.tick(SILENCE_TICKS);
        assert_eq!(liveness.receive(OTHER, beat(7, 2)), [Up(OTHER)]);
        assert_eq!(liveness.tick(SILENCE_TICKS - 1), []);
        assert_eq!(liveness.tick(1), [Down(OTHER)]);
    }

    #[test]
    fn another_process_of_a_node_that_never_fell_silent_is_down_and_up() {
        let mut liveness = watching();
        liveness.receive(OTHER, beat(7, 9));
        assert_eq!(liveness.receive(OTHER, beat(8, 1)), [Down(OTHER), Up(OTHER)]);
        assert_eq!(liveness.receive(OTHER, beat(8, 2)), []);
    }

    #[test]
    fn another_process_of_a_node_that_was_down_is_only_up() {
        let mut liveness = watching();
        liveness.receive(OTHER, beat(7, 9));
        liveness.tick(SILENCE_TICKS);
        assert_eq!(liveness.receive(OTHER, beat(8, 1)), [Up(OTHER)]);
    }

    #[test]
    fn late_and_doubled_beats_are_no_sign_of_life() {
        let mut liveness = watching();
        liveness.receive(OTHER, beat(7, 9));
        liveness.receive(OTHER, beat(8, 2));
        liveness.tick(SILENCE_TICKS - 1);
        for old in [beat(8, 2), beat(8, 1), beat(7, 10)] {
            assert_eq!(liveness.receive(OTHER, old), [], "{old:?}");
        }
        assert!(liveness.tick(1).contains(&Down(OTHER)));
        assert_eq!(liveness.receive(OTHER, beat(8, 2)), []);
        assert!(liveness.is_down(OTHER));
    }

    #[test]
    fn a_late_beat_of_a_process_that_was_never_known_does_not_silence_the_present_one() {
        let mut liveness = watching();
        liveness.receive(OTHER, beat(8, 5));
        assert_eq!(liveness.receive(OTHER, beat(7, 90)), [Down(OTHER), Up(OTHER)], "it looks new");
        for count in 6..20 {
            liveness.tick(5);
            liveness.receive(OTHER, beat(8, count));
        }
        assert!(!liveness.is_down(OTHER), "the present one beats on");
    }

    #[test]
    fn nodes_that_are_not_watched_do_not_matter_and_new_ones_have_time() {
        let mut liveness = watching();
        assert_eq!(liveness.receive(NodeId(4), beat(9, 1)), []);
        liveness.tick(SILENCE_TICKS);
        liveness.watch(&BTreeSet::from([OTHER, NodeId(4)]));
        assert_eq!(liveness.down().collect::<Vec<_>>(), [OTHER], "what is known stays known");
        assert_eq!(liveness.tick(SILENCE_TICKS - 1), []);
        assert_eq!(liveness.tick(1), [Down(NodeId(4))]);
    }

    #[test]
    fn own_beats_rise() {
        let mut liveness = watching();
        assert_eq!([liveness.beat(), liveness.beat()], [beat(1, 1), beat(1, 2)]);
        assert_eq!(liveness.watched().collect::<Vec<_>>(), [OTHER, NodeId(3)]);
    }
}
