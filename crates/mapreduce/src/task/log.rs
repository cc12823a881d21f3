//! What an attempt's commands wrote to standard error: its beginning and its end, in bounded memory.

use std::collections::VecDeque;

use crate::api::limits::{LOG_BYTES_MAX, LOG_TAIL_BYTES_MAX};

const HALF_BYTES: usize = LOG_BYTES_MAX / 2;

/// Collects text.
#[derive(Debug, Default)]
pub(crate) struct Log {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    left_out: u64,
}

impl Log {
    /// Appends bytes.
    pub(crate) fn append(&mut self, mut bytes: &[u8]) {
        let room = HALF_BYTES - self.head.len();
        if room > 0 {
            let (first, rest) = bytes.split_at(room.min(bytes.len()));
            self.head.extend_from_slice(first);
            bytes = rest;
        }
        let skipped = bytes.len().saturating_sub(HALF_BYTES);
        self.left_out += skipped as u64;
        self.tail.extend(&bytes[skipped..]);
        let excess = self.tail.len().saturating_sub(HALF_BYTES);
        self.left_out += excess as u64;
        self.tail.drain(..excess);
    }

    /// All that was kept, with a note where something was left out.
    pub(crate) fn text(&self) -> String {
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        if self.left_out == 0 {
            return String::from_utf8_lossy(&[self.head.as_slice(), &tail].concat()).into_owned();
        }
        format!(
            "{}\n[{} bytes left out]\n{}",
            String::from_utf8_lossy(&self.head),
            self.left_out,
            String::from_utf8_lossy(&tail)
        )
    }

    /// The last whole lines, for an error message.
    pub(crate) fn last_lines(&self) -> String {
        let both = self.head.iter().chain(&self.tail);
        let skipped = (self.head.len() + self.tail.len()).saturating_sub(LOG_TAIL_BYTES_MAX);
        let bytes: Vec<u8> = both.skip(skipped).copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let whole =
            if skipped == 0 { &text } else { text.split_once('\n').map_or(&*text, |p| p.1) };
        whole.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_log_is_kept_whole() {
        let mut log = Log::default();
        log.append(b"one\n");
        log.append(b"two\n");
        assert_eq!(log.text(), "one\ntwo\n");
        assert_eq!(log.last_lines(), "one\ntwo");
    }

    #[test]
    fn a_long_log_keeps_its_beginning_and_its_end() {
        let mut log = Log::default();
        let mut written = 0;
        for number in 0..100_000 {
            let line = format!("line {number}\n");
            written += line.len();
            log.append(line.as_bytes());
        }
        let text = log.text();
        assert!(text.len() < LOG_BYTES_MAX + 100);
        assert!(text.starts_with("line 0\nline 1\n"));
        assert!(text.ends_with("line 99998\nline 99999\n"));
        assert!(text.contains(&format!("[{} bytes left out]", written - LOG_BYTES_MAX)));
        let last = log.last_lines();
        assert!(last.starts_with("line ") && last.ends_with("line 99999"));
        let mut log = Log::default();
        log.append(&vec![b'x'; 10 * LOG_BYTES_MAX]);
        assert!(log.text().len() < LOG_BYTES_MAX + 100);
    }
}
