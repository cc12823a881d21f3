//! The log's thread: it alone touches the files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onefold_types::{GroupId, LogIndex};

use crate::cleaner::Cleaning;
use crate::format::{
    BATCH_ALIGNMENT, BATCH_HEADER_BYTES, BatchWriter, Origin, Record, SEGMENT_HEADER_BYTES,
    SegmentHeader,
};
use crate::index::{Index, Place};
use crate::log::{Done, LogOptions};
use crate::manifest::Manifest;
use crate::queue::{Pending, Queue};
use crate::recovery::Found;
use crate::segment;
use crate::status::{Counters, count};
use crate::{LogError, Write};

/// Memory that the write buffer keeps between writes.
const BUFFER_BYTES: usize = 1 << 20;

/// Each segment keeps room for a batch without records at its end.
const CONFIRMATION_BYTES: u64 = BATCH_HEADER_BYTES as u64;

/// How long nothing is appended before the confirmation of the last appends is made durable. It
/// costs a sync each time that the log falls quiet, and bounds how long after its acknowledgement
/// an append can be lost to damage that looks like a torn write.
const CONFIRMATION_SYNC_AFTER: Duration = Duration::from_secs(1);

/// The segment that is written.
struct Active {
    number: u64,
    path: PathBuf,
    file: File,
    file_bytes: u64,
    /// Where the buffer will be written.
    offset: u64,
}

/// Everything that belongs to the log's thread.
pub(crate) struct Writer {
    pub(crate) folder: PathBuf,
    pub(crate) options: LogOptions,
    pub(crate) index: Index,
    pub(crate) manifest: Manifest,
    /// File bytes of the segments, by number.
    pub(crate) segment_bytes: BTreeMap<u64, u64>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) cleaning: Option<Cleaning>,
    /// Something became garbage since the segments were last looked at.
    pub(crate) has_garbage: bool,
    queue: Arc<Queue>,
    active: Option<Active>,
    buffer: BatchWriter,
    /// Those whose batches are in the buffer.
    waiting: Vec<Done>,
    /// The number of the last batch that was made.
    last_batch: u64,
    /// The number of the last batch that is durable.
    durable_batch: u64,
    /// The last batch of the active segment is a confirmation, or there is none to confirm.
    is_confirmed: bool,
    /// That confirmation may be in the system's memory only.
    is_sync_due: bool,
}

impl Writer {
    pub(crate) fn new(
        folder: PathBuf,
        options: LogOptions,
        found: Found,
        queue: Arc<Queue>,
        counters: Arc<Counters>,
    ) -> Result<Self, LogError> {
        let is_confirmed = found.tail.as_ref().is_none_or(|tail| tail.is_confirmed);
        let active = match found.tail {
            Some(tail) => Some(Active {
                number: found.manifest.newest,
                file: segment::open_to_append(&tail)?,
                path: tail.path,
                file_bytes: tail.file_bytes,
                offset: tail.torn.start,
            }),
            None => None,
        };
        let writer = Self {
            folder,
            options,
            index: found.index,
            manifest: found.manifest,
            segment_bytes: found.segment_bytes,
            counters,
            cleaning: None,
            has_garbage: true,
            queue,
            active,
            buffer: BatchWriter::default(),
            waiting: Vec::new(),
            last_batch: found.last_batch,
            durable_batch: found.last_batch,
            is_confirmed,
            is_sync_due: false,
        };
        writer.count_segments();
        Ok(writer)
    }

    /// Serves the queue until it is closed, or until a write fails.
    pub(crate) fn run(mut self) {
        let _guard = PanicGuard(self.queue.clone());
        while let Some(group) = self.queue.take(self.patience()) {
            let is_quiet = group.is_empty() && self.cleaning.is_none();
            let served = if is_quiet { self.sync_confirmation() } else { self.serve(group) };
            if let Err(error) = served {
                tracing::error!(%error, "the log takes no more writes");
                self.fail(&error);
                return;
            }
        }
        if let Err(error) = self.finish() {
            tracing::error!(%error, "the log could not be closed cleanly");
        }
    }

    /// How long to wait for appends before something else is to be done.
    fn patience(&self) -> Option<Duration> {
        match (self.cleaning.is_some(), self.is_sync_due) {
            (true, _) => Some(Duration::ZERO),
            (false, true) => Some(CONFIRMATION_SYNC_AFTER),
            (false, false) => None,
        }
    }

    /// Writes a group of appends and syncs once. An error is fatal: bytes of it may be written.
    pub(crate) fn serve(&mut self, group: Vec<Pending>) -> Result<(), LogError> {
        self.commit(group)?;
        self.settle()
    }

    /// Makes a group of appends durable, with one step of cleaning.
    pub(crate) fn commit(&mut self, group: Vec<Pending>) -> Result<(), LogError> {
        for pending in group {
            self.add(pending)?;
        }
        self.clean_step()?;
        self.flush()
    }

    /// What can wait until the appenders have their answers.
    pub(crate) fn settle(&mut self) -> Result<(), LogError> {
        self.choose_cleaning();
        if self.queue.is_empty() && self.cleaning.is_none() {
            self.write_confirmation()?;
        }
        Ok(())
    }

    /// Puts an append into the buffer. An append that does not fit the rules or the disk gets its
    /// error here and leaves no trace.
    fn add(&mut self, pending: Pending) -> Result<(), LogError> {
        let Pending { writes, bytes, done } = pending;
        if let Err(error) = check_order(&self.index, &writes) {
            done(Err(error));
            return Ok(());
        }
        if !writes.is_empty() {
            match self.make_room(bytes) {
                Ok(()) => {}
                Err(error @ LogError::DiskFull { .. }) => {
                    tracing::error!(%error, "an append failed");
                    done(Err(error));
                    return Ok(());
                }
                Err(error) => {
                    done(Err(error.poisoned()));
                    return Err(error);
                }
            }
            self.push(writes.iter().map(Record::of_write));
            self.has_garbage |= writes.iter().any(|write| {
                matches!(write, Write::SnapshotMark { .. } | Write::RemoveGroup { .. })
            });
        }
        self.waiting.push(done);
        Ok(())
    }

    /// Makes sure that a batch fits behind the buffer, in a new segment if need be.
    pub(crate) fn make_room(&mut self, batch_bytes: u64) -> Result<(), LogError> {
        let batch_bytes = batch_bytes.next_multiple_of(BATCH_ALIGNMENT as u64);
        if let Some(active) = &self.active {
            let end = active.offset + self.buffer.bytes().len() as u64 + batch_bytes;
            if end + CONFIRMATION_BYTES <= active.file_bytes {
                return Ok(());
            }
        }
        // A segment is sealed whole: everything in it is durable before the next one exists.
        self.flush()?;
        let number = self.manifest.newest + 1;
        let needed_bytes = SEGMENT_HEADER_BYTES as u64 + batch_bytes + CONFIRMATION_BYTES;
        let file_bytes = self.options.segment_bytes.max(needed_bytes);
        let first_batch = self.last_batch + 1;
        let owner = self.manifest.owner;
        let header = SegmentHeader { owner, segment: number, first_batch, file_bytes };
        let file = segment::create(&self.folder, header)?;
        let manifest = Manifest { newest: number, ..self.manifest };
        let path = segment::segment_path(&self.folder, number);
        let written = manifest.write(&self.folder);
        self.manifest = written.inspect_err(|error| {
            if matches!(error, LogError::DiskFull { .. }) {
                // Best effort: what the manifest does not list is removed when the log is opened.
                let _ = fs::remove_file(&path);
            }
        })?;
        self.segment_bytes.insert(number, file_bytes);
        self.active =
            Some(Active { number, path, file, file_bytes, offset: SEGMENT_HEADER_BYTES as u64 });
        self.is_confirmed = true;
        self.has_garbage = true;
        self.count_segments();
        Ok(())
    }

    /// Puts a batch into the buffer; there must be room for it.
    pub(crate) fn push<'a>(&mut self, records: impl IntoIterator<Item = Record<'a>>) {
        let active = self.active.as_ref().expect("room was made in a segment");
        let (segment, offset) = (active.number, active.offset);
        let origin = Origin { owner: self.manifest.owner, segment };
        self.last_batch += 1;
        let numbers = (self.last_batch, self.durable_batch);
        let index = &mut self.index;
        self.buffer.push(origin, offset, numbers, records, |record, range| {
            let bytes = range.len() as u64;
            index.apply(record, Place { segment, offset: offset + range.start as u64, bytes });
        });
    }

    /// Writes the buffer, syncs, and tells those who wait.
    pub(crate) fn flush(&mut self) -> Result<(), LogError> {
        if !self.buffer.bytes().is_empty() {
            self.write_buffer()?;
            self.sync()?;
            self.durable_batch = self.last_batch;
            self.is_confirmed = false;
        }
        count(&self.counters.appends, self.waiting.len() as u64);
        for done in self.waiting.drain(..) {
            done(Ok(()));
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), LogError> {
        let active = self.active.as_ref().expect("there is something to sync");
        let began = Instant::now();
        active.file.sync_data().map_err(LogError::io(&active.path))?;
        self.counters.fsync_durations.add(began.elapsed());
        self.is_sync_due = false;
        count(&self.counters.fsyncs, 1);
        Ok(())
    }

    /// Makes durable that the last appends were durable.
    fn sync_confirmation(&mut self) -> Result<(), LogError> {
        if self.is_sync_due { self.sync() } else { Ok(()) }
    }

    fn write_buffer(&mut self) -> Result<(), LogError> {
        let active = self.active.as_mut().expect("the buffer belongs to a segment");
        let bytes = self.buffer.bytes();
        active.file.write_all_at(bytes, active.offset).map_err(LogError::io(&active.path))?;
        active.offset += bytes.len() as u64;
        count(&self.counters.written_bytes, bytes.len() as u64);
        self.buffer.clear(BUFFER_BYTES);
        Ok(())
    }

    /// Writes, without a sync, an empty batch that says that those before it are durable. Without
    /// it, damage to the last batches could not be told from a torn write.
    fn write_confirmation(&mut self) -> Result<(), LogError> {
        assert!(self.buffer.bytes().is_empty(), "everything is written before it is confirmed");
        let Some(active) = &self.active else {
            return Ok(());
        };
        if self.is_confirmed {
            return Ok(());
        }
        assert!(active.offset + CONFIRMATION_BYTES <= active.file_bytes, "its room was kept");
        self.push([]);
        self.write_buffer()?;
        self.is_confirmed = true;
        self.is_sync_due = true;
        Ok(())
    }

    /// Leaves the log so that all of it is confirmed and durable.
    pub(crate) fn finish(&mut self) -> Result<(), LogError> {
        self.flush()?;
        self.write_confirmation()?;
        self.sync_confirmation()
    }

    /// Fails everyone who waits, now and later.
    fn fail(&mut self, error: &LogError) {
        let poisoned = error.poisoned();
        self.queue.poison(poisoned.clone());
        for done in self.waiting.drain(..) {
            done(Err(poisoned.clone()));
        }
        fail_queue(&self.queue, &poisoned);
    }

    #[cfg(test)]
    pub(crate) fn queue(&self) -> Arc<Queue> {
        self.queue.clone()
    }

    /// Lets the next write meet another file.
    #[cfg(test)]
    pub(crate) fn replace_file(&mut self, file: File) {
        self.active.as_mut().expect("something was written").file = file;
    }

    pub(crate) fn active_segment(&self) -> Option<u64> {
        self.active.as_ref().map(|active| active.number)
    }

    pub(crate) fn count_segments(&self) {
        use std::sync::atomic::Ordering::Relaxed;
        self.counters.segments.store(self.segment_bytes.len() as u64, Relaxed);
        self.counters.bytes.store(self.segment_bytes.values().sum(), Relaxed);
    }
}

/// Refuses new appends, and fails those that wait.
fn fail_queue(queue: &Queue, error: &LogError) {
    queue.poison(error.clone());
    while let Some(group) = queue.take(Some(Duration::ZERO)).filter(|group| !group.is_empty()) {
        for pending in group {
            (pending.done)(Err(error.clone()));
        }
    }
}

/// Lets nobody wait for a thread that stopped over a broken invariant.
struct PanicGuard(Arc<Queue>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            fail_queue(&self.0, &LogError::Closed.poisoned());
        }
    }
}

/// Refuses entries that would leave a gap, before anything of their append is written.
fn check_order(index: &Index, writes: &[Write]) -> Result<(), LogError> {
    // Mark and last entry of the groups that the append changes.
    let mut ends: BTreeMap<GroupId, (LogIndex, LogIndex)> = BTreeMap::new();
    for write in writes {
        let group = write.group();
        let (after, last) = ends.entry(group).or_insert_with(|| {
            index
                .groups
                .get(&group)
                .map(|group| (group.compacted(), group.last()))
                .unwrap_or_default()
        });
        match write {
            Write::Entry { index, .. } => {
                if *index <= *after || *index > last.next() {
                    let (index, after, last) = (*index, *after, *last);
                    return Err(LogError::OutOfOrder { group, index, after, last });
                }
                *last = *index;
            }
            Write::Truncate { from, .. } => {
                *last = (*last).min(LogIndex(from.get().saturating_sub(1))).max(*after);
            }
            Write::SnapshotMark { index, .. } => {
                *after = (*after).max(*index);
                *last = (*last).max(*after);
            }
            Write::RemoveGroup { .. } => (*after, *last) = Default::default(),
            Write::HardState { .. } => {}
        }
    }
    Ok(())
}
