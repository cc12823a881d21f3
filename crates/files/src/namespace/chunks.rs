//! Chunk records: from allocation over sealing to collection.
//!
//! The version rises when a chunk is sealed, and a replica that has accepted the new version refuses
//! appends under the old one. An append counts only when every replica in the record has it. So as
//! soon as one of them is fenced no further append can count, and whatever counted lies below the
//! shortest of the survivors.

use onefold_table::{KeyRange, Order, TableError, View};
use onefold_types::limits::{CHUNK_BYTES_MAX, CHUNK_REPLICAS};
use onefold_types::{ChunkId, ChunkVersion, NodeId, Timestamp};

use super::command::{COMMAND_CHUNKS_MAX, Reply};
use super::keys;
use super::records::{ChunkRecord, ChunkState, Content, Extent, corrupt, decode, encode};
use super::state::{Applied, Change};
use crate::api::FilesError;

pub(super) fn get_chunk(
    view: &dyn View,
    chunk: ChunkId,
) -> Result<Option<ChunkRecord>, TableError> {
    view.get(&keys::chunk(chunk))?.map(|bytes| decode("chunk", &bytes)).transpose()
}

fn invalid(reason: impl Into<String>) -> FilesError {
    FilesError::Invalid { reason: reason.into() }
}

impl Change<'_> {
    pub(super) fn allocate(&mut self, replicas: Vec<NodeId>, writer: NodeId) -> Applied<Reply> {
        let Some(&primary) = replicas.first() else {
            return Err(invalid("a chunk needs at least one replica").into());
        };
        let mut sorted = replicas;
        sorted.sort_unstable();
        sorted.dedup();
        let chunk = ChunkId(self.next_id());
        let record = ChunkRecord {
            version: ChunkVersion(1),
            state: ChunkState::Open,
            replicas: sorted,
            primary,
            writer,
            length: 0,
            committed_end: 0,
            references: 0,
            unreferenced_since: Timestamp::ZERO,
        };
        self.counters.chunks += 1;
        for node in &record.replicas {
            self.table.put(keys::replica(*node, chunk), Vec::new());
        }
        self.table.put(keys::open_chunk(chunk), Vec::new());
        self.put_chunk(chunk, &record);
        Ok(Reply::Chunk { chunk, record: Some(record), changed: true })
    }

    pub(super) fn begin_seal(&mut self, chunk: ChunkId) -> Applied<Reply> {
        let mut record = get_chunk(&self.table, chunk)?;
        let mut changed = false;
        if let Some(record) = record.as_mut().filter(|record| record.state == ChunkState::Open) {
            record.version = record.version.next();
            record.state = ChunkState::Sealing;
            self.put_chunk(chunk, record);
            changed = true;
        }
        Ok(Reply::Chunk { chunk, record, changed })
    }

    pub(super) fn finish_seal(
        &mut self,
        chunk: ChunkId,
        version: ChunkVersion,
        length: u64,
        survivors: &[NodeId],
    ) -> Applied<Reply> {
        let Some(mut record) = get_chunk(&self.table, chunk)? else {
            return Ok(Reply::Chunk { chunk, record: None, changed: false });
        };
        if record.state != ChunkState::Sealing || record.version != version {
            return Ok(Reply::Chunk { chunk, record: Some(record), changed: false });
        }
        let kept: Vec<_> =
            record.replicas.iter().copied().filter(|node| survivors.contains(node)).collect();
        if kept.is_empty() || length > CHUNK_BYTES_MAX {
            let reason = format!("chunk {chunk} cannot be sealed at {length} on {survivors:?}");
            return Err(invalid(reason).into());
        }
        if length < record.committed_end {
            // Never cut what a file refers to: a longer replica must be found first.
            let reason = format!(
                "chunk {chunk} has committed bytes up to {}, the replicas on {survivors:?} only {length}",
                record.committed_end
            );
            return Err(FilesError::Unavailable { reason }.into());
        }
        for node in record.replicas.iter().filter(|node| !kept.contains(node)) {
            self.table.delete(keys::replica(*node, chunk));
        }
        record.replicas = kept;
        record.state = ChunkState::Sealed;
        record.length = length;
        self.table.delete(keys::open_chunk(chunk));
        self.enter_wanting(chunk, &record);
        if record.references == 0 {
            self.enter_garbage(chunk, &mut record);
        } else {
            self.counters.live_bytes += length;
        }
        self.put_chunk(chunk, &record);
        Ok(Reply::Chunk { chunk, record: Some(record), changed: true })
    }

    pub(super) fn add_replica(
        &mut self,
        chunk: ChunkId,
        version: ChunkVersion,
        node: NodeId,
        instead_of: Option<NodeId>,
    ) -> Applied<Reply> {
        self.change_replicas(chunk, version, |replicas| {
            if replicas.contains(&node) {
                return false;
            }
            replicas.push(node);
            replicas.sort_unstable();
            replicas.retain(|kept| Some(*kept) != instead_of);
            true
        })
    }

    pub(super) fn drop_replica(
        &mut self,
        chunk: ChunkId,
        version: ChunkVersion,
        node: NodeId,
    ) -> Applied<Reply> {
        self.change_replicas(chunk, version, |replicas| {
            let droppable = replicas.len() > 1 && replicas.contains(&node);
            if droppable {
                replicas.retain(|kept| *kept != node);
            }
            droppable
        })
    }

    /// Changes the replicas of a sealed chunk that still has the version.
    fn change_replicas(
        &mut self,
        chunk: ChunkId,
        version: ChunkVersion,
        change: impl FnOnce(&mut Vec<NodeId>) -> bool,
    ) -> Applied<Reply> {
        let Some(mut record) = get_chunk(&self.table, chunk)? else {
            return Ok(Reply::Chunk { chunk, record: None, changed: false });
        };
        let before = record.replicas.clone();
        let changed = record.state == ChunkState::Sealed
            && record.version == version
            && change(&mut record.replicas);
        if !changed {
            record.replicas = before;
            return Ok(Reply::Chunk { chunk, record: Some(record), changed });
        }
        assert!(!record.replicas.is_empty(), "a chunk keeps at least one replica");
        for node in &before {
            self.table.delete(keys::replica(*node, chunk));
        }
        for node in &record.replicas {
            self.table.put(keys::replica(*node, chunk), Vec::new());
        }
        self.table.delete(keys::wanting(before.len(), chunk));
        self.enter_wanting(chunk, &record);
        self.put_chunk(chunk, &record);
        Ok(Reply::Chunk { chunk, record: Some(record), changed })
    }

    pub(super) fn touch(&mut self, chunks: &[ChunkId]) -> Applied<Reply> {
        if chunks.len() > COMMAND_CHUNKS_MAX {
            return Err(invalid(format!("{} chunks in one command", chunks.len())).into());
        }
        for &chunk in chunks {
            if let Some(mut record) = get_chunk(&self.table, chunk)?
                && record.state == ChunkState::Sealed
                && record.references == 0
            {
                self.leave_garbage(chunk, &record);
                self.enter_garbage(chunk, &mut record);
                self.put_chunk(chunk, &record);
            }
        }
        Ok(Reply::Done)
    }

    pub(super) fn collect(&mut self, grace_ms: u64, limit: u32) -> Applied<Reply> {
        let before = Timestamp(self.time.0.saturating_sub(grace_ms));
        let (start, end) = keys::garbage_until(before);
        let limit = (limit as usize).min(COMMAND_CHUNKS_MAX);
        let mut due = Vec::new();
        for pair in self.table.scan(KeyRange::half_open(start, end), Order::Ascending).take(limit) {
            let (key, _) = pair?;
            due.push(keys::trailing_chunk(&key).ok_or_else(|| corrupt("garbage", "short key"))?);
        }
        let mut collected = Vec::new();
        for chunk in due {
            let record = get_chunk(&self.table, chunk)?;
            let record = record.ok_or_else(|| corrupt("garbage", "a chunk without a record"))?;
            assert!(record.references == 0, "garbage has no references");
            self.leave_garbage(chunk, &record);
            for node in &record.replicas {
                self.table.delete(keys::replica(*node, chunk));
            }
            self.table.delete(keys::wanting(record.replicas.len(), chunk));
            self.table.delete(keys::chunk(chunk));
            self.counters.chunks -= 1;
            collected.push((chunk, record.replicas));
        }
        Ok(Reply::Collected(collected))
    }

    /// A file or part refers to the content from now on.
    ///
    /// Refused when a chunk is gone, or was sealed below what the writer believes it wrote: the
    /// caller writes the bytes again.
    pub(super) fn reference(&mut self, content: &Content) -> Applied<()> {
        for extent in content.extents() {
            self.reference_extent(extent)?;
        }
        Ok(())
    }

    fn reference_extent(&mut self, extent: &Extent) -> Applied<()> {
        let chunk = extent.chunk;
        if extent.length == 0 || extent.end() > CHUNK_BYTES_MAX {
            return Err(invalid(format!("{extent:?} lies outside of a chunk")).into());
        }
        let lost = |what: &str| FilesError::Unavailable {
            reason: format!("chunk {chunk} {what}; the file has to be written again"),
        };
        let record = get_chunk(&self.table, chunk)?;
        let mut record =
            record.ok_or_else(|| lost("was collected before the file was finished"))?;
        if record.state == ChunkState::Sealed && extent.end() > record.length {
            return Err(lost("was sealed without the file's last bytes").into());
        }
        if record.state == ChunkState::Sealed && record.references == 0 {
            self.leave_garbage(chunk, &record);
            self.counters.live_bytes += record.length;
        }
        record.references += 1;
        record.committed_end = record.committed_end.max(extent.end());
        self.put_chunk(chunk, &record);
        Ok(())
    }

    /// A file or part that referred to the content is gone.
    pub(super) fn unreference(&mut self, content: &Content) -> Applied<()> {
        for extent in content.extents() {
            let chunk = extent.chunk;
            let record = get_chunk(&self.table, chunk)?;
            let mut record = record.ok_or_else(|| corrupt("file", "its chunk has no record"))?;
            assert!(record.references > 0, "a chunk in use has references");
            record.references -= 1;
            if record.references == 0 && record.state == ChunkState::Sealed {
                self.counters.live_bytes -= record.length;
                self.enter_garbage(chunk, &mut record);
            }
            self.put_chunk(chunk, &record);
        }
        Ok(())
    }

    fn put_chunk(&mut self, chunk: ChunkId, record: &ChunkRecord) {
        self.table.put(keys::chunk(chunk), encode(record));
    }

    fn enter_wanting(&mut self, chunk: ChunkId, record: &ChunkRecord) {
        if record.replicas.len() < CHUNK_REPLICAS {
            self.table.put(keys::wanting(record.replicas.len(), chunk), Vec::new());
        }
    }

    fn enter_garbage(&mut self, chunk: ChunkId, record: &mut ChunkRecord) {
        record.unreferenced_since = self.time;
        self.counters.garbage_bytes += record.length;
        self.table.put(keys::garbage(record.unreferenced_since, chunk), Vec::new());
    }

    fn leave_garbage(&mut self, chunk: ChunkId, record: &ChunkRecord) {
        self.counters.garbage_bytes -= record.length;
        self.table.delete(keys::garbage(record.unreferenced_since, chunk));
    }
}
