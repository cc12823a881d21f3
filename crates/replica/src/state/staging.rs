//! The receiving side of a snapshot: pieces become a generation beside the state.

use onefold_raft::SnapshotMark;
use onefold_table::{Batch, Space};
use onefold_types::GroupId;

use super::pairs::{crc32c, parse};
use super::records::{
    Generation, HOST, MACHINE, Progress, encode, generation_space, progress_key, read_state,
};
use super::{Piece, Position, SnapshotTotal};
use crate::HostError;

/// What a transfer may lose when the machine loses power: the table is synced that often.
const SYNC_EVERY_BYTES: u64 = 64 << 20;

/// A snapshot on its way into a generation of its own. What was staged survives a crash, see
/// [`Generations::interrupted`](super::Generations::interrupted).
pub struct Staging {
    group: GroupId,
    space: Space,
    generation: Generation,
    progress: Progress,
    synced_bytes: u64,
}

/// A snapshot of which everything is there, durable and verified: it may become the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    pub(super) generation: Generation,
    pub(super) mark: SnapshotMark,
}

impl Staged {
    /// Where it is.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// What it covers.
    pub fn mark(&self) -> &SnapshotMark {
        &self.mark
    }
}

/// Why a piece was refused. Nothing of it was written.
#[derive(Debug, thiserror::Error)]
pub enum PieceError {
    /// Another piece comes next.
    #[error("piece {wanted} is wanted, not {number}")]
    OutOfOrder {
        /// The one that comes next.
        wanted: u64,
        /// The one that came.
        number: u64,
    },
    /// Its bytes are not those that were sent.
    #[error("piece {number} arrived damaged: its checksum is wrong")]
    Damaged {
        /// Its number.
        number: u64,
    },
    /// Its bytes are those that were sent, and no pairs of this group's state after those before.
    #[error("piece {number} is malformed: {what}")]
    Malformed {
        /// Its number.
        number: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The pieces are not the snapshot.
    #[error("the pieces hold {found:?}, not {announced:?}: one is missing or changed")]
    WrongTotal {
        /// What they hold.
        found: SnapshotTotal,
        /// What the sender said they hold.
        announced: SnapshotTotal,
    },
    /// The snapshot is not the one that was announced.
    #[error("the snapshot is of {found:?}, not {announced:?}")]
    WrongMark {
        /// What it is of.
        found: Box<SnapshotMark>,
        /// What was announced.
        announced: Box<SnapshotMark>,
    },
    /// The table failed.
    #[error(transparent)]
    Host(#[from] HostError),
}

impl Staging {
    pub(super) fn new(
        group: GroupId,
        space: &Space,
        generation: Generation,
        progress: Progress,
    ) -> Self {
        let synced_bytes = progress.position.total.bytes;
        Self { group, space: space.clone(), generation, progress, synced_bytes }
    }

    /// Where it is staged.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// What it covers.
    pub fn mark(&self) -> &SnapshotMark {
        &self.progress.mark
    }

    /// The export that its pieces come from.
    pub fn transfer(&self) -> u64 {
        self.progress.transfer
    }

    /// Where the next piece begins.
    pub fn position(&self) -> &Position {
        &self.progress.position
    }

    /// The snapshot, if all of it is there.
    pub fn staged(&self) -> Option<Staged> {
        let mark = self.progress.mark.clone();
        self.progress.is_staged.then_some(Staged { generation: self.generation, mark })
    }

    #[cfg(test)]
    pub(super) fn record(&self) -> bytes::Bytes {
        encode(&self.progress)
    }

    /// Writes the next piece. One that is there already is taken without effect: its answer was
    /// lost. With the last one the snapshot is verified and made durable.
    ///
    /// # Errors
    /// See [`PieceError`].
    pub fn piece(&mut self, piece: &Piece) -> Result<(), PieceError> {
        let (number, wanted) = (piece.number, self.progress.position.pieces);
        if number.checked_add(1) == Some(wanted) {
            return Ok(());
        }
        if number != wanted || self.progress.is_staged {
            return Err(PieceError::OutOfOrder { wanted, number });
        }
        if crc32c(&piece.body) != piece.crc32c {
            return Err(PieceError::Damaged { number });
        }
        let (mut batch, position) = self.parse(piece)?;
        let progress = Progress { position, ..self.progress.clone() };
        if let Some(announced) = piece.end {
            let found = progress.position.total;
            if found != announced {
                return Err(PieceError::WrongTotal { found, announced });
            }
        }
        // In the same batch as the pairs: one is never there without the other.
        batch.put(progress_key(self.generation), encode(&progress));
        self.write(batch)?;
        self.progress = progress;
        if piece.end.is_some() {
            self.finish()?;
        } else if self.progress.position.total.bytes - self.synced_bytes >= SYNC_EVERY_BYTES {
            self.sync()?;
        }
        Ok(())
    }

    fn parse(&self, piece: &Piece) -> Result<(Batch, Position), PieceError> {
        let number = piece.number;
        let malformed = |what| PieceError::Malformed { number, what };
        let before = &self.progress.position;
        let pairs = parse(&piece.body).ok_or_else(|| malformed("it is cut within a pair"))?;
        let mut after = before.after.clone();
        let (mut batch, mut bytes, count) = (Batch::new(), 0, pairs.len() as u64);
        for (key, value) in pairs {
            if after.as_ref().is_some_and(|after| key <= *after) {
                return Err(malformed("its keys do not ascend"));
            }
            if !key.starts_with(HOST) && !key.starts_with(MACHINE) {
                return Err(malformed("it has a key that no state has"));
            }
            bytes += (key.len() + value.len()) as u64;
            batch.put([&self.generation.prefix()[..], &key[..]].concat(), value);
            after = Some(key);
        }
        if count == 0 && piece.end.is_none() {
            return Err(malformed("it is empty"));
        }
        let total = before.total.with(&piece.body, count, bytes);
        Ok((batch, Position { pieces: before.pieces + 1, after, total }))
    }

    /// All pieces are there: the generation must be what was announced, and durable.
    fn finish(&mut self) -> Result<(), PieceError> {
        let generation = generation_space(&self.space, self.generation);
        let found = read_state(self.group, &generation)?.mark();
        if found != self.progress.mark {
            let announced = Box::new(self.progress.mark.clone());
            return Err(PieceError::WrongMark { found: Box::new(found), announced });
        }
        let progress = Progress { is_staged: true, ..self.progress.clone() };
        let mut batch = Batch::new();
        batch.put(progress_key(self.generation), encode(&progress));
        self.write(batch)?;
        self.sync()?;
        self.progress = progress;
        Ok(())
    }

    fn write(&self, batch: Batch) -> Result<(), HostError> {
        Ok(self.space.write(batch)?)
    }

    fn sync(&mut self) -> Result<(), HostError> {
        self.space.table().sync()?;
        self.synced_bytes = self.progress.position.total.bytes;
        Ok(())
    }
}
