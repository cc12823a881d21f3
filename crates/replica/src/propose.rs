//! Proposals: here when this node leads, else through the node that does.

use std::time::Duration;

use std::sync::Arc;

use bytes::Bytes;
use onefold_types::NodeId;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::core::{Core, GroupCell};
use crate::forward::proposals::{forward, outcome};
use crate::group::Command;
use crate::inbox::Proposal;
use crate::state::seal_command;
use crate::wire::{self, milliseconds};
use crate::{Leadership, ProposeError};

/// Pause before another attempt when nothing is heard of a new leader; doubled up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// One command on its way.
struct Proposing<'a> {
    core: &'a Arc<Core>,
    cell: &'a Arc<GroupCell>,
    command: Command,
    until: Instant,
}

/// Replicates a command, wherever the leader is.
///
/// # Errors
/// See [`ProposeError`].
pub(crate) async fn anywhere(
    core: &Arc<Core>,
    cell: &Arc<GroupCell>,
    command: Command,
    deadline: Duration,
) -> Result<Bytes, ProposeError> {
    let began = Instant::now();
    let has_session = command.session.is_some();
    let proposing = Proposing { core, cell, command, until: began + deadline };
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
                    if !has_session {
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
        if cell.is_destroyed() {
            return Err(doubt.unwrap_or(ProposeError::NotHosted { group: cell.id }));
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
        let Self { core, cell, command, until } = self;
        if leader == cell.node {
            return here(core, cell, command, *until).await;
        }
        let forwarded = forward(core, cell, leader, command, *until);
        if command.session.is_none() {
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
async fn here(
    core: &Core,
    cell: &GroupCell,
    command: &Command,
    until: Instant,
) -> Result<Bytes, ProposeError> {
    let (reply, answer) = oneshot::channel();
    let sealed = seal_command(cell.stamp(core), command.session, &command.bytes);
    let command = sealed.inspect_err(|_| {
        // The only reason that there is.
        cell.counters.proposals_too_large_total.increment();
    })?;
    core.inbox.propose(Proposal { group: cell.id, command, reply })?;
    outcome(core, cell, answer, until).await
}
