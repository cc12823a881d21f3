//! Proposals: here when this node leads, else through the node that does.

use std::time::Duration;

use bytes::Bytes;
use onefold_transport::{CallError, Class};
use onefold_types::NodeId;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::core::{Core, GroupCell};
use crate::inbox::Proposal;
use crate::state::seal_command;
use crate::wire::{self, ProposeRequest, milliseconds};
use crate::{Leadership, ProposeError, SessionTag};

/// Pause before another attempt when nothing is heard of a new leader; doubled up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// One command on its way.
struct Proposing<'a> {
    core: &'a Core,
    cell: &'a GroupCell,
    command: Bytes,
    session: Option<SessionTag>,
    until: Instant,
}

/// Replicates a command, wherever the leader is.
///
/// # Errors
/// See [`ProposeError`].
pub(crate) async fn anywhere(
    core: &Core,
    cell: &GroupCell,
    command: Bytes,
    session: Option<SessionTag>,
    deadline: Duration,
) -> Result<Bytes, ProposeError> {
    let began = Instant::now();
    let proposing = Proposing { core, cell, command, session, until: began + deadline };
    let mut leadership = cell.leadership.subscribe();
    let mut pause = PAUSE_MIN;
    let mut hint = None;
    let mut attempts = 0;
    // Set once an attempt may have got through: from then on a refusal says nothing about it.
    let mut doubt: Option<ProposeError> = None;
    loop {
        let known = leadership.borrow_and_update().leader;
        if let Some(leader) = hint.take().or(known).or_else(|| cell.another_member(attempts)) {
            attempts += 1;
            match proposing.attempt(leader, &mut leadership).await {
                Ok(answer) => return Ok(answer),
                Err(error @ ProposeError::Unknown { .. }) => {
                    if session.is_none() {
                        return Err(error);
                    }
                    doubt = Some(error);
                }
                Err(error) if may_retry(&error) => {
                    let other = wire::leader_hint(&error);
                    hint = other.filter(|other| *other != leader && Some(*other) != known);
                }
                Err(error) if error.is_not_executed() => return Err(doubt.unwrap_or(error)),
                Err(error) => return Err(error),
            }
        }
        if let Some(reason) = core.inbox.closed() {
            return Err(doubt.unwrap_or(ProposeError::Stopped { reason }));
        }
        if hint.is_none() {
            let wake = (Instant::now() + pause).min(proposing.until);
            // Woken by news of the leader, or to look again.
            let _ = timeout_at(wake, leadership.changed()).await;
            pause = (2 * pause).min(PAUSE_MAX);
        }
        if Instant::now() >= proposing.until {
            let waited_ms = milliseconds(began.elapsed());
            return Err(doubt.unwrap_or(ProposeError::NoLeader { group: cell.id, waited_ms }));
        }
    }
}

/// Whether another node or moment may take what this one refused.
fn may_retry(error: &ProposeError) -> bool {
    matches!(
        error,
        ProposeError::NotLeader { .. }
            | ProposeError::NoLeader { .. }
            | ProposeError::NotHosted { .. }
    )
}

impl Proposing<'_> {
    async fn attempt(
        &self,
        leader: NodeId,
        leadership: &mut watch::Receiver<Leadership>,
    ) -> Result<Bytes, ProposeError> {
        if leader == self.cell.node {
            return here(self.core, self.cell, &self.command, self.session, self.until).await;
        }
        let forwarded = self.forward(leader);
        if self.session.is_none() {
            return forwarded.await;
        }
        let group = self.cell.id;
        tokio::select! {
            answer = forwarded => answer,
            // The one that was asked may be gone; with a session it does no harm to ask another.
            () = leader_other_than(leader, leadership) => {
                let reason = format!("node {leader} lost leadership before it answered");
                Err(ProposeError::Unknown { group, reason })
            }
        }
    }

    async fn forward(&self, leader: NodeId) -> Result<Bytes, ProposeError> {
        let group = self.cell.id;
        let left = self.until.saturating_duration_since(Instant::now());
        let deadline_ms = milliseconds(left);
        let request = ProposeRequest { group, session: self.session, deadline_ms };
        let command = self.command.clone();
        let call =
            self.core.peers.call::<wire::Propose>(leader, Class::Call, &request, command, left);
        let error = match call.await {
            Ok(((), answer)) => return Ok(answer),
            Err(error) => error,
        };
        Err(match error {
            CallError::Remote(remote) => match remote.detail() {
                // That host took nothing any more; another one may.
                Some(ProposeError::Stopped { .. }) => {
                    ProposeError::NotLeader { group, leader: None }
                }
                Some(error) => error,
                None => ProposeError::Unknown { group, reason: remote.to_string() },
            },
            CallError::Overloaded { .. } => ProposeError::Overloaded { group },
            error if error.is_unsent() => ProposeError::NotLeader { group, leader: None },
            error => ProposeError::Unknown { group, reason: error.to_string() },
        })
    }
}

/// Returns when another node than this one leads.
async fn leader_other_than(node: NodeId, leadership: &mut watch::Receiver<Leadership>) {
    let is_other = |now: &Leadership| now.leader.is_some_and(|leader| leader != node);
    if leadership.wait_for(is_other).await.is_err() {
        // The group is gone; so is whoever would have told us.
        std::future::pending::<()>().await;
    }
}

/// Replicates a command if this node leads the group.
///
/// # Errors
/// See [`ProposeError`]; [`ProposeError::NotLeader`] when another node must be asked.
pub(crate) async fn here(
    core: &Core,
    cell: &GroupCell,
    command: &[u8],
    session: Option<SessionTag>,
    until: Instant,
) -> Result<Bytes, ProposeError> {
    let group = cell.id;
    let (reply, answer) = oneshot::channel();
    let command = seal_command(cell.stamp(core), session, command).inspect_err(|_| {
        // The only reason that there is.
        cell.counters.proposals_too_large_total.increment();
    })?;
    core.inbox.propose(Proposal { group, command, reply })?;
    match timeout_at(until, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => {
            let reason =
                core.inbox.closed().unwrap_or_else(|| "the command was dropped".to_owned());
            Err(ProposeError::Unknown { group, reason })
        }
        Err(_) => {
            let reason = "it was not committed in time".to_owned();
            Err(ProposeError::Unknown { group, reason })
        }
    }
}
