//! Merging sorted segments.

use std::cmp::Ordering;
use std::path::Path;

use super::combine::{Sorted, SortedRecord};
use super::read::{Cursor, Source, SourceBytes};
use super::run::RunWriter;
use crate::task::{Stop, TaskError};

/// Records between two looks at whether to go on.
const CHECK_RECORDS: u64 = 4096;

/// All records of some segments, by (key, order of the segments): a tournament of losers (Knuth,
/// TAOCP volume 3, section 5.4.1), with one comparison a level for each record.
pub(crate) struct Merge {
    cursors: Vec<Cursor>,
    /// `losers[0]` is the winner, `losers[n]` the one who lost at inner node n; the parent of node n
    /// is n / 2, and cursor i sits at node `cursors.len() + i`.
    losers: Vec<usize>,
    /// Given with every record.
    partition: u32,
    started: bool,
    stop: Stop,
    records: u64,
}

impl Merge {
    /// Opens all the sources at once: the caller bounds their number.
    pub(crate) fn open(
        sources: Vec<Source>,
        partition: u32,
        stop: Stop,
    ) -> Result<Self, TaskError> {
        let cursors: Result<Vec<_>, _> = sources.into_iter().map(Cursor::open).collect();
        let cursors = cursors?;
        let losers = vec![0; cursors.len()];
        let mut merge = Self { losers, cursors, partition, started: false, stop, records: 0 };
        if !merge.cursors.is_empty() {
            merge.losers[0] = merge.play(1);
        }
        Ok(merge)
    }

    /// The current record's key and value.
    pub(crate) fn peek(&self) -> Option<(&[u8], &[u8])> {
        let cursor = &self.cursors[*self.losers.first()?];
        (!cursor.is_ended()).then(|| (cursor.key(), cursor.value()))
    }

    /// Goes to the next record.
    pub(crate) fn advance(&mut self) -> Result<(), TaskError> {
        let Some(&winner) = self.losers.first() else { return Ok(()) };
        self.cursors[winner].advance()?;
        self.records += 1;
        if self.records.is_multiple_of(CHECK_RECORDS) {
            self.stop.note_activity();
            self.stop.check()?;
        }
        let mut winner = winner;
        let mut node = (self.cursors.len() + winner) / 2;
        while node > 0 {
            if self.is_before(self.losers[node], winner) {
                std::mem::swap(&mut self.losers[node], &mut winner);
            }
            node /= 2;
        }
        self.losers[0] = winner;
        Ok(())
    }

    /// Plays the matches below a node, notes who lost them, and answers who won.
    fn play(&mut self, node: usize) -> usize {
        if node >= self.cursors.len() {
            return node - self.cursors.len();
        }
        let (left, right) = (self.play(2 * node), self.play(2 * node + 1));
        let (winner, loser) =
            if self.is_before(right, left) { (right, left) } else { (left, right) };
        self.losers[node] = loser;
        winner
    }

    fn is_before(&self, left: usize, right: usize) -> bool {
        let (a, b) = (&self.cursors[left], &self.cursors[right]);
        match (a.is_ended(), b.is_ended()) {
            (true, _) => return false,
            (false, true) => return true,
            (false, false) => {}
        }
        let order = a.prefix().cmp(&b.prefix()).then_with(|| a.key().cmp(b.key()));
        match order {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => left < right,
        }
    }
}

impl Sorted for Merge {
    fn next(&mut self) -> Result<Option<SortedRecord<'_>>, TaskError> {
        if self.started {
            self.advance()?;
        }
        self.started = true;
        let partition = self.partition;
        Ok(self.peek().map(|(key, value)| (partition, key, value)))
    }
}

/// Merges neighbours until no more than `ways` sources are left, in as many passes as it takes.
/// Neighbours stay neighbours, so the order of equal keys does not depend on the number of passes.
pub(crate) fn merge_passes(
    mut sources: Vec<Source>,
    ways: usize,
    scratch: &Path,
    stop: &Stop,
) -> Result<Vec<Source>, TaskError> {
    assert!(ways >= 2, "a merge of fewer than two ways gets nowhere");
    let mut pass = 0;
    while sources.len() > ways {
        let mut merged = Vec::with_capacity(sources.len().div_ceil(ways));
        let mut rest = sources.into_iter();
        loop {
            let group: Vec<Source> = rest.by_ref().take(ways).collect();
            if group.is_empty() {
                break;
            }
            let path = scratch.join(format!("merge-{pass}-{}", merged.len()));
            merged.push(merge_group(group, &path, stop.clone())?);
        }
        sources = merged;
        pass += 1;
    }
    Ok(sources)
}

fn merge_group(group: Vec<Source>, path: &Path, stop: Stop) -> Result<Source, TaskError> {
    let mut merge = Merge::open(group, 0, stop)?;
    let mut writer = RunWriter::create(path, 1)?;
    while let Some((partition, key, value)) = merge.next()? {
        writer.push(partition, key, value)?;
    }
    let run = writer.finish()?;
    let segment = run.segment(0)?;
    let file = run.file().clone();
    // The open file keeps the bytes for as long as they are needed.
    run.delete();
    let bytes = SourceBytes::File { file, offset: segment.offset, length: segment.length };
    Ok(Source { bytes, origin: None })
}
