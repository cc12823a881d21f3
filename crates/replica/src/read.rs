//! Reads of a state that is fresh enough.

use std::sync::Arc;
use std::time::Duration;

use onefold_table::SpaceView;
use onefold_types::LogIndex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::core::{Core, GroupCell};
use crate::forward::reads::forward;
use crate::inbox::Read;
use crate::wire::milliseconds;
use crate::{Consistency, ReadError, clock};

/// Pause before another attempt when nothing is heard of a new leader.
const PAUSE: Duration = Duration::from_millis(20);

/// A view as fresh as asked for.
///
/// # Errors
/// See [`ReadError`].
pub(crate) async fn read(
    core: &Arc<Core>,
    cell: &Arc<GroupCell>,
    consistency: Consistency,
    deadline: Duration,
) -> Result<SpaceView, ReadError> {
    let until = Instant::now() + deadline;
    if let Some(reason) = core.inbox.closed() {
        return Err(ReadError::Stopped { reason });
    }
    if cell.is_removed() || cell.is_destroyed() {
        // It hears of nothing any more.
        return Err(ReadError::NotHosted { group: cell.id });
    }
    loop {
        let losses = trustworthy(cell, until).await?;
        let is_fresh_enough = match consistency {
            Consistency::Local => true,
            // What a confirmed read saw was all there was when it began.
            Consistency::BoundedStale(lag_max) => cell.confirmed().is_some_and(|(at, index)| {
                let age = clock::monotonic_micros().saturating_sub(at);
                Duration::from_micros(age) < lag_max && *cell.applied.borrow() >= index
            }),
            Consistency::Linearizable => false,
        };
        if !is_fresh_enough {
            linearize(core, cell, until).await?;
        }
        let view = cell.view();
        // A state that was lost meanwhile may be what the view shows, or lack what it should show.
        if cell.losses() == Some(losses) {
            return Ok(view);
        }
    }
}

/// Waits while this replica has lost its state. Answers how often that happened so far.
async fn trustworthy(cell: &GroupCell, until: Instant) -> Result<u64, ReadError> {
    loop {
        if let Some(losses) = cell.losses() {
            return Ok(losses);
        }
        if Instant::now() >= until {
            return Err(ReadError::StateLost { group: cell.id });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until this replica has applied all that was committed when it was asked.
async fn linearize(
    core: &Arc<Core>,
    cell: &Arc<GroupCell>,
    until: Instant,
) -> Result<(), ReadError> {
    let began = Instant::now();
    let group = cell.id;
    let mut leadership = cell.leadership.subscribe();
    loop {
        if cell.is_destroyed() {
            return Err(ReadError::NotHosted { group });
        }
        let attempt_began = clock::monotonic_micros();
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
    core: &Arc<Core>,
    cell: &Arc<GroupCell>,
    until: Instant,
) -> Result<LogIndex, ReadError> {
    let (reply, answer) = oneshot::channel();
    forward(core, cell, reply)?;
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
