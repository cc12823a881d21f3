//! Reading a log when it is opened.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use onefold_types::{GroupId, LogIndex};

use crate::LogError;
use crate::format::{
    BatchHeader, EntryRecord, Reader, Record, SEGMENT_HEADER_BYTES, SegmentHeader, decode_batch,
    find_confirmation,
};
use crate::index::{Index, Place};
use crate::manifest::{Manifest, sync_folder};
use crate::segment::{FileKind, file_kind, segment_path};
use crate::types::{GroupState, Recovered, RecoveredEntry};

/// The file that is locked while a log is open.
pub(crate) const LOCK_FILE: &str = "lock";

/// What reading a log found.
pub(crate) struct Found {
    pub(crate) recovered: Recovered,
    pub(crate) index: Index,
    pub(crate) manifest: Manifest,
    /// The number of the last valid batch.
    pub(crate) last_batch: u64,
    /// File bytes of the segments, by number.
    pub(crate) segment_bytes: BTreeMap<u64, u64>,
    /// The newest segment; nothing if the log has none.
    pub(crate) tail: Option<Tail>,
}

/// Where the newest segment goes on.
pub(crate) struct Tail {
    pub(crate) path: PathBuf,
    /// The last batches of the segment, which no batch says to be durable. If a sync failed before,
    /// they may be in the system's memory only, where they pass for written.
    pub(crate) unconfirmed: Vec<u8>,
    /// The last batch is one without records, or there is none.
    pub(crate) is_confirmed: bool,
    /// What follows the last valid batch and was never acknowledged; empty if only zeros do.
    pub(crate) torn: Range<u64>,
    pub(crate) file_bytes: u64,
}

/// Whether a folder holds files of which none says that it is a log.
pub(crate) fn check_foreign(folder: &Path) -> Result<(), LogError> {
    for name in file_names(folder)? {
        match file_kind(&name) {
            FileKind::Segment(_) => return Err(LogError::Missing(Manifest::path(folder))),
            FileKind::Unfinished => {}
            FileKind::Other if name == LOCK_FILE || name == "lost+found" => {}
            FileKind::Other if Manifest::is_leftover(&name) => {}
            FileKind::Other => return Err(LogError::Foreign(folder.join(name))),
        }
    }
    Ok(())
}

/// Reads a log. Only removes files that never held anything or are not needed any more.
pub(crate) fn recover(folder: &Path, manifest: Manifest) -> Result<Found, LogError> {
    check_files(folder, manifest)?;
    let mut replay = Replay::default();
    let mut found = Found {
        recovered: Recovered::new(),
        index: Index::default(),
        manifest,
        last_batch: 0,
        segment_bytes: BTreeMap::new(),
        tail: None,
    };
    let mut next_batch = None;
    for number in manifest.oldest..=manifest.newest {
        let path = segment_path(folder, number);
        let bytes = fs::read(&path).map_err(LogError::io(&path))?;
        let is_newest = number == manifest.newest;
        let segment = Segment { path: &path, number, bytes: &bytes, is_newest };
        let first_batch = segment.check_header(next_batch)?;
        let end = segment.replay(first_batch, &mut replay)?;
        next_batch = Some(end.next_batch);
        found.last_batch = end.next_batch - 1;
        found.segment_bytes.insert(number, bytes.len() as u64);
        if is_newest {
            let file_bytes = bytes.len() as u64;
            let valid = &bytes[..file_offset(end.torn.start)];
            let (unconfirmed, is_confirmed) = unconfirmed_batches(valid);
            let unconfirmed = unconfirmed.to_vec();
            let torn = end.torn;
            found.tail = Some(Tail { path, unconfirmed, is_confirmed, torn, file_bytes });
        }
    }
    found.recovered = replay.finish(folder)?;
    found.index = replay.index;
    Ok(found)
}

/// Compares the files with the manifest.
fn check_files(folder: &Path, manifest: Manifest) -> Result<(), LogError> {
    let mut is_changed = false;
    for name in file_names(folder)? {
        let path = folder.join(&name);
        let is_useless = match file_kind(&name) {
            // Removed or created, but a crash came before the other half of that.
            FileKind::Segment(number) if number < manifest.oldest => true,
            FileKind::Segment(number) if number == manifest.newest + 1 => true,
            FileKind::Segment(number) if number > manifest.newest => {
                return Err(LogError::Foreign(path));
            }
            FileKind::Segment(_) => false,
            FileKind::Unfinished => true,
            FileKind::Other if Manifest::is_leftover(&name) => true,
            FileKind::Other => {
                let is_known =
                    path == Manifest::path(folder) || name == LOCK_FILE || name == "lost+found";
                if !is_known {
                    return Err(LogError::Foreign(path));
                }
                false
            }
        };
        if is_useless {
            fs::remove_file(&path).map_err(LogError::io(&path))?;
            is_changed = true;
        }
    }
    for number in manifest.oldest..=manifest.newest {
        let path = segment_path(folder, number);
        if !path.exists() {
            return Err(LogError::Missing(path));
        }
    }
    if is_changed { sync_folder(folder) } else { Ok(()) }
}

fn file_names(folder: &Path) -> Result<Vec<String>, LogError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(LogError::io(folder))? {
        let name = entry.map_err(LogError::io(folder))?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// One segment's file in memory.
struct Segment<'a> {
    path: &'a Path,
    number: u64,
    bytes: &'a [u8],
    is_newest: bool,
}

/// Where a segment's batches end.
struct End {
    next_batch: u64,
    /// From the last valid batch to the last byte that is not zero.
    torn: Range<u64>,
}

impl Segment<'_> {
    /// The number of the segment's first batch, which must follow the segment before.
    fn check_header(&self, next_batch: Option<u64>) -> Result<u64, LogError> {
        let header = SegmentHeader::decode(self.path, self.bytes)?;
        if header.segment != self.number {
            let reason = format!("its header says that it is segment {}", header.segment);
            return Err(LogError::corrupt(self.path, 0, reason));
        }
        if header.file_bytes != self.bytes.len() as u64 {
            let reason = format!("it was {} bytes long when it was made", header.file_bytes);
            return Err(LogError::corrupt(self.path, self.bytes.len() as u64, reason));
        }
        match next_batch {
            Some(next) if next != header.first_batch => {
                let before =
                    segment_path(self.path.parent().unwrap_or(Path::new("")), self.number - 1);
                let reason = format!(
                    "it ends before batch {next}, but the segment after it begins at batch {}",
                    header.first_batch
                );
                let end = fs::metadata(&before).map_or(0, |file| file.len());
                Err(LogError::corrupt(&before, end, reason))
            }
            _ if header.first_batch == 0 => {
                Err(LogError::corrupt(self.path, 0, "its header has an impossible batch number"))
            }
            _ => Ok(header.first_batch),
        }
    }

    fn replay(&self, first_batch: u64, replay: &mut Replay) -> Result<End, LogError> {
        let mut offset = SEGMENT_HEADER_BYTES;
        let mut next_batch = first_batch;
        loop {
            let rest = &self.bytes[offset..];
            match decode_batch(rest) {
                Some((header, body)) if header.number == next_batch => {
                    let body_offset = offset + (header.batch_bytes() - body.len());
                    replay.batch(self, body_offset, body)?;
                    offset += header.batch_bytes();
                    next_batch += 1;
                }
                // A header of zeros has a wrong checksum, so the end comes here too.
                _ => {
                    let torn_bytes =
                        rest.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
                    if torn_bytes > 0 {
                        self.check_torn(offset, next_batch)?;
                    }
                    let torn = offset as u64..(offset + torn_bytes) as u64;
                    return Ok(End { next_batch, torn });
                }
            }
        }
    }

    /// An unreadable batch is a torn write only if nothing says that it was ever durable.
    fn check_torn(&self, offset: usize, number: u64) -> Result<(), LogError> {
        let reason = if !self.is_newest {
            format!("batch {number} is not readable, but a later segment was begun after it")
        } else if let Some(later) = find_confirmation(&self.bytes[offset..], number) {
            let later = offset + later;
            format!("batch {number} is not readable, but byte {later} confirms that it was durable")
        } else {
            tracing::warn!(
                segment = %self.path.display(), offset,
                "cutting a torn write that was never acknowledged off the log"
            );
            return Ok(());
        };
        Err(LogError::corrupt(self.path, offset as u64, reason))
    }
}

/// The batches at the end of a segment that none confirms, and whether there is nothing more to
/// confirm. All batches of the segment must be valid.
fn unconfirmed_batches(segment: &[u8]) -> (&[u8], bool) {
    let mut batches = Vec::new();
    let mut offset = SEGMENT_HEADER_BYTES;
    while let Some(header) = BatchHeader::decode(&segment[offset..]) {
        batches.push((header.number, offset));
        offset += header.batch_bytes();
        if offset >= segment.len() {
            let confirmed = batches.partition_point(|&(number, _)| number <= header.durable);
            let unconfirmed = batches.get(confirmed).map_or(&[][..], |&(_, at)| &segment[at..]);
            return (unconfirmed, header.body_bytes == 0);
        }
    }
    (&[], true)
}

/// An offset into a file that is in memory.
fn file_offset(offset: u64) -> usize {
    usize::try_from(offset).expect("the file is in memory")
}

/// The contents of live entries, beside the index that follows their places.
#[derive(Default)]
struct Replay {
    index: Index,
    entries: BTreeMap<GroupId, BTreeMap<LogIndex, RecoveredEntry>>,
}

impl Replay {
    fn batch(&mut self, segment: &Segment<'_>, offset: usize, body: &[u8]) -> Result<(), LogError> {
        let mut reader = Reader::new(body);
        while reader.remaining() > 0 {
            let start = body.len() - reader.remaining();
            let Some(record) = Record::decode(&mut reader) else {
                let reason = "a record has an unknown type or a wrong length";
                return Err(LogError::corrupt(segment.path, (offset + start) as u64, reason));
            };
            let bytes = (body.len() - reader.remaining() - start) as u64;
            let place = Place { segment: segment.number, offset: (offset + start) as u64, bytes };
            self.contents(&record);
            self.index.apply(record, place);
        }
        Ok(())
    }

    /// Follows a record's effect on the contents; before the index, whose marks it asks for.
    fn contents(&mut self, record: &Record<'_>) {
        let group = record.group();
        let compacted =
            self.index.groups.get(&group).map_or(LogIndex::ZERO, |group| group.compacted());
        let entries = self.entries.entry(group).or_default();
        match record {
            Record::Entry { entry, .. } => {
                entries.split_off(&entry.index);
                entries.insert(entry.index, recovered(entry));
            }
            Record::CarriedEntry { entry, .. } if entry.index > compacted => {
                entries.insert(entry.index, recovered(entry));
            }
            Record::Truncate { from, .. } => drop(entries.split_off(from)),
            Record::SnapshotMark { index, .. } => *entries = entries.split_off(&index.next()),
            Record::RemoveGroup { .. } => drop(self.entries.remove(&group)),
            Record::HardState { .. } | Record::CarriedEntry { .. } => {}
        }
    }

    /// The state of each group, once all segments are read.
    fn finish(&mut self, folder: &Path) -> Result<Recovered, LogError> {
        let mut recovered = Recovered::new();
        for (&group, index) in &self.index.groups {
            let entries = self.entries.remove(&group).unwrap_or_default();
            let mut expected = index.compacted();
            for &found in entries.keys() {
                expected = expected.next();
                if found != expected {
                    let reason = format!("group {group} lacks its entry {expected}");
                    return Err(LogError::corrupt(folder, 0, reason));
                }
            }
            assert_eq!(expected, index.last(), "the index follows the entries");
            let state = GroupState {
                hard_state: index.hard_state.map(|(state, _)| state),
                snapshot: index.mark.as_ref().map(|(mark, _)| mark.clone()),
                entries: entries.into_values().collect(),
            };
            // A group of which only removed entries were read is as good as none.
            if state != GroupState::default() {
                recovered.insert(group, state);
            }
        }
        Ok(recovered)
    }
}

fn recovered(entry: &EntryRecord<'_>) -> RecoveredEntry {
    RecoveredEntry {
        term: entry.term,
        index: entry.index,
        kind: entry.kind,
        payload: entry.owned_payload(),
    }
}
