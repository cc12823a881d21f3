//! Leadership transfer (dissertation, section 3.10).

use std::cmp::Reverse;

use onefold_types::{LogIndex, NodeId};

use crate::{
    message::Body,
    raft::{Raft, StepError},
    status::Role,
};

impl Raft {
    /// Stops taking commands, brings the target up to date and tells it to stand for election. It
    /// is given up after an election timeout.
    pub(crate) fn transfer_leadership(&mut self, to: NodeId) -> Result<(), StepError> {
        if self.role != Role::Leader {
            return Err(StepError::NotLeader { leader: self.leader });
        }
        if to == self.config.id || !self.log.membership().voters.contains(&to) {
            return Err(StepError::NotAVoter { to });
        }
        self.transferee = Some(to);
        self.election_elapsed = 0;
        self.continue_transfer(to);
        Ok(())
    }

    /// Whether this leader may not lead any longer than it takes to hand over: it left the voters,
    /// or it cannot answer anybody.
    pub(crate) fn must_abdicate(&self) -> bool {
        let is_voter = self.log.membership().is_voter(self.config.id);
        self.is_state_lost || (!is_voter && self.is_membership_settled())
    }

    /// A leader that must go takes no more commands, finishes what it has, and asks the best voter
    /// to take over once that has everything (dissertation, section 4.2.2). After an election
    /// timeout it just goes: until then, whoever lags gets the log and can be elected.
    pub(crate) fn abdicate_if_due(&mut self) {
        if !self.must_abdicate() {
            return;
        }
        if self.is_only_voter() {
            return self.become_follower(self.term, None);
        }
        let Some((best, matched)) = self.best_successor() else { return };
        if self.transferee.is_none() {
            self.transferee = Some(best);
            self.election_elapsed = 0;
        }
        let last_index = self.log.last_index();
        if self.commit == last_index && matched == last_index {
            self.send_timeout_now(best);
            self.become_follower(self.term, None);
        }
    }

    /// The voter that has most of the log, and how much; of those with as much, one that was heard
    /// of, and of those the one with the lowest id. Those without a state would have to go as well.
    fn best_successor(&self) -> Option<(NodeId, LogIndex)> {
        let voters = self.log.membership().voters.iter().copied();
        let others = voters.filter_map(|id| Some((id, self.progress.get(&id)?)));
        let able = others.filter(|(_, progress)| !progress.lacks_state);
        let best = able.max_by_key(|(id, p)| (p.matched(), p.recent_active, Reverse(*id)));
        best.map(|(id, progress)| (id, progress.matched()))
    }

    /// The target acknowledged something: it may have everything now.
    pub(crate) fn continue_transfer(&mut self, to: NodeId) {
        let last_index = self.log.last_index();
        let matched = self.progress.get(&to).map(|progress| progress.matched());
        if self.transferee == Some(to) && matched == Some(last_index) {
            self.send_timeout_now(to);
        }
    }

    fn send_timeout_now(&mut self, to: NodeId) {
        self.leadership_lease.forfeit();
        self.send(to, Body::TimeoutNow);
    }

    /// A server without a state could only hand leadership on at once, perhaps to another one
    /// without, and so for ever.
    pub(crate) fn receive_timeout_now(&mut self) {
        if self.is_state_lost {
            self.ask_for_snapshot();
        } else if self.role == Role::Follower {
            self.stand_for_election(true);
        }
    }
}
