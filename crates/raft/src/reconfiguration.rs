//! Membership changes by joint consensus (§6; dissertation, sections 4.2 and 4.3).
//!
//! ```text
//!                 learners only
//!            ┌──────────────────────┐
//!            │                      ▼  committed
//!   C_old ───┤                    C_new ─────────▶ those who left are let go; a leader that left
//!            │                      ▲              hands over
//!            └─────▶ C_old,new ─────┘
//!     voters differ           committed: the leader appends C_new by itself
//! ```
//!
//! An entry takes effect on a server when it is in its log, and is undone when it is cut off again.
//! No change starts before the one before it, and an entry of the leader's own term, are committed.

use std::collections::BTreeSet;

use onefold_types::NodeId;

use crate::{
    entry::{Entry, Payload},
    membership::{Membership, MembershipChange},
    progress::Progress,
    raft::{Raft, StepError, Stepped},
    status::Role,
};

impl Raft {
    /// Starts a change; the leader carries it on by itself.
    pub(crate) fn change_membership(
        &mut self,
        change: &MembershipChange,
    ) -> Result<Stepped, StepError> {
        if self.role != Role::Leader {
            return Err(StepError::NotLeader { leader: self.leader });
        }
        if let Some(to) = self.transferee {
            return Err(StepError::Transferring { to });
        }
        if self.is_state_lost {
            return Err(StepError::NotLeader { leader: None });
        }
        let membership = self.log.membership();
        if membership.is_joint() || !self.is_membership_settled() {
            return Err(StepError::ChangeInProgress);
        }
        let target = membership.changed_by(change)?;
        if target == *membership {
            return Ok(Stepped::Done);
        }
        // They would have a log, and nobody to get a state from.
        if !target.voters.iter().any(|&voter| self.has_state(voter)) {
            return Err(StepError::ChangeInProgress);
        }
        let next = membership.towards(target);
        let entry = self.next_entry(Payload::Membership(Box::new(next)));
        self.admit(entry.bytes())?;
        let index = entry.index;
        self.append_membership(entry);
        Ok(Stepped::Proposed { term: self.term, indexes: index..=index })
    }

    /// Whether a member does not wait for a snapshot, as far as this leader knows.
    fn has_state(&self, id: NodeId) -> bool {
        if id == self.config.id {
            return !self.is_state_lost;
        }
        self.progress.get(&id).is_some_and(|progress| !progress.awaits_snapshot())
    }

    /// Whether the members in use are committed, and this leader knows it: it does once an entry of
    /// its own term is committed too.
    pub(crate) fn is_membership_settled(&self) -> bool {
        self.commit >= self.log.membership_index().max(self.term_start)
    }

    /// The members in use have become committed, or known to be committed.
    pub(crate) fn membership_settled(&mut self) {
        let membership = self.log.membership();
        if membership.is_joint() {
            let settled = membership.settled();
            self.append_own_membership(settled);
        } else {
            self.let_leavers_go();
        }
    }

    /// Learners that are to be voters become so when they are at most a few entries behind, so that
    /// no commit has to wait for them (dissertation, section 4.2.1).
    pub(crate) fn promote_those_who_caught_up(&mut self) {
        let membership = self.log.membership();
        if membership.joining.is_empty()
            || membership.is_joint()
            || !self.is_membership_settled()
            || self.transferee.is_some()
        {
            return;
        }
        let caught_up = |id: &NodeId| self.progress.get(id).is_some_and(|p| self.is_caught_up(p));
        let ready: BTreeSet<NodeId> =
            membership.joining.iter().copied().filter(caught_up).collect();
        if !ready.is_empty() {
            let next = membership.towards(membership.promoting(&ready));
            self.append_own_membership(next);
        }
    }

    fn is_caught_up(&self, progress: &Progress) -> bool {
        let lag = self.log.last_index().0 - progress.matched().0;
        progress.is_replicating() && progress.recent_active && lag <= self.config.promotion_lag_max
    }

    /// An entry that the group needs is appended however much is uncommitted.
    fn append_own_membership(&mut self, membership: Membership) {
        let entry = self.next_entry(Payload::Membership(Box::new(membership)));
        self.uncommitted_bytes += entry.bytes();
        self.append_membership(entry);
    }

    pub(crate) fn next_entry(&self, payload: Payload) -> Entry {
        Entry { term: self.term, index: self.log.last_index().next(), payload }
    }

    fn append_membership(&mut self, entry: Entry) {
        self.log.append(entry);
        self.follow_members();
        // Whoever has not answered may not be needed any longer.
        self.finish_rounds();
    }

    /// Feeds all members. Those that leave are still fed until the entry that removes them is
    /// committed, so that they learn of it.
    pub(crate) fn follow_members(&mut self) {
        let next = self.log.last_index().next();
        for id in self.log.membership().members() {
            if id != self.config.id {
                self.progress.entry(id).or_insert_with(|| Progress::new(next));
            }
        }
    }

    /// Tells those that left that the entry which says so is committed. Losing that does no harm:
    /// a server that does not know it was removed disturbs nobody (dissertation, section 4.2.3).
    fn let_leavers_go(&mut self) {
        self.replicate_to_all();
        let membership = self.log.membership();
        self.progress.retain(|&id, _| membership.contains(id));
    }
}
