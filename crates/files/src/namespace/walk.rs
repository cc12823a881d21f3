//! Walking the tree in the order of keys, from any place.

use bytes::Bytes;
use onefold_table::{KeyRange, Order, Scan, TableError, View};

use super::keys;
use super::records::{DirectoryId, Entry, EntryHead};

/// The files of a bucket in the byte order of their keys.
pub(super) struct Walk<'a> {
    view: &'a dyn View,
    root: DirectoryId,
    /// The directories that the walk is in, outermost first.
    frames: Vec<Frame<'a>>,
}

struct Frame<'a> {
    /// The key of the directory: what its entries' keys start with.
    prefix: Vec<u8>,
    entries: Scan<'a>,
}

/// A file that the walk came to: its key and its undecoded entry.
pub(super) struct Found {
    pub(super) key: Vec<u8>,
    pub(super) value: Bytes,
}

impl<'a> Walk<'a> {
    /// A walk that starts with the first key that is not less than `from`.
    pub(super) fn starting_at(
        view: &'a dyn View,
        root: DirectoryId,
        from: &[u8],
    ) -> Result<Self, TableError> {
        let mut walk = Self { view, root, frames: Vec::new() };
        walk.seek(from)?;
        Ok(walk)
    }

    /// Goes on with the first key that is not less than `from`, forward or back.
    ///
    /// Within a directory, entries before the one that leads to `from` have only lesser keys: a
    /// directory's name ends in `/` and a file's has none, so no name is the beginning of a key under
    /// another one.
    pub(super) fn seek(&mut self, from: &[u8]) -> Result<(), TableError> {
        self.frames.clear();
        let mut directory = self.root;
        let mut prefix_bytes = 0;
        while let Some(slash) = from[prefix_bytes..].iter().position(|&byte| byte == b'/') {
            let next_bytes = prefix_bytes + slash + 1;
            let entry = keys::entry(directory, &from[prefix_bytes..next_bytes]);
            let found = self.view.get(&entry)?;
            self.enter(&from[..prefix_bytes], directory, |range| range.rest_after(entry));
            let Some(value) = found else { return Ok(()) };
            let EntryHead::Directory(next) = EntryHead::decode(&value)? else { return Ok(()) };
            (directory, prefix_bytes) = (next, next_bytes);
        }
        let first = keys::entry(directory, &from[prefix_bytes..]);
        self.enter(&from[..prefix_bytes], directory, |range| KeyRange {
            start: std::ops::Bound::Included(first.into()),
            end: range.end,
        });
        Ok(())
    }

    fn enter(
        &mut self,
        prefix: &[u8],
        directory: DirectoryId,
        narrow: impl FnOnce(KeyRange) -> KeyRange,
    ) {
        let all = KeyRange::prefix(&keys::entry(directory, b""));
        let entries = self.view.scan(narrow(all), Order::Ascending);
        self.frames.push(Frame { prefix: prefix.to_vec(), entries });
    }

    /// The next file.
    pub(super) fn next(&mut self) -> Result<Option<Found>, TableError> {
        while let Some(frame) = self.frames.last_mut() {
            let Some((entry, value)) = frame.entries.next().transpose()? else {
                self.frames.pop();
                continue;
            };
            let mut key = frame.prefix.clone();
            key.extend_from_slice(&entry[keys::ENTRY_NAME_AT..]);
            match EntryHead::decode(&value)? {
                EntryHead::File(..) => return Ok(Some(Found { key, value })),
                EntryHead::Directory(directory) => self.enter(&key, directory, |range| range),
            }
        }
        Ok(None)
    }
}

impl Found {
    pub(super) fn entry(&self) -> Result<Entry, TableError> {
        Entry::decode(&self.value)
    }
}

/// The least string of bytes after all that start with `prefix`.
pub(super) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}
