//! Damage in every single place of a log, and the line between damage and a torn write.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use onefold_types::{GroupId, LogIndex, Term};

use super::{Driver, OPTIONS};
use crate::format::{BATCH_HEADER_BYTES, SECTOR_BYTES, SEGMENT_HEADER_BYTES};
use crate::manifest::Manifest;
use crate::recovery::recover;
use crate::segment::segment_path;
use crate::{LogError, Recovered, Write};

const GROUP: GroupId = GroupId(2);

/// An entry whose payload holds both bytes and whole sectors of zeros.
fn entry(index: u64, payload_bytes: usize) -> Vec<Write> {
    let payload: Vec<u8> =
        (0..payload_bytes).map(|at| if at % 1700 < 900 { at as u8 | 1 } else { 0 }).collect();
    let (term, kind, index) = (Term(1), 0, LogIndex(index));
    vec![Write::Entry { group: GROUP, term, index, kind, payload: Bytes::from(payload) }]
}

/// What a log with a changed file holds. The original stays as it is.
fn open_with(folder: &Path, file: &Path, bytes: &[u8]) -> Result<Recovered, LogError> {
    let copy = tempfile::tempdir().unwrap();
    for other in fs::read_dir(folder).unwrap() {
        let other = other.unwrap().path();
        fs::copy(&other, copy.path().join(other.file_name().unwrap())).unwrap();
    }
    fs::write(copy.path().join(file.file_name().unwrap()), bytes).unwrap();
    let manifest = Manifest::read(copy.path(), OPTIONS.owner)?.expect("it is a log");
    recover(copy.path(), manifest).map(|found| found.recovered)
}

fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)
}

#[test]
fn a_flipped_bit_in_any_byte_of_any_file_is_refused_by_the_name_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (mut driver, _) = Driver::open(folder.path()).unwrap();
    for index in 1..=6 {
        driver.serve(vec![entry(index, 700)]);
    }
    drop(driver);
    let segments = [1, 2].map(|number| segment_path(folder.path(), number));
    for file in segments.into_iter().chain([folder.path().join("manifest")]) {
        let whole = fs::read(&file).unwrap();
        for byte in 0..used(&whole) {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1 << (byte % 8);
            let error = open_with(folder.path(), &file, &damaged).expect_err("it is damaged");
            let name = file.file_name().unwrap().to_str().unwrap();
            assert!(matches!(error, LogError::Corrupt { .. }), "byte {byte}: {error}");
            assert!(error.to_string().contains(name), "byte {byte} of {name}: {error}");
        }
    }
}

#[test]
fn a_flipped_bit_in_the_very_last_acknowledged_append_is_damage_although_nothing_confirms_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut driver, _) = Driver::open(folder.path()).unwrap();
    driver.serve(vec![entry(1, 10)]);
    let file = segment_path(folder.path(), 1);
    let before = used(&fs::read(&file).unwrap());
    // Acknowledged; then the power fails before anything else is written.
    assert!(driver.commit(vec![entry(2, 2000)])[0].is_ok());
    drop(driver);
    let whole = fs::read(&file).unwrap();
    assert_eq!(open_with(folder.path(), &file, &whole).unwrap()[&GROUP].entries.len(), 2);
    for byte in before.next_multiple_of(32)..used(&whole) {
        let mut damaged = whole.clone();
        damaged[byte] ^= 1 << (byte % 8);
        let error = open_with(folder.path(), &file, &damaged).expect_err("it was acknowledged");
        assert!(matches!(&error, LogError::Corrupt { .. }), "byte {byte}: {error}");
    }
}

#[test]
fn a_last_append_of_which_any_sectors_are_missing_is_torn_and_cut() {
    let folder = tempfile::tempdir().unwrap();
    let (mut driver, _) = Driver::open(folder.path()).unwrap();
    driver.serve(vec![entry(1, 10)]);
    let file = segment_path(folder.path(), 1);
    let before = fs::read(&file).unwrap();
    driver.commit(vec![entry(2, 2500)]);
    drop(driver);
    let after = fs::read(&file).unwrap();
    let sectors: Vec<usize> = (0..after.len() / SECTOR_BYTES)
        .filter(|sector| {
            let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
            before[range.clone()] != after[range]
        })
        .collect();
    assert!(sectors.len() >= 4, "the append is long enough");
    // Each way in which some of the sectors that changed did not get there.
    for lost in 1..1_u32 << sectors.len() {
        let mut torn = after.clone();
        for (bit, sector) in sectors.iter().enumerate() {
            if lost & 1 << bit != 0 {
                let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                torn[range.clone()].copy_from_slice(&before[range]);
            }
        }
        let recovered = open_with(folder.path(), &file, &torn).expect("it is only torn");
        assert_eq!(recovered[&GROUP].entries.len(), 1, "lost {lost:b}");
    }
}

#[test]
fn a_torn_write_is_erased_and_counted_and_the_log_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (mut driver, _) = Driver::open(folder.path()).unwrap();
    driver.serve(vec![entry(1, 10)]);
    let file = segment_path(folder.path(), 1);
    let before = fs::read(&file).unwrap();
    driver.commit(vec![entry(2, 1000)]);
    drop(driver);
    let mut torn = fs::read(&file).unwrap();
    torn[..SECTOR_BYTES].copy_from_slice(&before[..SECTOR_BYTES]);
    fs::write(&file, &torn).unwrap();
    let (mut driver, recovered) = Driver::open(folder.path()).unwrap();
    assert_eq!(recovered[&GROUP].entries.len(), 1);
    assert!(driver.writer.counters.status(0, false).torn_bytes > 0);
    assert_eq!(fs::read(&file).unwrap(), before, "the rest of it is erased");
    driver.serve(vec![entry(2, 1000)]);
    let (_, recovered) = Driver::open(folder.path()).unwrap();
    assert_eq!(recovered[&GROUP].entries.len(), 2);
}

#[test]
fn a_lost_sector_of_an_append_that_a_later_one_confirms_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let (mut driver, _) = Driver::open(folder.path()).unwrap();
    driver.serve(vec![entry(1, 10)]);
    driver.serve(vec![entry(2, 2000)]);
    let file = segment_path(folder.path(), 1);
    for sector in 1..4 {
        let mut damaged = fs::read(&file).unwrap();
        damaged[sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES].fill(0);
        let error = open_with(folder.path(), &file, &damaged).expect_err("it is confirmed");
        assert!(matches!(&error, LogError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("says that it was durable"), "{error}");
    }
}

#[test]
fn a_copy_of_a_batch_in_another_place_is_not_taken_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let (mut driver, _) = Driver::open(folder.path()).unwrap();
    driver.serve(vec![entry(1, 10)]);
    let file = segment_path(folder.path(), 1);
    let mut bytes = fs::read(&file).unwrap();
    let batch = SEGMENT_HEADER_BYTES..used(&bytes).next_multiple_of(32);
    bytes.copy_within(batch.clone(), batch.end);
    let error = open_with(folder.path(), &file, &bytes).expect_err("it stands elsewhere");
    assert!(matches!(error, LogError::Corrupt { .. }), "{error}");
}

#[test]
fn a_log_or_a_segment_of_another_owner_is_refused() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for (folder, owner) in folders.iter().zip([OPTIONS.owner, 8]) {
        // The same appends at the same moments: nothing but the owner differs.
        let options = crate::LogOptions { owner, ..OPTIONS };
        let (log, _) = crate::Log::open(folder.path(), options).unwrap();
        log.append(entry(1, 10), Box::new(|_| {})).unwrap();
        log.close();
    }
    let [mine, other] = folders.each_ref().map(|folder| segment_path(folder.path(), 1));
    let error = Driver::open(folders[1].path()).err().unwrap();
    assert!(matches!(error, LogError::OtherOwner { found: 8, expected: 7, .. }), "{error}");
    fs::copy(other, &mine).unwrap();
    let error = Driver::open(folders[0].path()).err().unwrap();
    let is_it = matches!(&error, LogError::OtherOwner { path, found: 8, .. } if *path == mine);
    assert!(is_it, "{error}");
}

#[test]
fn a_segment_that_stands_twice_or_in_anothers_place_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (mut driver, _) = Driver::open(folder.path()).unwrap();
    for index in 1..=30 {
        driver.serve(vec![entry(index, 700)]);
    }
    let newest = driver.writer.manifest.newest;
    drop(driver);
    let second = fs::read(segment_path(folder.path(), 2)).unwrap();
    let third = segment_path(folder.path(), 3);
    let error = open_with(folder.path(), &third, &second).expect_err("segment 2 is not 3");
    assert!(error.to_string().contains("it is segment 2"), "{error}");
    let beyond = segment_path(folder.path(), newest + 2);
    let error = open_with(folder.path(), &beyond, &second).expect_err("the log ends before it");
    assert!(matches!(error, LogError::Foreign(_)), "{error}");
}

#[test]
fn a_manifest_that_is_older_than_its_segments_deletes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut driver, _) = Driver::open(folder.path()).unwrap();
    driver.serve(vec![entry(1, 700)]);
    let manifest = folder.path().join("manifest");
    let old = fs::read(&manifest).unwrap();
    for index in 2..=6 {
        driver.serve(vec![entry(index, 700)]);
    }
    assert_eq!(driver.writer.manifest.newest, 2);
    drop(driver);
    fs::write(&manifest, old).unwrap();
    let error = Driver::open(folder.path()).err().unwrap();
    assert!(matches!(&error, LogError::Corrupt { file, .. } if *file == manifest), "{error}");
    assert!(segment_path(folder.path(), 2).exists());
}

#[test]
fn a_segment_that_was_cut_in_the_middle_of_the_log_is_refused_even_at_its_old_length() {
    let folder = tempfile::tempdir().unwrap();
    let (mut driver, _) = Driver::open(folder.path()).unwrap();
    for index in 1..=30 {
        driver.serve(vec![entry(index, 700)]);
    }
    drop(driver);
    let second = segment_path(folder.path(), 2);
    let whole = fs::read(&second).unwrap();
    for length in [0, 10, SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES + BATCH_HEADER_BYTES, 2000] {
        let error = open_with(folder.path(), &second, &whole[..length]).expect_err("it is cut");
        assert!(matches!(&error, LogError::Corrupt { .. }), "{length} bytes: {error}");
        if length >= SEGMENT_HEADER_BYTES {
            let mut zeroed = whole.clone();
            zeroed[length..].fill(0);
            let error = open_with(folder.path(), &second, &zeroed).expect_err("its end is gone");
            assert!(matches!(&error, LogError::Corrupt { .. }), "{length} bytes: {error}");
        }
    }
}

#[test]
fn a_refused_log_is_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (mut driver, _) = Driver::open(folder.path()).unwrap();
    for index in 1..=30 {
        driver.serve(vec![entry(index, 700)]);
    }
    drop(driver);
    let second = segment_path(folder.path(), 2);
    let mut bytes = fs::read(&second).unwrap();
    bytes[100] ^= 1;
    fs::write(&second, bytes).unwrap();
    fs::write(folder.path().join("manifest.new"), "left by a crash").unwrap();
    let read = || {
        let paths = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect::<Vec<_>>()
    };
    let before = read();
    Driver::open(folder.path()).err().expect("it is damaged");
    assert_eq!(read(), before);
}
