//! The leader's side of a transfer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onefold_raft::SnapshotOutcome;
use onefold_table::TableError;
use onefold_transport::{CallError, Class, RemoteCode};
use onefold_types::NodeId;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::VIEW_KEPT_FOR;
use crate::HostError;
use crate::core::{Core, GroupCell};
use crate::inbox::Event;
use crate::state::{Export, Piece, Position};
use crate::wire::{
    SnapshotBegin, SnapshotBeginRequest, SnapshotBegun, SnapshotPiece, SnapshotPieceRequest,
};

/// How long one call may take: the follower writes a piece, or syncs its table.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause before another attempt with the same view.
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
    #[error("the follower has pieces that were not sent to it")]
    UnknownPosition,
    #[error("this node no longer leads the group")]
    NotLeader,
}

impl From<TableError> for SendError {
    fn from(error: TableError) -> Self {
        Self::Host(error.into())
    }
}

impl SendError {
    /// Whether another attempt with the same view may get further.
    fn may_resume(&self) -> bool {
        match self {
            Self::Call(error) => error.remote_code().is_none_or(|code| {
                matches!(
                    code,
                    RemoteCode::Corrupt
                        | RemoteCode::Overloaded
                        | RemoteCode::NotFound
                        | RemoteCode::Unavailable
                )
            }),
            Self::Host(_) | Self::Task(_) | Self::UnknownPosition | Self::NotLeader => false,
        }
    }
}

/// One state on its way to one follower.
struct Sending<'a> {
    core: &'a Core,
    cell: &'a GroupCell,
    to: NodeId,
    export: Export,
    /// Names the export.
    transfer: u64,
    /// After the last piece that was acknowledged.
    acknowledged: Position,
    /// After the last piece that was sent.
    sent: Position,
    /// When a piece was last acknowledged.
    progressed: Instant,
}

/// Sends the present state of a group to a follower, and reports how that went.
pub(crate) async fn send(
    core: Arc<Core>,
    cell: Arc<GroupCell>,
    to: NodeId,
    permits: Arc<Semaphore>,
) {
    let group = cell.id;
    match deliver(&core, &cell, to, &permits).await {
        Some(Ok(outcome)) => core.inbox.report(Event::SnapshotSent { group, to, outcome }),
        Some(Err(error)) => core.fail(error),
        None => {}
    }
}

/// Tries until the follower has everything, or takes nothing for too long; `None` when the host
/// stops.
async fn deliver(
    core: &Core,
    cell: &GroupCell,
    to: NodeId,
    permits: &Semaphore,
) -> Option<Result<SnapshotOutcome, HostError>> {
    let group = cell.id;
    let mut sending: Option<Sending<'_>> = None;
    loop {
        // Not held between attempts: a follower that is gone must not keep others from theirs.
        let permit = permits.acquire().await.ok()?;
        if core.inbox.closed().is_some() {
            return None;
        }
        let under_way = match &mut sending {
            Some(sending) => sending,
            // Not before there is a permit: the state is to be new.
            None => match cell.generations.export() {
                Ok(export) => sending.insert(Sending::new(core, cell, to, export)),
                Err(error) => return Some(Err(error)),
            },
        };
        let mark = under_way.export.mark().clone();
        let Err(error) = under_way.attempt().await else {
            core.transfers.counts.delivered.add(1);
            tracing::info!(%group, %to, index = %mark.index, "delivered a snapshot");
            return Some(Ok(SnapshotOutcome::Delivered(mark)));
        };
        drop(permit);
        if core.inbox.closed().is_some() {
            return None;
        }
        core.transfers.counts.interrupted.add(1);
        match error {
            SendError::Host(error) => return Some(Err(error)),
            error if error.may_resume() && under_way.progressed.elapsed() < VIEW_KEPT_FOR => {
                tracing::debug!(%group, %to, %error, "a snapshot was interrupted; going on soon");
                tokio::time::sleep(PAUSE).await;
            }
            error => {
                // Lets go of the view.
                drop(sending);
                tracing::warn!(%group, %to, %error, "could not deliver a snapshot");
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                return Some(Ok(SnapshotOutcome::Failed));
            }
        }
    }
}

impl<'a> Sending<'a> {
    fn new(core: &'a Core, cell: &'a GroupCell, to: NodeId, export: Export) -> Self {
        Self {
            core,
            cell,
            to,
            export,
            transfer: random(),
            acknowledged: Position::default(),
            sent: Position::default(),
            progressed: Instant::now(),
        }
    }

    /// Sends what the follower does not have yet.
    async fn attempt(&mut self) -> Result<(), SendError> {
        let mark = self.export.mark().clone();
        let begin = SnapshotBeginRequest { group: self.cell.id, mark, transfer: self.transfer };
        let begun = self.core.peers.call::<SnapshotBegin>(
            self.to,
            Class::Bulk,
            &begin,
            Bytes::new(),
            CALL_TIMEOUT,
        );
        let SnapshotBegun::Send(position) = begun.await?.0 else { return Ok(()) };
        self.accept(position)?;
        loop {
            let is_closed = self.core.inbox.closed().is_some();
            if is_closed || !self.cell.leadership.borrow().is_self {
                return Err(SendError::NotLeader);
            }
            let (piece, next) = self.read().await?;
            self.sent.clone_from(&next);
            let is_last = piece.end.is_some();
            self.send(piece).await?;
            self.acknowledged = next;
            self.progressed = Instant::now();
            if is_last {
                return Ok(());
            }
        }
    }

    /// Goes on where the follower is. It may have lost pieces that were not durable, and may have
    /// one whose acknowledgement was lost, but none that was never sent.
    fn accept(&mut self, position: Position) -> Result<(), SendError> {
        let is_known = match position.pieces {
            pieces if pieces == self.acknowledged.pieces => position == self.acknowledged,
            pieces if pieces == self.sent.pieces => position == self.sent,
            pieces => pieces < self.acknowledged.pieces,
        };
        if !is_known {
            return Err(SendError::UnknownPosition);
        }
        self.acknowledged = position;
        Ok(())
    }

    async fn read(&self) -> Result<(Piece, Position), SendError> {
        let (export, at) = (self.export.clone(), self.acknowledged.clone());
        let bytes_max = self.core.config.limits.snapshot_chunk_bytes;
        let read = tokio::task::spawn_blocking(move || export.piece(&at, bytes_max));
        Ok(read.await??)
    }

    async fn send(&self, piece: Piece) -> Result<(), SendError> {
        let Piece { number, crc32c, end, body } = piece;
        let (group, transfer) = (self.cell.id, self.transfer);
        let bytes = body.len() as u64;
        let request = SnapshotPieceRequest { group, transfer, number, crc32c, end };
        let call = self.core.peers.call::<SnapshotPiece>(
            self.to,
            Class::Bulk,
            &request,
            body,
            CALL_TIMEOUT,
        );
        call.await?;
        self.core.transfers.counts.pieces_sent.add(1);
        self.core.transfers.counts.bytes_sent.add(bytes);
        Ok(())
    }
}

/// A number that no other export is likely to have.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0_u8)
}
