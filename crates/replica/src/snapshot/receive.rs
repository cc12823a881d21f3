//! The follower's side of a transfer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use onefold_raft::SnapshotMark;
use onefold_transport::{RemoteCode, RemoteError, Router};
use onefold_types::GroupId;

use super::pairs::{crc32c, parse};
use crate::HostError;
use crate::core::{Core, GroupCell, lock};
use crate::records::{Generation, generation_space};
use crate::wire::{
    SnapshotBegin, SnapshotBeginRequest, SnapshotBegun, SnapshotPiece, SnapshotPieceRequest,
    SnapshotTotal,
};

/// A transfer without a piece for this long is given up when another one needs its place.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// The snapshots that are coming in or wait to be installed: at most one for each group.
#[derive(Default)]
pub(crate) struct Transfers {
    by_group: Mutex<BTreeMap<GroupId, Arc<Transfer>>>,
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
    next_piece: u64,
    total: SnapshotTotal,
    last_piece_at: Instant,
    /// Verified and durable.
    is_staged: bool,
    /// Given up, or taken to be installed.
    is_over: bool,
}

impl Transfers {
    /// Takes the staged snapshot with this mark, to be installed. What else there is of the group
    /// stays: it is replaced by the next transfer.
    pub(crate) fn take_staged(&self, group: GroupId, mark: &SnapshotMark) -> Option<Generation> {
        let mut by_group = lock(&self.by_group);
        let transfer = by_group.get(&group)?;
        let mut received = lock(&transfer.received);
        if transfer.mark != *mark || !received.is_staged {
            return None;
        }
        received.is_over = true;
        let generation = transfer.generation;
        drop(received);
        by_group.remove(&group);
        Some(generation)
    }

    fn find(&self, group: GroupId, id: u64) -> Option<Arc<Transfer>> {
        lock(&self.by_group).get(&group).filter(|transfer| transfer.id == id).cloned()
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
            on_blocking_thread(move || piece(&core, &request, &body).map(|()| ((), Bytes::new())))
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
    if let Some(before) = by_group.get(&group).cloned() {
        let received = lock(&before.received);
        if before.mark == mark && received.is_staged {
            return Ok(SnapshotBegun::Staged);
        }
        drop(received);
        by_group.remove(&group);
        give_up(core, group, &before);
    }
    make_room(core, &mut by_group)?;
    let generation = cell.new_generation().map_err(|error| failed(core, error.into()))?;
    tracing::info!(%group, index = %mark.index, "receiving a snapshot");
    let received = Mutex::new(Received {
        next_piece: 0,
        total: SnapshotTotal::default(),
        last_piece_at: Instant::now(),
        is_staged: false,
        is_over: false,
    });
    by_group.insert(group, Arc::new(Transfer { id: transfer, mark, generation, received }));
    Ok(SnapshotBegun::Send)
}

/// Gives up stalled transfers when there are as many as may be.
fn make_room(
    core: &Core,
    by_group: &mut BTreeMap<GroupId, Arc<Transfer>>,
) -> Result<(), RemoteError> {
    let has_room =
        |by_group: &BTreeMap<_, _>| by_group.len() < core.config.limits.snapshots_received_max;
    if has_room(by_group) {
        return Ok(());
    }
    by_group.retain(|&group, transfer| {
        let is_stalled = lock(&transfer.received).last_piece_at.elapsed() > STALLED_AFTER;
        if is_stalled {
            give_up(core, group, transfer);
        }
        !is_stalled
    });
    if has_room(by_group) {
        return Ok(());
    }
    let message = "this node receives as many snapshots as it may; try again later";
    Err(RemoteError::new(RemoteCode::Overloaded, message))
}

fn give_up(core: &Core, group: GroupId, transfer: &Transfer) {
    lock(&transfer.received).is_over = true;
    core.chores.wipe(group, transfer.generation);
}

fn piece(core: &Core, request: &SnapshotPieceRequest, body: &Bytes) -> Result<(), RemoteError> {
    let cell = hosted(core, request.group)?;
    let gone = || RemoteError::new(RemoteCode::NotFound, "the transfer was given up; begin again");
    let transfer = core.transfers.find(request.group, request.transfer).ok_or_else(gone)?;
    let mut received = lock(&transfer.received);
    if received.is_over {
        return Err(gone());
    }
    if request.number.checked_add(1) == Some(received.next_piece) {
        // Its answer was lost; it is here.
        return Ok(());
    }
    if request.number != received.next_piece || received.is_staged {
        let message = format!("piece {} is wanted, not {}", received.next_piece, request.number);
        return Err(RemoteError::new(RemoteCode::Conflict, message));
    }
    if crc32c(body) != request.crc32c {
        let message = format!("piece {} arrived damaged", request.number);
        return Err(RemoteError::new(RemoteCode::Corrupt, message));
    }
    let malformed = || RemoteError::new(RemoteCode::Invalid, "the piece is malformed");
    let (batch, total) = parse(body).ok_or_else(malformed)?;
    let space = generation_space(&cell.space, transfer.generation);
    space.write(batch).map_err(|error| failed(core, error.into()))?;
    received.total.add(&total);
    if let Some(end) = request.end {
        if end != received.total {
            let message = format!("the pieces hold {:?}, not {end:?}", received.total);
            return Err(RemoteError::new(RemoteCode::Corrupt, message));
        }
        stage(core, cell, &transfer)?;
        received.is_staged = true;
    }
    received.next_piece += 1;
    received.last_piece_at = Instant::now();
    Ok(())
}

/// All pieces are there: the generation must be what was announced, and durable.
fn stage(core: &Core, cell: &GroupCell, transfer: &Transfer) -> Result<(), RemoteError> {
    let space = generation_space(&cell.space, transfer.generation);
    let state = crate::records::read_state(cell.id, &space)
        .map_err(|error| RemoteError::new(RemoteCode::Invalid, error.to_string()))?;
    if state.mark() != transfer.mark {
        let message = format!("the snapshot is of {:?}, not {:?}", state.mark(), transfer.mark);
        return Err(RemoteError::new(RemoteCode::Invalid, message));
    }
    space.table().sync().map_err(|error| failed(core, error.into()))
}

fn hosted(core: &Core, group: GroupId) -> Result<&Arc<GroupCell>, RemoteError> {
    let missing = || {
        let message = format!("group {group} is not on this node");
        RemoteError::new(RemoteCode::NotFound, message)
    };
    core.group(group).ok_or_else(missing)
}

/// A table that fails stops the host.
fn failed(core: &Core, error: HostError) -> RemoteError {
    let message = error.to_string();
    core.fail(error);
    RemoteError::new(RemoteCode::Unavailable, message)
}
