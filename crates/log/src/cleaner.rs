//! Removing old segments, and carrying forward what is still needed of them.
//!
//! Segments go from the front only, so that the numbers of those that exist stay contiguous. The
//! oldest one goes at once when it holds no live entry. When live entries of slow groups hold it
//! back while most of the log is garbage, they are written once more, in steps between appends.

use std::fs;

use onefold_types::GroupId;

use crate::LogError;
use crate::format::{BATCH_HEADER_BYTES, EntryRecord, Origin, Reader, Record};
use crate::manifest::{Manifest, sync_folder};
use crate::segment::{SegmentScan, segment_path};
use crate::status::count;
use crate::types::{HardState, SnapshotMark};
use crate::writer::Writer;

/// Bytes of an old segment that are read in one step; appends wait that long.
const STEP_BYTES: u64 = 1 << 20;
/// A log is cleaned when it is more than this many times as large as what is live in it, so that
/// carrying costs at most about as much writing as the appends themselves.
const GARBAGE_FACTOR: u64 = 2;

/// The oldest segment while it is being emptied.
pub(crate) struct Cleaning {
    segment: u64,
    /// `None` once all its entries are carried.
    scan: Option<SegmentScan>,
}

/// Owned copies of a group's small records.
type Small = (GroupId, Option<HardState>, Option<SnapshotMark>);

impl Writer {
    /// Decides whether the oldest segment should go.
    pub(crate) fn choose_cleaning(&mut self) {
        if self.cleaning.is_some() || !self.has_garbage {
            return;
        }
        let oldest = self.manifest.oldest;
        if self.active_segment().is_none_or(|active| active == oldest) {
            self.has_garbage = false;
            return;
        }
        let live = self.index.live_bytes();
        let live_bytes: u64 = live.values().sum();
        let file_bytes: u64 = self.segment_bytes.values().sum();
        let is_free = !self.index.has_entries_in(oldest);
        let is_wasteful = file_bytes > self.options.retained_bytes
            && file_bytes > GARBAGE_FACTOR * live_bytes + self.options.segment_bytes;
        if !is_free && !is_wasteful {
            self.has_garbage = false;
            return;
        }
        let path = segment_path(&self.folder, oldest);
        let origin = Origin { owner: self.manifest.owner, segment: oldest };
        let scan = if is_free { Ok(None) } else { SegmentScan::open(path, origin).map(Some) };
        match scan {
            Ok(scan) => self.cleaning = Some(Cleaning { segment: oldest, scan }),
            Err(error) => {
                tracing::warn!(%error, "an old log segment can't be cleaned");
                self.has_garbage = false;
            }
        }
    }

    /// Carries a piece of the segment that is being emptied into the active one; removes it when
    /// nothing in it is needed any more.
    pub(crate) fn clean_step(&mut self) -> Result<(), LogError> {
        let Some(mut cleaning) = self.cleaning.take() else {
            return Ok(());
        };
        let stepped = match cleaning.scan.take() {
            Some(scan) => self.carry_entries(&mut cleaning, scan),
            None => self.carry_small(cleaning.segment).and_then(|()| {
                self.flush()?;
                self.remove_oldest(cleaning.segment)
            }),
        };
        match stepped {
            Ok(is_done) => {
                if !is_done {
                    self.cleaning = Some(cleaning);
                }
                Ok(())
            }
            // Old segments stay until there is space again; nothing is lost.
            Err(error @ LogError::DiskFull { .. }) => {
                tracing::warn!(%error, "old log segments stay");
                self.has_garbage = false;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Carries the live entries of the next batches of a segment. Never done: the small records
    /// come last.
    fn carry_entries(
        &mut self,
        cleaning: &mut Cleaning,
        mut scan: SegmentScan,
    ) -> Result<bool, LogError> {
        let mut body = Vec::new();
        let mut read_bytes = 0;
        let step_bytes = STEP_BYTES.min(self.options.segment_bytes / 4);
        while read_bytes < step_bytes {
            let Some(offset) = scan.next(&mut body)? else {
                return Ok(false);
            };
            read_bytes += (BATCH_HEADER_BYTES + body.len()) as u64;
            self.carry_batch(cleaning.segment, offset, &body)?;
        }
        cleaning.scan = Some(scan);
        Ok(false)
    }

    fn carry_batch(&mut self, segment: u64, offset: u64, body: &[u8]) -> Result<(), LogError> {
        let live = live_entries(self, segment, offset, body);
        if live.is_empty() {
            return Ok(());
        }
        let bytes: usize = live.iter().map(|(_, entry)| entry.bytes()).sum();
        self.make_room((BATCH_HEADER_BYTES + bytes) as u64)?;
        count(&self.counters.carried_entries, live.len() as u64);
        self.push(live.into_iter().map(|(group, entry)| Record::CarriedEntry { group, entry }));
        Ok(())
    }

    /// Writes hard states and marks that stand in a segment once more.
    fn carry_small(&mut self, segment: u64) -> Result<(), LogError> {
        let groups = self.index.groups.iter();
        let small: Vec<Small> = groups
            .map(|(&group, index)| {
                let hard_state = index.hard_state.filter(|(_, at)| *at == segment);
                let mark = index.mark.as_ref().filter(|(_, at)| *at == segment);
                (group, hard_state.map(|(state, _)| state), mark.map(|(mark, _)| mark.clone()))
            })
            .filter(|(_, hard_state, mark)| hard_state.is_some() || mark.is_some())
            .collect();
        for (group, hard_state, mark) in &small {
            let state = hard_state.map(|state| Record::HardState { group: *group, state });
            let mark = mark.as_ref().map(|mark| Record::of_mark(*group, mark));
            let records = || state.into_iter().chain(mark);
            let bytes: usize = records().map(|record| record.bytes()).sum();
            self.make_room((BATCH_HEADER_BYTES + bytes) as u64)?;
            self.push(records());
        }
        Ok(())
    }

    /// Removes the oldest segment, of which nothing may be needed. The manifest goes first: a crash
    /// in between leaves a file that is removed when the log is opened.
    fn remove_oldest(&mut self, segment: u64) -> Result<bool, LogError> {
        assert_eq!(segment, self.manifest.oldest, "segments go from the front");
        assert_ne!(Some(segment), self.active_segment(), "the active segment stays");
        let path = segment_path(&self.folder, segment);
        if self.index.has_entries_in(segment) {
            return Err(LogError::corrupt(&path, 0, "entries that were in it are gone"));
        }
        let manifest = Manifest { oldest: segment + 1, ..self.manifest };
        self.manifest = manifest.write(&self.folder)?;
        fs::remove_file(&path).map_err(LogError::io(&path))?;
        sync_folder(&self.folder)?;
        self.segment_bytes.remove(&segment);
        count(&self.counters.removed_segments, 1);
        self.count_segments();
        Ok(true)
    }
}

fn live_entries<'a>(
    writer: &Writer,
    segment: u64,
    offset: u64,
    body: &'a [u8],
) -> Vec<(GroupId, EntryRecord<'a>)> {
    let mut live = Vec::new();
    let mut reader = Reader::new(body);
    while reader.remaining() > 0 {
        let at = offset + (body.len() - reader.remaining()) as u64;
        let record = Record::decode(&mut reader).expect("a batch with a right checksum is ours");
        if let Record::Entry { group, entry } | Record::CarriedEntry { group, entry } = record {
            let group_index = writer.index.groups.get(&group);
            if group_index.is_some_and(|index| index.is_live(entry.index, segment, at)) {
                live.push((group, entry));
            }
        }
    }
    live
}
