//! Reads of a state that is fresh enough.

use std::time::Duration;

use onefold_table::SpaceView;
use onefold_types::LogIndex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::core::{Core, GroupCell};
use crate::inbox::Read;
use crate::wire::milliseconds;
use crate::{Consistency, ReadError};

/// Pause before another attempt when nothing is heard of a new leader.
const PAUSE: Duration = Duration::from_millis(20);

/// A view as fresh as asked for.
///
/// # Errors
/// See [`ReadError`].
pub(crate) async fn read(
    core: &Core,
    cell: &GroupCell,
    consistency: Consistency,
    deadline: Duration,
) -> Result<SpaceView, ReadError> {
    if let Some(reason) = core.inbox.closed() {
        return Err(ReadError::Stopped { reason });
    }
    let is_fresh_enough = match consistency {
        Consistency::Local => true,
        // What a confirmed read saw was all there was when it began.
        Consistency::BoundedStale(lag_max) => cell
            .confirmed()
            .is_some_and(|(at, index)| at.elapsed() < lag_max && *cell.applied.borrow() >= index),
        Consistency::Linearizable => false,
    };
    if !is_fresh_enough {
        linearize(core, cell, Instant::now() + deadline).await?;
    }
    Ok(cell.view())
}

/// Waits until this replica has applied all that was committed when it was asked.
async fn linearize(core: &Core, cell: &GroupCell, until: Instant) -> Result<(), ReadError> {
    let began = Instant::now();
    let group = cell.id;
    let mut leadership = cell.leadership.subscribe();
    loop {
        let attempt_began = std::time::Instant::now();
        let is_leader = leadership.borrow_and_update().is_self;
        let confirmed = if is_leader {
            confirm_here(core, cell, until).await
        } else {
            confirm_there(core, cell, until).await
        };
        match confirmed {
            Ok(index) => {
                applied(cell, index, until).await?;
                cell.confirm(attempt_began, index);
                return Ok(());
            }
            Err(ReadError::NotLeader { .. } | ReadError::NoLeader { .. }) => {}
            Err(error) => return Err(error),
        }
        let wake = (Instant::now() + PAUSE).min(until);
        // Woken by news of the leader, or to look again.
        let _ = timeout_at(wake, leadership.changed()).await;
        if Instant::now() >= until {
            return Err(ReadError::NoLeader { group, waited_ms: milliseconds(began.elapsed()) });
        }
    }
}

/// What is committed, confirmed by this node as the leader (Raft dissertation, section 6.4).
///
/// # Errors
/// See [`ReadError`]; [`ReadError::NotLeader`] when another node must be asked.
pub(crate) async fn confirm_here(
    core: &Core,
    cell: &GroupCell,
    until: Instant,
) -> Result<LogIndex, ReadError> {
    let (reply, answer) = oneshot::channel();
    core.inbox.read(Read { group: cell.id, reply })?;
    answered(core, cell, answer, until).await
}

async fn confirm_there(
    core: &Core,
    cell: &GroupCell,
    until: Instant,
) -> Result<LogIndex, ReadError> {
    let (reply, answer) = oneshot::channel();
    let group = cell.id;
    if cell.forwarded_reads.try_send(reply).is_err() {
        return Err(ReadError::Overloaded { group });
    }
    answered(core, cell, answer, until).await
}

async fn answered(
    core: &Core,
    cell: &GroupCell,
    answer: oneshot::Receiver<Result<LogIndex, ReadError>>,
    until: Instant,
) -> Result<LogIndex, ReadError> {
    let group = cell.id;
    match timeout_at(until, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => {
            let reason = core.inbox.closed().unwrap_or_else(|| "the read was dropped".to_owned());
            Err(ReadError::Stopped { reason })
        }
        Err(_) => Err(ReadError::NotLeader { group, leader: None }),
    }
}

/// Waits until this replica has applied an index.
async fn applied(cell: &GroupCell, wanted: LogIndex, until: Instant) -> Result<(), ReadError> {
    if *cell.applied.borrow() >= wanted {
        return Ok(());
    }
    let mut updates = cell.applied.subscribe();
    let reached = timeout_at(until, updates.wait_for(|applied| *applied >= wanted)).await;
    if matches!(reached, Ok(Ok(_))) {
        return Ok(());
    }
    let applied = *cell.applied.borrow();
    Err(ReadError::Behind { group: cell.id, applied, wanted })
}
