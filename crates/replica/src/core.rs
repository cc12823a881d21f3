//! What the threads, the tasks and the handles of one host share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use onefold_raft::Membership;
use onefold_table::{SpaceView, Table};
use onefold_transport::Peers;
use onefold_types::{GroupId, LogIndex, NodeId, Term, Timestamp};
use tokio::sync::watch;

use crate::chores::Chores;
use crate::clock;
use crate::forward::{proposals, reads};
use crate::groups::Groups;
use crate::inbox::Inbox;
use crate::metrics::{Counter, GroupCounters, GroupMetrics, NodeCounters};
use crate::replicated_time::{Clocks, ReplicatedTime};
use crate::snapshot::Transfers;
use crate::state::{Generations, GroupState};
use crate::{GroupStatus, HostConfig, HostError, Leadership, MemberProgress, Role};

/// What everything in one host shares.
pub(crate) struct Core {
    pub(crate) config: HostConfig,
    pub(crate) inbox: Inbox,
    pub(crate) groups: Groups,
    /// Held while a group is created or destroyed.
    pub(crate) lifecycle: Mutex<()>,
    pub(crate) table: Arc<dyn Table>,
    pub(crate) peers: Peers,
    pub(crate) chores: Chores,
    pub(crate) transfers: Transfers,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) failure: watch::Sender<Option<HostError>>,
    pub(crate) counters: NodeCounters,
    /// What other nodes' clocks show.
    pub(crate) clocks: Mutex<Clocks>,
}

impl Core {
    /// The group, if this node hosts it.
    pub(crate) fn group(&self, id: GroupId) -> Option<Arc<GroupCell>> {
        self.groups.get(id)
    }

    /// Stops the host: it serves nothing any more. The first failure is the one that is shown.
    pub(crate) fn fail(&self, error: HostError) {
        self.inbox.close(&error.to_string());
        self.chores.close();
        self.failure.send_if_modified(|failure| {
            let is_first = failure.is_none();
            if is_first {
                tracing::error!(node = %self.config.node, %error, "the group host stops");
                *failure = Some(error);
            }
            is_first
        });
    }

    /// Stops the host because that was asked for.
    pub(crate) fn close(&self) {
        self.inbox.close("the node is shutting down");
        self.chores.close();
    }
}

/// What the threads and the handles of one group share.
pub(crate) struct GroupCell {
    pub(crate) id: GroupId,
    pub(crate) node: NodeId,
    /// The state in the table.
    pub(crate) generations: Arc<Generations>,
    pub(crate) applied: watch::Sender<LogIndex>,
    pub(crate) leadership: watch::Sender<Leadership>,
    pub(crate) progress: Progress,
    pub(crate) counters: GroupCounters,
    /// Bytes of its entries on their way to the log.
    pub(crate) unsynced: Counter,
    members: Mutex<Members>,
    /// When the last confirmed read began, by [`clock::monotonic_micros`], and what it saw: that is
    /// at most so old.
    confirmed: Mutex<Option<(u64, LogIndex)>>,
    time: Mutex<ReplicatedTime>,
    pub(crate) forwarding_reads: reads::Forwarding,
    pub(crate) forwarding_proposals: proposals::Forwarding,
}

/// Who belongs to a group, as its consensus thread sees it.
#[derive(Default)]
struct Members {
    now: Membership,
    /// Set once this node was a member.
    is_joined: bool,
    /// On the leader.
    progress: Option<BTreeMap<NodeId, MemberProgress>>,
}

/// Numbers of a group that its consensus thread keeps up to date.
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) role: AtomicU8,
    pub(crate) last: AtomicU64,
    pub(crate) is_quiet: AtomicBool,
    is_state_lost: AtomicBool,
    losses: AtomicU64,
    is_removed: AtomicBool,
    is_destroyed: AtomicBool,
}

impl GroupCell {
    pub(crate) fn new(node: NodeId, state: &GroupState) -> Self {
        Self {
            id: state.id(),
            node,
            generations: state.generations().clone(),
            applied: watch::Sender::new(state.applied()),
            leadership: watch::Sender::new(Leadership::default()),
            progress: Progress::default(),
            counters: GroupCounters::default(),
            unsynced: Counter::default(),
            members: Mutex::new(Members {
                is_joined: state.generations().formed().contains(node),
                ..Members::default()
            }),
            confirmed: Mutex::new(None),
            time: Mutex::new(ReplicatedTime::new(state.time(), clock::monotonic_micros())),
            forwarding_reads: reads::Forwarding::default(),
            forwarding_proposals: proposals::Forwarding::default(),
        }
    }

    /// What the state machine sees of the state, as it is now.
    pub(crate) fn view(&self) -> SpaceView {
        self.generations.view()
    }

    /// Commands up to this time were applied.
    pub(crate) fn applied_time(&self, time: Timestamp) {
        lock(&self.time).applied(time, clock::monotonic_micros());
    }

    /// The time to stamp on a command.
    pub(crate) fn stamp(&self, core: &Core) -> Timestamp {
        let (wall, now) = (clock::wall_micros(), clock::monotonic_micros());
        let reading = {
            let members = lock(&self.members);
            lock(&core.clocks).reading(self.node, &members.now.voters, wall, now)
        };
        lock(&self.time).stamp(reading, now)
    }

    /// Replaces what handles see of the members.
    pub(crate) fn set_membership(&self, membership: &Membership) {
        let mut members = lock(&self.members);
        members.now.clone_from(membership);
        let is_member = membership.contains(self.node);
        members.is_joined |= is_member;
        self.progress.is_removed.store(members.is_joined && !is_member, Ordering::Release);
    }

    /// Replaces what handles see of the members' progress.
    pub(crate) fn set_progress(&self, progress: Option<BTreeMap<NodeId, MemberProgress>>) {
        lock(&self.members).progress = progress;
    }

    /// This node was a member, and is none any more.
    pub(crate) fn is_removed(&self) -> bool {
        self.progress.is_removed.load(Ordering::Acquire)
    }

    /// The group is on this node no more.
    pub(crate) fn is_destroyed(&self) -> bool {
        self.progress.is_destroyed.load(Ordering::SeqCst)
    }

    /// From now on nothing is served, and nothing more is written to the group's space.
    pub(crate) fn set_destroyed(&self) {
        self.progress.is_destroyed.store(true, Ordering::SeqCst);
    }

    /// The state is lost, and waits for a snapshot.
    pub(crate) fn is_state_lost(&self) -> bool {
        self.progress.is_state_lost.load(Ordering::SeqCst)
    }

    /// How often the state was lost so far; none while it is.
    pub(crate) fn losses(&self) -> Option<u64> {
        let losses = self.progress.losses.load(Ordering::SeqCst);
        (!self.is_state_lost()).then_some(losses)
    }

    /// From now on the state is not shown to anybody, until it is [whole](Self::set_whole) again.
    pub(crate) fn set_state_lost(&self) {
        if !self.progress.is_state_lost.swap(true, Ordering::SeqCst) {
            self.progress.losses.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A snapshot made the state whole.
    pub(crate) fn set_whole(&self) {
        self.progress.is_state_lost.store(false, Ordering::SeqCst);
    }

    /// Who may know the leader, when this node is not told of it since it is no member: each of the
    /// members in turn.
    pub(crate) fn another_member(&self, attempt: usize) -> Option<NodeId> {
        let members = lock(&self.members);
        if members.now.contains(self.node) {
            return None;
        }
        let others = members.now.members();
        others.iter().nth(attempt % others.len().max(1)).copied()
    }

    /// A read that began at `since` was told that `index` is enough.
    pub(crate) fn confirm(&self, since: u64, index: LogIndex) {
        let mut confirmed = lock(&self.confirmed);
        if confirmed.is_none_or(|(before, _)| before < since) {
            *confirmed = Some((since, index));
        }
    }

    /// The last read that was confirmed.
    pub(crate) fn confirmed(&self) -> Option<(u64, LogIndex)> {
        *lock(&self.confirmed)
    }

    /// What is known of the group.
    pub(crate) fn status(&self) -> GroupStatus {
        let leadership = *self.leadership.borrow();
        let (membership, progress) = {
            let members = lock(&self.members);
            (members.now.clone(), members.progress.clone())
        };
        // In this order, each number is at most the next one.
        let applied = *self.applied.borrow();
        let commit = LogIndex(self.counters.commit_index.get()).max(applied);
        let last = LogIndex(self.progress.last.load(Ordering::Acquire)).max(commit);
        GroupStatus {
            group: self.id,
            node: self.node,
            role: role_from(self.progress.role.load(Ordering::Acquire)),
            term: leadership.term,
            leader: leadership.leader,
            commit,
            applied,
            last,
            voters: membership.voters,
            outgoing: membership.outgoing,
            learners: membership.learners,
            joining: membership.joining,
            is_quiet: self.progress.is_quiet.load(Ordering::Acquire),
            is_state_lost: self.is_state_lost(),
            is_removed: self.is_removed(),
            progress,
        }
    }

    /// What was counted in the group.
    pub(crate) fn metrics(&self) -> GroupMetrics {
        let applied = *self.applied.borrow();
        let mut values = self.counters.values();
        values.applied_index = applied.get();
        values.commit_index = values.commit_index.max(applied.get());
        let progress = &lock(&self.members).progress;
        let in_flight = progress.iter().flat_map(BTreeMap::values).map(|it| it.in_flight_bytes);
        values.in_flight_bytes = in_flight.sum();
        values
    }

    /// Publishes who leads.
    pub(crate) fn set_leadership(
        &self,
        role: onefold_raft::Role,
        term: Term,
        leader: Option<NodeId>,
    ) {
        let number = match role {
            onefold_raft::Role::Follower => 0,
            onefold_raft::Role::PreCandidate => 1,
            onefold_raft::Role::Candidate => 2,
            onefold_raft::Role::Leader => 3,
        };
        self.progress.role.store(number, Ordering::Release);
        let is_self = role == onefold_raft::Role::Leader;
        let leadership = Leadership { leader, term, is_self };
        self.leadership.send_if_modified(|current| {
            let is_changed = *current != leadership;
            *current = leadership;
            is_changed
        });
    }
}

const fn role_from(number: u8) -> Role {
    match number {
        1 => Role::PreCandidate,
        2 => Role::Candidate,
        3 => Role::Leader,
        _ => Role::Follower,
    }
}

/// Locks; a thread that panicked with the lock has stopped the host already.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
