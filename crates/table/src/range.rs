//! Ranges of keys.

use std::ops::Bound;

use bytes::Bytes;

/// The direction of a scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// From the smallest key to the greatest.
    #[default]
    Ascending,
    /// From the greatest key to the smallest.
    Descending,
}

/// An interval of keys in bytewise order. An interval that ends before it starts is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// Where it starts.
    pub start: Bound<Bytes>,
    /// Where it ends.
    pub end: Bound<Bytes>,
}

impl KeyRange {
    /// Every key.
    pub const fn all() -> Self {
        Self { start: Bound::Unbounded, end: Bound::Unbounded }
    }

    /// This key and all after it.
    pub fn from(start: impl Into<Bytes>) -> Self {
        Self { start: Bound::Included(start.into()), end: Bound::Unbounded }
    }

    /// All keys after this one, for instance to go on where a page ended.
    pub fn after(key: impl Into<Bytes>) -> Self {
        Self { start: Bound::Excluded(key.into()), end: Bound::Unbounded }
    }

    /// All keys before this one.
    pub fn until(end: impl Into<Bytes>) -> Self {
        Self { start: Bound::Unbounded, end: Bound::Excluded(end.into()) }
    }

    /// `start` and all keys after it before `end`.
    pub fn half_open(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self { start: Bound::Included(start.into()), end: Bound::Excluded(end.into()) }
    }

    /// The keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        Self { start: Bound::Included(Bytes::copy_from_slice(prefix)), end: prefix_end(prefix) }
    }

    /// The part of this range that lies after `key`: what is left once an ascending scan yielded
    /// `key`.
    #[must_use]
    pub fn rest_after(self, key: impl Into<Bytes>) -> Self {
        Self { start: Bound::Excluded(key.into()), end: self.end }
    }

    /// The part of this range that lies before `key`: what is left once a descending scan yielded
    /// `key`.
    #[must_use]
    pub fn rest_before(self, key: impl Into<Bytes>) -> Self {
        Self { start: self.start, end: Bound::Excluded(key.into()) }
    }

    /// Whether a key lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        let after_start = match &self.start {
            Bound::Included(start) => key >= &start[..],
            Bound::Excluded(start) => key > &start[..],
            Bound::Unbounded => true,
        };
        let before_end = match &self.end {
            Bound::Included(end) => key <= &end[..],
            Bound::Excluded(end) => key < &end[..],
            Bound::Unbounded => true,
        };
        after_start && before_end
    }

    /// Whether no key can lie in the range because of how its bounds compare. A range of ordered
    /// maps may not be asked for with such bounds: the standard library panics.
    pub fn is_empty(&self) -> bool {
        match (&self.start, &self.end) {
            (Bound::Included(start), Bound::Included(end)) => start > end,
            (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end))
            | (Bound::Excluded(start), Bound::Included(end)) => start >= end,
            (Bound::Unbounded, Bound::Excluded(end)) => end.is_empty(),
            (_, Bound::Unbounded) | (Bound::Unbounded, Bound::Included(_)) => false,
        }
    }

    /// The same range among keys that all carry `prefix` in front.
    pub(crate) fn under(&self, prefix: &[u8]) -> Self {
        let join = |key: &Bytes| joined(prefix, key);
        Self {
            start: match &self.start {
                Bound::Included(key) => Bound::Included(join(key)),
                Bound::Excluded(key) => Bound::Excluded(join(key)),
                Bound::Unbounded => Bound::Included(Bytes::copy_from_slice(prefix)),
            },
            end: match &self.end {
                Bound::Included(key) => Bound::Included(join(key)),
                Bound::Excluded(key) => Bound::Excluded(join(key)),
                Bound::Unbounded => prefix_end(prefix),
            },
        }
    }
}

/// `prefix` and `key` in one piece.
pub(crate) fn joined(prefix: &[u8], key: &[u8]) -> Bytes {
    let mut joined = Vec::with_capacity(prefix.len() + key.len());
    joined.extend_from_slice(prefix);
    joined.extend_from_slice(key);
    joined.into()
}

/// The bound after every key that begins with `prefix`.
fn prefix_end(prefix: &[u8]) -> Bound<Bytes> {
    let Some(last) = prefix.iter().rposition(|&byte| byte != u8::MAX) else {
        return Bound::Unbounded;
    };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Bound::Excluded(end.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_of_the_greatest_bytes_has_no_end() {
        assert_eq!(KeyRange::prefix(b"").end, Bound::Unbounded);
        assert_eq!(KeyRange::prefix(b"\xff\xff").end, Bound::Unbounded);
        assert_eq!(KeyRange::prefix(b"a\xff").end, Bound::Excluded(Bytes::from_static(b"b")));
        assert!(KeyRange::prefix(b"a\xff").contains(b"a\xff\xff\xff"));
        assert!(!KeyRange::prefix(b"a\xff").contains(b"b"));
    }

    #[test]
    fn bounds_that_cross_are_empty() {
        assert!(KeyRange::half_open("b", "a").is_empty());
        assert!(KeyRange::half_open("a", "a").is_empty());
        assert!(!KeyRange::half_open("a", "a\0").is_empty());
        assert!(KeyRange::until("").is_empty());
        assert!(KeyRange::half_open("a", "c").rest_after("c").is_empty());
        assert!(!KeyRange::all().is_empty());
    }
}
