//! Elections that nobody needed make servers patient; calm makes them quick again.
//!
//! On a machine with too much to do a leader's heartbeats come late, and so do the answers to them. With
//! fixed timeouts each delay ends in an election, after which the new leader is as late: the elections
//! never settle. A server that learns that it gave its leader up too early, or a leader that had to step
//! down although it runs, therefore doubles its timeouts, up to a bound; after a while in which the
//! longest delay was far below them, it halves them again.
//!
//! Only when a server stands and when a leader gives up depend on this. Safety depends on neither, nor
//! on what other servers do.

use onefold_types::{NodeId, Term};

use crate::{
    fingerprint::Fingerprint,
    message::{Body, Message},
};

/// Election timeouts of calm after which timeouts are halved.
const CALM_ELECTIONS: u32 = 60;

/// What a server knows about how fast its group is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patience {
    /// How often the timeouts were doubled.
    doublings: u32,
    /// Ticks since the timeouts changed, or since they were last looked at.
    calm_ticks: u32,
    /// The longest silence since then, in ticks.
    silence_max: u32,
    /// Leader only: checks in a row that missed a majority.
    missed: u32,
    /// The leader that was given up last, and its term.
    given_up: Option<(NodeId, Term)>,
}

impl Patience {
    pub(crate) fn fingerprint(&self, to: &mut Fingerprint<'_>) {
        to.add((self.doublings, self.missed));
    }

    /// How often the timeouts are doubled.
    pub(crate) fn doublings(&self) -> u32 {
        self.doublings
    }

    /// What `election_ticks` are at present.
    pub(crate) fn scaled(&self, election_ticks: u32) -> u32 {
        election_ticks.saturating_mul(1 << self.doublings)
    }

    /// The leader was silent for so long that its follower stands.
    pub(crate) fn gave_up(&mut self, leader: NodeId, term: Term) {
        self.given_up = Some((leader, term));
    }

    /// What only the leader of a term says has arrived: if it was given up in that term, it is alive.
    pub(crate) fn heard(&mut self, from: NodeId, message: &Message, doublings_max: u32) {
        let leads = matches!(
            message.body,
            Body::Append { .. } | Body::Heartbeat { .. } | Body::Quiesce { .. }
        );
        if leads && self.given_up == Some((from, message.term)) {
            self.given_up = None;
            self.was_hasty(doublings_max);
        }
    }

    /// A leader begins.
    pub(crate) fn begin_term(&mut self) {
        self.missed = 0;
        self.given_up = None;
    }

    /// The leader looked whether a majority answers, as it does each `election_ticks`. True if it has to
    /// step down.
    pub(crate) fn checked_quorum(
        &mut self,
        is_reached: bool,
        election_ticks: u32,
        doublings_max: u32,
    ) -> bool {
        if is_reached {
            self.missed = 0;
            return false;
        }
        self.missed += 1;
        self.was_silent(self.missed.saturating_mul(election_ticks));
        let steps_down = self.missed >= 1 << self.doublings;
        if steps_down {
            self.missed = 0;
            self.was_hasty(doublings_max);
        }
        steps_down
    }

    /// The other side was silent for so many ticks.
    pub(crate) fn was_silent(&mut self, ticks: u32) {
        self.silence_max = self.silence_max.max(ticks);
    }

    /// A tick with a leader.
    pub(crate) fn tick(&mut self, election_ticks: u32) {
        if self.doublings == 0 {
            return;
        }
        self.calm_ticks += 1;
        if self.calm_ticks < election_ticks.saturating_mul(CALM_ELECTIONS) {
            return;
        }
        if self.silence_max.saturating_mul(4) < self.scaled(election_ticks) {
            self.doublings -= 1;
        }
        self.look_anew();
    }

    /// A group that has nothing to do is not one that is late.
    pub(crate) fn fell_quiet(&mut self) {
        self.doublings = self.doublings.saturating_sub(1);
        self.look_anew();
    }

    fn was_hasty(&mut self, doublings_max: u32) {
        self.doublings = (self.doublings + 1).min(doublings_max);
        self.look_anew();
    }

    fn look_anew(&mut self) {
        self.calm_ticks = 0;
        self.silence_max = 0;
    }
}
