//! Mutations of a good log, by random scripts and by those in `corpus/`.
//!
//! A script is lines of text. `append` makes the log, the other lines change its files while it is
//! closed, in order; a file is `manifest` or a segment's number. The last line says what must come
//! of it: `refused`, `kept` (nothing is missing), or `torn` (only the last append is gone).
//!
//! A random script that fails is printed: put it into `corpus/` under a name that says what it is.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use bytes::Bytes;
use onefold_log::{Log, LogError, LogOptions, Recovered, Write};
use onefold_types::{GroupId, LogIndex, Term};
use proptest::prelude::*;

const SMALL: LogOptions = LogOptions {
    segment_bytes: 4 << 10,
    retained_bytes: 64 << 10,
    queue_bytes: 1 << 20,
    owner: 7,
    must_exist: false,
};
const GROUP: GroupId = GroupId(1);

/// A log that was made by a script, and what it held before it was changed.
struct World {
    folder: tempfile::TempDir,
    appended: u64,
}

impl World {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), appended: 0 }
    }

    fn file(&self, name: &str) -> PathBuf {
        let name =
            name.parse::<u64>().map_or(name.to_owned(), |number| format!("{number:020}.log"));
        self.folder.path().join(name)
    }

    /// `append COUNT BYTES`: so many entries, each an append of its own with a payload of so many
    /// bytes, every third of which is zeros.
    fn append(&mut self, count: u64, bytes: usize) {
        let (log, _) = Log::open(self.folder.path(), SMALL).unwrap();
        for _ in 0..count {
            self.appended += 1;
            let fill = if self.appended.is_multiple_of(3) { 0 } else { 0xA5 };
            let payload = Bytes::from(vec![fill; bytes]);
            let index = LogIndex(self.appended);
            let write = Write::Entry { group: GROUP, term: Term(1), index, kind: 0, payload };
            let (sender, receiver) = mpsc::channel();
            log.append(vec![write], Box::new(move |done| sender.send(done).unwrap())).unwrap();
            receiver.recv().unwrap().unwrap();
        }
        log.close();
    }

    /// Carries out one line. Places beyond a file's end are taken modulo its length.
    fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<usize>().unwrap();
        if words[0] == "append" {
            return self.append(number(1) as u64, number(2));
        }
        let path = self.file(words[1]);
        let Ok(mut bytes) = fs::read(&path) else { return };
        match words[0] {
            "remove" => return fs::remove_file(&path).unwrap(),
            "copy" => return fs::write(self.file(words[2]), bytes).unwrap(),
            "cut" => bytes.truncate(number(2)),
            "extend" => bytes.resize(bytes.len() + number(2), 0),
            _ if bytes.is_empty() => {}
            "flip" => {
                let place = number(2) % bytes.len();
                bytes[place] ^= 1 << (number(3) % 8);
            }
            "fill" => {
                let from = number(2) % bytes.len();
                let to = (from + number(3)).min(bytes.len());
                bytes[from..to].fill(number(4) as u8);
            }
            other => panic!("{other} is no step of a script"),
        }
        fs::write(path, bytes).unwrap();
    }

    fn open(&self) -> Result<Recovered, LogError> {
        Log::open(self.folder.path(), SMALL).map(|(_, recovered)| recovered)
    }

    fn entries(&self) -> Result<u64, LogError> {
        let recovered = self.open()?;
        let entries = recovered.get(&GROUP).map_or(0, |group| group.entries.len() as u64);
        for (entry, index) in recovered.get(&GROUP).iter().flat_map(|g| &g.entries).zip(1..) {
            assert_eq!(entry.index, LogIndex(index));
            let fill = if u64::is_multiple_of(index, 3) { 0 } else { 0xA5 };
            assert!(entry.payload.iter().all(|&byte| byte == fill), "entry {index} was changed");
        }
        Ok(entries)
    }
}

fn run(script: &str) -> (World, Option<&str>) {
    let mut world = World::new();
    let mut verdict = None;
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line {
            "refused" | "kept" | "torn" => verdict = Some(line),
            line if line.starts_with('#') => {}
            line => world.line(line),
        }
    }
    (world, verdict)
}

fn corpus() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "the corpus is not where it is looked for");
    paths
}

#[test]
fn every_script_of_the_corpus_ends_as_it_says() {
    for path in corpus() {
        let script = fs::read_to_string(&path).unwrap();
        let (world, verdict) = run(&script);
        let outcome = world.entries();
        let shown = path.display();
        match verdict.unwrap_or_else(|| panic!("{shown} does not say what must come of it")) {
            "refused" => {
                let error = outcome.err().unwrap_or_else(|| panic!("{shown}: it was opened"));
                assert!(!error.to_string().contains('\n'), "{shown}: {error}");
                let again = world.open().err().map(|error| error.to_string());
                assert_eq!(again, Some(error.to_string()), "{shown}: refused for good");
            }
            "kept" => assert_eq!(outcome.unwrap(), world.appended, "{shown}"),
            _ => assert_eq!(outcome.unwrap(), world.appended - 1, "{shown}"),
        }
    }
}

/// One change to a file of the log.
fn change() -> impl Strategy<Value = String> {
    let file = prop_oneof![
        1 => Just("manifest".to_owned()),
        6 => (1..4_u8).prop_map(|number| number.to_string()),
    ];
    (file, 0..6_u8, 0..4200_usize, 1..700_usize, 1..5_u8).prop_map(
        |(file, kind, place, length, other)| match kind {
            0 => format!("fill {file} {place} {length} {}", length % 256),
            1 => format!("cut {file} {place}"),
            2 => format!("extend {file} {length}"),
            3 if place % 4 == 0 => format!("remove {file}"),
            3 => format!("copy {file} {other}"),
            _ => format!("flip {file} {place} {other}"),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_log_is_refused_or_holds_all_of_it(
        appends in prop::collection::vec((1..6_u8, 0..900_usize), 1..3),
        changes in prop::collection::vec(change(), 1..4),
    ) {
        let appends: Vec<_> =
            appends.iter().map(|(count, bytes)| format!("append {count} {bytes}")).collect();
        let script = [appends, changes].concat().join("\n");
        let (world, _) = run(&script);
        // Zeros up to the very end are what no log can tell from an end; see docs/formats/log.md.
        let erases = |line: &str| line.starts_with("fill") && line.ends_with(" 0");
        if let Ok(entries) = world.entries() {
            prop_assert!(script.lines().any(erases) || entries == world.appended, "{}", script);
        }
    }

    #[test]
    fn any_bytes_in_any_file_are_refused(
        file in prop_oneof![Just("manifest"), Just("1")],
        bytes in prop::collection::vec(any::<u8>(), 0..5000),
        head in 0..70_usize,
    ) {
        let (world, _) = run("append 2 100");
        let path = world.file(file);
        let good = fs::read(&path).unwrap();
        // With a good beginning, and without one.
        let head = head.min(good.len());
        let bytes = [&good[..head], &bytes].concat();
        fs::write(path, &bytes).unwrap();
        prop_assert!(bytes == good || world.entries().is_err());
    }
}
