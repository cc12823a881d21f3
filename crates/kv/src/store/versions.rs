//! The records of a span of keys as they stood at one revision.

use std::iter::Peekable;
use std::ops::Bound;

use bytes::Bytes;
use onefold_table::{KeyRange, Order, Scan, TableError, View};
use onefold_types::Revision;

use super::keys;
use super::stored::{damaged, decode_current, decode_old, old_end};
use crate::{KeySpan, KeyValue};

/// Versions of one key that a scan passes over before it seeks instead.
const SKIPS_BEFORE_SEEK: u32 = 8;

/// Records in key order.
pub(crate) type Versions<'a> = Box<dyn Iterator<Item = Result<KeyValue, TableError>> + Send + 'a>;

/// The key's current version.
pub(crate) fn current(view: &dyn View, key: &Bytes) -> Result<Option<KeyValue>, TableError> {
    let stored = view.get(&keys::current(key))?;
    stored.map(|stored| decode_current(key.clone(), stored)).transpose()
}

/// No versions.
pub(crate) fn none<'a>() -> Versions<'a> {
    Box::new(std::iter::empty())
}

/// The current versions of a span, in key order or backwards.
pub(crate) fn currents<'a>(view: &'a dyn View, span: &KeySpan, order: Order) -> Versions<'a> {
    if let KeySpan::One(key) = span {
        return Box::new(current(view, key).transpose().into_iter());
    }
    let scan = view.scan(keys::current_range(span), order);
    Box::new(scan.map(|pair| {
        let (key, stored) = pair?;
        decode_current(keys::current_key(&key), stored)
    }))
}

/// The versions of a span as they stood at `at`, which must be readable.
pub(crate) fn at<'a>(view: &'a dyn View, span: &KeySpan, at: Revision) -> Versions<'a> {
    if let KeySpan::One(key) = span {
        return Box::new(one_at(view, key, at).transpose().into_iter());
    }
    let current = currents(view, span, Order::Ascending)
        .filter(move |kv| kv.as_ref().map_or(true, |kv| kv.mod_revision <= at));
    let current: Versions<'a> = Box::new(current);
    Box::new(Merged { current: current.peekable(), old: OldAt::new(view, span, at).peekable() })
}

fn one_at(view: &dyn View, key: &Bytes, at: Revision) -> Result<Option<KeyValue>, TableError> {
    if let Some(kv) = current(view, key)?
        && kv.mod_revision <= at
    {
        return Ok(Some(kv));
    }
    let newest_first = keys::old_of_key(key, at);
    let Some(found) = view.scan(newest_first, Order::Ascending).next().transpose()? else {
        return Ok(None);
    };
    let (stored_key, stored) = found;
    let (_, revision) = keys::split_old(&stored_key).ok_or_else(|| damaged("a version's key"))?;
    let old = decode_old(key.clone(), revision, stored)?;
    Ok((at < old.end).then_some(old.kv))
}

/// Current versions that are old enough, and superseded ones that were not yet. A key has at most
/// one of the two.
struct Merged<'a> {
    current: Peekable<Versions<'a>>,
    old: Peekable<OldAt<'a>>,
}

impl Iterator for Merged<'_> {
    type Item = Result<KeyValue, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        match (self.current.peek(), self.old.peek()) {
            (Some(Ok(current)), Some(Ok(old))) if current.key < old.key => self.current.next(),
            (Some(Ok(_)), Some(_)) | (None, _) => self.old.next(),
            (Some(_), _) => self.current.next(),
        }
    }
}

/// The superseded versions of a span that were current at one revision.
struct OldAt<'a> {
    view: &'a dyn View,
    scan: Scan<'a>,
    end: Bound<Bytes>,
    at: Revision,
    /// The escaped key whose remaining versions are of no interest.
    decided: Bytes,
    /// Entries passed over since the last seek or answer.
    skips: u32,
}

impl<'a> OldAt<'a> {
    fn new(view: &'a dyn View, span: &KeySpan, at: Revision) -> Self {
        let range = keys::old_range(span);
        let end = range.end.clone();
        let scan = view.scan(range, Order::Ascending);
        Self { view, scan, end, at, decided: Bytes::new(), skips: 0 }
    }

    /// Passes over an entry: by reading on, or by a seek when that goes on for long.
    fn skip_to(&mut self, start: impl FnOnce() -> Bound<Bytes>) {
        self.skips += 1;
        if self.skips >= SKIPS_BEFORE_SEEK {
            self.skips = 0;
            let range = KeyRange { start: start(), end: self.end.clone() };
            self.scan = self.view.scan(range, Order::Ascending);
        }
    }

    fn step(&mut self, key: &Bytes, stored: Bytes) -> Result<Option<KeyValue>, TableError> {
        let (escaped, revision) = keys::split_old(key).ok_or_else(|| damaged("a version's key"))?;
        if escaped == self.decided {
            self.skip_to(|| match keys::after_escaped(&escaped) {
                // The bound after one key's versions is the place where the next key's begin.
                Bound::Excluded(next) => Bound::Included(next),
                bound => bound,
            });
            return Ok(None);
        }
        if revision > self.at {
            let wanted = keys::old_at_escaped(&escaped, self.at);
            self.skip_to(|| Bound::Included(wanted));
            return Ok(None);
        }
        self.decided = escaped;
        self.skips = 0;
        if old_end(&stored)? <= self.at {
            return Ok(None);
        }
        let user_key = keys::unescaped(&self.decided).ok_or_else(|| damaged("a version's key"))?;
        Ok(Some(decode_old(user_key, revision, stored)?.kv))
    }
}

impl Iterator for OldAt<'_> {
    type Item = Result<KeyValue, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let found = match self.scan.next()? {
                Ok((key, stored)) => self.step(&key, stored).transpose(),
                Err(error) => Some(Err(error)),
            };
            if found.is_some() {
                return found;
            }
        }
    }
}
