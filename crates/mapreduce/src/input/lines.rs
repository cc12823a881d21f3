//! The lines of a split.
//!
//! A split owns the lines that start in it: it skips to behind its first line feed unless it begins
//! the file, and reads on behind its end until its last line is whole. So every line of a file
//! belongs to exactly one of the splits that cover it, wherever these begin.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use memchr::{memchr, memchr_iter, memrchr};

use super::split::FileRange;
use crate::api::limits::RECORD_BYTES_MAX;
use crate::task::{InputFile, Pieces, TaskError, TaskFiles};

/// Bytes read at first to complete the last line of a split, and afterwards.
const TAIL_BYTES: [u64; 2] = [64 << 10, 1 << 20];

/// Whole lines of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LineBlock {
    /// Where in the file the first line starts.
    pub(crate) offset: u64,
    /// Lines, each with its line feed, which only the last line of a file may lack.
    pub(crate) bytes: Bytes,
}

impl LineBlock {
    /// The lines without their line feeds.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_ref();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let end = memchr(b'\n', rest).unwrap_or(rest.len());
            let line = &rest[..end];
            rest = rest.get(end + 1..).unwrap_or(&[]);
            Some(line)
        })
    }

    /// The number of lines.
    pub(crate) fn count(&self) -> u64 {
        let feeds = memchr_iter(b'\n', &self.bytes).count() as u64;
        feeds + u64::from(self.bytes.last().is_some_and(|&byte| byte != b'\n'))
    }
}

enum State {
    /// Looking for the first line feed.
    Skip,
    /// Within the split.
    Within,
    /// Behind its end, completing the last line. The number of windows opened so far.
    Tail(usize),
    Done,
}

/// Reads the lines that a range of a file owns.
pub(crate) struct LineBlocks<'a> {
    file: Box<dyn InputFile + 'a>,
    name: &'a str,
    pieces: Box<dyn Pieces + 'a>,
    /// Where the next piece starts.
    position: u64,
    /// Where the split ends.
    end: u64,
    state: State,
    /// The beginning of a line, and where in the file it starts.
    carry: Vec<u8>,
    carry_offset: u64,
    ready: VecDeque<LineBlock>,
}

impl<'a> LineBlocks<'a> {
    /// Opens a range.
    pub(crate) fn open(files: &'a dyn TaskFiles, range: &'a FileRange) -> Result<Self, TaskError> {
        let file = files.open(range)?;
        let end = range.offset.saturating_add(range.length).min(file.size());
        // The byte before the split tells whether a line starts at its very beginning.
        let position = range.offset.saturating_sub(1);
        let state = if range.offset == 0 { State::Within } else { State::Skip };
        let pieces = file.read(position..end);
        Ok(Self {
            file,
            name: &range.file,
            pieces,
            position,
            end,
            state,
            carry: Vec::new(),
            carry_offset: position,
            ready: VecDeque::new(),
        })
    }

    /// The next lines; `None` when there are no more.
    pub(crate) fn next(&mut self) -> Result<Option<LineBlock>, TaskError> {
        loop {
            if let Some(block) = self.ready.pop_front() {
                return Ok(Some(block));
            }
            if matches!(self.state, State::Done) {
                return Ok(None);
            }
            match self.pieces.next()? {
                Some(piece) => self.take(piece)?,
                None => self.end_of_pieces(),
            }
        }
    }

    fn take(&mut self, mut piece: Bytes) -> Result<(), TaskError> {
        if matches!(self.state, State::Skip) {
            match memchr(b'\n', &piece) {
                None => {
                    self.position += piece.len() as u64;
                    return Ok(());
                }
                Some(feed) => {
                    piece.advance(feed + 1);
                    self.position += feed as u64 + 1;
                    self.state = State::Within;
                }
            }
        }
        if !self.carry.is_empty() {
            let head = memchr(b'\n', &piece).map_or(piece.len(), |feed| feed + 1);
            self.carry.extend_from_slice(&piece[..head]);
            self.position += head as u64;
            piece.advance(head);
            if self.carry.last() == Some(&b'\n') {
                self.give_carry();
                if matches!(self.state, State::Tail(_)) {
                    self.state = State::Done;
                    return Ok(());
                }
            }
        }
        if let Some(feed) = memrchr(b'\n', &piece) {
            let bytes = piece.split_to(feed + 1);
            let offset = self.position;
            self.position += bytes.len() as u64;
            self.ready.push_back(LineBlock { offset, bytes });
        }
        if !piece.is_empty() {
            if self.carry.is_empty() {
                self.carry_offset = self.position;
            }
            self.carry.extend_from_slice(&piece);
            self.position += piece.len() as u64;
        }
        if self.carry.len() > RECORD_BYTES_MAX {
            let what = format!("the line at byte {} of {}", self.carry_offset, self.name);
            return Err(TaskError::RecordTooLong { what });
        }
        Ok(())
    }

    fn end_of_pieces(&mut self) {
        let window = match self.state {
            State::Skip | State::Done => {
                self.state = State::Done;
                return;
            }
            State::Within => 0,
            State::Tail(window) => window,
        };
        if self.carry.is_empty() || self.position >= self.file.size() {
            // The last line of the file may lack its line feed.
            if !self.carry.is_empty() {
                self.give_carry();
            }
            self.state = State::Done;
            return;
        }
        debug_assert!(self.position >= self.end, "pieces end with the range that was asked for");
        let bytes = TAIL_BYTES[window.min(1)];
        self.pieces = self.file.read(self.position..self.position.saturating_add(bytes));
        self.state = State::Tail(window + 1);
    }

    fn give_carry(&mut self) {
        let bytes = Bytes::from(std::mem::take(&mut self.carry));
        self.ready.push_back(LineBlock { offset: self.carry_offset, bytes });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::task::testing::TextFile;

    fn read(text: &[u8], piece_bytes: usize, offset: u64, length: u64) -> Vec<(u64, Vec<u8>)> {
        let files = TextFile { text: Bytes::copy_from_slice(text), piece_bytes };
        let range = FileRange { file: "/b/text".to_owned(), etag: String::new(), offset, length };
        let mut blocks = LineBlocks::open(&files, &range).expect("an open file");
        let mut lines = Vec::new();
        while let Some(block) = blocks.next().expect("lines") {
            assert!(!block.bytes.is_empty());
            let mut at = block.offset;
            let before = lines.len();
            for line in block.lines() {
                lines.push((at, line.to_vec()));
                at += line.len() as u64 + 1;
            }
            assert_eq!(block.count(), (lines.len() - before) as u64);
        }
        lines
    }

    fn expected(text: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut lines: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut at = 0;
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            lines.push((at, line.strip_suffix(b"\n").unwrap_or(line).to_vec()));
            at += line.len() as u64;
        }
        lines
    }

    proptest! {
        #[test]
        fn every_line_belongs_to_exactly_one_split(
            text in "[ab\n]{0,60}",
            mut cuts in prop::collection::vec(0_u64..60, 0..6),
            piece_bytes in 1_usize..20,
        ) {
            let text = text.as_bytes();
            let size = text.len() as u64;
            cuts.retain(|&cut| cut < size);
            cuts.extend([0, size]);
            cuts.sort_unstable();
            cuts.dedup();
            let mut lines = Vec::new();
            for split in cuts.windows(2) {
                lines.extend(read(text, piece_bytes, split[0], split[1] - split[0]));
            }
            prop_assert_eq!(lines, expected(text));
        }
    }

    #[test]
    fn a_line_that_covers_whole_splits_belongs_to_the_first() {
        let text = b"aaaaaaaaaaaaaaaaaaaa\nb\n";
        assert_eq!(read(text, 4, 0, 5), [(0, vec![b'a'; 20])]);
        assert_eq!(read(text, 4, 5, 10), []);
        assert_eq!(read(text, 4, 15, 6), []);
        assert_eq!(read(text, 4, 21, 2), [(21, b"b".to_vec())]);
    }

    #[test]
    fn an_endless_line_is_an_error_that_says_where() {
        let mut text = b"short\n".to_vec();
        text.resize(RECORD_BYTES_MAX + 100, b'x');
        let files = TextFile { text: Bytes::from(text), piece_bytes: 1 << 20 };
        let range =
            FileRange { file: "/b/text".to_owned(), etag: String::new(), offset: 0, length: 10 };
        let mut blocks = LineBlocks::open(&files, &range).expect("an open file");
        assert!(blocks.next().expect("the first line").is_some());
        let error = blocks.next().expect_err("the second line is too long").to_string();
        assert!(error.starts_with("the line at byte 6 of /b/text is longer"), "{error}");
    }
}
