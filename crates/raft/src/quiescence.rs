//! The silence of idle groups: no ticks, no heartbeats, until something happens.
//!
//! A leader that has nothing to do and whose members have everything tells them so and falls silent;
//! a follower that agrees falls silent too. Silence makes no promise: elections, appends and reads
//! need what they always need. What it gives up is that followers notice a dead leader by
//! themselves, so the driver, which watches whole nodes, tells the core when one is down.
//!
//! Nothing depends on those hints, or on the messages here, to be right:
//!
//! - *A leader dies and one follower notices:* it stands for election, and being asked for a vote
//!   wakes the others.
//! - *A follower wrongly thinks that the leader died:* its request wakes the leader as well, whose
//!   heartbeat ends the matter.
//! - *The word to fall silent gets lost:* that follower hears nothing more and asks, with the same
//!   end.
//! - *It arrives late:* it names the last index and belongs to a term. If both are still right, so is
//!   silence; and a follower that knows its leader to be down refuses it.

use std::collections::BTreeSet;

use onefold_types::{LogIndex, NodeId, Term};

use crate::{fingerprint::Fingerprint, message::Body, quorum, raft::Raft, status::Role};

/// Whether the server is silent, and what that depends on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quiescence {
    pub(crate) is_quiet: bool,
    /// Leader only: ticks since somebody wanted something.
    pub(crate) idle_ticks: u32,
    /// Nodes that are down, as far as the driver knows; at most all nodes that it watches.
    down: BTreeSet<NodeId>,
}

impl Quiescence {
    /// Idle ticks are counted without end, but only the first few make a difference.
    pub(crate) fn fingerprint(&self, to: &mut Fingerprint<'_>, quiesce_after_ticks: Option<u32>) {
        let Self { is_quiet, idle_ticks, down } = self;
        to.add((is_quiet, quiesce_after_ticks.map(|after| *idle_ticks.min(&after))));
        to.servers(down);
    }
}

impl Raft {
    /// Whether the group has had nothing to do for long enough.
    pub(crate) fn may_quiesce(&self) -> bool {
        let Some(after) = self.config.quiesce_after_ticks else { return false };
        self.quiescence.idle_ticks >= after
            && self.has_finished_everything()
            && self.members_have_everything()
    }

    fn has_finished_everything(&self) -> bool {
        let last = self.log.last_index();
        self.commit == last
            && self.applied == last
            && self.persistence.is_idle()
            && self.reads.is_empty()
            && self.transferee.is_none()
            && !self.must_abdicate()
    }

    /// Members that are down are not waited for, unless a majority is.
    fn members_have_everything(&self) -> bool {
        let last = self.log.last_index();
        let membership = self.log.membership();
        let is_down = |id: NodeId| self.quiescence.down.contains(&id);
        !membership.is_joint()
            && membership.joining.iter().all(|&id| is_down(id))
            && self.progress.iter().all(|(&id, p)| is_down(id) || p.is_up_to_date(last))
            && self.is_majority_up()
    }

    fn is_majority_up(&self) -> bool {
        let is_up = |id: NodeId| !self.quiescence.down.contains(&id);
        quorum::reached(self.log.membership(), is_up) == Some(true)
    }

    /// Falls silent, and tells the others to.
    pub(crate) fn quiesce(&mut self) {
        let last = self.log.last_index();
        for to in self.progress.keys().copied().collect::<Vec<_>>() {
            self.send(to, Body::Quiesce { last });
        }
        self.quiescence.is_quiet = true;
        self.patience.fell_quiet();
    }

    pub(crate) fn receive_quiesce(&mut self, from: NodeId, last: LogIndex) {
        self.follow(from);
        let has_everything = last == self.log.last_index() && last == self.commit;
        let is_whole = !self.is_state_lost && self.installing.is_none();
        self.quiescence.is_quiet = has_everything
            && is_whole
            && self.config.quiesce_after_ticks.is_some()
            && !self.quiescence.down.contains(&from);
        if self.quiescence.is_quiet {
            self.patience.fell_quiet();
        } else {
            self.send(from, Body::Awake);
        }
    }

    /// Somebody wants something: the leader says so soon, the followers wait for it.
    pub(crate) fn wake(&mut self) {
        self.quiescence.idle_ticks = 0;
        if !std::mem::take(&mut self.quiescence.is_quiet) {
            return;
        }
        if self.role == Role::Leader {
            self.election_elapsed = 0;
            self.heartbeat_elapsed = self.config.heartbeat_ticks;
            self.progress.values_mut().for_each(|progress| progress.recent_active = false);
        } else {
            self.restart_election_timer();
        }
    }

    /// Most messages mean that somebody is awake.
    pub(crate) fn wake_for_message(&mut self, from: NodeId, term: Term, body: &Body) {
        if !self.is_quiet() || term < self.term {
            return;
        }
        let is_news = match body {
            Body::Quiesce { .. } => false,
            // Servers that were removed and do not know it ask for ever.
            Body::RequestPreVote { .. } | Body::RequestVote { .. } | Body::Awake => {
                self.log.membership().contains(from)
            }
            // Answers to what was said before the silence.
            Body::HeartbeatResponse { .. } | Body::AppendAccepted { .. } => {
                let last = self.log.last_index();
                self.progress.get(&from).is_some_and(|progress| !progress.is_up_to_date(last))
            }
            _ => true,
        };
        if is_news {
            self.wake();
        }
    }

    /// The leader's node is known to be silent for longer than any leader is, so an election begins
    /// without waiting for that again.
    pub(crate) fn node_down(&mut self, id: NodeId) {
        if id == self.config.id {
            return;
        }
        self.quiescence.down.insert(id);
        if self.is_quiet() && self.leader == Some(id) {
            self.wake();
            self.election_elapsed = self.config.election_ticks;
        } else if self.role == Role::Leader && !self.is_majority_up() {
            self.wake();
        }
    }

    pub(crate) fn node_up(&mut self, id: NodeId) {
        let was_down = self.quiescence.down.remove(&id);
        if was_down && self.role == Role::Leader {
            self.wake();
        }
    }
}
