//! The leader's side of a transfer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onefold_raft::{SnapshotMark, SnapshotOutcome};
use onefold_table::{KeyRange, SpaceView, TableError};
use onefold_transport::{CallError, Class, RemoteCode};
use onefold_types::NodeId;
use tokio::sync::Semaphore;

use super::pairs::{self, Piece, crc32c};
use crate::HostError;
use crate::core::{Core, GroupCell};
use crate::inbox::Event;
use crate::records::{read_root, read_state};
use crate::wire::{
    SnapshotBegin, SnapshotBeginRequest, SnapshotBegun, SnapshotPiece, SnapshotPieceRequest,
    SnapshotTotal,
};

/// How long one call may take: the follower writes a piece, or syncs its table.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Attempts to send one piece.
const ATTEMPTS_MAX: u32 = 4;
/// Pause before another attempt.
const PAUSE: Duration = Duration::from_millis(200);
/// Pause after a failed transfer, so that a follower that refuses is not asked all the time.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Why a snapshot did not get there.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("the reading task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl From<TableError> for SendError {
    fn from(error: TableError) -> Self {
        Self::Host(error.into())
    }
}

/// Sends the present state of a group to a follower, and reports how that went.
pub(crate) async fn send(
    core: Arc<Core>,
    cell: Arc<GroupCell>,
    to: NodeId,
    permits: Arc<Semaphore>,
) {
    let Ok(_permit) = permits.acquire().await else { return };
    if core.inbox.closed().is_some() {
        return;
    }
    let group = cell.id;
    let outcome = match stream(&core, &cell, to).await {
        Ok(mark) => {
            tracing::info!(%group, %to, index = %mark.index, "delivered a snapshot");
            SnapshotOutcome::Delivered(mark)
        }
        Err(SendError::Host(error)) => {
            core.fail(error);
            return;
        }
        Err(error) => {
            tracing::warn!(%group, %to, %error, "could not deliver a snapshot; trying again later");
            tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            SnapshotOutcome::Failed
        }
    };
    core.inbox.report(Event::SnapshotSent { group, to, outcome });
}

async fn stream(core: &Core, cell: &GroupCell, to: NodeId) -> Result<SnapshotMark, SendError> {
    let group = cell.id;
    // Root, state and data are of one moment.
    let space = cell.space.snapshot();
    let root = read_root(group, &space)?.unwrap_or_default();
    let view = space.inner(&root.current.prefix());
    let mark = read_state(group, &view)?.mark();

    let transfer = random();
    let begin = SnapshotBeginRequest { group, mark: mark.clone(), transfer };
    let begun =
        core.peers.call::<SnapshotBegin>(to, Class::Bulk, &begin, Bytes::new(), CALL_TIMEOUT);
    if begun.await?.0 == SnapshotBegun::Staged {
        return Ok(mark);
    }
    let mut total = SnapshotTotal::default();
    let mut rest = Some(KeyRange::all());
    let mut number = 0;
    while let Some(range) = rest {
        let piece = read(&view, range, core.config.limits.snapshot_chunk_bytes).await?;
        total.add(&piece.total);
        let request = SnapshotPieceRequest {
            group,
            transfer,
            number,
            crc32c: crc32c(&piece.body),
            end: piece.rest.is_none().then_some(total),
        };
        send_piece(core, to, &request, piece.body).await?;
        rest = piece.rest;
        number += 1;
    }
    Ok(mark)
}

async fn read(view: &SpaceView, range: KeyRange, bytes_max: usize) -> Result<Piece, SendError> {
    let view = view.clone();
    let piece = tokio::task::spawn_blocking(move || pairs::read(&view, range, bytes_max));
    Ok(piece.await??)
}

async fn send_piece(
    core: &Core,
    to: NodeId,
    request: &SnapshotPieceRequest,
    body: Bytes,
) -> Result<(), SendError> {
    let mut attempt = 1;
    loop {
        let call =
            core.peers.call::<SnapshotPiece>(to, Class::Bulk, request, body.clone(), CALL_TIMEOUT);
        let error = match call.await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        // A piece that arrived damaged may arrive well the next time; other answers stay the same.
        let may_retry = match error.remote_code() {
            Some(code) => matches!(code, RemoteCode::Corrupt | RemoteCode::Overloaded),
            None => true,
        };
        if !may_retry || attempt == ATTEMPTS_MAX || core.inbox.closed().is_some() {
            return Err(error.into());
        }
        attempt += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

/// A number that no other transfer is likely to have.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0_u8)
}
