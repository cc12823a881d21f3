//! Leader election (§5.2, §5.4.1), pre-vote and check-quorum (dissertation, sections 6.2 and 9.6).

use onefold_types::{LogIndex, NodeId, Term};

use crate::{
    config::Config,
    entry::Payload,
    membership::Membership,
    message::{Body, Message},
    quorum::{self, Tally},
    raft::Raft,
    status::Role,
};

/// How much later, in ranks, a server stands for election whose state is lost: it could only lead to
/// bring the others up to date, so they get their chance first.
const STATE_LOST_RANKS: u32 = 2;

impl Raft {
    /// Draws a new random timeout (§5.2: split votes are rare and resolve themselves). Who should
    /// rather not lead waits longer.
    pub(crate) fn restart_election_timer(&mut self) {
        self.election_elapsed = 0;
        self.draw_election_timeout();
    }

    fn draw_election_timeout(&mut self) {
        let base = self.patience.scaled(self.config.election_ticks);
        let rank =
            self.config.election_rank + if self.is_state_lost { STATE_LOST_RANKS } else { 0 };
        self.election_timeout =
            rank.saturating_mul(base).saturating_add(base + self.random.below(base));
    }

    /// Notes whatever shows that a leader was given up too early.
    pub(crate) fn heard_leader(&mut self, from: NodeId, message: &Message) {
        let before = self.patience.doublings();
        self.patience.heard(from, message, self.config.patience_doublings_max);
        if self.patience.doublings() != before {
            self.draw_election_timeout();
        }
    }

    pub(crate) fn tick_election(&mut self) {
        self.election_elapsed = self.election_elapsed.saturating_add(1);
        if self.leader.is_some() {
            let before = self.patience.doublings();
            self.patience.tick(self.config.election_ticks);
            if self.patience.doublings() != before {
                self.draw_election_timeout();
            }
        }
        if self.election_elapsed < self.election_timeout || self.is_bound_by_lease() {
            return;
        }
        if let Some(leader) = self.leader {
            self.patience.gave_up(leader, self.term);
        }
        self.restart_election_timer();
        self.leader = None;
        if self.may_campaign() {
            self.campaign_now();
        } else if self.log.membership().contains(self.config.id) {
            for peer in self.peers_that_vote() {
                self.send(peer, Body::Awake);
            }
        }
    }

    /// Whether a live leader was heard less than an election timeout ago. Such servers ignore
    /// candidates, so that a server which merely lost touch cannot depose a working leader.
    fn hears_leader(&self) -> bool {
        let patience = self.patience.scaled(self.config.election_ticks);
        self.leader.is_some() && self.election_elapsed < patience
    }

    pub(crate) fn ignores_newer_term(&self, body: &Body) -> bool {
        match body {
            Body::RequestPreVote { .. } | Body::RequestVote { transfer: false, .. } => {
                self.hears_leader() || self.is_bound_by_lease()
            }
            _ => false,
        }
    }

    /// A leader that stands for election in a later term leads no longer.
    pub(crate) fn notice_standing_leader(&mut self, from: NodeId, body: &Body) {
        let stands = matches!(body, Body::RequestPreVote { .. } | Body::RequestVote { .. });
        if stands && self.leader == Some(from) {
            self.leader = None;
        }
    }

    /// Whether this server counts in the members in use, or did in those that are committed: until
    /// its successors have the entry that removes it, nobody else may be electable (dissertation,
    /// section 4.2.2). It does not count its own vote then.
    fn is_voter(&self) -> bool {
        let is_voter = |membership: &Membership| membership.is_voter(self.config.id);
        is_voter(self.log.membership()) || is_voter(self.log.membership_at(self.commit))
    }

    fn may_campaign(&self) -> bool {
        self.role != Role::Leader
            && self.is_voter()
            && self.installing.is_none()
            && !self.is_disk_stalled()
            // Without its state it leads only to hand over.
            && !(self.is_state_lost && self.is_only_voter())
    }

    /// Whether a write has been under way for too long to lead with this disk.
    pub(crate) fn is_disk_stalled(&self) -> bool {
        let limit = u64::from(self.config.disk_stall_ticks);
        self.persistence.oldest_tick().is_some_and(|issued| self.ticks - issued > limit)
    }

    /// Asks for pre-votes, then, with a majority of them, stands for election.
    pub(crate) fn campaign_now(&mut self) {
        if !self.may_campaign() || self.is_bound_by_lease() {
            return;
        }
        self.restart_election_timer();
        self.role = Role::PreCandidate;
        self.leader = None;
        self.votes.clear();
        let (last_index, last_term) = (self.log.last_index(), self.log.last_term());
        let term = self.term.next();
        for peer in self.peers_that_vote() {
            self.send_in_term(peer, term, Body::RequestPreVote { last_index, last_term });
        }
        self.receive_pre_vote(self.config.id, term, true);
    }

    /// Stands for election in a new term (§5.2). The requests leave once term and vote are
    /// durable: a server that forgot them could be elected by answers to its former self.
    pub(crate) fn stand_for_election(&mut self, transfer: bool) {
        if !self.may_campaign() || (self.is_bound_by_lease() && !transfer) {
            return;
        }
        self.restart_election_timer();
        self.role = Role::Candidate;
        self.term = self.term.next();
        self.vote = Some(self.config.id);
        self.leader = None;
        self.votes.clear();
        let (last_index, last_term) = (self.log.last_index(), self.log.last_term());
        for peer in self.peers_that_vote() {
            let request = Body::RequestVote { last_index, last_term, transfer };
            self.send_when_durable(peer, request);
        }
        self.send_when_durable(self.config.id, Body::VoteResponse { granted: true });
    }

    pub(crate) fn receive_pre_vote_request(
        &mut self,
        from: NodeId,
        term: Term,
        last_index: LogIndex,
        last_term: Term,
    ) {
        let is_free = term > self.term || self.can_vote_for(from);
        if is_free && !self.is_bound_by_lease() && self.log.is_up_to_date(last_index, last_term) {
            self.send_in_term(from, term, Body::PreVoteResponse { granted: true });
        } else {
            self.send(from, Body::PreVoteResponse { granted: false });
        }
    }

    /// A pre-vote counts for the term after the current one.
    pub(crate) fn receive_pre_vote(&mut self, from: NodeId, term: Term, granted: bool) {
        let is_current = if granted { term == self.term.next() } else { term == self.term };
        if self.role != Role::PreCandidate || !is_current {
            return;
        }
        self.votes.entry(from).or_insert(granted);
        match quorum::tally(self.log.membership(), &self.votes) {
            Tally::Won => self.stand_for_election(false),
            Tally::Lost => self.become_follower(self.term, None),
            Tally::Open => {}
        }
    }

    fn can_vote_for(&self, candidate: NodeId) -> bool {
        match self.vote {
            Some(vote) => vote == candidate,
            None => self.leader.is_none(),
        }
    }

    /// At most one vote a term, first come first served, and only for a log that is at least as
    /// up to date (§5.2, §5.4.1).
    pub(crate) fn receive_vote_request(
        &mut self,
        from: NodeId,
        last_index: LogIndex,
        last_term: Term,
        transfer: bool,
    ) {
        let is_free = self.can_vote_for(from) && (transfer || !self.is_bound_by_lease());
        let granted = is_free && self.log.is_up_to_date(last_index, last_term);
        if granted {
            if self.role == Role::PreCandidate {
                self.become_follower(self.term, None);
            }
            self.vote = Some(from);
            self.election_elapsed = 0;
        }
        self.send_when_durable(from, Body::VoteResponse { granted });
    }

    pub(crate) fn receive_vote(&mut self, from: NodeId, granted: bool) {
        if self.role != Role::Candidate {
            return;
        }
        self.votes.entry(from).or_insert(granted);
        match quorum::tally(self.log.membership(), &self.votes) {
            Tally::Won => self.become_leader(),
            Tally::Lost => self.become_follower(self.term, None),
            Tally::Open => {}
        }
    }

    pub(crate) fn become_follower(&mut self, term: Term, leader: Option<NodeId>) {
        assert!(term >= self.term, "the term never goes back");
        if term > self.term {
            self.term = term;
            self.vote = None;
        }
        if self.role == Role::Leader {
            self.fail_reads();
        }
        self.role = Role::Follower;
        self.leader = leader;
        self.votes.clear();
        self.progress.clear();
        self.transferee = None;
        self.quiescence.is_quiet = false;
        self.restart_election_timer();
    }

    /// §5.2, and §8: a new leader appends an entry, whose commit tells it what is committed. The
    /// first one of a group says who founded it, so that the log alone tells who its members are.
    fn become_leader(&mut self) {
        assert_eq!(self.role, Role::Candidate, "only a candidate is elected");
        assert_eq!(self.vote, Some(self.config.id), "a candidate voted for itself");
        self.role = Role::Leader;
        self.leader = Some(self.config.id);
        self.election_elapsed = 0;
        self.heartbeat_elapsed = 0;
        self.quiescence.idle_ticks = 0;
        self.patience.begin_term();
        self.leadership_lease.begin_term();
        self.term_start = self.log.last_index().next();
        self.follow_members();
        let payload = match self.log.last_index() {
            LogIndex::ZERO => Payload::Membership(Box::new(self.log.membership().clone())),
            _ => Payload::Empty,
        };
        self.log.append(self.next_entry(payload));
        self.uncommitted_bytes = self.log.bytes_between(self.commit.next(), self.term_start);
    }

    pub(crate) fn tick_leader(&mut self) {
        self.election_elapsed = self.election_elapsed.saturating_add(1);
        self.heartbeat_elapsed = self.heartbeat_elapsed.saturating_add(1);
        self.quiescence.idle_ticks = self.quiescence.idle_ticks.saturating_add(1);
        self.patience.tick(self.config.election_ticks);
        if self.election_elapsed >= self.config.election_ticks {
            self.election_elapsed = 0;
            self.transferee = None;
            if self.must_abdicate() {
                self.become_follower(self.term, None);
                return;
            }
            let is_reached = self.take_quorum_check();
            let Config { election_ticks, patience_doublings_max, .. } = self.config;
            if self.patience.checked_quorum(is_reached, election_ticks, patience_doublings_max) {
                self.become_follower(self.term, None);
                return;
            }
        }
        // Its own disk is not needed to commit, but everything after the commit waits for it.
        if self.is_disk_stalled() && !self.is_only_voter() {
            self.become_follower(self.term, None);
            return;
        }
        if self.heartbeat_elapsed >= self.config.heartbeat_ticks {
            self.heartbeat_elapsed = 0;
            if self.may_quiesce() {
                self.quiesce();
            } else {
                self.heartbeat_due();
            }
        }
    }

    /// Whether a majority was heard of since the last check.
    fn take_quorum_check(&mut self) -> bool {
        let active = quorum::reached(self.log.membership(), |id| {
            id == self.config.id || self.progress.get(&id).is_some_and(|p| p.recent_active)
        });
        for progress in self.progress.values_mut() {
            progress.recent_active = false;
        }
        active == Some(true)
    }

    fn peers_that_vote(&self) -> Vec<NodeId> {
        let Membership { voters, outgoing, .. } = self.log.membership();
        voters.union(outgoing).copied().filter(|&id| id != self.config.id).collect()
    }

    fn send_in_term(&mut self, to: NodeId, term: Term, body: Body) {
        self.output.messages.push((to, Message { term, body }));
    }
}
