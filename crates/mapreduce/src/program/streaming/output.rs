//! Standard output: whole lines, and what becomes of them.

use std::io::Read;

use memchr::{memchr, memchr_iter, memrchr};

use crate::api::limits::RECORD_BYTES_MAX;
use crate::shuffle::Collector;
use crate::task::{Part, TaskError};

const READ_BYTES: usize = 128 << 10;

/// Most bytes of one line of output: a key, a tab and a value.
const LINE_BYTES_MAX: usize = 2 * RECORD_BYTES_MAX;

/// Takes a command's output.
pub(crate) trait LineSink {
    /// Some lines, each with its line feed.
    fn lines(&mut self, lines: &[u8]) -> Result<(), TaskError>;
}

/// Reads standard output to its end. A last line without a line feed is given one.
pub(super) fn follow(
    mut stdout: impl Read,
    sink: &mut dyn LineSink,
    mut activity: impl FnMut() -> Result<(), TaskError>,
) -> Result<(), TaskError> {
    let mut buffer = vec![0; READ_BYTES];
    let mut filled = 0;
    loop {
        if filled == buffer.len() {
            if filled >= LINE_BYTES_MAX {
                return Err(TaskError::RecordTooLong { what: "a line of its output".to_owned() });
            }
            buffer.resize((filled * 2).min(LINE_BYTES_MAX), 0);
        }
        let bytes = match stdout.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(TaskError::user(format!("its output cannot be read: {error}")));
            }
        };
        activity()?;
        let searched = filled;
        filled += bytes;
        if let Some(feed) = memrchr(b'\n', &buffer[searched..filled]) {
            let end = searched + feed + 1;
            sink.lines(&buffer[..end])?;
            buffer.copy_within(end..filled, 0);
            filled -= end;
        }
    }
    if filled > 0 {
        buffer.truncate(filled);
        buffer.push(b'\n');
        sink.lines(&buffer)?;
    }
    Ok(())
}

/// The key and the value of a line without its line feed: split at the first tab; without one, all
/// is key.
pub(super) fn split_line(line: &[u8]) -> (&[u8], &[u8]) {
    match memchr(b'\t', line) {
        Some(tab) => (&line[..tab], &line[tab + 1..]),
        None => (line, &[]),
    }
}

/// The lines of `lines` without their line feeds.
pub(super) fn each_line(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    memchr_iter(b'\n', lines).map(move |feed| {
        let line = &lines[start..feed];
        start = feed + 1;
        line
    })
}

/// Emits lines as keys and values.
pub(crate) struct MapLines<'a, 'c> {
    out: &'a mut Collector<'c>,
}

impl<'a, 'c> MapLines<'a, 'c> {
    /// A sink into a collector.
    pub(crate) fn new(out: &'a mut Collector<'c>) -> Self {
        Self { out }
    }
}

impl LineSink for MapLines<'_, '_> {
    fn lines(&mut self, lines: &[u8]) -> Result<(), TaskError> {
        for line in each_line(lines) {
            let (key, value) = split_line(line);
            self.out.emit(key, value)?;
        }
        Ok(())
    }
}

/// Writes lines to an output file as they are.
pub(crate) struct Verbatim<'a, 'p> {
    part: &'a mut Part<'p>,
    lines: u64,
}

impl<'a, 'p> Verbatim<'a, 'p> {
    /// A sink into an output file.
    pub(crate) fn new(part: &'a mut Part<'p>) -> Self {
        Self { part, lines: 0 }
    }

    /// Lines written so far.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }
}

impl LineSink for Verbatim<'_, '_> {
    fn lines(&mut self, lines: &[u8]) -> Result<(), TaskError> {
        self.lines += memchr_iter(b'\n', lines).count() as u64;
        self.part.buffer().extend_from_slice(lines);
        self.part.flush_if_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let bytes = self.1.min(self.0.len()).min(into.len());
            let (now, later) = self.0.split_at(bytes);
            into[..bytes].copy_from_slice(now);
            self.0 = later;
            Ok(bytes)
        }
    }

    #[derive(Default)]
    struct Lines(Vec<Vec<u8>>);

    impl LineSink for Lines {
        fn lines(&mut self, lines: &[u8]) -> Result<(), TaskError> {
            assert_eq!(lines.last(), Some(&b'\n'));
            self.0.extend(each_line(lines).map(<[u8]>::to_vec));
            Ok(())
        }
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        let long = vec![b'x'; 300_000];
        let text = [b"a\tb\n\nc".as_slice(), &long, b"\nlast"].concat();
        for bytes in [1000, 1 << 20] {
            let mut lines = Lines::default();
            follow(Slow(&text, bytes), &mut lines, || Ok(())).expect("whole lines");
            let expected: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
            assert_eq!(lines.0, expected);
        }
    }

    #[test]
    fn an_endless_line_is_an_error() {
        let error = follow(std::io::repeat(b'x'), &mut Lines::default(), || Ok(()));
        assert!(matches!(error, Err(TaskError::RecordTooLong { .. })));
    }

    #[test]
    fn the_first_tab_ends_the_key() {
        assert_eq!(split_line(b"a\tb\tc"), (b"a".as_slice(), b"b\tc".as_slice()));
        assert_eq!(split_line(b"abc"), (b"abc".as_slice(), b"".as_slice()));
        assert_eq!(split_line(b"\tv"), (b"".as_slice(), b"v".as_slice()));
    }
}
