//! Random runs with crashes in the middle of a write, reopening, and flipped bits.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::model::{Sketch, apply, sketches, writes};
use super::{Driver, OPTIONS};
use crate::format::SECTOR_BYTES;
use crate::manifest::Manifest;
use crate::recovery::recover;
use crate::segment::segment_path;
use crate::{LogError, Recovered, Write};

#[derive(Clone, Debug)]
enum Step {
    /// Appends that wait together.
    Group(Vec<Vec<Sketch>>),
    /// The process ends and the log is opened again.
    Reopen,
    /// The machine stops while the appends are written: any part of the write may be on disk.
    Crash(Vec<Vec<Sketch>>, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let group = || prop::collection::vec(sketches(), 1..5);
    let step = prop_oneof![
        8 => group().prop_map(Step::Group),
        1 => Just(Step::Reopen),
        3 => (group(), any::<u64>()).prop_map(|(group, seed)| Step::Crash(group, seed)),
    ];
    prop::collection::vec(step, 1..60)
}

/// The appends of a group as writes, and the state of the log after each of them, before all first.
fn plan(model: &Recovered, group: &[Vec<Sketch>]) -> (Vec<Vec<Write>>, Vec<Recovered>) {
    let mut states = vec![model.clone()];
    let mut appends = Vec::new();
    for sketches in group {
        let mut state = states.last().unwrap().clone();
        let append = writes(&state, sketches);
        apply(&mut state, &append);
        appends.push(append);
        states.push(state);
    }
    (appends, states)
}

fn read_files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

fn write_files(files: &BTreeMap<PathBuf, Vec<u8>>, folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (path, bytes) in files {
        fs::write(folder.join(path.file_name().unwrap()), bytes).unwrap();
    }
}

/// What a log holds, without opening it for writing.
fn read(folder: &Path) -> Result<Recovered, LogError> {
    let manifest = Manifest::read(folder, OPTIONS.owner)?.expect("it is a log");
    recover(folder, manifest).map(|found| found.recovered)
}

/// What a crash leaves of a file that was being overwritten: sectors of both, at random, in pieces
/// as large as some disk writes them.
fn torn(before: &[u8], after: &[u8], random: &mut SmallRng) -> Vec<u8> {
    let piece_bytes = SECTOR_BYTES << random.random_range(0..4);
    let mut torn = before.to_vec();
    for (torn, after) in torn.chunks_mut(piece_bytes).zip(after.chunks(piece_bytes)) {
        if random.random() {
            torn.copy_from_slice(after);
        }
    }
    torn
}

struct World {
    folder: tempfile::TempDir,
    driver: Option<Driver>,
    model: Recovered,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (driver, recovered) = Driver::open(folder.path()).unwrap();
        assert!(recovered.is_empty());
        Self { folder, driver: Some(driver), model: recovered }
    }

    fn driver(&mut self) -> &mut Driver {
        self.driver.as_mut().unwrap()
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Group(group) => {
                let (appends, mut states) = plan(&self.model, group);
                self.driver().serve(appends);
                self.model = states.pop().unwrap();
            }
            Step::Reopen => {
                self.driver().writer.finish().unwrap();
                let state = self.model.clone();
                self.reopen(std::slice::from_ref(&state));
            }
            Step::Crash(group, seed) => self.crash(group, *seed),
        }
    }

    fn crash(&mut self, group: &[Vec<Sketch>], seed: u64) {
        let (appends, states) = plan(&self.model, group);
        let folder = self.folder.path().to_owned();
        let before = read_files(&folder);
        let manifest = self.driver().writer.manifest;
        let empty = Manifest::empty(manifest.owner);
        let fsyncs = self.driver().writer.counters.fsyncs.load(Ordering::Relaxed);
        self.driver().commit(appends);
        let writer = &self.driver().writer;
        let is_one_write = writer.manifest == manifest
            && writer.counters.fsyncs.load(Ordering::Relaxed) == fsyncs + 1
            && manifest != empty;
        if !is_one_write {
            // Several writes are in order: only the end state is certain.
            return self.reopen(&states[states.len() - 1..]);
        }
        let newest = segment_path(&folder, manifest.newest);
        let mut files = read_files(&folder);
        let mut random = SmallRng::seed_from_u64(seed);
        let torn = torn(&before[&newest], &files[&newest], &mut random);
        files.insert(newest, torn);
        write_files(&files, &folder);
        self.reopen(&states);
    }

    /// Opens the log again, which must hold one of the states.
    fn reopen(&mut self, states: &[Recovered]) {
        self.driver = None;
        let (driver, recovered) = Driver::open(self.folder.path()).unwrap();
        assert!(states.contains(&recovered), "{recovered:#?} is none of {states:#?}");
        self.driver = Some(driver);
        self.model = recovered;
    }

    /// No flipped bit may change what is read, wherever it is and whether the last appends were
    /// confirmed or not.
    fn flip_bits(&mut self, seed: u64) {
        let files = read_files(self.folder.path());
        let mut random = SmallRng::seed_from_u64(seed);
        let damaged_folder = tempfile::tempdir().unwrap();
        for _ in 0..20 {
            let mut damaged = files.clone();
            let at = random.random_range(0..files.len());
            let (path, bytes) = damaged.iter_mut().nth(at).unwrap();
            let used = bytes.iter().rposition(|&byte| byte != 0).unwrap_or(0);
            let byte = random.random_range(0..=(used + 8).min(bytes.len() - 1));
            bytes[byte] ^= 1 << random.random_range(0..8);
            let path = path.clone();
            write_files(&damaged, damaged_folder.path());
            if let Ok(recovered) = read(damaged_folder.path()) {
                assert_eq!(recovered, self.model, "byte {byte} of {}", path.display());
            }
        }
    }

    /// A file that is shorter or missing is noticed.
    fn cut_files(&mut self, seed: u64) {
        self.driver().settle();
        let files = read_files(self.folder.path());
        let mut random = SmallRng::seed_from_u64(seed);
        let damaged_folder = tempfile::tempdir().unwrap();
        for path in files.keys() {
            let mut damaged = files.clone();
            let bytes = damaged.get_mut(path).unwrap();
            bytes.truncate(random.random_range(0..bytes.len()));
            write_files(&damaged, damaged_folder.path());
            assert!(read(damaged_folder.path()).is_err(), "{} was cut", path.display());
        }
    }
}

proptest! {
    // Each case syncs often; PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases / 8,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_log_holds_what_was_acknowledged_through_crashes(
        steps in steps(),
        last in prop::collection::vec(sketches(), 1..3),
        seed: u64,
    ) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.flip_bits(seed);
        let (appends, mut states) = plan(&world.model, &last);
        world.driver().commit(appends);
        world.model = states.pop().unwrap();
        world.flip_bits(seed.wrapping_add(1));
        world.cut_files(seed);
        world.step(&Step::Reopen);
    }
}
