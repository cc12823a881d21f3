//! Flags of `onefold start` about the key-value store, named like etcd's.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use onefold_kv::{AutoCompaction, KvOptions, QUOTA_BYTES_DEFAULT};

/// What bounds the key-value store. The node that leads says it for all.
#[derive(Args)]
pub struct StoreArgs {
    /// Most bytes of data and history in the key-value store: 0 is the default of 8 GiB, -1 is no
    /// bound.
    #[arg(
        long,
        env = "ONEFOLD_ETCD_QUOTA_BYTES",
        default_value_t = 0,
        value_name = "BYTES",
        allow_negative_numbers = true
    )]
    etcd_quota_bytes: i64,

    /// How the history that is given up by itself is measured.
    #[arg(long, env = "ONEFOLD_ETCD_AUTO_COMPACTION_MODE", default_value = "periodic")]
    etcd_auto_compaction_mode: Mode,

    /// How much history is kept: a time such as 30m or 1h (a number alone is hours), or a number of
    /// revisions; 0 keeps all [default: 1h, or 10000 revisions].
    #[arg(long, env = "ONEFOLD_ETCD_AUTO_COMPACTION_RETENTION", value_name = "TIME|NUMBER")]
    etcd_auto_compaction_retention: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// By age.
    Periodic,
    /// By number.
    Revision,
}

impl StoreArgs {
    /// What the flags say.
    pub fn options(&self) -> anyhow::Result<KvOptions> {
        let quota_bytes = match self.etcd_quota_bytes {
            0 => QUOTA_BYTES_DEFAULT,
            quota => u64::try_from(quota).unwrap_or(0),
        };
        let mode = self.etcd_auto_compaction_mode;
        let retention = self.etcd_auto_compaction_retention.as_deref();
        let auto_compaction = auto_compaction(mode, retention.unwrap_or(mode.default()))
            .context("--etcd-auto-compaction-retention")?;
        Ok(KvOptions { quota_bytes, auto_compaction, ..KvOptions::default() })
    }
}

impl Mode {
    fn default(self) -> &'static str {
        match self {
            Self::Periodic => "1h",
            Self::Revision => "10000",
        }
    }
}

fn auto_compaction(mode: Mode, retention: &str) -> anyhow::Result<AutoCompaction> {
    if retention == "0" {
        return Ok(AutoCompaction::Off);
    }
    Ok(match mode {
        Mode::Periodic => AutoCompaction::Periodic { retention: time(retention)? },
        Mode::Revision => {
            let retention = retention.parse();
            AutoCompaction::Revision {
                retention: retention.context("in this mode it is a number of revisions")?,
            }
        }
    })
}

/// Reads a time as etcd writes them: `1h30m`, `90s`, `500ms`; a number alone is hours.
pub fn time(text: &str) -> anyhow::Result<Duration> {
    if let Ok(hours) = text.parse::<u32>() {
        return Ok(Duration::from_secs(3600) * hours);
    }
    let mut sum = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let unit = match unit {
            "h" => Duration::from_secs(3600),
            "m" => Duration::from_secs(60),
            "s" => Duration::from_secs(1),
            "ms" => Duration::from_millis(1),
            _ => bail!("{text:?} is no time; write it like 30m, 1h or 1h30m"),
        };
        let number: u32 = number.parse().with_context(|| format!("{text:?} is no time"))?;
        let part = unit.checked_mul(number).and_then(|part| sum.checked_add(part));
        sum = part.with_context(|| format!("{text:?} is too long"))?;
        rest = tail;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_etcd_writes_them() {
        for (text, seconds) in [("1", 3600), ("1h", 3600), ("1h30m", 5400), ("45s", 45)] {
            assert_eq!(time(text).expect("a time"), Duration::from_secs(seconds), "{text}");
        }
        for text in ["h", "1x", "-1h", "1h1"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_mode_says_what_the_retention_means() {
        let retention = Duration::from_secs(600);
        let read = |mode, text| auto_compaction(mode, text).expect("good flags");
        assert_eq!(read(Mode::Periodic, "10m"), AutoCompaction::Periodic { retention });
        assert_eq!(read(Mode::Revision, "10"), AutoCompaction::Revision { retention: 10 });
        assert_eq!(read(Mode::Revision, "0"), AutoCompaction::Off);
        assert!(auto_compaction(Mode::Revision, "1h").is_err());
    }
}
