//! Listing versions: the tree and the list of older versions, merged by key.

use std::iter::Peekable;

use bytes::Bytes;
use onefold_table::{KeyRange, Order, Scan, TableError, View};

use super::keys;
use super::query::text;
use super::records::{DirectoryId, EntryHead, corrupt, decode};
use super::tree::{find_file, get_bucket, no_such_bucket};
use super::versions::{VersionRecord, sequence_of};
use super::walk::{Found, Walk, after_prefix};
use crate::api::{FilesError, Version, VersionEntry, VersionPage, VersionsRequest, limits};

/// Both sources at one place.
struct Merge<'a> {
    view: &'a dyn View,
    root: DirectoryId,
    walk: Walk<'a>,
    file: Option<Found>,
    list: Peekable<Scan<'a>>,
    /// The key whose latest version was told already.
    told: Option<String>,
}

impl<'a> Merge<'a> {
    /// All versions of keys that are not less than `from`.
    fn starting_at(view: &'a dyn View, root: DirectoryId, from: &[u8]) -> Result<Self, TableError> {
        let mut walk = Walk::starting_at(view, root, from)?;
        let file = walk.next()?;
        let list = scan(view, root, keys::versions_under_bytes(root, from));
        Ok(Self { view, root, walk, file, list, told: None })
    }

    /// What comes after a version of a key.
    fn after(
        view: &'a dyn View,
        root: DirectoryId,
        key: &str,
        version: Option<Version>,
    ) -> Result<Self, TableError> {
        let next_key = [key.as_bytes(), b"\0"].concat();
        let mut merge = Self::starting_at(view, root, &next_key)?;
        let Some(version) = version else { return Ok(merge) };
        let latest = find_file(view, root, key)?.map(|file| file.info.attributes.version());
        let sequence = match latest {
            Some(latest) if latest == version => Some(u64::MAX),
            _ => sequence_of(view, root, key, version)?,
        };
        if let Some(sequence) = sequence {
            let mut from = keys::version(root, key, sequence);
            from.push(0);
            merge.list = scan(view, root, from);
            merge.told = Some(key.to_owned());
        }
        Ok(merge)
    }

    fn seek(&mut self, from: &[u8]) -> Result<(), TableError> {
        *self = Self::starting_at(self.view, self.root, from)?;
        Ok(())
    }

    fn next(&mut self) -> Result<Option<VersionEntry>, FilesError> {
        let listed = match self.list.peek() {
            None => None,
            Some(Err(_)) => {
                return Err(self
                    .list
                    .next()
                    .and_then(Result::err)
                    .map_or_else(|| corrupt("version", "it vanished").into(), FilesError::from));
            }
            Some(Ok((key, _))) => {
                let (key, _) =
                    keys::parse_version(key).ok_or_else(|| corrupt("version", "malformed key"))?;
                Some(key)
            }
        };
        let is_file_first = match (&self.file, &listed) {
            (Some(file), Some(key)) => file.key.as_slice() <= key.as_bytes(),
            (Some(_), None) => true,
            (None, _) => false,
        };
        if is_file_first {
            return self.next_file();
        }
        let (Some(key), Some(pair)) = (listed, self.list.next()) else { return Ok(None) };
        let (_, value): (Bytes, Bytes) = pair?;
        let record: VersionRecord = decode("version", &value)?;
        let is_latest = self.told.as_deref() != Some(key.as_str());
        self.told = Some(key.clone());
        let VersionRecord { version, modified, file } = record;
        let file = file.map(|(info, _)| info);
        Ok(Some(VersionEntry { key, version, is_latest, modified, file }))
    }

    fn next_file(&mut self) -> Result<Option<VersionEntry>, FilesError> {
        let Some(Found { key, value }) = self.file.take() else { return Ok(None) };
        self.file = self.walk.next()?;
        let key = text(key)?;
        let EntryHead::File(info, _) = EntryHead::decode(&value)? else {
            return Err(corrupt("directory entry", "a walk came to a directory").into());
        };
        self.told = Some(key.clone());
        let (version, modified) = (info.attributes.version(), info.modified);
        Ok(Some(VersionEntry { key, version, is_latest: true, modified, file: Some(info) }))
    }
}

fn scan<'a>(view: &'a dyn View, root: DirectoryId, from: Vec<u8>) -> Peekable<Scan<'a>> {
    let all = KeyRange::prefix(&keys::versions_under(root, ""));
    let start = std::ops::Bound::Included(from.into());
    view.scan(KeyRange { start, end: all.end }, Order::Ascending).peekable()
}

/// A page of versions, rolled up at the delimiter. What a common prefix hides is not walked.
pub(super) fn list(view: &dyn View, request: &VersionsRequest) -> Result<VersionPage, FilesError> {
    let bucket = &request.bucket;
    let root = get_bucket(view, bucket)?.ok_or_else(|| no_such_bucket(bucket))?.root;
    let limit = request.limit.min(limits::PAGE_ENTRIES_MAX);
    let delimiter = request.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
    let prefix = request.prefix.as_str();
    let after = request.after.as_ref().filter(|(key, _)| key.as_str() >= prefix);
    let mut merge = match after {
        None => Merge::starting_at(view, root, prefix.as_bytes())?,
        Some((key, version)) => Merge::after(view, root, key, *version)?,
    };
    let mut page = VersionPage::default();
    let mut last = None;
    while let Some(entry) = merge.next()?
        && entry.key.starts_with(prefix)
    {
        let rolled = delimiter.and_then(|delimiter| {
            let end = entry.key[prefix.len()..].find(delimiter)? + delimiter.len();
            Some(entry.key[..prefix.len() + end].to_owned())
        });
        let seen = rolled.is_some() && rolled.as_ref() == after.map(|(key, _)| key);
        if !seen && page.entries.len() + page.common_prefixes.len() == limit {
            page.next = last;
            break;
        }
        if let Some(common) = rolled {
            let next = after_prefix(common.as_bytes());
            if !seen {
                last = Some((common.clone(), None));
                page.common_prefixes.push(common);
            }
            match next {
                Some(next) => merge.seek(&next)?,
                None => break,
            }
        } else {
            last = Some((entry.key.clone(), Some(entry.version)));
            page.entries.push(entry);
        }
    }
    Ok(page)
}
