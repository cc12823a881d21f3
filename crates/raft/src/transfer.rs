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
        if to == self.config.id || !self.membership.voters.contains(&to) {
            return Err(StepError::NotAVoter { to });
        }
        self.transferee = Some(to);
        self.election_elapsed = 0;
        self.continue_transfer(to);
        Ok(())
    }

    /// The target acknowledged something: it may have everything now.
    pub(crate) fn continue_transfer(&mut self, to: NodeId) {
        let last_index = self.log.last_index();
        let matched = self.progress.get(&to).map(|progress| progress.matched());
        if self.transferee == Some(to) && matched == Some(last_index) {
            self.send(to, Body::TimeoutNow);
        }
    }

    pub(crate) fn receive_timeout_now(&mut self) {
        if self.role == Role::Follower {
            self.stand_for_election(true);
        }
    }
}
