//! Reading files: extents to pieces, each from the nearest replica that has it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use onefold_table::View;
use onefold_transport::Peers;
use onefold_types::{ChunkVersion, NodeId};

use crate::api::limits::PIECE_BYTES_MAX;
use crate::api::{ByteStream, FilesError, RangeSource};
use crate::chunk::methods::{At, ReadRequest};
use crate::chunk::{ChunkError, ChunkServer, read_from};
use crate::commands::Commands;
use crate::namespace::{ChunkRecord, ChunkState, Content, Extent, Query};

/// Pieces that are fetched ahead of the reader.
pub(crate) const PIECES_AHEAD: usize = 4;

/// A node that did not answer is asked last for this long.
const AVOIDED_FOR: Duration = Duration::from_secs(5);

/// Rounds over all replicas before a read fails.
const ROUNDS_MAX: u32 = 6;

/// The pause after the first failed round, doubled by each further one.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// Reads chunks on behalf of this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ChunkReader(Arc<Inner>);

struct Inner {
    commands: Commands,
    chunks: ChunkServer,
    peers: Peers,
    /// Nodes that failed, and until when they are asked last.
    avoided: Mutex<BTreeMap<NodeId, Instant>>,
}

impl ChunkReader {
    pub(crate) fn new(commands: Commands, chunks: ChunkServer, peers: Peers) -> Self {
        Self(Arc::new(Inner { commands, chunks, peers, avoided: Mutex::default() }))
    }

    /// The bytes of a piece, verified, from whichever replica gives them.
    pub(crate) async fn read(&self, piece: Extent) -> Result<Bytes, FilesError> {
        let mut pause = ROUND_PAUSE;
        let mut problem = None;
        for round in 0..ROUNDS_MAX {
            // What this replica of the namespace has applied is nearly always enough: where bytes
            // are changes rarely, and no replica serves wrong ones.
            let record = if round == 0 {
                find(&self.0.commands.group().view(), piece)?
            } else {
                find(&self.0.commands.view().await?, piece)?
            };
            let Some(record) = record else {
                if round == 0 {
                    continue;
                }
                let chunk = piece.chunk;
                let reason = format!("chunk {chunk} is gone: its file was removed or replaced");
                return Err(FilesError::Unavailable { reason });
            };
            match self.read_any(piece, &record).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => problem = Some(error),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Err(problem.expect("the last round found a record").into())
    }

    async fn read_any(&self, piece: Extent, record: &ChunkRecord) -> Result<Bytes, ChunkError> {
        let version = match record.state {
            ChunkState::Sealed => record.version,
            // Every replica in the record has what is committed, fenced already or not.
            ChunkState::Open | ChunkState::Sealing => ChunkVersion::ZERO,
        };
        let at = At { chunk: piece.chunk, version };
        let request = ReadRequest { at, offset: piece.offset.into(), length: piece.length };
        let own = self.0.chunks.store().node();
        let mut last = ChunkError::NotFound { chunk: piece.chunk, node: own };
        for node in self.in_order(record, piece) {
            let read = if node == own {
                self.0.chunks.read(request.clone()).await
            } else {
                read_from(&self.0.peers, node, &request).await
            };
            match read {
                Ok(bytes) => return Ok(bytes),
                Err(error) => {
                    tracing::info!(%node, %error, "reading from another replica");
                    if matches!(error, ChunkError::Unreachable { .. }) {
                        self.avoided().insert(node, Instant::now() + AVOIDED_FOR);
                    }
                    // What is wrong with a replica says more than that another one is missing.
                    if !matches!(last, ChunkError::Corrupt { .. }) {
                        last = error;
                    }
                }
            }
        }
        Err(last)
    }

    fn avoided(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, Instant>> {
        self.0.avoided.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This node first, then the others in turn, those that failed lately last.
    fn in_order(&self, record: &ChunkRecord, piece: Extent) -> Vec<NodeId> {
        let own = self.0.chunks.store().node();
        let now = Instant::now();
        let mut avoided = self.avoided();
        avoided.retain(|_, until| *until > now);
        let mut nodes = record.replicas.clone();
        let turn = piece.chunk.0.wrapping_add(u64::from(piece.offset) / PIECE_BYTES_MAX as u64);
        let replicas = nodes.len().max(1) as u64;
        nodes.rotate_left((turn % replicas) as usize);
        nodes.sort_by_key(|node| (*node != own, avoided.contains_key(node)));
        nodes
    }
}

fn find(view: &dyn View, piece: Extent) -> Result<Option<ChunkRecord>, FilesError> {
    Query(view).chunk(piece.chunk)
}

/// The pieces of a range of a file, cut at multiples of the piece size within each chunk, so that no
/// block is verified twice.
pub(crate) fn pieces(extents: &[Extent], range: Range<u64>) -> Vec<Extent> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for extent in extents {
        let end = start + u64::from(extent.length);
        let from = range.start.max(start);
        let to = range.end.min(end);
        let mut at = from;
        while at < to {
            let offset = u64::from(extent.offset) + (at - start);
            let to_cut = PIECE_BYTES_MAX as u64 - offset % PIECE_BYTES_MAX as u64;
            let length = to_cut.min(to - at);
            pieces.push(Extent {
                chunk: extent.chunk,
                offset: offset as u32,
                length: length as u32,
            });
            at += length;
        }
        start = end;
    }
    pieces
}

/// The content of an opened file, read on this node.
pub(crate) struct LocalSource {
    pub(crate) reader: ChunkReader,
    pub(crate) content: Arc<Content>,
}

impl RangeSource for LocalSource {
    fn read(&self, range: Range<u64>) -> ByteStream {
        match &*self.content {
            Content::Inline(data) => inline(data, range),
            Content::Extents(extents) => {
                let reader = self.reader.clone();
                let pieces = pieces(extents, range);
                let reads = pieces.into_iter().map(move |piece| {
                    let reader = reader.clone();
                    async move { reader.read(piece).await }
                });
                until_error(futures::stream::iter(reads).buffered(PIECES_AHEAD).boxed())
            }
        }
    }
}

/// A range of bytes that are here already.
pub(crate) fn inline(data: &Bytes, range: Range<u64>) -> ByteStream {
    let end = range.end.min(data.len() as u64);
    let start = range.start.min(end);
    let bytes = data.slice(start as usize..end as usize);
    futures::stream::iter((!bytes.is_empty()).then_some(Ok(bytes))).boxed()
}

/// The stream up to and with its first error.
pub(crate) fn until_error(stream: ByteStream) -> ByteStream {
    let ended = false;
    let step = |(mut stream, ended): (ByteStream, bool)| async move {
        if ended {
            return None;
        }
        let item = stream.next().await?;
        let ended = item.is_err();
        Some((item, (stream, ended)))
    };
    futures::stream::unfold((stream, ended), step).boxed()
}

#[cfg(test)]
mod tests {
    use onefold_types::ChunkId;

    use super::*;

    fn extent(chunk: u64, offset: u32, length: u32) -> Extent {
        Extent { chunk: ChunkId(chunk), offset, length }
    }

    #[test]
    fn pieces_cover_the_range_and_end_at_piece_borders() {
        const MIB: u32 = 1 << 20;
        let extents = [extent(1, 100, 2 * MIB), extent(2, 0, 50), extent(3, MIB - 1, 2)];
        let all = pieces(&extents, 0..u64::from(2 * MIB) + 52);
        let expected = vec![
            extent(1, 100, MIB - 100),
            extent(1, MIB, MIB),
            extent(1, 2 * MIB, 100),
            extent(2, 0, 50),
            extent(3, MIB - 1, 1),
            extent(3, MIB, 1),
        ];
        assert_eq!(all, expected);
        let from = u64::from(2 * MIB) - 1;
        let middle = vec![extent(1, 2 * MIB + 99, 1), extent(2, 0, 50), extent(3, MIB - 1, 1)];
        assert_eq!(pieces(&extents, from..from + 52), middle);
        assert!(pieces(&extents, 5..5).is_empty());
    }
}
