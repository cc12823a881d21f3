//! Checks of fjall's files that fjall itself leaves out.
//!
//! The file `current` of each tree names its newest version file and the checksum of it; the
//! version file lists the tree's tables and the checksum of each. fjall writes these checksums but
//! does not compare them.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3Default;

use crate::TableError;

const VERSION_MARKER: &[u8] = b"FJL\x03";
const KEYSPACES: &str = "keyspaces";
/// fjall's own tree and that of the table.
const TREES: usize = 2;
/// Number and checksum of the version file, type of the checksum.
const CURRENT_BYTES: usize = 8 + 16 + 1;

/// Checks the small files that say what belongs to the store. Tables are checked block by block
/// when they are read.
pub(super) fn check_manifests(store: &Path) -> Result<(), TableError> {
    let marker = store.join("version");
    match fs::read(&marker) {
        Ok(bytes) if bytes == VERSION_MARKER => {}
        Ok(_) => return Err(corrupt(&marker, "it does not hold the storage engine's version")),
        Err(error) => return Err(missing_or_io(&marker, error)),
    }
    let keyspaces = store.join(KEYSPACES);
    let trees = trees(store).map_err(|error| missing_or_io(&keyspaces, error))?;
    if trees.len() != TREES {
        let reason = format!("it holds {} trees instead of {TREES}", trees.len());
        return Err(corrupt(&keyspaces, &reason));
    }
    for tree in trees {
        check_version_file(&tree)?;
    }
    Ok(())
}

/// Looks for the file that is damaged, by reading everything. Only for naming it in an error.
pub(super) fn damaged_file(store: &Path) -> Option<PathBuf> {
    if let Err(TableError::Corrupt { file, .. }) = check_manifests(store) {
        return Some(file);
    }
    trees(store).ok()?.iter().find_map(|tree| damaged_table(tree))
}

fn trees(store: &Path) -> io::Result<Vec<PathBuf>> {
    let mut trees = Vec::new();
    for entry in fs::read_dir(store.join(KEYSPACES))? {
        let path = entry?.path();
        if path.is_dir() {
            trees.push(path);
        }
    }
    trees.sort_unstable();
    Ok(trees)
}

/// The newest version file of a tree, after comparing its checksum.
fn check_version_file(tree: &Path) -> Result<PathBuf, TableError> {
    let current = tree.join("current");
    let bytes = fs::read(&current).map_err(|error| missing_or_io(&current, error))?;
    let Ok(bytes) = <[u8; CURRENT_BYTES]>::try_from(bytes) else {
        return Err(corrupt(&current, "it has a wrong length"));
    };
    let [number @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = bytes;
    let mut expected = [0; 16];
    expected.copy_from_slice(&bytes[8..24]);
    let version = tree.join(format!("v{}", u64::from_le_bytes(number)));
    let found = file_checksum(&version).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            corrupt(&current, &format!("it names {}, which is missing", version.display()))
        }
        _ => TableError::Io { path: version.clone(), source: error },
    })?;
    if found != u128::from_le_bytes(expected) || bytes[24] != 0 {
        let reason = "its checksum does not match the one in the file `current` beside it";
        return Err(corrupt(&version, reason));
    }
    Ok(version)
}

/// The first table of a tree that does not match its checksum.
fn damaged_table(tree: &Path) -> Option<PathBuf> {
    let version = check_version_file(tree).ok()?;
    for (number, checksum) in tables_of(&version)? {
        let table = tree.join("tables").join(number.to_string());
        if file_checksum(&table).ok() != Some(checksum) {
            return Some(table);
        }
    }
    None
}

/// Number and checksum of each table that a version file lists.
fn tables_of(version: &Path) -> Option<Vec<(u64, u128)>> {
    let archive = sfa::Reader::new(version).ok()?;
    let section = archive.toc().section(b"tables")?;
    let mut file = BufReader::new(File::open(version).ok()?);
    file.seek(SeekFrom::Start(section.pos())).ok()?;
    let mut reader = file.take(section.len());
    let mut tables = Vec::new();
    let [levels] = array(&mut reader)?;
    for _ in 0..levels {
        let [runs] = array(&mut reader)?;
        for _ in 0..runs {
            for _ in 0..u32::from_le_bytes(array(&mut reader)?) {
                let number = u64::from_le_bytes(array(&mut reader)?);
                let [_checksum_type] = array(&mut reader)?;
                let checksum = u128::from_le_bytes(array(&mut reader)?);
                let _global_sequence: [u8; 8] = array(&mut reader)?;
                tables.push((number, checksum));
            }
        }
    }
    Some(tables)
}

fn array<const N: usize>(reader: &mut impl Read) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

fn file_checksum(path: &Path) -> io::Result<u128> {
    let mut file = File::open(path)?;
    let mut hasher = Xxh3Default::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.digest128()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

fn missing_or_io(path: &Path, source: io::Error) -> TableError {
    match source.kind() {
        io::ErrorKind::NotFound => corrupt(path, "it is missing"),
        _ => TableError::Io { path: path.to_owned(), source },
    }
}

fn corrupt(path: &Path, reason: &str) -> TableError {
    TableError::Corrupt { file: path.to_owned(), reason: reason.to_owned() }
}
