//! The follower's side of a transfer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use onefold_raft::SnapshotMark;
use onefold_transport::{RemoteCode, RemoteError, Router};
use onefold_types::GroupId;

use super::metrics::Counts;
use super::{GIVEN_UP_AFTER, SnapshotMetrics};
use crate::HostError;
use crate::core::{Core, GroupCell, lock};
use crate::state::{Generation, Piece, PieceError, Staged, Staging};
use crate::wire::{
    SnapshotBegin, SnapshotBeginRequest, SnapshotBegun, SnapshotPiece, SnapshotPieceRequest,
};

/// A transfer without a piece for this long is given up when another one needs its place.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// Time between two looks for transfers that nobody goes on with.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// The snapshots that are coming in or wait to be installed, at most one for each group; and the
/// counts of both directions.
#[derive(Default)]
pub(crate) struct Transfers {
    by_group: Mutex<BTreeMap<GroupId, Arc<Transfer>>>,
    pub(super) counts: Counts,
}

/// One snapshot on its way.
struct Transfer {
    id: u64,
    mark: SnapshotMark,
    generation: Generation,
    /// Held while a piece is written, so that pieces are written one after the other and none after
    /// the transfer was given up.
    received: Mutex<Received>,
}

struct Received {
    staging: Staging,
    last_piece_at: Instant,
    /// Given up, or taken to be installed.
    is_over: bool,
}

impl Transfer {
    fn new(staging: Staging) -> Self {
        Self {
            id: staging.transfer(),
            mark: staging.mark().clone(),
            generation: staging.generation(),
            received: Mutex::new(Received {
                staging,
                last_piece_at: Instant::now(),
                is_over: false,
            }),
        }
    }

    fn is_idle_for(&self, time: Duration) -> bool {
        // One whose piece is just being taken is not idle, and need not be waited for.
        self.received.try_lock().is_ok_and(|received| received.last_piece_at.elapsed() > time)
    }
}

impl Transfers {
    /// Takes the staged snapshot with this mark, to be installed. What else there is of the group
    /// stays: it is replaced by the next transfer.
    pub(crate) fn take_staged(&self, group: GroupId, mark: &SnapshotMark) -> Option<Staged> {
        let mut by_group = lock(&self.by_group);
        let transfer = by_group.get(&group).filter(|transfer| transfer.mark == *mark)?;
        let mut received = lock(&transfer.received);
        let staged = received.staging.staged()?;
        received.is_over = true;
        drop(received);
        by_group.remove(&group);
        Some(staged)
    }

    /// Ends the transfer of a group that is destroyed. Whoever would begin another one under the
    /// lock sees that.
    pub(crate) fn forget(&self, group: GroupId) {
        if let Some(transfer) = lock(&self.by_group).remove(&group) {
            lock(&transfer.received).is_over = true;
        }
    }

    /// The counts of both directions.
    pub(crate) fn metrics(&self) -> SnapshotMetrics {
        self.counts.metrics()
    }

    fn find(&self, group: GroupId, id: u64) -> Option<Arc<Transfer>> {
        lock(&self.by_group).get(&group).filter(|transfer| transfer.id == id).cloned()
    }
}

/// Takes up the transfers that the end of the last process interrupted, if they can go on, and
/// removes all else that transfers have left. From now on, those that nobody goes on with are given
/// up in time.
///
/// # Errors
/// When the table can't be read.
pub(crate) fn resume(core: &Arc<Core>) -> Result<(), HostError> {
    let mut by_group = lock(&core.transfers.by_group);
    for cell in core.groups.all() {
        let group = cell.id;
        let applied = *cell.applied.borrow();
        let has_room = by_group.len() < core.config.limits.snapshots_received_max;
        let kept = cell.generations.interrupted()?;
        let kept = kept.filter(|staging| has_room && staging.mark().index > applied);
        let kept = kept.map(|staging| Arc::new(Transfer::new(staging)));
        let current = cell.generations.current();
        for generation in cell.generations.all()? {
            let is_kept = kept.as_ref().is_some_and(|kept| kept.generation == generation);
            if generation != current && !is_kept {
                core.chores.wipe(group, generation);
            }
        }
        by_group.extend(kept.map(|kept| (group, kept)));
    }
    core.runtime.spawn(sweep(Arc::downgrade(core)));
    Ok(())
}

/// Gives up transfers that nobody goes on with, until the host is gone.
async fn sweep(core: Weak<Core>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(core) = core.upgrade() else { return };
        if core.inbox.closed().is_some() {
            return;
        }
        let swept = tokio::task::spawn_blocking(move || {
            give_up_idle(&core, &mut lock(&core.transfers.by_group), GIVEN_UP_AFTER);
        });
        // Fails only when the runtime itself shuts down.
        let _ = swept.await;
    }
}

/// Enters the handlers of both calls.
pub(crate) fn register(core: &Arc<Core>, router: &mut Router) {
    let host = core.clone();
    router.call::<SnapshotBegin, _, _>(move |_, request, _| {
        let core = host.clone();
        async move { on_blocking_thread(move || Ok((begin(&core, request)?, Bytes::new()))).await }
    });
    let host = core.clone();
    router.call::<SnapshotPiece, _, _>(move |_, request, body| {
        let core = host.clone();
        async move {
            on_blocking_thread(move || piece(&core, request, body).map(|()| ((), Bytes::new())))
                .await
        }
    });
}

async fn on_blocking_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RemoteError> + Send + 'static,
) -> Result<T, RemoteError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(RemoteError::new(RemoteCode::Internal, error.to_string())))
}

fn begin(core: &Core, request: SnapshotBeginRequest) -> Result<SnapshotBegun, RemoteError> {
    let SnapshotBeginRequest { group, mark, transfer } = request;
    let cell = hosted(core, group)?;
    if mark.index <= *cell.applied.borrow() {
        let message = format!("group {group} is at {} already", *cell.applied.borrow());
        return Err(RemoteError::new(RemoteCode::Conflict, message));
    }
    let mut by_group = lock(&core.transfers.by_group);
    if cell.is_destroyed() {
        // Since it was looked up: nothing more is written to its space.
        return Err(missing(group));
    }
    if let Some(before) = by_group.get(&group).cloned() {
        let mut received = lock(&before.received);
        if before.mark == mark && received.staging.staged().is_some() {
            return Ok(SnapshotBegun::Staged);
        }
        if before.id == transfer && before.mark == mark {
            received.last_piece_at = Instant::now();
            let position = received.staging.position().clone();
            if position.pieces > 0 {
                core.transfers.counts.resumed.add(1);
                tracing::info!(%group, pieces = position.pieces, "goes on receiving a snapshot");
            }
            return Ok(SnapshotBegun::Send(position));
        }
        drop(received);
        by_group.remove(&group);
        give_up(core, group, &before);
    }
    make_room(core, &mut by_group)?;
    tracing::info!(%group, index = %mark.index, "receiving a snapshot");
    let staging = cell.generations.stage(mark, transfer).map_err(|error| failed(core, error))?;
    let position = staging.position().clone();
    by_group.insert(group, Arc::new(Transfer::new(staging)));
    Ok(SnapshotBegun::Send(position))
}

/// Gives up stalled transfers when there are as many as may be.
fn make_room(
    core: &Core,
    by_group: &mut BTreeMap<GroupId, Arc<Transfer>>,
) -> Result<(), RemoteError> {
    let received_max = core.config.limits.snapshots_received_max;
    if by_group.len() >= received_max {
        give_up_idle(core, by_group, STALLED_AFTER);
    }
    if by_group.len() < received_max {
        return Ok(());
    }
    let message = "this node receives as many snapshots as it may; try again later";
    Err(RemoteError::new(RemoteCode::Overloaded, message))
}

fn give_up_idle(core: &Core, by_group: &mut BTreeMap<GroupId, Arc<Transfer>>, after: Duration) {
    by_group.retain(|&group, transfer| {
        let is_idle = transfer.is_idle_for(after);
        if is_idle {
            tracing::info!(%group, "gave up a snapshot that nobody goes on sending");
            give_up(core, group, transfer);
        }
        !is_idle
    });
}

fn give_up(core: &Core, group: GroupId, transfer: &Transfer) {
    lock(&transfer.received).is_over = true;
    core.transfers.counts.given_up.add(1);
    core.chores.wipe(group, transfer.generation);
}

fn piece(core: &Core, request: SnapshotPieceRequest, body: Bytes) -> Result<(), RemoteError> {
    let SnapshotPieceRequest { group, transfer: id, number, crc32c, end } = request;
    hosted(core, group)?;
    let gone = || RemoteError::new(RemoteCode::NotFound, "the transfer was given up; begin again");
    let transfer = core.transfers.find(group, id).ok_or_else(gone)?;
    let mut received = lock(&transfer.received);
    if received.is_over {
        return Err(gone());
    }
    let before = received.staging.position().clone();
    let error = match received.staging.piece(&Piece { number, crc32c, end, body }) {
        Ok(()) => {
            let total = received.staging.position().total;
            received.last_piece_at = Instant::now();
            let counts = &core.transfers.counts;
            counts.pieces_received.add(received.staging.position().pieces - before.pieces);
            counts.bytes_received.add(total.bytes - before.total.bytes);
            return Ok(());
        }
        Err(PieceError::Host(error)) => return Err(failed(core, error)),
        Err(error) => error,
    };
    drop(received);
    core.transfers.counts.pieces_refused.add(1);
    tracing::warn!(%group, %error, "refused a piece of a snapshot");
    let code = match error {
        PieceError::OutOfOrder { .. } => RemoteCode::Conflict,
        PieceError::Damaged { .. } => RemoteCode::Corrupt,
        // Sent again it would be the same.
        _ => {
            let mut by_group = lock(&core.transfers.by_group);
            if by_group.get(&group).is_some_and(|now| now.id == id) {
                by_group.remove(&group);
                give_up(core, group, &transfer);
            }
            RemoteCode::Invalid
        }
    };
    Err(RemoteError::new(code, error.to_string()))
}

fn hosted(core: &Core, group: GroupId) -> Result<Arc<GroupCell>, RemoteError> {
    core.group(group).ok_or_else(|| missing(group))
}

fn missing(group: GroupId) -> RemoteError {
    RemoteError::new(RemoteCode::NotFound, format!("group {group} is not on this node"))
}

/// A table that fails stops the host.
fn failed(core: &Core, error: HostError) -> RemoteError {
    let message = error.to_string();
    core.fail(error);
    RemoteError::new(RemoteCode::Unavailable, message)
}
