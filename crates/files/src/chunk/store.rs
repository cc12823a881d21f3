//! All replicas of a node: a folder with one file for each, and an index of them in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use onefold_types::{ChunkId, ChunkVersion, ClusterId, NodeId};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, oneshot};

use super::appends::{Appends, Refusal};
use super::error::ChunkError;
use super::file::{ChunkFile, Identity, Summary};
use super::folder::{StoreError, check_marker};

/// Most disk operations of the store at once; each occupies a thread.
const DISK_OPERATIONS_MAX: usize = 64;

/// Most files of sealed chunks that are kept open for reading.
const FILES_OPEN_MAX: usize = 256;

/// One replica in a report to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReplicaReport {
    pub(crate) chunk: ChunkId,
    pub(crate) version: ChunkVersion,
    pub(crate) length: u64,
    pub(crate) sealed: bool,
    pub(crate) damaged: bool,
}

/// The replicas of one node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ChunkStore(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    cluster: ClusterId,
    node: NodeId,
    state: Mutex<State>,
    disk: Semaphore,
}

#[derive(Default)]
struct State {
    replicas: BTreeMap<ChunkId, Replica>,
    used_bytes: u64,
    /// Files that are open for reading, with the turn of their last use.
    files: BTreeMap<ChunkId, (Arc<ChunkFile>, u64)>,
    turn: u64,
    /// Replicas that the leader should replace.
    damaged: BTreeSet<ChunkId>,
}

struct Replica {
    summary: Summary,
    /// For appends: only of chunks that were created in this process and are not sealed.
    open: Option<Arc<OpenReplica>>,
}

type Waiter = oneshot::Sender<Result<(), ChunkError>>;

struct OpenReplica {
    file: Arc<ChunkFile>,
    /// Under which it was created, and takes appends.
    version: ChunkVersion,
    appends: Mutex<Appends<Waiter>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ChunkStore {
    /// Opens or creates the folder and reads the header of every chunk file in it. Blocks.
    ///
    /// A damaged file is one replica less, which the leader replaces; it is kept aside until then
    /// and tried again at each start. A file that cannot be judged refuses the start.
    pub(crate) fn open(
        folder: &Path,
        cluster: ClusterId,
        node: NodeId,
    ) -> Result<Self, StoreError> {
        let io = |source| StoreError::Io { path: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(io)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(io)? {
            names.push(entry.map_err(io)?.path());
        }
        check_marker(folder, cluster, names.is_empty())?;
        let inner = Inner {
            folder: folder.to_owned(),
            cluster,
            node,
            state: Mutex::default(),
            disk: Semaphore::new(DISK_OPERATIONS_MAX),
        };
        for path in names {
            inner.recover(&path)?;
        }
        Ok(Self(Arc::new(inner)))
    }

    /// The node whose replicas these are.
    pub(crate) fn node(&self) -> NodeId {
        self.0.node
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> T + Send + 'static) -> T {
        let inner = self.0.clone();
        let _permit = inner.disk.acquire().await.expect("the semaphore is never closed");
        let inner = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        // Only a panic of the work, or a runtime that shuts down, ends it without a result.
        done.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => panic!("the runtime is shutting down"),
        })
    }

    /// Creates an empty replica that takes appends under this version.
    pub(crate) async fn create(
        &self,
        chunk: ChunkId,
        version: ChunkVersion,
    ) -> Result<(), ChunkError> {
        self.run(move |inner| inner.create(chunk, version)).await
    }

    /// As the primary: orders a piece; the receiver hears when it is durable here.
    pub(crate) fn order(
        &self,
        chunk: ChunkId,
        version: ChunkVersion,
        bytes: Bytes,
    ) -> Result<(u64, oneshot::Receiver<Result<(), ChunkError>>), ChunkError> {
        let replica = self.0.open_replica(chunk)?;
        let (done, receiver) = oneshot::channel();
        let ordered = lock(&replica.appends).order(version, bytes, done);
        let offset = ordered.map_err(|refusal| self.0.refused(chunk, version, refusal))?;
        self.flush(chunk, replica);
        Ok((offset, receiver))
    }

    /// As a secondary: writes a piece where the primary ordered it, once all before it are there.
    pub(crate) async fn accept(
        &self,
        chunk: ChunkId,
        version: ChunkVersion,
        offset: u64,
        bytes: Bytes,
    ) -> Result<(), ChunkError> {
        let replica = self.0.open_replica(chunk)?;
        let (done, receiver) = oneshot::channel();
        let accepted = lock(&replica.appends).accept(version, offset, bytes, done);
        accepted.map_err(|refusal| self.0.refused(chunk, version, refusal))?;
        self.flush(chunk, replica);
        receiver.await.unwrap_or_else(|_| Err(self.0.closed(chunk, "it was given up")))
    }

    /// Takes no more appends to a chunk in which one failed: none of them could count.
    pub(crate) fn give_up(&self, chunk: ChunkId, reason: &str) {
        let Ok(replica) = self.0.open_replica(chunk) else { return };
        let in_vain = lock(&replica.appends).close(reason.to_owned());
        for waiter in in_vain {
            let _ = waiter.send(Err(self.0.closed(chunk, reason)));
        }
    }

    /// Writes what waits, unless somebody does already. All that came meanwhile goes in one sync.
    fn flush(&self, chunk: ChunkId, replica: Arc<OpenReplica>) {
        let Some(mut batch) = lock(&replica.appends).take() else { return };
        let (store, version) = (self.clone(), replica.version);
        tokio::spawn(async move {
            loop {
                let (pieces, waiters) = batch;
                let file = replica.file.clone();
                let result = store.run(move |_| file.append(version, &pieces)).await;
                let failure = result.as_ref().err().map(ToString::to_string);
                if let Ok(summary) = result {
                    lock(&store.0.state).note(chunk, summary);
                }
                let in_vain = lock(&replica.appends).written(failure);
                let answer = result.map(drop);
                for waiter in waiters.into_iter().chain(in_vain) {
                    // Who waited may have gone away.
                    let _ = waiter.send(answer.clone());
                }
                match lock(&replica.appends).take() {
                    Some(next) => batch = next,
                    None => return,
                }
            }
        });
    }

    /// Accepts the new version: no append under an older one counts after this. Answers what is
    /// durable.
    pub(crate) async fn fence(
        &self,
        chunk: ChunkId,
        version: ChunkVersion,
    ) -> Result<ReplicaReport, ChunkError> {
        self.run(move |inner| {
            inner.close(chunk, version);
            let summary = inner.file(chunk)?.fence(version)?;
            lock(&inner.state).note(chunk, summary);
            Ok(report(chunk, summary))
        })
        .await
    }

    /// Ends the chunk at a length that the replica has.
    pub(crate) async fn seal(
        &self,
        chunk: ChunkId,
        version: ChunkVersion,
        length: u64,
    ) -> Result<(), ChunkError> {
        self.run(move |inner| {
            inner.close(chunk, version);
            let sealed = inner.file(chunk).and_then(|file| file.seal(version, length));
            let summary = inner.watch_damage(chunk, sealed)?;
            lock(&inner.state).seal(chunk, summary);
            Ok(())
        })
        .await
    }

    /// Reads verified bytes from a replica that is not behind `version`.
    pub(crate) async fn read(
        &self,
        chunk: ChunkId,
        version: ChunkVersion,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, ChunkError> {
        self.run(move |inner| {
            let file = inner.file(chunk)?;
            let found = file.summary().version;
            if found < version {
                let node = inner.node;
                return Err(ChunkError::Stale { chunk, node, found, asked: version });
            }
            inner.watch_damage(chunk, file.read(offset, length))
        })
        .await
    }

    /// Starts a copy of a sealed chunk, beside the replicas until it is complete.
    pub(crate) async fn start_copy(
        &self,
        chunk: ChunkId,
        version: ChunkVersion,
    ) -> Result<Copy, ChunkError> {
        self.run(move |inner| {
            let path = inner.path(chunk, "copy");
            let file = ChunkFile::start(inner.identity(chunk), &path, version)?;
            Ok(Copy { chunk, version, file: Arc::new(file) })
        })
        .await
    }

    /// Appends to a copy, durably.
    pub(crate) async fn extend_copy(
        &self,
        copy: &Copy,
        pieces: Vec<Bytes>,
    ) -> Result<(), ChunkError> {
        let (file, version) = (copy.file.clone(), copy.version);
        self.run(move |_| file.append(version, &pieces).map(drop)).await
    }

    /// Seals a copy and makes it a replica, in the place of a damaged one if there was any.
    pub(crate) async fn finish_copy(&self, copy: Copy, length: u64) -> Result<(), ChunkError> {
        self.run(move |inner| {
            let Copy { chunk, version, file } = copy;
            let summary = file.seal(version, length)?;
            let file = Arc::into_inner(file).expect("a copy has one owner");
            file.move_to(&inner.path(chunk, "chunk"))?;
            // What the copy replaces; when this fails the chunk file counts nonetheless.
            let _ = fs::remove_file(inner.path(chunk, "damaged"));
            let mut state = lock(&inner.state);
            state.forget(chunk);
            state.enter(chunk, summary, None);
            Ok(())
        })
        .await
    }

    /// Removes a replica; it is no error if there is none.
    pub(crate) async fn delete(&self, chunk: ChunkId) -> Result<(), ChunkError> {
        self.run(move |inner| {
            inner.close(chunk, ChunkVersion(u64::MAX));
            lock(&inner.state).forget(chunk);
            for extension in ["chunk", "damaged"] {
                let path = inner.path(chunk, extension);
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(ChunkError::io(chunk, inner.node, &path, &error));
                    }
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }

    /// What the node has of a chunk.
    pub(crate) fn stat(&self, chunk: ChunkId) -> Option<ReplicaReport> {
        let state = lock(&self.0.state);
        state.replicas.get(&chunk).map(|replica| report(chunk, replica.summary))
    }

    /// The replicas after a chunk, at most `limit`, and whether that is all.
    pub(crate) fn page(&self, after: Option<ChunkId>, limit: usize) -> (Vec<ReplicaReport>, bool) {
        use std::ops::Bound::{Excluded, Unbounded};
        let state = lock(&self.0.state);
        let mut rest = state.replicas.range((after.map_or(Unbounded, Excluded), Unbounded));
        let page = rest.by_ref().take(limit);
        let page = page.map(|(chunk, replica)| report(*chunk, replica.summary)).collect();
        (page, rest.next().is_none())
    }

    /// Damaged replicas, at most `limit`.
    pub(crate) fn damaged(&self, limit: usize) -> Vec<ReplicaReport> {
        let state = lock(&self.0.state);
        let found = state.damaged.iter().filter_map(|id| Some((id, state.replicas.get(id)?)));
        found.take(limit).map(|(chunk, replica)| report(*chunk, replica.summary)).collect()
    }

    /// Replicas and the bytes of data in them.
    pub(crate) fn used(&self) -> (u64, u64) {
        let state = lock(&self.0.state);
        (state.replicas.len() as u64, state.used_bytes)
    }

    /// Bytes that the disk has free for chunks.
    pub(crate) async fn free_bytes(&self) -> u64 {
        self.run(|inner| match rustix::fs::statvfs(&inner.folder) {
            Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
            Err(error) => {
                tracing::warn!(folder = %inner.folder.display(), %error, "cannot see free space");
                0
            }
        })
        .await
    }
}

/// A replica in the making.
pub(crate) struct Copy {
    chunk: ChunkId,
    version: ChunkVersion,
    file: Arc<ChunkFile>,
}

fn report(chunk: ChunkId, summary: Summary) -> ReplicaReport {
    let Summary { version, length, sealed, damaged } = summary;
    ReplicaReport { chunk, version, length, sealed, damaged }
}

impl Inner {
    fn identity(&self, chunk: ChunkId) -> Identity {
        Identity { chunk, cluster: self.cluster, node: self.node }
    }

    fn path(&self, chunk: ChunkId, extension: &str) -> PathBuf {
        self.folder.join(format!("{:016x}.{extension}", chunk.0))
    }

    /// Takes up one file that was found at the start.
    fn recover(&self, path: &Path) -> Result<(), StoreError> {
        let io = |source| StoreError::Io { path: path.to_owned(), source };
        let extension = path.extension().and_then(|extension| extension.to_str());
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let chunk = stem.filter(|stem| stem.len() == 16);
        let chunk = chunk.and_then(|stem| u64::from_str_radix(stem, 16).ok()).map(ChunkId);
        let (Some(chunk), Some(extension)) = (chunk, extension) else { return Ok(()) };
        let gone = Summary { version: ChunkVersion::ZERO, length: 0, sealed: false, damaged: true };
        match extension {
            // Never acknowledged to anybody.
            "new" | "copy" => fs::remove_file(path).map_err(io)?,
            "damaged" => {
                let place = self.path(chunk, "chunk");
                let is_replaced = place.try_exists().map_err(io)?;
                match ChunkFile::open(self.identity(chunk), path) {
                    Ok(file) if !is_replaced => {
                        let file = file.move_to(&place).map_err(StoreError::Chunk)?;
                        tracing::info!(%chunk, "a chunk replica that was damaged is readable again");
                        lock(&self.state).enter(chunk, file.summary(), None);
                    }
                    _ => lock(&self.state).enter_if_absent(chunk, gone),
                }
            }
            "chunk" => match ChunkFile::open(self.identity(chunk), path) {
                Ok(file) => lock(&self.state).enter(chunk, file.summary(), None),
                Err(error @ ChunkError::Corrupt { .. }) => {
                    tracing::error!(%error, "a chunk replica is damaged and will be replaced");
                    fs::rename(path, path.with_extension("damaged")).map_err(io)?;
                    lock(&self.state).enter_if_absent(chunk, gone);
                }
                Err(error) => return Err(StoreError::Chunk(error)),
            },
            _ => {}
        }
        Ok(())
    }

    fn create(&self, chunk: ChunkId, version: ChunkVersion) -> Result<(), ChunkError> {
        if lock(&self.state).replicas.contains_key(&chunk) {
            return Err(self.closed(chunk, "it exists already"));
        }
        let path = self.path(chunk, "chunk");
        let file = Arc::new(ChunkFile::create(self.identity(chunk), &path, version)?);
        let summary = file.summary();
        let open = OpenReplica { file, version, appends: Mutex::new(Appends::new(version)) };
        lock(&self.state).enter(chunk, summary, Some(Arc::new(open)));
        Ok(())
    }

    fn open_replica(&self, chunk: ChunkId) -> Result<Arc<OpenReplica>, ChunkError> {
        match lock(&self.state).replicas.get(&chunk) {
            None => Err(ChunkError::NotFound { chunk, node: self.node }),
            Some(Replica { open: Some(open), .. }) => Ok(open.clone()),
            Some(_) => Err(self.closed(chunk, "it is sealed, or the node was restarted")),
        }
    }

    /// Ends appends under versions below this one.
    fn close(&self, chunk: ChunkId, version: ChunkVersion) {
        let open = match lock(&self.state).replicas.get(&chunk) {
            Some(replica) if replica.summary.version < version => replica.open.clone(),
            _ => None,
        };
        let Some(open) = open else { return };
        let in_vain = lock(&open.appends).close(format!("it was fenced by version {version}"));
        for waiter in in_vain {
            let _ = waiter.send(Err(self.closed(chunk, "it was fenced")));
        }
    }

    fn file(&self, chunk: ChunkId) -> Result<Arc<ChunkFile>, ChunkError> {
        let missing = || ChunkError::NotFound { chunk, node: self.node };
        {
            let mut state = lock(&self.state);
            let replica = state.replicas.get(&chunk).ok_or_else(missing)?;
            if let Some(open) = &replica.open {
                return Ok(open.file.clone());
            }
            if let Some(file) = state.cached(chunk) {
                return Ok(file);
            }
        }
        let file = ChunkFile::open(self.identity(chunk), &self.path(chunk, "chunk"));
        let file = Arc::new(self.watch_damage(chunk, file)?);
        Ok(lock(&self.state).cache(chunk, file))
    }

    /// Notes when a checksum did not match, so that the replica is reported and replaced.
    fn watch_damage<T>(
        &self,
        chunk: ChunkId,
        result: Result<T, ChunkError>,
    ) -> Result<T, ChunkError> {
        if let Err(error @ ChunkError::Corrupt { .. }) = &result {
            tracing::error!(%error, "a chunk replica is damaged and will be replaced");
            let file = lock(&self.state).damage(chunk);
            if let Some(file) = file
                && let Err(error) = file.mark_damaged()
            {
                tracing::warn!(%error, "cannot mark a damaged chunk replica");
            }
        }
        result
    }

    fn closed(&self, chunk: ChunkId, reason: &str) -> ChunkError {
        ChunkError::NotWritable { chunk, node: self.node, reason: reason.to_owned() }
    }

    fn refused(&self, chunk: ChunkId, asked: ChunkVersion, refusal: Refusal) -> ChunkError {
        match refusal {
            Refusal::OtherVersion => {
                let state = lock(&self.state);
                let replica = state.replicas.get(&chunk);
                let found = replica.map_or(ChunkVersion::ZERO, |replica| replica.summary.version);
                ChunkError::Stale { chunk, node: self.node, found, asked }
            }
            Refusal::Full => ChunkError::Full { chunk },
            Refusal::Closed(reason) | Refusal::Disorder(reason) => self.closed(chunk, &reason),
        }
    }
}

impl State {
    fn enter(&mut self, chunk: ChunkId, summary: Summary, open: Option<Arc<OpenReplica>>) {
        self.forget(chunk);
        self.used_bytes += summary.length;
        if summary.damaged {
            self.damaged.insert(chunk);
        }
        self.replicas.insert(chunk, Replica { summary, open });
    }

    fn enter_if_absent(&mut self, chunk: ChunkId, summary: Summary) {
        if !self.replicas.contains_key(&chunk) {
            self.enter(chunk, summary, None);
        }
    }

    fn forget(&mut self, chunk: ChunkId) {
        self.files.remove(&chunk);
        self.damaged.remove(&chunk);
        if let Some(replica) = self.replicas.remove(&chunk) {
            self.used_bytes -= replica.summary.length;
        }
    }

    fn note(&mut self, chunk: ChunkId, summary: Summary) {
        if let Some(replica) = self.replicas.get_mut(&chunk) {
            let before = replica.summary;
            // Notes of one replica may come out of order; the state on disk does not go back.
            let grew = summary.length >= before.length && !before.sealed;
            if summary.version >= before.version && (grew || summary.sealed) {
                self.used_bytes = self.used_bytes - before.length + summary.length;
                replica.summary = Summary { damaged: summary.damaged || before.damaged, ..summary };
            }
        }
    }

    fn seal(&mut self, chunk: ChunkId, summary: Summary) {
        self.note(chunk, summary);
        if let Some(open) = self.replicas.get_mut(&chunk).and_then(|replica| replica.open.take()) {
            self.cache(chunk, open.file.clone());
        }
    }

    fn damage(&mut self, chunk: ChunkId) -> Option<Arc<ChunkFile>> {
        let replica = self.replicas.get_mut(&chunk)?;
        let first = !replica.summary.damaged;
        replica.summary.damaged = true;
        self.damaged.insert(chunk);
        let open = replica.open.as_ref().map(|open| open.file.clone());
        first.then(|| open.or_else(|| self.cached(chunk))).flatten()
    }

    fn cached(&mut self, chunk: ChunkId) -> Option<Arc<ChunkFile>> {
        self.turn += 1;
        let (file, turn) = self.files.get_mut(&chunk)?;
        *turn = self.turn;
        Some(file.clone())
    }

    /// Keeps a file open for later reads; the one unused for longest goes. Two readers may open
    /// the same file at once: all use the first handle, because it alone sees later changes.
    fn cache(&mut self, chunk: ChunkId, file: Arc<ChunkFile>) -> Arc<ChunkFile> {
        if let Some(first) = self.cached(chunk) {
            return first;
        }
        // A file in use stays, so that nobody opens it a second time while it changes.
        let idle = self.files.iter().filter(|(_, (file, _))| Arc::strong_count(file) == 1);
        let oldest = idle.min_by_key(|(_, (_, turn))| *turn).map(|(chunk, _)| *chunk);
        if self.files.len() >= FILES_OPEN_MAX
            && let Some(oldest) = oldest
        {
            self.files.remove(&oldest);
        }
        self.files.insert(chunk, (file.clone(), self.turn));
        file
    }
}
