//! The handle of one group.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onefold_raft::MembershipChange;
use onefold_table::SpaceView;
use onefold_types::{GroupId, LogIndex, NodeId, SessionId, Term};
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::core::{Core, GroupCell};
use crate::host::Life;
use crate::inbox::Event;
use crate::{
    ChangeError, GroupStatus, ProposeError, ReadError, TransferError, change, propose, read,
};

/// Makes a command exactly-once: within a session, each sequence number is executed at most once,
/// and a retry gets the first answer.
///
/// A client draws its session at random, numbers its commands from 1, and retries a command with
/// the number that it had. A group forgets sessions that were idle for long
/// ([`SESSION_IDLE_MS_MIN`](crate::SESSION_IDLE_MS_MIN)): a retry must not come later than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionTag {
    /// The session.
    pub session: SessionId,
    /// The number of the command within its session.
    pub sequence: u64,
    /// The client has the answers of all numbers below, or gave them up: the group forgets them.
    pub acknowledged_below: u64,
}

/// How large the answer to a command may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnswerSize {
    /// At most a few KiB, like an acknowledgement: on its way to the leader the command may share a
    /// call with others. A larger answer is lost ([`ProposeError::Unknown`]).
    Small,
    /// Up to a frame.
    #[default]
    Any,
}

/// A command on its way to the log.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) bytes: Bytes,
    pub(crate) session: Option<SessionTag>,
    pub(crate) answer: AnswerSize,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Shows every write that was acknowledged anywhere before the read began (Raft dissertation,
    /// section 6.4).
    Linearizable,
    /// Shows every write that was acknowledged longer ago than this.
    BoundedStale(Duration),
    /// Whatever this replica has applied.
    Local,
}

/// Who leads a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader, if one is known.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: Term,
    /// Whether this replica is the leader.
    pub is_self: bool,
}

/// How long a transfer of leadership may take before it is asked for again.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(1);

/// A group on this node. Works the same on every node that hosts the group, leader or not. Cheap to
/// clone.
#[derive(Clone)]
pub struct Group {
    core: Arc<Core>,
    cell: Arc<GroupCell>,
    /// The host runs for as long as anybody may use it.
    _life: Arc<Life>,
}

impl Group {
    pub(crate) fn new(core: Arc<Core>, cell: Arc<GroupCell>, life: Arc<Life>) -> Self {
        Self { core, cell, _life: life }
    }

    /// The group's number.
    pub fn id(&self) -> GroupId {
        self.cell.id
    }

    /// Replicates a command and answers what the state machine answered.
    ///
    /// Any node may propose: the command is forwarded to the leader, and waits for one up to the
    /// deadline. With a session tag, attempts whose outcome is not known are repeated within the
    /// deadline, and the command is executed once. Without one they end as
    /// [`ProposeError::Unknown`].
    ///
    /// # Errors
    /// See [`ProposeError`]; [`ProposeError::is_not_executed`] tells whether another attempt is
    /// harmless.
    pub async fn propose(
        &self,
        command: Bytes,
        session: Option<SessionTag>,
        deadline: Duration,
    ) -> Result<Bytes, ProposeError> {
        self.propose_sized(command, session, AnswerSize::Any, deadline).await
    }

    /// As [`propose`](Self::propose), when the size of the answer is known: a small one costs less.
    ///
    /// # Errors
    /// As [`propose`](Self::propose).
    pub async fn propose_sized(
        &self,
        command: Bytes,
        session: Option<SessionTag>,
        answer: AnswerSize,
        deadline: Duration,
    ) -> Result<Bytes, ProposeError> {
        let command = Command { bytes: command, session, answer };
        propose::anywhere(&self.core, &self.cell, command, deadline).await
    }

    /// A view of the group's state that is as fresh as `consistency` says. It does not change
    /// later.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read(
        &self,
        consistency: Consistency,
        deadline: Duration,
    ) -> Result<SpaceView, ReadError> {
        read::read(&self.core, &self.cell, consistency, deadline).await
    }

    /// The state that this replica has applied, as it is now. Unlike [`read`](Self::read), it does
    /// not refuse after the host has stopped, or while the state is lost: then it is empty.
    pub fn view(&self) -> SpaceView {
        self.cell.view()
    }

    /// The last entry that this replica has applied: a [`view`](Self::view) taken afterwards shows
    /// at least that.
    pub fn applied(&self) -> LogIndex {
        *self.cell.applied.borrow()
    }

    /// Sees each advance of [`applied`](Self::applied).
    pub fn applied_updates(&self) -> watch::Receiver<LogIndex> {
        self.cell.applied.subscribe()
    }

    /// What this replica knows of its group.
    pub fn status(&self) -> GroupStatus {
        self.cell.status()
    }

    /// Sees each change of leadership.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.cell.leadership.subscribe()
    }

    /// Whether this replica leads, as far as it knows: another one may have taken over already.
    pub fn is_leader(&self) -> bool {
        self.cell.leadership.borrow().is_self
    }

    /// Hands leadership to another voter and waits until it leads (Raft dissertation, section
    /// 3.10). Call it on the leader.
    ///
    /// # Errors
    /// See [`TransferError`].
    pub async fn transfer_leadership(
        &self,
        to: NodeId,
        deadline: Duration,
    ) -> Result<(), TransferError> {
        let group = self.cell.id;
        let until = Instant::now() + deadline;
        let mut leadership = self.leadership();
        let mut is_under_way = false;
        loop {
            match self.ask_to_transfer(to, until, deadline).await {
                Ok(()) => is_under_way = true,
                // The election that it caused is not over.
                Err(TransferError::NotLeader { leader, .. })
                    if is_under_way && leader.is_none_or(|leader| leader == to) => {}
                Err(error) => return Err(error),
            }
            // The core gives up after an election timeout, for instance when the one message that
            // matters is lost.
            let again = (Instant::now() + TRANSFER_PATIENCE).min(until);
            let has_taken_over = leadership.wait_for(|now| now.leader == Some(to));
            if let Ok(Ok(_)) = timeout_at(again, has_taken_over).await {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(TransferError::TimedOut { group, to, waited: deadline });
            }
        }
    }

    /// Changes who belongs to the group, and waits until that is committed.
    ///
    /// Any node may ask; the request goes to the leader, and is repeated within the deadline. What
    /// is already so is left as it is, so asking twice changes nothing. Nodes that
    /// [join](MembershipChange::join) are learners when this returns; the leader makes voters of
    /// them by itself once they have caught up.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn change_membership(
        &self,
        change: MembershipChange,
        deadline: Duration,
    ) -> Result<(), ChangeError> {
        change::anywhere(&self.core, &self.cell, change, deadline).await
    }

    async fn ask_to_transfer(
        &self,
        to: NodeId,
        until: Instant,
        deadline: Duration,
    ) -> Result<(), TransferError> {
        let group = self.cell.id;
        let (reply, answer) = oneshot::channel();
        self.core.inbox.report(Event::Transfer { group, to, reply });
        match timeout_at(until, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => {
                let reason = self.core.inbox.closed().unwrap_or_default();
                Err(TransferError::Stopped { reason })
            }
            Err(_) => Err(TransferError::TimedOut { group, to, waited: deadline }),
        }
    }
}
