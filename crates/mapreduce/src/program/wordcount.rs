//! The built-in job `wordcount`.
//!
//! A word is a maximal run of ASCII letters, digits and underscores; letter case is kept. That is
//! the rule of
//! `tr -cs 'A-Za-z0-9_' '\n' | grep -v '^$' | LC_ALL=C sort | uniq -c`.

use super::count_table::{BATCH_KEYS, CountTable, SHORT_BYTES, ShortKey, first_words, words_of};
use crate::input::LineBlock;
use crate::shuffle::Collector;
use crate::task::{LineMapper, TaskError};

/// Which bytes belong to words.
const IS_WORD: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_');
        byte += 1;
    }
    table
};

/// Words between two looks at whether the table is full; each adds at most its own bytes.
const CHECK_BYTES: usize = 64 << 10;

/// Counts words.
pub(crate) struct WordCounter {
    table: CountTable,
}

impl WordCounter {
    /// A counter that keeps about `bytes_max` bytes of distinct words in memory.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { table: CountTable::new(bytes_max) }
    }

    /// Counts the words of `text`, beginning at `from`, up to the first that ends behind `until`.
    /// Answers where it stopped.
    fn count(&mut self, text: &[u8], from: usize, until: usize) -> usize {
        let mut at = from;
        let mut batch = [ShortKey::default(); BATCH_KEYS];
        let mut batched = 0;
        while at < until {
            while at < text.len() && !IS_WORD[usize::from(text[at])] {
                at += 1;
            }
            let start = at;
            while at < text.len() && IS_WORD[usize::from(text[at])] {
                at += 1;
            }
            let length = at - start;
            if length == 0 {
                continue;
            }
            if length > SHORT_BYTES {
                self.table.add(&text[start..at]);
                continue;
            }
            let words = match text[start..].first_chunk::<SHORT_BYTES>() {
                Some(chunk) => keep_first(words_of(chunk), length),
                None => first_words(&text[start..at]),
            };
            batch[batched] = ShortKey { start: words, length: length as u32 };
            batched += 1;
            if batched == BATCH_KEYS {
                self.table.add_batch(&batch);
                batched = 0;
            }
        }
        self.table.add_batch(&batch[..batched]);
        at
    }
}

/// Clears all but the first `length` bytes, 1 to 16 of them.
#[inline]
fn keep_first([low, high]: [u64; 2], length: usize) -> [u64; 2] {
    let all = u128::from(low) | u128::from(high) << 64;
    let kept = all & (u128::MAX >> (128 - 8 * length));
    [kept as u64, (kept >> 64) as u64]
}

impl LineMapper for WordCounter {
    fn map(&mut self, block: &LineBlock, out: &mut Collector<'_>) -> Result<(), TaskError> {
        let text = block.bytes.as_ref();
        let mut at = 0;
        while at < text.len() {
            let until = text.len().min(at + CHECK_BYTES);
            at = self.count(text, at, until);
            if self.table.is_full() {
                self.table.drain(out)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Collector<'_>) -> Result<(), TaskError> {
        self.table.drain(out)
    }
}
