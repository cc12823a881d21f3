//! Changes of a group's members, driven until they are done.
//!
//! The core takes one change at a time, and a change of voters is two entries (Raft paper, section
//! 6). Asking for what is already so is answered as done. So whoever wants a change asks for it
//! again and again, whichever node leads meanwhile, until the answer is that nothing is left to do:
//! no attempt needs to be remembered, and a lost answer costs nothing.

use std::time::Duration;

use bytes::Bytes;
use onefold_raft::MembershipChange;
use onefold_transport::{CallError, Class};
use onefold_types::{LogIndex, NodeId};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::ChangeError;
use crate::core::{Core, GroupCell};
use crate::inbox::Event;
use crate::wire::{self, ChangeMembershipRequest, milliseconds};

/// Pause before another attempt when nothing is heard of progress; doubled up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// What the leader's core says to a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeStep {
    /// Everything is so, and committed.
    Done,
    /// This entry begins it.
    Begun(LogIndex),
    /// This change or another one is under way, or the leader is new.
    Busy,
}

/// Changes the members, wherever the leader is.
///
/// # Errors
/// See [`ChangeError`].
pub(crate) async fn anywhere(
    core: &Core,
    cell: &GroupCell,
    change: MembershipChange,
    deadline: Duration,
) -> Result<(), ChangeError> {
    let group = cell.id;
    check(cell, &change)?;
    let began = Instant::now();
    let until = began + deadline;
    let mut leadership = cell.leadership.subscribe();
    let mut pause = PAUSE_MIN;
    let mut hint = None;
    let mut attempts = 0;
    let mut last = None;
    loop {
        if let Some(reason) = core.inbox.closed() {
            return Err(ChangeError::Stopped { reason });
        }
        if cell.is_destroyed() {
            return Err(ChangeError::NotHosted { group });
        }
        let known = leadership.borrow_and_update().leader;
        if let Some(leader) = hint.take().or(known).or_else(|| cell.another_member(attempts)) {
            attempts += 1;
            let outcome = if leader == cell.node {
                here(core, cell, &change, until).await
            } else {
                there(core, cell, &change, leader, until).await
            };
            match outcome {
                Ok(()) => return Ok(()),
                Err(ChangeError::NotLeader { leader: other, .. }) => {
                    hint = other.filter(|other| *other != leader && Some(*other) != known);
                }
                Err(error) if error.may_pass() => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        if Instant::now() >= until {
            let waited_ms = milliseconds(began.elapsed());
            return Err(last.unwrap_or(ChangeError::NoLeader { group, waited_ms }));
        }
        if hint.is_none() {
            let wake = (Instant::now() + pause).min(until);
            // Woken by news of the leader, or to look again.
            let _ = timeout_at(wake, leadership.changed()).await;
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }
}

fn check(cell: &GroupCell, change: &MembershipChange) -> Result<(), ChangeError> {
    let MembershipChange { join, learn, remove } = change;
    let twice = join.intersection(learn).chain(join.intersection(remove));
    match twice.chain(learn.intersection(remove)).next() {
        Some(node) => {
            let reason = format!("node {node} cannot become two things at once");
            Err(ChangeError::Refused { group: cell.id, reason })
        }
        None => Ok(()),
    }
}

/// Changes the members if this node leads the group, and waits until that is committed.
///
/// # Errors
/// See [`ChangeError`]; [`ChangeError::NotLeader`] when another node must be asked.
pub(crate) async fn here(
    core: &Core,
    cell: &GroupCell,
    change: &MembershipChange,
    until: Instant,
) -> Result<(), ChangeError> {
    let group = cell.id;
    check(cell, change)?;
    let began = Instant::now();
    let mut is_begun = false;
    let mut pause = PAUSE_MIN;
    loop {
        let step = ask(core, cell, change, until).await?;
        let wake = (Instant::now() + pause).min(until);
        match step {
            ChangeStep::Done => return Ok(()),
            ChangeStep::Begun(index) => {
                is_begun = true;
                pause = PAUSE_MIN;
                let mut applied = cell.applied.subscribe();
                let _ = timeout_at(wake, applied.wait_for(|applied| *applied >= index)).await;
            }
            ChangeStep::Busy => {
                tokio::time::sleep_until(wake).await;
                pause = (2 * pause).min(PAUSE_MAX);
            }
        }
        if Instant::now() >= until {
            let waited_ms = milliseconds(began.elapsed());
            return Err(if is_begun {
                ChangeError::Unfinished { group, waited_ms }
            } else {
                ChangeError::Busy { group, waited_ms }
            });
        }
    }
}

async fn ask(
    core: &Core,
    cell: &GroupCell,
    change: &MembershipChange,
    until: Instant,
) -> Result<ChangeStep, ChangeError> {
    let (reply, answer) = oneshot::channel();
    let group = cell.id;
    core.inbox.report(Event::ChangeMembership { group, change: change.clone(), reply });
    match timeout_at(until, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => {
            let reason = core.inbox.closed().unwrap_or_default();
            Err(ChangeError::Stopped { reason })
        }
        Err(_) => Ok(ChangeStep::Busy),
    }
}

async fn there(
    core: &Core,
    cell: &GroupCell,
    change: &MembershipChange,
    leader: NodeId,
    until: Instant,
) -> Result<(), ChangeError> {
    let group = cell.id;
    let left = until.saturating_duration_since(Instant::now());
    let deadline_ms = milliseconds(left);
    let request = ChangeMembershipRequest { group, change: change.clone(), deadline_ms };
    let call = core.peers.call::<wire::ChangeMembership>(
        leader,
        Class::Call,
        &request,
        Bytes::new(),
        left,
    );
    match call.await {
        Ok(((), _)) => Ok(()),
        Err(CallError::Remote(error)) => Err(match error.detail() {
            // Another node may still serve.
            Some(ChangeError::Stopped { .. } | ChangeError::NotHosted { .. }) | None => {
                ChangeError::NotLeader { group, leader: None }
            }
            Some(error) => error,
        }),
        // Whatever became of it: asking again does no harm.
        Err(_) => Err(ChangeError::NotLeader { group, leader: None }),
    }
}
