//! Keeping it whole: reports compared with records, missing replicas made again, garbage collected.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use onefold_table::SpaceView;
use onefold_transport::Class;
use onefold_types::limits::CHUNK_REPLICAS;
use onefold_types::{ChunkId, ChunkVersion, NodeId};

use super::Master;
use super::methods::ReportPage;
use super::plan::{self, Action, Repair};
use super::servers::DEAD_AFTER_MS;
use crate::api::{FilesError, Usage};
use crate::chunk::methods::{At, CopyRequest, Delete, DeleteRequest, SealRequest, Stat};
use crate::chunk::{ChunkError, ReplicaReport, chunk_error};
use crate::namespace::{COMMAND_CHUNKS_MAX, Command, Query, Reply};

/// Copies under way at once in the cluster.
pub(super) const COPIES_MAX: usize = 4;

/// How long one copy of a chunk may take.
const COPY_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a small order to a chunkserver may take.
const ORDER_TIMEOUT: Duration = Duration::from_secs(4);

/// Chunks of each kind that are looked at in one tick.
const PAGE: usize = 256;

/// A replica that nothing needs is removed when it was seen so for this long.
const UNNEEDED_AFTER_MS: u64 = 10_000;

/// Most replicas that nothing needs and that are remembered.
const UNNEEDED_MAX: usize = 10_000;

/// Most chunks that are counted for one answer about the state of things.
const COUNTED_MAX: usize = 100_000;

/// Ticks between two looks for garbage.
const COLLECT_EVERY: u64 = 5;

/// Soft state of repair.
#[derive(Default)]
pub(super) struct State {
    /// Nodes whose reports are being worked through.
    examining: BTreeSet<NodeId>,
    /// Chunks of which a replica is being made or removed.
    copying: BTreeSet<ChunkId>,
    /// Replicas that nothing needs, since when.
    unneeded: BTreeMap<(NodeId, ChunkId), u64>,
    /// Where the next look at the replicas of each dead node starts.
    dead: BTreeMap<NodeId, Option<ChunkId>>,
    /// Where the next look at chunks with so many replicas starts.
    wanting: BTreeMap<usize, Option<ChunkId>>,
    ticks: u64,
}

impl State {
    /// Whether the node's reports may be worked through now: one at a time.
    pub(super) fn begin_examination(&mut self, node: NodeId) -> bool {
        self.examining.insert(node)
    }

    pub(super) fn end_examination(&mut self, node: NodeId) {
        self.examining.remove(&node);
    }

    /// Whether a replica was not needed for long enough to be removed.
    fn is_unneeded(&mut self, node: NodeId, chunk: ChunkId, now: u64) -> bool {
        if self.unneeded.len() >= UNNEEDED_MAX {
            self.unneeded.pop_first();
        }
        let since = *self.unneeded.entry((node, chunk)).or_insert(now);
        now.saturating_sub(since) >= UNNEEDED_AFTER_MS
    }
}

impl Master {
    /// Works through what a chunkserver reported, against a state of the namespace that is newer
    /// than the report.
    pub(super) async fn examine_report(
        &self,
        term: u64,
        node: NodeId,
        damaged: Vec<ReplicaReport>,
        page: Option<ReportPage>,
    ) -> Result<(), FilesError> {
        if damaged.is_empty() && page.is_none() {
            return Ok(());
        }
        let view = self.0.commands.view().await?;
        if let Some(page) = &page {
            for chunk in missing(&view, node, page)? {
                self.confirm_missing(term, &view, node, chunk).await?;
            }
        }
        let reported = page.map_or_else(Vec::new, |page| page.replicas);
        for report in damaged.iter().chain(&reported) {
            let record = Query(&view).chunk(report.chunk)?;
            let nodes = self.nodes(term);
            let action = plan::examine(node, report, record.as_ref(), &nodes);
            let version = record.map_or(report.version, |record| record.version);
            let at = At { chunk: report.chunk, version };
            self.act(term, node, at, action, report.damaged).await?;
        }
        Ok(())
    }

    /// The nodes that host the namespace: each has a chunkserver, heard of or not.
    pub(super) fn hosts(&self) -> BTreeSet<NodeId> {
        let status = self.0.commands.group().status();
        status.voters.into_iter().chain(status.learners).collect()
    }

    async fn act(
        &self,
        term: u64,
        node: NodeId,
        at: At,
        action: Action,
        damaged: bool,
    ) -> Result<(), FilesError> {
        let At { chunk, version } = at;
        if action != Action::Delete {
            self.state(term).repair.unneeded.remove(&(node, chunk));
        }
        let is_copying = self.state(term).repair.copying.contains(&chunk);
        match action {
            Action::None => {}
            Action::Close => self.seal_soon(chunk),
            Action::Drop => {
                tracing::warn!(%chunk, %node, "a replica is damaged or incomplete: replacing it");
                self.0.commands.run(&Command::DropReplica { chunk, version, node }).await?;
            }
            // The copy enters itself, and knows which dead replica it replaces.
            Action::Add | Action::Adopt { .. } if is_copying => {}
            Action::Add => self.take_up(chunk, version, node).await?,
            Action::Adopt { length } => {
                let order = SealRequest { term, at, length };
                match self.seal_replica(node, order).await {
                    Ok(()) => self.take_up(chunk, version, node).await?,
                    Err(error) => {
                        tracing::info!(%chunk, %node, %error, "a replica is taken up later");
                    }
                }
            }
            Action::Seal { length } => {
                let order = SealRequest { term, at, length };
                if let Err(error) = self.seal_replica(node, order).await {
                    tracing::info!(%chunk, %node, %error, "a replica is sealed later");
                }
            }
            Action::Delete => self.delete_unneeded(term, node, chunk, damaged).await,
        }
        Ok(())
    }

    /// Enters a whole replica that the record lacks.
    async fn take_up(
        &self,
        chunk: ChunkId,
        version: ChunkVersion,
        node: NodeId,
    ) -> Result<(), FilesError> {
        let add = Command::AddReplica { chunk, version, node, instead_of: None };
        self.0.commands.run(&add).await?;
        tracing::info!(%chunk, %node, "a replica that came back is used again");
        Ok(())
    }

    /// Removes a replica that nothing needs: at once when it is damaged, so that a good one can
    /// take its place; else when it was seen so for a while. No copy of the chunk is made meanwhile.
    async fn delete_unneeded(&self, term: u64, node: NodeId, chunk: ChunkId, damaged: bool) {
        {
            let now = self.now();
            let mut state = self.state(term);
            let is_due = damaged || state.repair.is_unneeded(node, chunk, now);
            if !is_due || !state.repair.copying.insert(chunk) {
                return;
            }
        }
        if let Err(error) = self.delete_replica(term, node, chunk).await {
            tracing::info!(%chunk, %node, %error, "a replica that nothing needs is removed later");
        }
        let mut state = self.state(term);
        state.repair.copying.remove(&chunk);
        state.repair.unneeded.remove(&(node, chunk));
    }

    /// The namespace counts on a replica that the node did not report: asks the node itself, since
    /// the replica may be younger than the report.
    async fn confirm_missing(
        &self,
        term: u64,
        view: &SpaceView,
        node: NodeId,
        chunk: ChunkId,
    ) -> Result<(), FilesError> {
        let Some(record) = Query(view).chunk(chunk)? else { return Ok(()) };
        let found = if node == self.node() {
            self.0.chunks.store().stat(chunk)
        } else {
            let call =
                self.0.peers.call::<Stat>(node, Class::Call, &chunk, Bytes::new(), ORDER_TIMEOUT);
            let Ok((found, _)) = call.await else { return Ok(()) };
            found
        };
        let at = At { chunk, version: record.version };
        let nothing = ReplicaReport {
            chunk,
            version: record.version,
            length: 0,
            sealed: false,
            damaged: true,
        };
        let report = found.unwrap_or(nothing);
        let action = plan::examine(node, &report, Some(&record), &self.nodes(term));
        self.act(term, node, at, action, report.damaged).await
    }

    pub(super) async fn delete_replica(
        &self,
        term: u64,
        node: NodeId,
        chunk: ChunkId,
    ) -> Result<(), ChunkError> {
        let request = DeleteRequest { term, chunk };
        if node == self.node() {
            return self.0.chunks.delete(request).await;
        }
        let peers = &self.0.peers;
        let call =
            peers.call::<Delete>(node, Class::Call, &request, Bytes::new(), ORDER_TIMEOUT).await;
        call.map(drop).map_err(|error| chunk_error(chunk, node, &error))
    }

    /// Starts the copies that are needed most and can be made.
    pub(super) async fn repair(&self, term: u64) -> Result<(), FilesError> {
        let free = self.0.copies.available_permits();
        let (now, since) = (self.now(), self.state(term).since_ms);
        // A new leader takes nobody for dead whom it has not given the time to report.
        if free == 0 || now.saturating_sub(since) < DEAD_AFTER_MS {
            return Ok(());
        }
        let view = self.0.commands.view().await?;
        let nodes = self.nodes(term);
        let mut needed: Vec<(usize, Repair)> = Vec::new();
        for chunk in self.suspects(term, &view, &nodes)? {
            let Some(record) = Query(&view).chunk(chunk)? else { continue };
            let has_one: BTreeSet<_> = record.replicas.iter().copied().collect();
            let candidates = {
                let state = self.state(term);
                if state.repair.copying.contains(&chunk) {
                    continue;
                }
                state.servers.candidates(now, &(&has_one | &nodes.leaving))
            };
            if let Some(repair) = plan::repair(chunk, &record, &nodes, &candidates) {
                needed.push((repair.sources.len(), repair));
            } else if let Some(node) = plan::surplus(&record, &nodes) {
                let version = record.version;
                self.0.commands.run(&Command::DropReplica { chunk, version, node }).await?;
            }
        }
        needed.sort_by_key(|(live, repair)| (*live, repair.chunk));
        needed.dedup_by_key(|(_, repair)| repair.chunk);
        for (_, repair) in needed.into_iter().take(free) {
            self.start_copy(term, repair);
        }
        Ok(())
    }

    /// Chunks that may have too few live replicas: a page of those whose records say so, and of
    /// those on each node that is dead or leaves.
    fn suspects(
        &self,
        term: u64,
        view: &SpaceView,
        nodes: &plan::Nodes,
    ) -> Result<Vec<ChunkId>, FilesError> {
        let query = Query(view);
        let mut suspects = Vec::new();
        for replicas in 1..nodes.wanted() {
            let cursor = self.state(term).repair.wanting.get(&replicas).copied().flatten();
            let page = query.chunks_wanting(replicas, cursor, PAGE)?;
            self.state(term).repair.wanting.insert(replicas, next_cursor(&page));
            suspects.extend(page);
        }
        let known = self.state(term).servers.members(&self.hosts());
        let lost = known.difference(&nodes.alive).chain(&nodes.leaving).copied();
        for node in lost.collect::<BTreeSet<_>>() {
            let cursor = self.state(term).repair.dead.get(&node).copied().flatten();
            let page = query.chunks_on(node, cursor, PAGE)?;
            self.state(term).repair.dead.insert(node, next_cursor(&page));
            suspects.extend(page);
        }
        Ok(suspects)
    }

    fn start_copy(&self, term: u64, repair: Repair) {
        let Ok(permit) = self.0.copies.clone().try_acquire_owned() else { return };
        let chunk = repair.chunk;
        if !self.state(term).repair.copying.insert(chunk) {
            return;
        }
        let master = self.clone();
        self.spawn(async move {
            if let Err(error) = master.copy(term, &repair).await {
                let target = repair.target;
                tracing::warn!(%chunk, %target, %error, "a chunk was not copied; trying again");
                master.state(term).servers.suspect(target);
            }
            master.state(term).repair.copying.remove(&chunk);
            drop(permit);
        });
    }

    async fn copy(&self, term: u64, repair: &Repair) -> Result<(), FilesError> {
        let Repair { chunk, version, length, target: node, instead_of, .. } = *repair;
        let (at, sources) = (At { chunk, version }, repair.sources.clone());
        let request = CopyRequest { term, at, length, sources };
        let copied = if node == self.node() {
            self.0.chunks.copy(request).await
        } else {
            let call = self.0.peers.call::<crate::chunk::methods::Copy>(
                node,
                Class::Call,
                &request,
                Bytes::new(),
                COPY_TIMEOUT,
            );
            call.await.map(drop).map_err(|error| chunk_error(chunk, node, &error))
        };
        copied.map_err(|error| FilesError::Unavailable { reason: error.to_string() })?;
        let add = Command::AddReplica { chunk, version, node, instead_of };
        self.0.commands.run(&add).await?;
        tracing::info!(%chunk, %node, "a chunk was replicated again");
        Ok(())
    }

    /// Forgets chunks that nothing has referred to for the time of grace, and removes their
    /// replicas. What is not removed now is found by the reports.
    pub(super) async fn collect(&self, term: u64) -> Result<(), FilesError> {
        let tick = {
            let mut state = self.state(term);
            state.repair.ticks += 1;
            state.repair.ticks
        };
        let grace = self.0.config.garbage_grace;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let due = wall.saturating_sub(grace);
        let local = self.0.commands.group().view();
        if !tick.is_multiple_of(COLLECT_EVERY) || !Query(&local).has_garbage(due)? {
            return Ok(());
        }
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let limit = COMMAND_CHUNKS_MAX as u32;
        let collected = self.0.commands.run(&Command::Collect { grace_ms, limit }).await?;
        let Reply::Collected(chunks) = collected else { return Ok(()) };
        for (chunk, nodes) in chunks {
            for node in nodes {
                if let Err(error) = self.delete_replica(term, node, chunk).await {
                    tracing::debug!(%chunk, %node, %error, "a dead replica stays for now");
                }
            }
        }
        Ok(())
    }

    /// What is stored, and how well.
    pub(super) async fn usage(&self) -> Result<Usage, FilesError> {
        let term = self.term()?;
        let view = self.0.commands.view().await?;
        let query = Query(&view);
        let counters = query.counters()?;
        let (servers, repairs) = {
            let state = self.state(term);
            (state.servers.usage(&self.hosts(), self.now()), state.repair.copying.len())
        };
        let nodes = self.nodes(term);
        let wanted = servers.iter().filter(|server| !nodes.leaving.contains(&server.node)).count();
        let wanted = wanted.min(CHUNK_REPLICAS);
        let mut weak = BTreeMap::new();
        for replicas in 1..wanted {
            for chunk in query.chunks_wanting(replicas, None, COUNTED_MAX)? {
                weak.insert(chunk, ());
            }
        }
        let dead = servers.iter().filter(|server| !server.alive).map(|server| server.node);
        let mut leaving = BTreeMap::new();
        for node in dead.chain(nodes.leaving.iter().copied()) {
            let chunks = query.chunks_on(node, None, COUNTED_MAX)?;
            if nodes.leaving.contains(&node) {
                leaving.insert(node, chunks.len() as u64);
            }
            weak.extend(chunks.into_iter().map(|chunk| (chunk, ())));
        }
        let (mut under, mut unavailable) = (0, 0);
        for chunk in weak.into_keys() {
            let Some(record) = query.chunk(chunk)? else { continue };
            let live = record.replicas.iter().filter(|node| nodes.alive.contains(node)).count();
            under += u64::from(live < wanted);
            unavailable += u64::from(live == 0);
        }
        Ok(Usage {
            buckets: counters.buckets,
            files: counters.files,
            file_bytes: counters.file_bytes,
            chunks: counters.chunks,
            live_bytes: counters.live_bytes,
            garbage_bytes: counters.garbage_bytes,
            chunks_under_replicated: under,
            chunks_unavailable: unavailable,
            repairs_running: repairs as u64,
            leaving,
            servers,
        })
    }
}

/// Where the look after a page starts: behind it, or from the beginning when it was the last.
fn next_cursor(page: &[ChunkId]) -> Option<ChunkId> {
    if page.len() < PAGE { None } else { page.last().copied() }
}

/// Chunks that should have a replica on the node, within the range of a report that lacks them.
fn missing(view: &SpaceView, node: NodeId, page: &ReportPage) -> Result<Vec<ChunkId>, FilesError> {
    let limit = page.replicas.len() + PAGE;
    let expected = Query(view).chunks_on(node, page.after, limit)?;
    let in_range = |chunk: &ChunkId| page.through.is_none_or(|through| *chunk <= through);
    let is_missing =
        |chunk: &ChunkId| page.replicas.binary_search_by_key(chunk, |report| report.chunk).is_err();
    Ok(expected.into_iter().filter(|chunk| in_range(chunk) && is_missing(chunk)).collect())
}
