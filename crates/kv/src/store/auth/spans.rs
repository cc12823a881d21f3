//! Sets of keys.

use bytes::{BufMut, Bytes, BytesMut};

use crate::KeySpan;

/// Where a run of keys ends: before a key, or never.
///
/// The order of the variants makes "never" the largest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Before(Bytes),
    Never,
}

/// A set of keys: runs in order, between any two of which there is a key that is in neither.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spans {
    runs: Vec<(Bytes, End)>,
}

impl FromIterator<KeySpan> for Spans {
    fn from_iter<I: IntoIterator<Item = KeySpan>>(spans: I) -> Self {
        let mut parts: Vec<_> = spans.into_iter().map(run).collect();
        parts.sort();
        let mut runs: Vec<(Bytes, End)> = Vec::new();
        for (start, end) in parts {
            match runs.last_mut() {
                Some((_, last)) if !last.is_before(&start) => *last = end.max(last.clone()),
                _ => runs.push((start, end)),
            }
        }
        Self { runs }
    }
}

impl Spans {
    /// Where the run that holds this key ends, if one does.
    fn end_after(&self, key: &[u8]) -> Option<&End> {
        let after = self.runs.partition_point(|(start, _)| start.as_ref() <= key);
        let (_, end) = self.runs[..after].last()?;
        (!end.is_at_most(key)).then_some(end)
    }
}

impl End {
    /// Whether a run that ends here leaves out a key before `start`.
    fn is_before(&self, start: &Bytes) -> bool {
        matches!(self, Self::Before(end) if end < start)
    }

    /// Whether a run that ends here does not reach this key.
    fn is_at_most(&self, key: &[u8]) -> bool {
        matches!(self, Self::Before(end) if end.as_ref() <= key)
    }
}

/// Whether some sets together hold every key of a span.
///
/// A span that ends before it starts counts as its first key: it has no keys, but who asks for it
/// must have something to do there.
pub(crate) fn cover<'s>(sets: impl Iterator<Item = &'s Spans> + Clone, span: &KeySpan) -> bool {
    let (start, end) = run(span.clone());
    let mut from = &start;
    loop {
        match sets.clone().filter_map(|set| set.end_after(from)).max() {
            None => return false,
            Some(reached) if *reached >= end => return true,
            // A run that holds `from` ends after it, so that this gets on.
            Some(End::Before(next)) => from = next,
            Some(End::Never) => return true,
        }
    }
}

/// A span as a run of keys.
fn run(span: KeySpan) -> (Bytes, End) {
    match span {
        KeySpan::One(key) => {
            let end = End::Before(after(&key));
            (key, end)
        }
        KeySpan::From(start) => (start, End::Never),
        KeySpan::Between { start, end } if start < end => (start, End::Before(end)),
        KeySpan::Between { start, .. } => run(KeySpan::One(start)),
    }
}

/// The smallest key that is larger.
fn after(key: &Bytes) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Few and short keys, so that spans meet.
    fn key() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(0_u8..3, 1..3).prop_map(Bytes::from)
    }

    fn span() -> impl Strategy<Value = KeySpan> {
        prop_oneof![
            key().prop_map(KeySpan::One),
            key().prop_map(KeySpan::From),
            (key(), key()).prop_map(|(start, end)| KeySpan::Between { start, end }),
        ]
    }

    /// Every key that the strategy makes, and those right behind and beyond them.
    fn all_keys() -> Vec<Bytes> {
        let short: Vec<Vec<u8>> = (0..4).map(|byte| vec![byte]).collect();
        let mut keys = short.clone();
        for _ in 0..3 {
            let longer = keys.iter().filter(|key| key.len() < 4);
            let longer =
                longer.flat_map(|key| (0..4).map(move |byte| [&key[..], &[byte]].concat()));
            keys = short.iter().cloned().chain(longer.collect::<Vec<_>>()).collect();
        }
        keys.into_iter().map(Bytes::from).collect()
    }

    fn one(key: &'static str) -> KeySpan {
        KeySpan::One(key.into())
    }

    fn between(start: &'static str, end: &'static str) -> KeySpan {
        KeySpan::Between { start: start.into(), end: end.into() }
    }

    fn covers(sets: &[Spans], span: &KeySpan) -> bool {
        cover(sets.iter(), span)
    }

    #[test]
    fn a_union_covers_what_no_part_does() {
        let sets = [Spans::from_iter([between("a", "c")]), Spans::from_iter([between("b", "e")])];
        assert!(covers(&sets, &between("a", "e")));
        assert!(covers(&sets, &one("d")));
        assert!(!covers(&sets, &between("a", "f")));
        assert!(!covers(&sets, &KeySpan::From("a".into())));
        assert!(!covers(&[], &one("a")));
    }

    #[test]
    fn spans_that_touch_are_one() {
        let set = Spans::from_iter([between("c", "e"), between("a", "c"), one("e")]);
        assert_eq!(set.runs.len(), 1);
        assert!(covers(&[set], &between("a", "e\0")));
    }

    #[test]
    fn a_gap_of_one_key_is_a_gap() {
        let set = Spans::from_iter([between("a", "b"), between("b\0", "c")]);
        assert!(!covers(std::slice::from_ref(&set), &between("a", "c")));
        assert!(!covers(&[set], &one("b")));
    }

    #[test]
    fn an_open_span_needs_an_open_permission() {
        let set = Spans::from_iter([one("a"), KeySpan::From("a\0".into())]);
        assert!(covers(std::slice::from_ref(&set), &KeySpan::From("a".into())));
        assert!(!covers(&[set], &KeySpan::From("\0".into())));
    }

    #[test]
    fn a_span_without_keys_needs_its_first_key() {
        let set = Spans::from_iter([one("b")]);
        assert!(covers(std::slice::from_ref(&set), &between("b", "a")));
        assert!(!covers(&[set], &between("c", "a")));
    }

    proptest! {
        #[test]
        fn covering_is_having_every_key(
            sets in proptest::collection::vec(proptest::collection::vec(span(), 0..4), 0..3),
            asked in span(),
        ) {
            let is_empty = matches!(&asked, KeySpan::Between { start, end } if end <= start);
            prop_assume!(!is_empty);
            let has = |key: &Bytes| sets.iter().flatten().any(|span| match span {
                KeySpan::Between { start, end } if end <= start => start == key,
                span => span.contains(key),
            });
            let expected = all_keys().iter().filter(|key| asked.contains(key)).all(has);
            let built: Vec<Spans> = sets.iter().map(|set| set.iter().cloned().collect()).collect();
            prop_assert_eq!(covers(&built, &asked), expected);
        }

        #[test]
        fn runs_are_in_order_and_apart(spans in proptest::collection::vec(span(), 0..6)) {
            let set: Spans = spans.into_iter().collect();
            for pair in set.runs.windows(2) {
                prop_assert!(pair[0].1.is_before(&pair[1].0), "{:?}", set);
            }
        }
    }
}
