//! The lines that a node logs, written by a thread of their own: a terminal or pipe that nobody reads
//! delays no request. What does not fit into the queue is dropped and counted, and the count is
//! written as soon as there is room.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait to be written.
const LINES_WAITING_MAX: usize = 4096;

/// Most bytes of a line; what is beyond is cut off.
const LINE_BYTES_MAX: usize = 8 << 10;

/// How long the end of the process waits for its last lines.
const LAST_LINES_PATIENCE: Duration = Duration::from_secs(1);

/// Where lines are handed in. Cheap to clone; never waits.
#[derive(Clone)]
pub struct LogOutput {
    lines: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

enum Item {
    Line(Vec<u8>),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

impl LogOutput {
    /// Starts the thread that writes to `output`.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, waiting) = sync_channel(LINES_WAITING_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        thread::Builder::new()
            .name("log output".to_owned())
            .spawn(move || write(output, &waiting, &counted))?;
        Ok(Self { lines, dropped })
    }

    /// Waits until what was handed in is written, but not for long.
    pub fn flush(&self) {
        let (written, is_written) = sync_channel(1);
        if self.lines.try_send(Item::Flush(written)).is_ok() {
            let _ = is_written.recv_timeout(LAST_LINES_PATIENCE);
        }
    }
}

fn write(mut output: impl Write, waiting: &Receiver<Item>, dropped: &AtomicU64) {
    // A log that cannot be written has no place to say so.
    for item in waiting {
        match item {
            Item::Line(line) => {
                let _ = output.write_all(&line);
            }
            Item::Flush(written) => {
                let _ = output.flush();
                let _ = written.try_send(());
            }
        }
        let count = dropped.swap(0, Ordering::Relaxed);
        if count > 0 {
            let _ =
                writeln!(output, "{count} lines of the log were dropped: nobody read it in time");
        }
    }
}

/// One line on its way.
pub struct Line<'a> {
    output: &'a LogOutput,
    bytes: Vec<u8>,
}

impl<'a> MakeWriter<'a> for LogOutput {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { output: self, bytes: Vec::new() }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = LINE_BYTES_MAX.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let mut line = std::mem::take(&mut self.bytes);
        if line.is_empty() {
            return;
        }
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        if let Err(TrySendError::Full(_)) = self.output.lines.try_send(Item::Line(line)) {
            self.output.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use super::*;

    /// What was written; it writes nothing until somebody reads.
    #[derive(Clone, Default)]
    struct Pipe(Arc<Held>);

    #[derive(Default)]
    struct Held {
        /// Whether it is open, and what came through.
        state: Mutex<(bool, Vec<u8>)>,
        opened: Condvar,
    }

    impl Pipe {
        fn open(&self) {
            self.0.state.lock().expect("no panics").0 = true;
            self.0.opened.notify_all();
        }

        fn text(&self) -> String {
            String::from_utf8_lossy(&self.0.state.lock().expect("no panics").1).into_owned()
        }
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.state.lock().expect("no panics");
            while !state.0 {
                state = self.0.opened.wait(state).expect("no panics");
            }
            state.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_nobody_reads_delays_nobody_and_says_later_what_is_missing() {
        let pipe = Pipe::default();
        let output = LogOutput::start(pipe.clone()).expect("a thread");
        let lines = LINES_WAITING_MAX + 10;
        for number in 0..lines {
            write!(output.make_writer(), "line {number}").expect("it is taken");
        }
        pipe.open();
        while !pipe.text().contains("dropped") {
            output.flush();
        }
        let text = pipe.text();
        let told = text.lines().find_map(|line| line.split_once(" lines of the log were dropped"));
        let dropped: usize = told.expect("it is told").0.parse().expect("a number");
        let written = text.lines().filter(|line| line.starts_with("line ")).count();
        assert!(dropped >= 9, "the thread holds one line at most: {dropped}");
        output.flush();
        assert_eq!(written.max(pipe.text().matches("line ").count()) + dropped, lines);
    }

    #[test]
    fn a_long_line_is_cut() {
        let pipe = Pipe::default();
        pipe.open();
        let output = LogOutput::start(pipe.clone()).expect("a thread");
        output.make_writer().write_all(&[b'x'; 2 * LINE_BYTES_MAX]).expect("it is taken");
        while pipe.text().is_empty() {
            output.flush();
        }
        assert_eq!(pipe.text().len(), LINE_BYTES_MAX + 1);
    }
}
