//! Leadership transfer (dissertation, section 3.10).

use onefold_types::NodeId;

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
    /// to take over (dissertation, section 4.2.2). After an election timeout it just goes.
    pub(crate) fn abdicate_if_due(&mut self) {
        if !self.must_abdicate() {
            return;
        }
        let Some(best) = self.best_successor() else {
            return self.become_follower(self.term, None);
        };
        if self.transferee.is_none() {
            self.transferee = Some(best);
            self.election_elapsed = 0;
        }
        if self.commit == self.log.last_index() {
            self.send_timeout_now(best);
            self.become_follower(self.term, None);
        }
    }

    /// The voter that has most of the log; of those with as much, one that was heard of.
    fn best_successor(&self) -> Option<NodeId> {
        let voters = self.log.membership().voters.iter().copied();
        let others = voters.filter_map(|id| Some((id, self.progress.get(&id)?)));
        others.max_by_key(|(_, p)| (p.matched(), p.recent_active)).map(|(id, _)| id)
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

    pub(crate) fn receive_timeout_now(&mut self) {
        if self.role == Role::Follower {
            self.stand_for_election(true);
        }
    }
}
