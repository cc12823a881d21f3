//! Leases: reads without a round of confirmations, under a bound on the drift of clocks
//! (dissertation, section 6.4.1). Off unless configured; see [`crate::Lease`] for the bound.
//!
//! A voter that heard the leader promises to elect nobody for a while: it does not vote, and does
//! not stand. The leader counts that while from the moment at which it *sent* what a majority
//! answered, which was before they promised, and takes the drift off. A voter says how long its
//! promise is; one that is too short, or none, does not count. Three things would break the promise,
//! so:
//!
//! - a voter that starts has forgotten whom it heard, and promises as if it had just heard a leader;
//! - the vote that a leader asks for when it hands over ignores promises, so that leader forfeits its
//!   lease for the rest of its term before it asks: the request may arrive any time later;
//! - the promise outlives the term in which it was made, because the term may end without the lease.

use std::collections::VecDeque;

use crate::{raft::Raft, status::Role};

/// Most rounds whose times are remembered; older ones would give a shorter lease anyway.
const ROUNDS_MAX: usize = 64;

/// What this server knows about time, its promises and its own lease.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct LeadershipLease {
    /// The last time that the driver told.
    now: Option<u64>,
    /// Until when this server elects nobody.
    promised_until: u64,
    /// Rounds that this leader has sent, and when; oldest first.
    rounds: VecDeque<(u64, u64)>,
    /// When the last round was sent that a majority answered.
    confirmed_at: Option<u64>,
    is_forfeited: bool,
}

impl LeadershipLease {
    /// A leader starts with nothing.
    pub(crate) fn begin_term(&mut self) {
        self.rounds.clear();
        self.confirmed_at = None;
        self.is_forfeited = false;
    }

    /// Gives the lease up for the rest of the term.
    pub(crate) fn forfeit(&mut self) {
        self.is_forfeited = true;
    }

    /// A round goes out now. What is repeated keeps the time at which it went out first.
    pub(crate) fn round_sent(&mut self, number: u64) {
        let is_new = self.rounds.back().is_none_or(|&(last, _)| last < number);
        if let Some(now) = self.now.filter(|_| is_new) {
            if self.rounds.len() == ROUNDS_MAX {
                self.rounds.pop_front();
            }
            self.rounds.push_back((number, now));
        }
    }

    /// A majority answered this round or a later one.
    pub(crate) fn round_confirmed(&mut self, number: u64) {
        while let Some((_, at)) = self.rounds.pop_front_if(|(round, _)| *round <= number) {
            self.confirmed_at = Some(at);
        }
    }
}

impl Raft {
    pub(crate) fn set_time(&mut self, micros: u64) {
        let Some(lease) = self.config.lease else { return };
        let state = &mut self.leadership_lease;
        if state.now.is_none() {
            state.promised_until = micros.saturating_add(lease.micros);
        }
        state.now = state.now.max(Some(micros));
    }

    /// The leader was heard.
    pub(crate) fn promise_lease(&mut self) {
        if let (Some(lease), Some(now)) = (self.config.lease, self.leadership_lease.now) {
            let until = now.saturating_add(lease.micros);
            self.leadership_lease.promised_until = self.leadership_lease.promised_until.max(until);
        }
    }

    /// How long the promise is that this server makes when it hears the leader; 0 if it makes none.
    pub(crate) fn promised_micros(&self) -> u64 {
        let lease = self.config.lease.filter(|_| self.leadership_lease.now.is_some());
        lease.map_or(0, |lease| lease.micros)
    }

    /// Whether a promise of this length supports the lease of this leader.
    pub(crate) fn supports_lease(&self, promised_micros: u64) -> bool {
        self.config.lease.is_some_and(|lease| promised_micros >= lease.micros)
    }

    /// Whether this server has promised to elect nobody now.
    pub(crate) fn is_bound_by_lease(&self) -> bool {
        let state = &self.leadership_lease;
        self.config.lease.is_some()
            && !self.is_alone()
            && state.now.is_none_or(|now| now < state.promised_until)
    }

    /// Whether nobody else can hold a lease: this is the only voter, and that is known to be
    /// committed. Before it is, a leader that gives way to this server may still hold one.
    fn is_alone(&self) -> bool {
        self.is_only_voter() && self.log.membership_at(self.commit).is_only_voter(self.config.id)
    }

    /// Until when a majority elects nobody else, by this server's clock.
    pub(crate) fn lease_until(&self) -> Option<u64> {
        let lease = self.config.lease?;
        Some(self.leadership_lease.confirmed_at?.saturating_add(lease.usable_micros()))
    }

    /// Whether this server leads and nobody else can, so that its commit index is the latest.
    pub(crate) fn holds_lease(&self) -> bool {
        let state = &self.leadership_lease;
        self.role == Role::Leader
            && self.commit >= self.term_start
            && self.transferee.is_none()
            && !state.is_forfeited
            && self.lease_until().is_some_and(|until| state.now.is_some_and(|now| now < until))
    }
}
