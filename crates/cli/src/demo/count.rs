//! The same count twice: read from the job's output, and made in plain code over the local files.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use anyhow::Context;
use futures::TryStreamExt;
use onefold_files::FilePath;

use super::Files;
use crate::output::{Progress, Unit};
use crate::transfer::{Pair, keys_below};

/// How often each word occurs.
pub type Counts = HashMap<Vec<u8>, u64>;

/// Reads the output files of a word count.
pub async fn from_cluster(files: &Files, folder: &FilePath) -> anyhow::Result<Counts> {
    let folder = folder.join("/")?;
    let mut counts = Counts::new();
    let mut keys = keys_below(files, &folder);
    while let Some((key, info)) = keys.try_next().await? {
        if !key.rsplit('/').next().is_some_and(|name| name.starts_with("part-")) {
            continue;
        }
        let content = files.open(folder.bucket(), &key).await?.read_bytes(0..info.size).await?;
        for line in content.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let (word, count) = parse(line).with_context(|| {
                format!("{key} has a line without a count: {}", String::from_utf8_lossy(line))
            })?;
            *counts.entry(word.to_owned()).or_default() += count;
        }
    }
    Ok(counts)
}

fn parse(line: &[u8]) -> Option<(&[u8], u64)> {
    let tab = line.iter().rposition(|&byte| byte == b'\t')?;
    let count = std::str::from_utf8(&line[tab + 1..]).ok()?.parse().ok()?;
    Some((&line[..tab], count))
}

/// Counts the words of local files, one after the other.
pub async fn from_files(pairs: Vec<Pair>) -> anyhow::Result<Counts> {
    let count = move || {
        let total = pairs.iter().map(|pair| pair.bytes).sum();
        let mut progress = Progress::new("checking", Unit::Bytes, total);
        let mut counts = Counts::new();
        for pair in pairs {
            let content = std::fs::read(&pair.local)
                .with_context(|| format!("cannot read {}", pair.local.display()))?;
            let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
            for word in content.split(|byte| !is_word(byte)).filter(|word| !word.is_empty()) {
                if let Some(count) = counts.get_mut(word) {
                    *count += 1;
                } else {
                    counts.insert(word.to_owned(), 1);
                }
            }
            progress.add(pair.bytes);
        }
        progress.finish();
        anyhow::Ok(counts)
    };
    tokio::task::spawn_blocking(count).await?
}

/// The most frequent words; among equals in alphabetical order.
pub fn top(counts: &Counts, limit: usize) -> Vec<(String, u64)> {
    let mut all: Vec<(&Vec<u8>, u64)> = counts.iter().map(|(word, &n)| (word, n)).collect();
    all.sort_unstable_by_key(|&(word, count)| (Reverse(count), word));
    all.truncate(limit);
    all.into_iter().map(|(word, n)| (String::from_utf8_lossy(word).into_owned(), n)).collect()
}

/// Words that are counted differently, with both counts.
pub fn differences(here: &Counts, there: &Counts, limit: usize) -> Vec<(String, u64, u64)> {
    let words: BTreeMap<&Vec<u8>, ()> =
        here.keys().chain(there.keys()).map(|word| (word, ())).collect();
    let count = |counts: &Counts, word: &Vec<u8>| counts.get(word).copied().unwrap_or(0);
    words
        .into_keys()
        .map(|word| (word, count(here, word), count(there, word)))
        .filter(|(_, here, there)| here != there)
        .take(limit)
        .map(|(word, here, there)| (String::from_utf8_lossy(word).into_owned(), here, there))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_words_are_sorted_by_count_then_alphabet() {
        let counts = Counts::from([(b"b".to_vec(), 2), (b"a".to_vec(), 2), (b"c".to_vec(), 9)]);
        let top: Vec<String> = top(&counts, 2).into_iter().map(|(word, _)| word).collect();
        assert_eq!(top, ["c", "a"]);
    }

    #[test]
    fn a_difference_is_found_on_either_side() {
        let here = Counts::from([(b"a".to_vec(), 1), (b"b".to_vec(), 1)]);
        let there = Counts::from([(b"a".to_vec(), 2), (b"c".to_vec(), 1)]);
        let found: Vec<String> =
            differences(&here, &there, 9).into_iter().map(|(word, _, _)| word).collect();
        assert_eq!(found, ["a", "b", "c"]);
    }
}
