//! The table on disk: what is kept, and what damage does.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use onefold_table::{Batch, FjallTable, KeyRange, Order, Table, TableError, TableOptions, View};

/// Flips tried in each file.
const FLIPS_MAX: usize = 16;

/// Small buffers, so that a short run reaches all kinds of files.
const SMALL: TableOptions =
    TableOptions { cache_bytes: 1 << 20, values_bytes: 8 << 10, memtable_bytes: 32 << 10 };

type Pairs = Vec<(Bytes, Bytes)>;

fn open(path: &Path) -> Result<FjallTable, TableError> {
    FjallTable::open(path, SMALL)
}

fn put(table: &FjallTable, key: &str, value: &str) {
    let mut batch = Batch::new();
    batch.put(key.to_owned(), value.to_owned());
    table.write(batch).unwrap();
}

fn read_all(table: &dyn View) -> Result<Pairs, TableError> {
    table.scan(KeyRange::all(), Order::Ascending).collect()
}

/// Writes enough for tables of several levels and leaves some writes in the journal.
fn populate(path: &Path) -> Pairs {
    let table = open(path).unwrap();
    for number in 0..600_u64 {
        let mut batch = Batch::new();
        for step in 0..4 {
            let key = format!("key {:06}", (number * 7919 + step * 104_729) % 2000);
            batch.put(key, format!("value {number} ").repeat(20));
        }
        batch.delete(format!("key {:06}", number * 31 % 2000));
        table.write(batch).unwrap();
    }
    table.sync().unwrap();
    read_all(&table).unwrap()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Copies a folder; the zeros at the end of journals take no space and no time.
fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(&target, &fs::read(&file).unwrap()[..used_bytes(&file)]).unwrap();
        let bytes = fs::metadata(&file).unwrap().len();
        fs::File::options().write(true).open(&target).unwrap().set_len(bytes).unwrap();
    }
}

/// Bytes of a file before the zeros at its end.
fn used_bytes(file: &Path) -> usize {
    fs::read(file).unwrap().iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)
}

/// Flips bits of one byte of a file.
fn flip(file: &Path, offset: u64, bits: u8) {
    let file = fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ bits], offset).unwrap();
}

/// Opens a damaged copy and reads everything: the same pairs, or an error. Never other pairs.
fn check_damaged(path: &Path, pairs: &Pairs, what: &str) -> Option<TableError> {
    match open(path).and_then(|table| read_all(&table)) {
        Ok(found) => {
            assert!(found == *pairs, "{what}: other pairs were read");
            None
        }
        Err(error) => {
            let is_expected = matches!(
                error,
                TableError::Corrupt { .. } | TableError::Foreign(_) | TableError::Newer { .. }
            );
            assert!(is_expected, "{what}: {error}");
            Some(error)
        }
    }
}

#[test]
fn writes_are_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = populate(folder.path());
    assert!(files(folder.path()).iter().any(|file| file.parent().unwrap().ends_with("tables")));
    for _ in 0..3 {
        let table = open(folder.path()).unwrap();
        assert!(read_all(&table).unwrap() == pairs);
    }
    let table = open(folder.path()).unwrap();
    put(&table, "another", "value");
    drop(table);
    let table = open(folder.path()).unwrap();
    assert_eq!(table.get(b"another").unwrap(), Some("value".into()));
    assert_eq!(read_all(&table).unwrap().len(), pairs.len() + 1);
}

#[test]
fn a_flipped_bit_anywhere_is_an_error_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = populate(folder.path());
    let damaged = tempfile::tempdir().unwrap();
    let mut errors: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for file in files(folder.path()) {
        let relative = file.strip_prefix(folder.path()).unwrap();
        let used = used_bytes(&file);
        for step in 0..FLIPS_MAX.min(used) {
            let byte = step * used / FLIPS_MAX.min(used);
            let path = damaged.path().join("copy");
            copy(folder.path(), &path);
            flip(&path.join(relative), byte as u64, 1 << (step % 8));
            let what = format!("bit of byte {byte} of {}", relative.display());
            let error = check_damaged(&path, &pairs, &what);
            if let Some(TableError::Corrupt { file, reason }) = &error {
                let named = file.strip_prefix(&path).unwrap();
                // Of two files that contradict each other it can't be said which one is damaged.
                let is_near = named.parent() == relative.parent() && reason.contains("current");
                assert!(named == relative || is_near, "{what}: {named:?} is named: {reason}");
                *errors.entry(relative.to_owned()).or_default() += 1;
            }
            fs::remove_dir_all(&path).unwrap();
        }
    }
    let is_noticed = |part: &str| errors.keys().any(|file| file.to_string_lossy().contains(part));
    for part in ["format", ".jnl", "version", "current", "/v", "tables/"] {
        assert!(is_noticed(part), "no flip in {part} was noticed: {errors:?}");
    }
}

#[test]
fn a_truncated_or_missing_file_is_an_error_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = populate(folder.path());
    let damaged = tempfile::tempdir().unwrap();
    for file in files(folder.path()) {
        let relative = file.strip_prefix(folder.path()).unwrap();
        let used = used_bytes(&file);
        for length in [Some(0), Some(used / 3), Some(used.saturating_sub(1)), None] {
            let path = damaged.path().join("copy");
            copy(folder.path(), &path);
            let what = format!("{} cut to {length:?}", relative.display());
            match length {
                Some(length) => {
                    let file = fs::File::options().write(true).open(path.join(relative)).unwrap();
                    file.set_len(length as u64).unwrap();
                }
                None => fs::remove_file(path.join(relative)).unwrap(),
            }
            check_damaged(&path, &pairs, &what);
            fs::remove_dir_all(&path).unwrap();
        }
    }
}

#[test]
fn a_torn_tail_that_was_not_synced_is_cut_and_a_synced_one_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let table = FjallTable::open(folder.path(), TableOptions::default()).unwrap();
    put(&table, "a", "synced");
    table.sync().unwrap();
    put(&table, "b", "not synced");
    let copies = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for to in &copies {
        copy(folder.path(), to.path());
    }
    drop(table);
    let damage = |folder: &Path, needle: &[u8]| {
        let is_journal = |file: &PathBuf| file.extension().is_some_and(|it| it == "jnl");
        let journal = files(folder).into_iter().find(is_journal).unwrap();
        let mut bytes = fs::read(&journal).unwrap();
        let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
        bytes[at] ^= 1;
        fs::write(&journal, bytes).unwrap();
        journal
    };
    damage(copies[0].path(), b"not synced");
    let table = open(copies[0].path()).unwrap();
    assert_eq!(read_all(&table).unwrap(), [(Bytes::from("a"), Bytes::from("synced"))]);
    put(&table, "c", "goes on");
    drop(table);
    assert_eq!(read_all(&open(copies[0].path()).unwrap()).unwrap().len(), 2);

    let journal = damage(copies[1].path(), b"synced");
    for _ in 0..2 {
        let error = open(copies[1].path()).err().unwrap();
        assert!(matches!(&error, TableError::Corrupt { file, .. } if *file == journal), "{error}");
    }
}

#[test]
fn a_table_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let table = open(folder.path()).unwrap();
    assert!(matches!(open(folder.path()), Err(TableError::InUse(_))));
    let snapshot = table.snapshot();
    drop(table);
    assert!(matches!(open(folder.path()), Err(TableError::InUse(_))), "a snapshot still reads");
    drop(snapshot);
    assert!(open(folder.path()).is_ok());
}

#[test]
fn a_foreign_folder_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.txt"), "mine").unwrap();
    assert!(matches!(open(folder.path()), Err(TableError::Foreign(_))));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_unfinished_creation_is_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("new/store")).unwrap();
    fs::write(folder.path().join("new/store/0.jnl"), "half").unwrap();
    let table = open(folder.path()).unwrap();
    assert!(read_all(&table).unwrap().is_empty());
    assert!(!folder.path().join("new").exists());
}

#[test]
fn a_newer_format_is_refused_by_its_number() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let path = folder.path().join("data/format");
    let mut bytes = fs::read(&path).unwrap();
    bytes[8..12].copy_from_slice(&9_u32.to_le_bytes());
    let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[..12]) as u32;
    bytes[12..].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    assert!(matches!(open(folder.path()), Err(TableError::Newer { found: 9, .. })));
}
