//! Files for tests of what reads and writes them.

use std::ops::Range;

use bytes::Bytes;

use super::error::TaskError;
use super::files::{InputFile, OutputFile, Pieces, TaskFiles};
use crate::input::FileRange;

/// One text, under every name, in pieces of a given size.
pub(crate) struct TextFile {
    pub(crate) text: Bytes,
    pub(crate) piece_bytes: usize,
}

impl TaskFiles for TextFile {
    fn open(&self, _: &FileRange) -> Result<Box<dyn InputFile + '_>, TaskError> {
        Ok(Box::new(Text { text: self.text.clone(), piece_bytes: self.piece_bytes }))
    }

    fn create(&self, name: &str) -> Result<Box<dyn OutputFile + '_>, TaskError> {
        panic!("nothing writes {name} here")
    }
}

struct Text {
    text: Bytes,
    piece_bytes: usize,
}

impl InputFile for Text {
    fn size(&self) -> u64 {
        self.text.len() as u64
    }

    fn read<'a>(&self, range: Range<u64>) -> Box<dyn Pieces + 'a>
    where
        Self: 'a,
    {
        let end = range.end.min(self.size());
        let start = range.start.min(end);
        let text = self.text.slice(start as usize..end as usize);
        Box::new(Text { text, piece_bytes: self.piece_bytes })
    }
}

impl Pieces for Text {
    fn next(&mut self) -> Result<Option<Bytes>, TaskError> {
        let bytes = self.piece_bytes.min(self.text.len());
        Ok((bytes > 0).then(|| self.text.split_to(bytes)))
    }
}
