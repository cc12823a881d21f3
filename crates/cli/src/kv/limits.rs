//! Flags about what bounds a keyspace.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use onefold_admin::{History, KeyspaceLimits, LimitsChange};

use crate::store_options::time;

/// What bounds a keyspace.
#[derive(Args)]
pub struct LimitArgs {
    /// Most bytes of data and history: a number, also with KiB, MiB or GiB, `none` for no bound, or
    /// `default` for what the nodes were started with.
    #[arg(long, value_name = "BYTES", value_parser = quota)]
    quota: Option<Chosen<u64>>,

    /// How much history is kept by itself: a time such as 30m or 1h, a number of revisions, `all`, or
    /// `default` for what the nodes were started with.
    #[arg(long, value_name = "TIME|NUMBER", value_parser = history)]
    history: Option<Chosen<History>>,
}

/// A choice, or that none is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chosen<T>(Option<T>);

impl LimitArgs {
    /// What was said, for a keyspace that is new.
    pub fn limits(&self) -> KeyspaceLimits {
        KeyspaceLimits {
            quota_bytes: self.quota.and_then(|chosen| chosen.0),
            history: self.history.and_then(|chosen| chosen.0),
        }
    }

    /// What is to be changed about a keyspace.
    ///
    /// # Errors
    /// When nothing is.
    pub fn change(&self, name: String) -> anyhow::Result<LimitsChange> {
        let is_something = self.quota.is_some() || self.history.is_some();
        ensure!(is_something, "nothing is to be changed; say --quota or --history");
        Ok(LimitsChange {
            name,
            quota_bytes: self.quota.map(|chosen| chosen.0),
            history: self.history.map(|chosen| chosen.0),
        })
    }
}

/// What nobody chose.
const DEFAULT: &str = "default";

fn quota(text: &str) -> anyhow::Result<Chosen<u64>> {
    if text == DEFAULT {
        return Ok(Chosen(None));
    }
    if text == "none" {
        return Ok(Chosen(Some(0)));
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start() {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => bail!("{text:?} is no size; write it like 4096, 64MiB or 2GiB"),
    };
    let number: u64 = number.parse().with_context(|| format!("{text:?} is no size"))?;
    let bytes = number.checked_mul(1 << shift).with_context(|| format!("{text:?} is too large"))?;
    ensure!(bytes > 0, "a quota of 0 bytes takes nothing; say `none` for no bound");
    Ok(Chosen(Some(bytes)))
}

fn history(text: &str) -> anyhow::Result<Chosen<History>> {
    if text == DEFAULT {
        return Ok(Chosen(None));
    }
    if text == "all" {
        return Ok(Chosen(Some(History::All)));
    }
    if let Ok(revisions) = text.parse() {
        ensure!(revisions > 0, "the newest revision is always kept; say 1 for no history");
        return Ok(Chosen(Some(History::Revisions(revisions))));
    }
    let kept = time(text)?;
    ensure!(kept >= Duration::from_secs(1), "{text:?} is less than a second");
    Ok(Chosen(Some(History::Seconds(kept.as_secs()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_a_unit() {
        for (text, bytes) in [("4096", 4096), ("64MiB", 64 << 20), ("2 GiB", 2 << 30), ("none", 0)]
        {
            assert_eq!(quota(text).expect("a size"), Chosen(Some(bytes)), "{text}");
        }
        assert_eq!(quota("default").expect("a choice"), Chosen(None));
        for text in ["", "0", "x", "-1", "1MB", "99999999999GiB"] {
            assert!(quota(text).is_err(), "{text}");
        }
    }

    #[test]
    fn history_is_a_time_or_a_number_of_revisions() {
        for (text, kept) in [
            ("1h", History::Seconds(3600)),
            ("90s", History::Seconds(90)),
            ("500", History::Revisions(500)),
            ("all", History::All),
        ] {
            assert_eq!(history(text).expect("a choice"), Chosen(Some(kept)), "{text}");
        }
        for text in ["", "0", "5ms", "1x", "-1"] {
            assert!(history(text).is_err(), "{text}");
        }
    }
}
