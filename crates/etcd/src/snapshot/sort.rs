//! Records in the order of their revisions, whatever order they come in, in bounded memory.
//!
//! What does not fit goes to a temporary file as sorted runs, which are merged on the way out.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use onefold_types::Revision;

/// Bytes of records in memory before they become a run.
const RUN_BYTES: usize = 64 << 20;

/// Bytes that are read at once from each run while they are merged.
const MERGE_BUFFER_BYTES: usize = 64 << 10;

/// A record to sort: its revision, and its bytes.
type Record = (Revision, Vec<u8>);

/// Takes records and gives them back sorted by revision; those of one revision as they came.
pub(super) struct Sorter<'a> {
    folder: &'a Path,
    run_bytes: usize,
    records: Vec<Record>,
    bytes: usize,
    file: Option<File>,
    /// Where each run ends in the file.
    ends: Vec<u64>,
}

impl<'a> Sorter<'a> {
    /// A sorter that keeps its runs in a file without a name in `folder`.
    pub(super) fn new(folder: &'a Path) -> Self {
        Self::with_run(folder, RUN_BYTES)
    }

    fn with_run(folder: &'a Path, run_bytes: usize) -> Self {
        let (records, ends) = (Vec::new(), Vec::new());
        Self { folder, run_bytes, records, bytes: 0, file: None, ends }
    }

    pub(super) fn add(&mut self, revision: Revision, record: Vec<u8>) -> io::Result<()> {
        self.bytes += record.len() + size_of::<Record>();
        self.records.push((revision, record));
        if self.bytes >= self.run_bytes { self.spill() } else { Ok(()) }
    }

    /// All of them, sorted.
    pub(super) fn finish(mut self) -> io::Result<Sorted> {
        if self.file.is_some() && !self.records.is_empty() {
            self.spill()?;
        }
        self.records.sort_by_key(|(revision, _)| *revision);
        let mut sorted =
            Sorted { memory: self.records.into_iter(), runs: Vec::new(), heap: BinaryHeap::new() };
        if let Some(file) = self.file {
            let starts = std::iter::once(0).chain(self.ends.iter().copied());
            for (start, end) in starts.zip(self.ends.iter().copied()) {
                let run = Run { file: file.try_clone()?, place: start, end };
                sorted.runs.push(BufReader::with_capacity(MERGE_BUFFER_BYTES, run));
                sorted.refill(sorted.runs.len() - 1)?;
            }
        }
        Ok(sorted)
    }

    fn spill(&mut self) -> io::Result<()> {
        let mut records = std::mem::take(&mut self.records);
        self.bytes = 0;
        records.sort_by_key(|(revision, _)| *revision);
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile_in(self.folder)?),
        };
        file.seek(SeekFrom::End(0))?;
        let mut out = BufWriter::new(&mut *file);
        for (revision, record) in records {
            let bytes = u32::try_from(record.len()).map_err(io::Error::other)?;
            out.write_all(&revision.get().to_le_bytes())?;
            out.write_all(&bytes.to_le_bytes())?;
            out.write_all(&record)?;
        }
        out.flush()?;
        drop(out);
        self.ends.push(file.stream_position()?);
        Ok(())
    }
}

/// The records of a [`Sorter`] in order.
pub(super) struct Sorted {
    /// All of them, if there are no runs.
    memory: std::vec::IntoIter<Record>,
    runs: Vec<BufReader<Run>>,
    /// The first record of each run that has one left, by revision and then by run.
    heap: BinaryHeap<Reverse<(Revision, usize, Vec<u8>)>>,
}

impl Sorted {
    pub(super) fn next(&mut self) -> io::Result<Option<Record>> {
        let Some(Reverse((revision, run, record))) = self.heap.pop() else {
            return Ok(self.memory.next());
        };
        self.refill(run)?;
        Ok(Some((revision, record)))
    }

    fn refill(&mut self, at: usize) -> io::Result<()> {
        let run = &mut self.runs[at];
        if run.buffer().is_empty() && run.get_ref().is_over() {
            return Ok(());
        }
        let mut head = [0; 12];
        run.read_exact(&mut head)?;
        let (revision, bytes) = head.split_at(8);
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, b| sum << 8 | u64::from(*b));
        let mut record = vec![0; usize::try_from(number(bytes)).map_err(io::Error::other)?];
        run.read_exact(&mut record)?;
        self.heap.push(Reverse((Revision(number(revision)), at, record)));
        Ok(())
    }
}

/// A part of the file.
struct Run {
    file: File,
    place: u64,
    end: u64,
}

impl Run {
    fn is_over(&self) -> bool {
        self.place == self.end
    }
}

impl Read for Run {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.place).unwrap_or(usize::MAX);
        let want = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..want], self.place)?;
        self.place += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_runs_come_out_as_one_order() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        for run_bytes in [1, 500, 1 << 20] {
            let mut sorter = Sorter::with_run(folder.path(), run_bytes);
            for at in 0..300_u64 {
                let revision = Revision(at * 7919 % 100);
                sorter.add(revision, at.to_le_bytes().to_vec()).expect("the disk works");
            }
            let mut sorted = sorter.finish().expect("the disk works");
            let mut found = Vec::new();
            while let Some((revision, record)) = sorted.next().expect("the disk works") {
                let at = u64::from_le_bytes(record.try_into().expect("eight bytes"));
                found.push((revision, at));
            }
            let mut expected: Vec<_> = (0..300).map(|at| (Revision(at * 7919 % 100), at)).collect();
            expected.sort();
            assert_eq!(found, expected, "runs of {run_bytes} bytes");
        }
    }
}
