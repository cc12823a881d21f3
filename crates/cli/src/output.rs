//! Tables, JSON, sizes and progress: how things look to a person and to a script.

use std::convert::Infallible;
use std::io::{IsTerminal, Write};
use std::str::FromStr;
use std::time::{Duration, Instant};

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// How tables are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// A value of `--output`: a format, or for jobs the folder to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// How tables are printed.
    Format(Format),
    /// Where a job writes. A local folder named like a format is written `./json`.
    Path(String),
}

impl FromStr for Output {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "table" => Self::Format(Format::Table),
            "json" => Self::Format(Format::Json),
            path => Self::Path(path.to_owned()),
        })
    }
}

/// Prints rows as a table, or the values behind them as a JSON array.
pub fn print_rows<T: Serialize>(
    format: Format,
    head: &[&str],
    values: &[T],
    row: impl Fn(&T) -> Vec<String>,
) -> anyhow::Result<()> {
    match format {
        Format::Json => print_json(&values),
        Format::Table => {
            let mut table = Table::new();
            table.load_preset(presets::NOTHING);
            table.set_content_arrangement(ContentArrangement::Disabled);
            table.set_header(head.iter().map(|name| name.to_uppercase()));
            table.add_rows(values.iter().map(row));
            let mut out = std::io::stdout().lock();
            for line in table.lines() {
                writeln!(out, "{}", line.trim_end())?;
            }
            Ok(())
        }
    }
}

/// Prints one value as JSON.
pub fn print_json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    Ok(())
}

/// A number of bytes as people read it.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Milliseconds since 1970 as a date and time in UTC.
pub fn time(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// The date of a day counted from 1970-01-01, in the Gregorian calendar.
fn date(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

/// Pause between two progress lines where there is no terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Progress of something that may take more than a second: a bar on a terminal, now and then a
/// plain line elsewhere.
pub struct Progress {
    bar: ProgressBar,
    what: String,
    unit: Unit,
    plain: Option<Instant>,
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Tasks, files and the like.
    Items,
}

impl Progress {
    /// Starts a progress display on standard error.
    pub fn new(what: &str, unit: Unit, total: u64) -> Self {
        let template = match unit {
            Unit::Bytes => "{msg} [{bar:32}] {bytes}/{total_bytes} {bytes_per_sec}",
            Unit::Items => "{msg} [{bar:32}] {pos}/{len}",
        };
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        let terminal = std::io::stderr().is_terminal();
        let target =
            if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target).with_style(style);
        bar.set_message(what.to_owned());
        Self { bar, what: what.to_owned(), unit, plain: (!terminal).then(Instant::now) }
    }

    /// Sets what is done and what there is to do.
    pub fn set(&mut self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.say_plainly();
    }

    /// Adds to what is done.
    pub fn add(&mut self, more: u64) {
        self.bar.inc(more);
        self.say_plainly();
    }

    /// Changes what is being done.
    pub fn rename(&mut self, what: &str) {
        if self.what != what {
            what.clone_into(&mut self.what);
            self.bar.set_message(self.what.clone());
        }
    }

    /// Removes the bar.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }

    fn say_plainly(&mut self) {
        let Some(last) = &mut self.plain else { return };
        if last.elapsed() < PLAIN_INTERVAL {
            return;
        }
        *last = Instant::now();
        let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
        match self.unit {
            Unit::Bytes => eprintln!("{}: {} of {}", self.what, bytes(done), bytes(total)),
            Unit::Items => eprintln!("{}: {done} of {total}", self.what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_gregorian_dates() {
        assert_eq!(time(0), "1970-01-01 00:00:00");
        assert_eq!(time(951_868_799_000), "2000-02-29 23:59:59");
        assert_eq!(time(4_107_542_400_000), "2100-03-01 00:00:00");
    }

    #[test]
    fn sizes_change_unit_at_1024() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 40), "5.0 TiB");
    }
}
