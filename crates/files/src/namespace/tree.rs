//! Directories: finding, entering and leaving entries, and what happens to empty ones.

use onefold_table::{KeyRange, Order, TableError, View};

use super::keys;
use super::records::{BucketRecord, DirectoryId, Entry, FileRecord};
use super::state::{Applied, Change};
use crate::api::FilesError;

pub(super) fn no_such_bucket(bucket: &str) -> FilesError {
    FilesError::NoSuchBucket { bucket: bucket.to_owned() }
}

pub(super) fn no_such_key(bucket: &str, key: &str) -> FilesError {
    FilesError::NoSuchKey { bucket: bucket.to_owned(), key: key.to_owned() }
}

/// The names of entries on the way to a key: directories with their `/`, then the rest, which is
/// empty for the marker of a directory.
pub(super) fn components(key: &str) -> (Vec<&str>, &str) {
    let mut directories: Vec<&str> = key.split_inclusive('/').collect();
    match directories.last() {
        Some(last) if !last.ends_with('/') => {
            let file = directories.pop().expect("it has a last element");
            (directories, file)
        }
        _ => (directories, ""),
    }
}

pub(super) fn get_bucket(
    view: &dyn View,
    bucket: &str,
) -> Result<Option<BucketRecord>, TableError> {
    let value = view.get(&keys::bucket(bucket))?;
    value.map(|bytes| BucketRecord::decode(&bytes)).transpose()
}

pub(super) fn get_entry(
    view: &dyn View,
    directory: DirectoryId,
    name: &str,
) -> Result<Option<Entry>, TableError> {
    let value = view.get(&keys::entry(directory, name.as_bytes()))?;
    value.map(|bytes| Entry::decode(&bytes)).transpose()
}

/// The directory that the names lead to.
pub(super) fn find_directory(
    view: &dyn View,
    root: DirectoryId,
    names: &[&str],
) -> Result<Option<DirectoryId>, TableError> {
    let mut directory = root;
    for name in names {
        match get_entry(view, directory, name)? {
            Some(Entry::Directory(next)) => directory = next,
            _ => return Ok(None),
        }
    }
    Ok(Some(directory))
}

pub(super) fn find_file(
    view: &dyn View,
    root: DirectoryId,
    key: &str,
) -> Result<Option<FileRecord>, TableError> {
    let (directories, name) = components(key);
    let Some(directory) = find_directory(view, root, &directories)? else { return Ok(None) };
    match get_entry(view, directory, name)? {
        Some(Entry::File(file)) => Ok(Some(file)),
        _ => Ok(None),
    }
}

pub(super) fn is_empty(view: &dyn View, directory: DirectoryId) -> Result<bool, TableError> {
    let mut entries = view.scan(KeyRange::prefix(&keys::entry(directory, b"")), Order::Ascending);
    Ok(entries.next().transpose()?.is_none())
}

impl Change<'_> {
    pub(super) fn root(&self, bucket: &str) -> Applied<DirectoryId> {
        let record = get_bucket(&self.table, bucket)?.ok_or_else(|| no_such_bucket(bucket))?;
        Ok(record.root)
    }

    /// The directory that the names lead to; what is missing is made. The caller enters something.
    fn make_way(&mut self, root: DirectoryId, names: &[&str]) -> Applied<DirectoryId> {
        let mut directory = root;
        for name in names {
            directory = match get_entry(&self.table, directory, name)? {
                Some(Entry::Directory(next)) => next,
                _ => {
                    let next = DirectoryId(self.next_id());
                    self.set_entry(directory, name, &Entry::Directory(next));
                    next
                }
            };
        }
        Ok(directory)
    }

    fn set_entry(&mut self, directory: DirectoryId, name: &str, entry: &Entry) {
        self.table.put(keys::entry(directory, name.as_bytes()), entry.encode());
    }

    /// Enters a file under its key; the caller has dealt with one that was there.
    pub(super) fn enter_file(
        &mut self,
        root: DirectoryId,
        key: &str,
        file: FileRecord,
    ) -> Applied<()> {
        let (directories, name) = components(key);
        let directory = self.make_way(root, &directories)?;
        self.set_entry(directory, name, &Entry::File(file));
        Ok(())
    }

    /// Takes a file out of the tree, and the directories that this leaves empty.
    pub(super) fn take_file(
        &mut self,
        root: DirectoryId,
        key: &str,
    ) -> Applied<Option<FileRecord>> {
        let (directories, name) = components(key);
        Ok(match self.take(root, &directories, name)? {
            Some(Entry::File(file)) => Some(file),
            Some(Entry::Directory(_)) => unreachable!("a directory's name ends in a slash"),
            None => None,
        })
    }

    /// Takes a directory (names of those above it, its own name) out of the tree with all it holds.
    pub(super) fn take_directory(
        &mut self,
        root: DirectoryId,
        above: &[&str],
        name: &str,
    ) -> Applied<Option<DirectoryId>> {
        assert!(name.ends_with('/'), "a directory's name ends in a slash");
        Ok(match self.take(root, above, name)? {
            Some(Entry::Directory(directory)) => Some(directory),
            _ => None,
        })
    }

    pub(super) fn enter_directory(
        &mut self,
        root: DirectoryId,
        above: &[&str],
        name: &str,
        directory: DirectoryId,
    ) -> Applied<()> {
        let parent = self.make_way(root, above)?;
        self.set_entry(parent, name, &Entry::Directory(directory));
        Ok(())
    }

    fn take(&mut self, root: DirectoryId, above: &[&str], name: &str) -> Applied<Option<Entry>> {
        let mut way = vec![root];
        for name in above {
            match get_entry(&self.table, *way.last().expect("it starts with the root"), name)? {
                Some(Entry::Directory(next)) => way.push(next),
                _ => return Ok(None),
            }
        }
        let mut directory = way.pop().expect("it starts with the root");
        let taken = get_entry(&self.table, directory, name)?;
        if taken.is_none() {
            return Ok(None);
        }
        self.table.delete(keys::entry(directory, name.as_bytes()));
        for name in above.iter().rev() {
            if !is_empty(&self.table, directory)? {
                break;
            }
            directory = way.pop().expect("one directory above each name");
            self.table.delete(keys::entry(directory, name.as_bytes()));
        }
        Ok(taken)
    }
}
