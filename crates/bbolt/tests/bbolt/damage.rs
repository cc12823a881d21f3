//! Mutations of good files, by random scripts and by those in `corpus/`.
//!
//! A script is lines of text. The first names the file: `etcd` (made by a real one) or `tall` (made
//! here). The others change it: `cut BYTES`, `flip PLACE BIT`, `set PLACE VALUE` (one byte), `root
//! PAGE` (in both meta pages, with right checksums), and of a page `page P number|kind|count|overflow
//! VALUE` and `element P INDEX FIELD VALUE` (one of its four fields of 32 bits; `itself` is the
//! page's number). `first-branch` and `first-leaf` name pages, too. The last line says what must come
//! of it: `refused`, or `kept` (the same pairs as before).
//!
//! Whatever the damage, reading ends, and never with more than the file can hold. A random script
//! that fails is printed: put it into `corpus/` under a name that says what it is.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::{read, tall};

const PAGE: usize = 4096;

struct File(Vec<u8>);

impl File {
    fn made(name: &str) -> Self {
        Self(match name {
            "etcd" => include_bytes!("../data/etcd-3.4-snapshot.db").to_vec(),
            "tall" => tall(),
            other => panic!("there is no file {other:?}"),
        })
    }

    fn put(&mut self, place: usize, bytes: &[u8]) {
        if let Some(target) = self.0.get_mut(place..place + bytes.len()) {
            target.copy_from_slice(bytes);
        }
    }

    /// The page that a word means, if there is one.
    fn page(&self, word: &str) -> Option<usize> {
        let flags = match word {
            "first-branch" => 1,
            "first-leaf" => 2,
            number => return Some(number.parse().unwrap()),
        };
        let mut pages = self.0.chunks_exact(PAGE).enumerate();
        let is_head = |at: usize, page: &[u8]| page[..8] == (at as u64).to_le_bytes();
        let found = pages.find(|(at, page)| page[8] == flags && is_head(*at, page))?;
        Some(found.0)
    }

    fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        let place = |at: usize| usize::try_from(number(at)).unwrap();
        match words[0] {
            "cut" => self.0.truncate(place(1)),
            "flip" if !self.0.is_empty() => {
                let at = place(1) % self.0.len();
                self.0[at] ^= 1 << (number(2) % 8);
            }
            "set" => self.put(place(1), &[number(2) as u8]),
            "root" if self.0.len() >= 2 * PAGE => {
                for meta in [0, PAGE] {
                    self.put(meta + 32, &number(1).to_le_bytes());
                    let hash = self.0[meta + 16..meta + 72]
                        .iter()
                        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
                        });
                    self.put(meta + 72, &hash.to_le_bytes());
                }
            }
            "page" => {
                let Some(page) = self.page(words[1]).map(|page| page * PAGE) else { return };
                let value = number(3).to_le_bytes();
                match words[2] {
                    "number" => self.put(page, &value),
                    "kind" => self.put(page + 8, &value[..2]),
                    "count" => self.put(page + 10, &value[..2]),
                    "overflow" => self.put(page + 12, &value[..4]),
                    other => panic!("a page has no {other:?}"),
                }
            }
            "element" => {
                let Some(page) = self.page(words[1]) else { return };
                let value = if words[4] == "itself" { page as u64 } else { number(4) };
                let element = page * PAGE + 16 + 16 * place(2);
                self.put(element + 4 * place(3), &value.to_le_bytes()[..4]);
            }
            "flip" | "root" => {}
            other => panic!("unknown line {other:?}"),
        }
    }
}

/// Runs a script; says what is wrong when what came of it is not what it says.
fn replay(script: &str) -> Result<(), String> {
    let mut lines: Vec<&str> = script.lines().filter(|line| !line.starts_with('#')).collect();
    let (first, last) = (lines.remove(0), lines.pop().unwrap());
    let mut file = File::made(first);
    lines.iter().for_each(|line| file.line(line));
    match (last, read(&file.0)) {
        ("refused", Err(error)) if error.to_string().lines().count() == 1 => Ok(()),
        ("kept", Ok(found)) if found == read(&File::made(first).0).unwrap() => Ok(()),
        (_, outcome) => {
            let outcome = outcome.map(|buckets| buckets.len()).map_err(|error| error.to_string());
            Err(format!("expected {last}, got {outcome:?} buckets"))
        }
    }
}

#[test]
fn the_corpus_is_replayed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut replayed = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let script = fs::read_to_string(&path).unwrap();
        replay(&script).unwrap_or_else(|wrong| panic!("{}: {wrong}", path.display()));
        replayed += 1;
    }
    assert!(replayed >= 15, "the corpus is not where it is looked for");
}

fn mutation() -> impl Strategy<Value = String> {
    let page =
        prop_oneof![Just("first-branch".to_owned()), (0_u64..16).prop_map(|p| p.to_string())];
    let value =
        prop_oneof![0_u64..20, Just(0xffff), Just(0xffff_ffff), any::<u32>().prop_map(u64::from)];
    prop_oneof![
        (0_usize..70_000).prop_map(|bytes| format!("cut {bytes}")),
        (any::<u32>(), 0_u8..8).prop_map(|(place, bit)| format!("flip {place} {bit}")),
        (0_u64..20).prop_map(|page| format!("root {page}")),
        (
            page.clone(),
            prop_oneof![Just("number"), Just("kind"), Just("count"), Just("overflow")],
            value.clone()
        )
            .prop_map(|(page, field, value)| format!("page {page} {field} {value}")),
        (page, 0_usize..70, 0_usize..4, value)
            .prop_map(|(page, at, field, value)| format!("element {page} {at} {field} {value}")),
    ]
}

/// Damage that is not noticed can only change what is there, not make it endless.
fn ends(name: &str, script: &[String]) -> Result<(), TestCaseError> {
    let mut file = File::made(name);
    script.iter().for_each(|line| file.line(line));
    if let Ok(buckets) = read(&file.0) {
        let pairs: usize = buckets.iter().map(|(_, pairs)| pairs.len()).sum();
        prop_assert!(pairs <= buckets.len() * file.0.len() / 16, "{pairs} pairs");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_damaged_file_of_etcd_is_read_to_an_end(script in prop::collection::vec(mutation(), 1..6)) {
        ends("etcd", &script)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_damaged_tall_file_is_read_to_an_end(script in prop::collection::vec(mutation(), 1..4)) {
        ends("tall", &script)?;
    }

    #[test]
    fn noise_is_refused(noise in prop::collection::vec(any::<u8>(), 0..20_000)) {
        prop_assert!(read(&noise).is_err());
    }
}
