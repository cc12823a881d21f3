//! Single cases of damage and of carrying forward, by name.

use std::fs;

use bytes::Bytes;
use onefold_types::{GroupId, LogIndex, NodeId, Term};

use super::{Driver, OPTIONS};
use crate::format::{BATCH_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use crate::segment::segment_path;
use crate::{HardState, LogError, Write};

const IDLE: GroupId = GroupId(1);
const BUSY: GroupId = GroupId(2);

fn entry(group: GroupId, index: u64, payload_bytes: usize) -> Write {
    let payload = Bytes::from(vec![index as u8 | 1; payload_bytes]);
    Write::Entry { group, term: Term(1), index: LogIndex(index), kind: 0, payload }
}

fn mark(group: GroupId, index: u64) -> Write {
    let data = Bytes::from_static(b"members");
    Write::SnapshotMark { group, index: LogIndex(index), term: Term(1), data }
}

/// Flips a bit of a file.
fn flip(path: &std::path::Path, byte: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[byte] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn an_idle_group_never_pins_old_segments() {
    let folder = tempfile::tempdir().unwrap();
    let (mut driver, _) = Driver::open(folder.path()).unwrap();
    let vote = Some(NodeId(3));
    let hard_state = HardState { term: Term(7), vote, commit: LogIndex(2) };
    let HardState { term, commit, .. } = hard_state;
    driver.serve(vec![vec![
        Write::HardState { group: IDLE, term, vote, commit },
        entry(IDLE, 1, 100),
        entry(IDLE, 2, 100),
        entry(IDLE, 3, 100),
    ]]);
    for index in 1..=1000 {
        driver.serve(vec![vec![entry(BUSY, index, 200)], vec![mark(BUSY, index)]]);
    }
    let segments_max = OPTIONS.retained_bytes / OPTIONS.segment_bytes + 2;
    let status = driver.writer.counters.status(0, false);
    assert!(status.segments <= segments_max, "{status:?}");
    assert!(status.removed_segments > 50, "{status:?}");
    assert!(status.carried_entries >= 3, "{status:?}");
    driver.writer.finish().unwrap();
    drop(driver);
    let (_, recovered) = Driver::open(folder.path()).unwrap();
    assert_eq!(recovered[&IDLE].hard_state, Some(hard_state));
    assert_eq!(recovered[&IDLE].entries.len(), 3);
    assert_eq!(recovered[&BUSY].entries.len(), 0);
    assert_eq!(recovered[&BUSY].snapshot.as_ref().unwrap().index, LogIndex(1000));
}

#[test]
fn a_log_whose_entries_are_all_needed_is_not_rewritten() {
    let folder = tempfile::tempdir().unwrap();
    let (mut driver, _) = Driver::open(folder.path()).unwrap();
    for index in 1..=300 {
        driver.serve(vec![vec![entry(BUSY, index, 200)]]);
    }
    let status = driver.writer.counters.status(0, false);
    assert!(status.segments > 10, "{status:?}");
    assert_eq!(status.carried_entries, 0);
}

#[test]
fn entries_that_leave_a_gap_are_refused_and_leave_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let (mut driver, _) = Driver::open(folder.path()).unwrap();
    let outcomes = driver.commit(vec![
        vec![entry(BUSY, 1, 10)],
        vec![entry(IDLE, 1, 10), entry(BUSY, 3, 10)],
        vec![entry(BUSY, 2, 10)],
        vec![mark(BUSY, 2), entry(BUSY, 2, 10)],
    ]);
    assert!(matches!(outcomes[0], Err(LogError::OutOfOrder { index: LogIndex(3), .. })));
    assert!(matches!(outcomes[1], Err(LogError::OutOfOrder { index: LogIndex(2), .. })));
    assert!(outcomes[2..].iter().all(Result::is_ok), "{outcomes:?}");
    drop(driver);
    let (_, recovered) = Driver::open(folder.path()).unwrap();
    assert_eq!(recovered.keys().collect::<Vec<_>>(), [&BUSY]);
    assert_eq!(recovered[&BUSY].entries.len(), 2);
}

#[test]
fn damage_is_reported_again_each_time_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut driver, _) = Driver::open(folder.path()).unwrap();
    for index in 1..=100 {
        driver.serve(vec![vec![entry(BUSY, index, 100)]]);
    }
    drop(driver);
    let second = segment_path(folder.path(), 2);
    flip(&second, 1000);
    let damaged = fs::read(&second).unwrap();
    for _ in 0..2 {
        let error = Driver::open(folder.path()).err().unwrap();
        assert!(matches!(&error, LogError::Corrupt { file, .. } if *file == second), "{error}");
    }
    assert_eq!(fs::read(&second).unwrap(), damaged);
    flip(&second, 1000);
    let (_, recovered) = Driver::open(folder.path()).unwrap();
    assert_eq!(recovered[&BUSY].entries.len(), 100);
}

#[test]
fn a_missing_segment_is_reported_wherever_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (mut driver, _) = Driver::open(folder.path()).unwrap();
    for index in 1..=100 {
        driver.serve(vec![vec![entry(BUSY, index, 100)]]);
    }
    let manifest = driver.writer.manifest;
    drop(driver);
    assert!(manifest.newest > 2);
    for number in manifest.oldest..=manifest.newest {
        let path = segment_path(folder.path(), number);
        let aside = folder.path().with_extension("aside");
        fs::rename(&path, &aside).unwrap();
        let error = Driver::open(folder.path()).err().unwrap();
        assert!(matches!(&error, LogError::Missing(missing) if *missing == path), "{error}");
        fs::rename(&aside, &path).unwrap();
    }
    assert!(Driver::open(folder.path()).is_ok());
}

#[test]
fn segments_of_two_logs_are_not_mixed_up() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for (number, folder) in folders.iter().enumerate() {
        let (mut driver, _) = Driver::open(folder.path()).unwrap();
        for index in 1..=100 {
            driver.serve(vec![vec![entry(BUSY, index, 100 + 50 * number)]]);
        }
    }
    let [mine, other] = folders.each_ref().map(|folder| segment_path(folder.path(), 2));
    fs::copy(other, mine).unwrap();
    let error = Driver::open(folders[0].path()).err().unwrap();
    assert!(matches!(error, LogError::Corrupt { .. }), "{error}");
}

#[test]
fn what_a_crash_leaves_of_creating_and_removing_segments_is_cleaned_up() {
    let folder = tempfile::tempdir().unwrap();
    let (mut driver, _) = Driver::open(folder.path()).unwrap();
    for index in 1..=100 {
        driver.serve(vec![vec![entry(BUSY, index, 100)], vec![mark(BUSY, index)]]);
    }
    let manifest = driver.writer.manifest;
    assert!(manifest.oldest > 1);
    drop(driver);
    let newest = segment_path(folder.path(), manifest.newest);
    let leftovers = [
        segment_path(folder.path(), manifest.oldest - 1),
        segment_path(folder.path(), manifest.newest + 1),
        newest.with_extension("log.new"),
        folder.path().join("manifest.new"),
    ];
    for path in &leftovers {
        fs::write(path, b"half of something").unwrap();
    }
    let (_, recovered) = Driver::open(folder.path()).unwrap();
    assert_eq!(recovered[&BUSY].snapshot.as_ref().unwrap().index, LogIndex(100));
    assert!(leftovers.iter().all(|path| !path.exists()));
}

#[test]
fn damage_that_is_met_while_carrying_forward_stops_the_log() {
    for zeros in [1, BATCH_HEADER_BYTES] {
        let folder = tempfile::tempdir().unwrap();
        let (mut driver, _) = Driver::open(folder.path()).unwrap();
        driver.serve(vec![vec![entry(IDLE, 1, 10)], vec![entry(IDLE, 2, 10)]]);
        let first = segment_path(folder.path(), 1);
        let mut bytes = fs::read(&first).unwrap();
        bytes[SEGMENT_HEADER_BYTES..][..zeros].fill(0);
        fs::write(&first, bytes).unwrap();
        let error = (1..=1000).find_map(|index| {
            let appends = vec![vec![entry(BUSY, index, 200)], vec![mark(BUSY, index)]];
            let group = appends.into_iter().map(|writes| driver.pending(writes)).collect();
            driver.writer.serve(group).err()
        });
        let error = error.unwrap();
        assert!(matches!(&error, LogError::Corrupt { file, .. } if *file == first), "{error}");
        assert!(first.exists());
    }
}
