//! The state of one server of one group, and the dispatch of its inputs.

use std::{collections::BTreeMap, ops::RangeInclusive};

use bytes::Bytes;
use onefold_types::{LogIndex, NodeId, Term};
use thiserror::Error;

use crate::{
    config::{Config, ConfigError, Restored},
    entry::{HardState, SnapshotMark},
    lease::LeadershipLease,
    log::Log,
    membership::{Membership, MembershipChange},
    message::{Body, Message},
    output::{Output, ReadId, RoleChange},
    patience::Patience,
    persistence::{PersistSequence, Persistence},
    progress::Progress,
    quiescence::Quiescence,
    random::Random,
    read::Reads,
    status::{Role, Status},
};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// One tick of the driver's clock passed.
    Tick,
    /// A message of another server arrived.
    Message {
        /// Who sent it.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// Commands to append, all or none; leader only. Answered by [`Stepped::Proposed`].
    Propose(Vec<Bytes>),
    /// A linearizable read; leader only. Answered through [`Output::read_states`].
    ReadIndex(ReadId),
    /// This write and all before it are durable.
    Persisted(PersistSequence),
    /// Everything handed out up to here is applied.
    Applied(LogIndex),
    /// Entries up to here (at most the applied ones) need not be kept for followers any longer.
    /// What they did must be durable in the state machine.
    Compact(LogIndex),
    /// The answer to [`Output::send_snapshot`].
    SnapshotSent {
        /// The follower.
        to: NodeId,
        /// How it went.
        outcome: SnapshotOutcome,
    },
    /// The answer to [`Output::install_snapshot`]: the state machine now is what the mark covers,
    /// durably.
    SnapshotInstalled(SnapshotMark),
    /// The other answer to [`Output::install_snapshot`]: there is no such staged snapshot.
    SnapshotMissing(SnapshotMark),
    /// Hand leadership to this voter; leader only (dissertation, section 3.10).
    TransferLeadership(NodeId),
    /// Stand for election now, as if the timeout had passed.
    Campaign,
    /// Change who belongs to the group; leader only. Answered by [`Stepped::Proposed`] with the one
    /// entry that starts the change, or by [`Stepped::Done`] if everything is so already.
    ChangeMembership(MembershipChange),
    /// The time in microseconds by this process's monotonic clock. Needed with [`Config::lease`]
    /// only: before other inputs, and read after those had arrived, else a promise would seem to be
    /// older than the message to which it belongs.
    Now(u64),
    /// The node of a member is down, or its process is another than before. A hint: if it is wrong or
    /// late, only the silence of an idle group is disturbed or lasts too long.
    NodeDown(NodeId),
    /// The node of a member is up. A hint as well.
    NodeUp(NodeId),
    /// Stop being silent.
    Wake,
    /// The state machine's state is lost, or not to be trusted any longer. Until the driver steps
    /// [`Input::SnapshotInstalled`] nothing is handed out to be applied and nothing can be compacted;
    /// reports of what was applied before are ignored and must have ended by then.
    StateLost,
}

/// How the transfer of a snapshot to a follower went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotOutcome {
    /// The follower's driver has staged it durably.
    Delivered(SnapshotMark),
    /// It could not be delivered; the core asks again when the follower shows life.
    Failed,
}

/// What a step answers at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// Nothing; see the output.
    Done,
    /// The commands were appended. They are committed if [`Output::committed`] shows these indexes
    /// with this term, and lost if it shows another term there.
    Proposed {
        /// The leader's term.
        term: Term,
        /// One index for each command, in order.
        indexes: RangeInclusive<LogIndex>,
    },
}

/// Why an input was refused. The core's state is as it was before, but that a question of a client
/// has ended the silence of the group.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StepError {
    /// Only the leader can do this.
    #[error("this node does not lead the group; ask {}",
        leader.map_or("again when a leader is elected".into(), |leader| format!("node {leader}")))]
    NotLeader {
        /// Who does, if known.
        leader: Option<NodeId>,
    },
    /// Too much waits already.
    #[error("the leader has too much unconfirmed work; try again later")]
    Overloaded,
    /// Leadership is being handed over; no commands are taken meanwhile.
    #[error("leadership is being handed to node {to}; try again there")]
    Transferring {
        /// To whom.
        to: NodeId,
    },
    /// Leadership can only go to another voter.
    #[error("node {to} is not another voter of the group")]
    NotAVoter {
        /// Who was named.
        to: NodeId,
    },
    /// One change of the members after another; and none while all who would be left to vote wait
    /// for a snapshot.
    #[error(
        "the members of the group cannot be changed yet: another change is not committed, or nobody \
         who would be left to vote has a state; try again soon"
    )]
    ChangeInProgress,
    /// Nobody could decide anything any more.
    #[error("the change would leave the group without voters")]
    NoVotersLeft,
    /// The message breaks a rule that every correct sender keeps.
    #[error("node {from} sent a malformed message: {what}")]
    Malformed {
        /// Who sent it.
        from: NodeId,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The leader holds an acknowledgement for entries that this server does not have. The driver
    /// must stop this replica.
    #[error(
        "the log ends at {last_index}, but entry {acknowledged} was acknowledged: the disk lost \
         data; stop this replica and rebuild it from its peers"
    )]
    AcknowledgedEntriesLost {
        /// The log's last index.
        last_index: LogIndex,
        /// What was acknowledged.
        acknowledged: LogIndex,
    },
    /// Two servers lead in one term, which votes make impossible for servers that remember theirs.
    /// The message has had no effect.
    #[error(
        "both node {known} and node {from} lead term {term}: two processes run as one node, or on \
         copies of one data folder, and voted twice; stop one of them and give it a folder of its own"
    )]
    TwoLeaders {
        /// The term.
        term: Term,
        /// Who is known to lead it.
        known: NodeId,
        /// Who claims to lead it as well.
        from: NodeId,
    },
    /// A leader has another entry where this server knows one to be committed. The driver must stop
    /// this replica: one of the two has answered clients with what the other does not know.
    #[error(
        "node {from} leads with another entry at {index} than the one committed here: a majority \
         lost its log, or runs on copied or old data folders; stop this replica, and compare the \
         replicas before one is rebuilt from the others"
    )]
    CommittedEntryReplaced {
        /// Where the logs differ.
        index: LogIndex,
        /// Who leads.
        from: NodeId,
    },
    /// The driver reported something that the core did not ask for.
    #[error("the driver broke the core's contract: {what}")]
    Contract {
        /// What was wrong.
        what: &'static str,
    },
}

/// One server of one group. Step it with every [`Input`], then take its [`Output`].
#[derive(Clone, Debug)]
pub struct Raft {
    pub(crate) config: Config,
    pub(crate) random: Random,
    /// Ticks since the start.
    pub(crate) ticks: u64,

    pub(crate) role: Role,
    pub(crate) term: Term,
    pub(crate) vote: Option<NodeId>,
    pub(crate) leader: Option<NodeId>,

    pub(crate) log: Log,
    pub(crate) persistence: Persistence,
    pub(crate) commit: LogIndex,
    /// The last index that was handed out to be applied, and the last that was applied.
    pub(crate) handed: LogIndex,
    pub(crate) applied: LogIndex,
    pub(crate) unapplied_bytes: usize,
    /// The state machine lacks what the log no longer has.
    pub(crate) is_state_lost: bool,
    /// The snapshot that the driver installs, and the leader that waits for it.
    pub(crate) installing: Option<(SnapshotMark, NodeId)>,

    /// Ticks since a leader was heard (follower), the election began (candidates) or a quorum was
    /// checked (leader), and the random limit of the first two.
    pub(crate) election_elapsed: u32,
    pub(crate) election_timeout: u32,
    pub(crate) votes: BTreeMap<NodeId, bool>,

    /// Leader only: empty or meaningless on other roles.
    pub(crate) heartbeat_elapsed: u32,
    pub(crate) progress: BTreeMap<NodeId, Progress>,
    pub(crate) term_start: LogIndex,
    pub(crate) uncommitted_bytes: usize,
    pub(crate) transferee: Option<NodeId>,
    pub(crate) reads: Reads,

    pub(crate) patience: Patience,
    pub(crate) quiescence: Quiescence,
    pub(crate) leadership_lease: LeadershipLease,

    pub(crate) output: Output,
    pub(crate) reported: RoleChange,
}

impl Raft {
    /// A follower that goes on from what was durable.
    ///
    /// # Errors
    /// Settings that cannot work, or restored state that contradicts itself.
    pub fn new(config: Config, restored: Restored) -> Result<Self, ConfigError> {
        config.validate()?;
        let Restored { hard_state, snapshot, entries, applied } = restored;
        let (log, persistence) = Self::restore_log(&hard_state, snapshot, entries)?;
        let lost = [("the commit index", hard_state.commit), ("the applied index", applied)];
        if let Some((what, index)) = lost.into_iter().find(|(_, index)| *index > log.last_index()) {
            return Err(ConfigError::LogEndLost { last_index: log.last_index(), what, index });
        }
        // A snapshot of a newer term may have been installed before that term was written.
        let term = hard_state.term.max(log.last_term());
        let vote = hard_state.vote.filter(|_| term == hard_state.term);
        let mut raft = Self {
            random: Random::new(&[config.seed, config.group.0, config.id.0]),
            ticks: 0,
            role: Role::Follower,
            term,
            vote,
            leader: None,
            commit: hard_state.commit.max(applied).max(log.snapshot().index),
            is_state_lost: applied < log.snapshot().index,
            handed: applied,
            applied,
            unapplied_bytes: 0,
            installing: None,
            election_elapsed: 0,
            election_timeout: config.election_ticks,
            votes: BTreeMap::new(),
            heartbeat_elapsed: 0,
            progress: BTreeMap::new(),
            term_start: LogIndex::ZERO,
            uncommitted_bytes: 0,
            transferee: None,
            reads: Reads::default(),
            patience: Patience::default(),
            quiescence: Quiescence::default(),
            leadership_lease: LeadershipLease::default(),
            output: Output::default(),
            reported: RoleChange { role: Role::Follower, term, leader: None },
            log,
            persistence,
            config,
        };
        raft.restart_election_timer();
        Ok(raft)
    }

    /// Processes one input.
    ///
    /// # Errors
    /// See [`StepError`]; the input then had no effect.
    pub fn step(&mut self, input: Input) -> Result<Stepped, StepError> {
        if wakes(&input) {
            self.wake();
        }
        match input {
            Input::Tick => self.tick(),
            Input::Message { from, message } => self.receive(from, message)?,
            Input::Propose(commands) => return self.propose(commands),
            Input::ReadIndex(id) => self.read_index(id)?,
            Input::Persisted(sequence) => self.persisted(sequence)?,
            Input::Applied(index) => self.driver_applied(index)?,
            Input::Compact(index) => self.compact(index)?,
            Input::SnapshotSent { to, outcome } => self.snapshot_sent(to, outcome),
            Input::SnapshotInstalled(mark) => self.snapshot_installed(mark)?,
            Input::SnapshotMissing(mark) => self.snapshot_missing(&mark)?,
            Input::TransferLeadership(to) => self.transfer_leadership(to)?,
            Input::Campaign => self.campaign_now(),
            Input::ChangeMembership(change) => return self.change_membership(&change),
            Input::Now(micros) => self.set_time(micros),
            Input::NodeDown(id) => self.node_down(id),
            Input::NodeUp(id) => self.node_up(id),
            Input::Wake => {}
            Input::StateLost => self.state_lost(),
        }
        Ok(Stepped::Done)
    }

    /// Everything to do since the last call. Call it after one step or after a batch of them:
    /// appends, heartbeats for reads, and writes of the whole batch are merged.
    pub fn take_output(&mut self) -> Output {
        if self.role == Role::Leader {
            self.promote_those_who_caught_up();
            self.abdicate_if_due();
        }
        if self.role == Role::Leader {
            self.confirm_reads();
            self.replicate_to_all();
        }
        self.hand_out_committed();
        let mut output = std::mem::take(&mut self.output);
        output.persist = self.persistence.take(self.hard_state(), &self.log, self.ticks);
        let now = RoleChange { role: self.role, term: self.term, leader: self.leader };
        if now != self.reported {
            self.reported = now;
            output.role_change = Some(now);
        }
        output
    }

    /// What this server is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The leader of the current term, if known; this server itself while it leads.
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// The current term.
    pub fn term(&self) -> Term {
        self.term
    }

    /// The last index known to be committed.
    pub fn commit_index(&self) -> LogIndex {
        self.commit
    }

    /// The last index that was reported as applied.
    pub fn applied_index(&self) -> LogIndex {
        self.applied
    }

    /// The first index that the log still holds.
    pub fn first_index(&self) -> LogIndex {
        self.log.first_index()
    }

    /// The last index in the log.
    pub fn last_index(&self) -> LogIndex {
        self.log.last_index()
    }

    /// The term of the entry at an index, if the log still knows it.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.log.term_at(index)
    }

    /// The mark of a snapshot of the state machine as of an index that the log still knows.
    pub fn snapshot_mark_at(&self, index: LogIndex) -> Option<SnapshotMark> {
        self.log.mark_at(index)
    }

    /// The members of the group, by the latest configuration in the log.
    pub fn membership(&self) -> &Membership {
        self.log.membership()
    }

    /// Whether the core is silent because nothing happens: it needs no ticks until it gets another
    /// input.
    pub fn is_quiet(&self) -> bool {
        self.quiescence.is_quiet
    }

    /// Whether the state machine's state is lost, and a snapshot wanted.
    pub fn is_state_lost(&self) -> bool {
        self.is_state_lost
    }

    /// Everything that operators see.
    pub fn status(&self) -> Status {
        Status {
            id: self.config.id,
            group: self.config.group,
            role: self.role,
            term: self.term,
            vote: self.vote,
            leader: self.leader,
            commit: self.commit,
            applied: self.applied,
            first_index: self.log.first_index(),
            last_index: self.log.last_index(),
            durable_index: self.persistence.durable_index(),
            membership: self.log.membership().clone(),
            is_quiet: self.is_quiet(),
            is_state_lost: self.is_state_lost,
            transferee: self.transferee,
            patience_doublings: self.patience.doublings(),
            lease_until: self.lease_until().filter(|_| self.holds_lease()),
            followers: self.progress.iter().map(|(&id, p)| (id, p.status())).collect(),
        }
    }

    pub(crate) fn hard_state(&self) -> HardState {
        HardState { term: self.term, vote: self.vote, commit: self.commit }
    }

    fn tick(&mut self) {
        if self.is_quiet() {
            return;
        }
        self.ticks += 1;
        match self.role {
            Role::Leader => self.tick_leader(),
            Role::Follower | Role::PreCandidate | Role::Candidate => self.tick_election(),
        }
    }

    fn receive(&mut self, from: NodeId, message: Message) -> Result<(), StepError> {
        self.check_message(from, &message)?;
        self.heard_leader(from, &message);
        let Message { term, body } = message;
        self.wake_for_message(from, term, &body);
        if term > self.term {
            self.notice_standing_leader(from, &body);
            if self.ignores_newer_term(&body) {
                return Ok(());
            }
            self.adopt_term(term, &body);
        } else if term < self.term {
            self.answer_older_term(from, &body);
            return Ok(());
        }
        match body {
            Body::RequestPreVote { last_index, last_term } => {
                self.receive_pre_vote_request(from, term, last_index, last_term);
            }
            Body::PreVoteResponse { granted } => self.receive_pre_vote(from, term, granted),
            Body::RequestVote { last_index, last_term, transfer } => {
                self.receive_vote_request(from, last_index, last_term, transfer);
            }
            Body::VoteResponse { granted } => self.receive_vote(from, granted),
            Body::Append { prev_index, prev_term, entries, commit } => {
                self.receive_append(from, prev_index, prev_term, entries, commit);
            }
            Body::AppendAccepted { matched } => self.receive_accepted(from, matched),
            Body::AppendRejected { prev_index, hint_index, hint_term } => {
                self.receive_rejected(from, prev_index, hint_index, hint_term);
            }
            Body::Heartbeat { commit, read_round } => {
                self.receive_heartbeat(from, commit, read_round);
            }
            Body::HeartbeatResponse { read_round, promised_micros } => {
                self.receive_heartbeat_response(from, read_round, promised_micros);
            }
            Body::InstallSnapshot { mark } => self.receive_install_snapshot(from, mark),
            Body::SnapshotMissing { index } => self.receive_snapshot_missing(from, index),
            Body::TimeoutNow => self.receive_timeout_now(),
            Body::SnapshotInstalled { index } => self.receive_snapshot_installed(from, index),
            Body::SnapshotWanted { least } => self.receive_snapshot_wanted(from, least),
            Body::Quiesce { last } => self.receive_quiesce(from, last),
            Body::Awake | Body::TermOver => {}
        }
        Ok(())
    }

    /// §5.1: a server with an older term becomes a follower of the newer one. Pre-votes do not
    /// count: their term is one that a candidate would have.
    fn adopt_term(&mut self, term: Term, body: &Body) {
        match body {
            Body::RequestPreVote { .. } | Body::PreVoteResponse { granted: true } => {}
            _ => self.become_follower(term, None),
        }
    }

    /// §5.1: requests of an older term are refused, so that their sender learns of the newer one.
    fn answer_older_term(&mut self, from: NodeId, body: &Body) {
        let answer = match body {
            Body::RequestPreVote { .. } => Body::PreVoteResponse { granted: false },
            Body::RequestVote { .. }
            | Body::Append { .. }
            | Body::Heartbeat { .. }
            | Body::Quiesce { .. }
            | Body::InstallSnapshot { .. }
            | Body::Awake => Body::TermOver,
            _ => return,
        };
        self.send(from, answer);
    }

    fn persisted(&mut self, sequence: PersistSequence) -> Result<(), StepError> {
        let Some(released) = self.persistence.persisted(sequence) else {
            return Err(StepError::Contract { what: "a write was persisted that was never asked" });
        };
        for (to, message) in released {
            if to != self.config.id {
                self.output.messages.push((to, message));
            } else if message.term == self.term {
                // A candidate's vote for itself counts only now (§5.1).
                self.receive_vote(to, true);
            }
        }
        if self.role == Role::Leader {
            self.advance_commit();
        }
        Ok(())
    }

    /// Sends a message that promises nothing which a crash could undo.
    pub(crate) fn send(&mut self, to: NodeId, body: Body) {
        self.output.messages.push((to, Message { term: self.term, body }));
    }

    /// Sends a message once everything that is now in memory is durable.
    pub(crate) fn send_when_durable(&mut self, to: NodeId, body: Body) {
        let message = Message { term: self.term, body };
        let hard_state = self.hard_state();
        let last = self.log.last_index();
        if let Some(sent) = self.persistence.hold(to, message, &hard_state, last) {
            self.output.messages.push(sent);
        }
    }

    /// Whether this server's vote alone decides.
    pub(crate) fn is_only_voter(&self) -> bool {
        self.log.membership().is_only_voter(self.config.id)
    }
}

/// Whether somebody wants something of the group.
fn wakes(input: &Input) -> bool {
    matches!(
        input,
        Input::Propose(_)
            | Input::ReadIndex(_)
            | Input::ChangeMembership(_)
            | Input::TransferLeadership(_)
            | Input::Campaign
            | Input::StateLost
            | Input::Wake
    )
}
