//! Reading a log when it is opened.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use onefold_types::{GroupId, LogIndex};

use crate::LogError;
use crate::format::{
    EntryRecord, Origin, Reader, Reading, Record, SEGMENT_HEADER_BYTES, SegmentHeader, batch_at,
    find_confirmation,
};
use crate::index::{Index, Place};
use crate::manifest::{Manifest, sync_folder};
use crate::segment::{self, FileKind, file_kind, segment_path};
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

/// Reads a log. Once all of it is read and found well, removes files that never held anything or
/// are not needed any more; until then nothing is changed.
pub(crate) fn recover(folder: &Path, manifest: Manifest) -> Result<Found, LogError> {
    let useless = check_files(folder, manifest)?;
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
        let (header, bytes) = segment::read(&path)?;
        let origin = Origin { owner: manifest.owner, segment: number };
        check_header(&path, header, origin, next_batch)?;
        let is_newest = number == manifest.newest;
        let segment = Segment { path: &path, origin, bytes: &bytes, is_newest };
        let end = segment.replay(header.first_batch, &mut replay)?;
        next_batch = Some(end.next_batch);
        found.last_batch = end.next_batch - 1;
        found.segment_bytes.insert(number, bytes.len() as u64);
        if is_newest {
            let unconfirmed = bytes[end.unconfirmed..end.batches].to_vec();
            let (batches, torn) = (end.batches as u64, end.torn as u64);
            found.tail = Some(Tail {
                path,
                unconfirmed,
                is_confirmed: end.is_confirmed,
                torn: batches..torn,
                file_bytes: bytes.len() as u64,
            });
        }
    }
    found.recovered = replay.finish(folder)?;
    found.index = replay.index;
    remove(folder, &useless)?;
    Ok(found)
}

/// Compares the files with the manifest. Answers those that hold nothing that is needed.
fn check_files(folder: &Path, manifest: Manifest) -> Result<Vec<PathBuf>, LogError> {
    let mut useless = Vec::new();
    for name in file_names(folder)? {
        let path = folder.join(&name);
        match file_kind(&name) {
            // It was being removed when a crash came.
            FileKind::Segment(number) if number < manifest.oldest => useless.push(path),
            // It was being created when a crash came, and nothing is written before the manifest
            // lists it.
            FileKind::Segment(number) if number == manifest.newest + 1 => {
                if !segment::is_empty(&path)? {
                    let reason = format!("it ends with segment {}", manifest.newest)
                        + ", but the one after it holds batches: it is an older copy";
                    return Err(LogError::corrupt(&Manifest::path(folder), 0, reason));
                }
                useless.push(path);
            }
            FileKind::Segment(number) if number > manifest.newest => {
                return Err(LogError::Foreign(path));
            }
            FileKind::Segment(_) => {}
            FileKind::Unfinished => useless.push(path),
            FileKind::Other if Manifest::is_leftover(&name) => useless.push(path),
            FileKind::Other => {
                let is_known =
                    path == Manifest::path(folder) || name == LOCK_FILE || name == "lost+found";
                if !is_known {
                    return Err(LogError::Foreign(path));
                }
            }
        }
    }
    for number in manifest.oldest..=manifest.newest {
        let path = segment_path(folder, number);
        if !path.exists() {
            return Err(LogError::Missing(path));
        }
    }
    Ok(useless)
}

fn remove(folder: &Path, useless: &[PathBuf]) -> Result<(), LogError> {
    for path in useless {
        fs::remove_file(path).map_err(LogError::io(path))?;
    }
    if useless.is_empty() { Ok(()) } else { sync_folder(folder) }
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

/// A segment must be the one that its name says, of this log, and follow the one before it.
fn check_header(
    path: &Path,
    header: SegmentHeader,
    origin: Origin,
    next_batch: Option<u64>,
) -> Result<(), LogError> {
    if header.owner != origin.owner {
        let (path, found, expected) = (path.to_owned(), header.owner, origin.owner);
        return Err(LogError::OtherOwner { path, found, expected });
    }
    if header.segment != origin.segment {
        let reason = format!("its header says that it is segment {}", header.segment);
        return Err(LogError::corrupt(path, 0, reason));
    }
    match next_batch {
        Some(next) if next != header.first_batch => {
            let before = path.parent().unwrap_or(Path::new(""));
            let before = segment_path(before, origin.segment - 1);
            let reason = format!(
                "it ends before batch {next}, but the segment after it begins at batch {}",
                header.first_batch
            );
            let end = fs::metadata(&before).map_or(0, |file| file.len());
            Err(LogError::corrupt(&before, end, reason))
        }
        _ if header.first_batch == 0 => {
            Err(LogError::corrupt(path, 0, "its header has an impossible batch number"))
        }
        _ => Ok(()),
    }
}

/// One segment's file in memory.
struct Segment<'a> {
    path: &'a Path,
    origin: Origin,
    bytes: &'a [u8],
    is_newest: bool,
}

/// Where a segment's batches end.
struct End {
    next_batch: u64,
    /// From here on none says that batches were durable.
    unconfirmed: usize,
    /// The last batch is one without records, or there is none.
    is_confirmed: bool,
    /// Behind the last valid batch.
    batches: usize,
    /// Behind the last byte that is not zero, if that comes later.
    torn: usize,
}

impl Segment<'_> {
    fn replay(&self, first_batch: u64, replay: &mut Replay) -> Result<End, LogError> {
        let mut offset = SEGMENT_HEADER_BYTES;
        let mut next_batch = first_batch;
        let mut is_confirmed = true;
        // Number and place of batches that no later one confirmed yet.
        let mut unconfirmed = VecDeque::new();
        loop {
            match batch_at(self.bytes, self.origin, offset, next_batch) {
                Reading::Batch(header, body) => {
                    let body_offset = offset + (header.batch_bytes() - body.len());
                    replay.batch(self, body_offset, body)?;
                    unconfirmed.push_back((next_batch, offset));
                    while unconfirmed.front().is_some_and(|(number, _)| *number <= header.durable) {
                        unconfirmed.pop_front();
                    }
                    is_confirmed = body.is_empty();
                    next_batch += 1;
                    offset = (offset + header.padded_bytes()).min(self.bytes.len());
                }
                Reading::Missing => {
                    let rest = &self.bytes[offset..];
                    let torn_bytes = rest.iter().rposition(|&byte| byte != 0);
                    if torn_bytes.is_some() {
                        self.check_torn(offset, next_batch)?;
                    }
                    let torn = offset + torn_bytes.map_or(0, |last| last + 1);
                    let unconfirmed = unconfirmed.front().map_or(offset, |(_, place)| *place);
                    return Ok(End {
                        next_batch,
                        unconfirmed,
                        is_confirmed,
                        batches: offset,
                        torn,
                    });
                }
                Reading::Damaged(what) => {
                    let reason = format!("batch {next_batch} was durable, but {what}");
                    return Err(LogError::corrupt(self.path, offset as u64, reason));
                }
            }
        }
    }

    /// A batch that is missing, or of which a part is missing, is a torn write only if nothing says
    /// that it was ever durable.
    fn check_torn(&self, offset: usize, number: u64) -> Result<(), LogError> {
        let confirmation = find_confirmation(self.bytes, self.origin, offset, number);
        let reason = if !self.is_newest {
            format!("a part of batch {number} is missing, but a later segment was begun after it")
        } else if let Some(later) = confirmation {
            format!(
                "a part of batch {number} is missing, but byte {later} says that it was durable"
            )
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
            let place =
                Place { segment: segment.origin.segment, offset: (offset + start) as u64, bytes };
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
            Record::SnapshotMark { index, .. } if *index >= compacted => {
                *entries = entries.split_off(&index.next());
            }
            Record::RemoveGroup { .. } => drop(self.entries.remove(&group)),
            Record::HardState { .. }
            | Record::CarriedEntry { .. }
            | Record::SnapshotMark { .. } => {}
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
