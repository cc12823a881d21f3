//! What every table must do, as checks that each backend's tests run.
//!
//! Each check gets a fresh, empty table and panics where the table is wrong.

use std::sync::Arc;

use bytes::Bytes;
use onefold_types::GroupId;

use crate::view::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::{Batch, KeyRange, Order, Overlay, Scan, Space, Table, TableError, View};

type Pair = (Bytes, Bytes);

/// Runs all checks, each on a table that `create` makes.
///
/// # Panics
/// When the table does not do what a table must.
pub fn check_all<T: Table + 'static>(mut create: impl FnMut() -> T) {
    check_reads_and_writes(&create());
    check_batches(&create());
    check_scans(&create());
    check_snapshots(&create());
    check_limits(&create());
    check_spaces(Arc::new(create()));
    check_overlay(&create());
    check_concurrent_readers(&create());
}

/// A value is what was put last, until it is deleted.
fn check_reads_and_writes(table: &dyn Table) {
    assert_eq!(get(table, "a"), None);
    write(table, &[("a", Some("1")), ("", Some("empty key")), ("b", Some(""))]);
    assert_eq!(get(table, "a"), Some("1".into()));
    assert_eq!(get(table, ""), Some("empty key".into()));
    assert_eq!(get(table, "b"), Some("".into()), "an empty value is a value");
    write(table, &[("a", Some("2")), ("b", None), ("missing", None)]);
    assert_eq!(get(table, "a"), Some("2".into()));
    assert_eq!(get(table, "b"), None);
    table.sync().expect("sync");
    assert_eq!(get(table, "a"), Some("2".into()));
}

/// Later writes of a batch override earlier ones, and an empty batch is nothing.
fn check_batches(table: &dyn Table) {
    write(table, &[("k", Some("1")), ("k", None), ("k", Some("2")), ("x", Some("1")), ("x", None)]);
    table.write(Batch::new()).expect("an empty batch");
    assert_eq!(pairs(table.scan(KeyRange::all(), Order::Ascending)), expected(&[("k", "2")]));
}

/// Scans yield the pairs of their range in order, in both directions.
fn check_scans(table: &dyn Table) {
    let keys: [&[u8]; 7] = [b"", b"\0", b"a", b"a\0", b"ab", b"b", b"\xff\xff"];
    let mut batch = Batch::new();
    for key in keys {
        batch.put(Bytes::from_static(key), Bytes::from_static(key));
    }
    table.write(batch).expect("write");
    let b = |key: &'static [u8]| Bytes::from_static(key);
    let ranges = [
        KeyRange::all(),
        KeyRange::from(b(b"a")),
        KeyRange::after(b(b"a")),
        KeyRange::until(b(b"b")),
        KeyRange::half_open(b(b"a"), b(b"b")),
        KeyRange::half_open(b(b"b"), b(b"a")),
        KeyRange::half_open(b(b"a"), b(b"a")),
        KeyRange::after(b(b"a")).rest_before(b(b"a\0")),
        KeyRange::prefix(b"a"),
        KeyRange::prefix(b""),
        KeyRange::prefix(b"\xff"),
        KeyRange::prefix(b"c"),
    ];
    for range in ranges {
        let mut within: Vec<Pair> = keys
            .iter()
            .filter(|key| range.contains(key))
            .map(|key| (Bytes::from_static(key), Bytes::from_static(key)))
            .collect();
        assert_eq!(pairs(table.scan(range.clone(), Order::Ascending)), within, "{range:?}");
        within.reverse();
        assert_eq!(pairs(table.scan(range.clone(), Order::Descending)), within, "{range:?}");
    }
}

/// Snapshots and running scans show one state.
fn check_snapshots(table: &dyn Table) {
    write(table, &[("a", Some("1")), ("b", Some("1")), ("c", Some("1"))]);
    let snapshot = table.snapshot();
    let mut running = table.scan(KeyRange::all(), Order::Ascending);
    assert_eq!(running.next().expect("a pair").expect("a").0, "a");
    write(table, &[("a", Some("2")), ("b", None), ("bb", Some("2"))]);
    assert_eq!(pairs(running), expected(&[("b", "1"), ("c", "1")]));
    let before = expected(&[("a", "1"), ("b", "1"), ("c", "1")]);
    assert_eq!(pairs(snapshot.scan(KeyRange::all(), Order::Ascending)), before);
    assert_eq!(snapshot.get(b"b").expect("get"), Some("1".into()));
    assert_eq!(snapshot.get(b"bb").expect("get"), None);
    assert_eq!(get(table, "b"), None);
    let after = expected(&[("a", "2"), ("bb", "2"), ("c", "1")]);
    assert_eq!(pairs(table.scan(KeyRange::all(), Order::Ascending)), after);
}

/// Keys and values up to the limits work; beyond them nothing of the batch is written.
fn check_limits(table: &dyn Table) {
    let longest = Bytes::from(vec![b'k'; KEY_BYTES_MAX]);
    let large = Bytes::from(vec![b'v'; 5 << 20]);
    let mut batch = Batch::new();
    batch.put(longest.clone(), large.clone());
    table.write(batch).expect("the longest key");
    assert_eq!(table.get(&longest).expect("get"), Some(large));

    let mut batch = Batch::new();
    batch.put("before", "1");
    batch.delete(vec![b'k'; KEY_BYTES_MAX + 1]);
    let refused = table.write(batch);
    assert!(matches!(refused, Err(TableError::KeyTooLong { bytes }) if bytes > KEY_BYTES_MAX));
    let mut batch = Batch::new();
    batch.put("before", "1");
    batch.put("after", vec![0; VALUE_BYTES_MAX + 1]);
    assert!(matches!(table.write(batch), Err(TableError::ValueTooLong { .. })));
    assert_eq!(get(table, "before"), None);
    write(table, &[("before", Some("1"))]);
    assert!(table.size_bytes() > 0);
}

/// Groups do not see each other.
fn check_spaces(table: Arc<dyn Table>) {
    let spaces = [1, 2, u64::MAX].map(|group| Space::new(table.clone(), GroupId(group)));
    for (number, space) in spaces.iter().enumerate() {
        let mut batch = Batch::new();
        batch.put("", format!("{number}"));
        batch.put("k", format!("{number}"));
        space.write(batch).expect("write");
    }
    let [first, _, last] = &spaces;
    let view = first.snapshot();
    let mut batch = Batch::new();
    batch.delete("k");
    first.write(batch).expect("write");
    assert_eq!(pairs(first.scan(KeyRange::all(), Order::Ascending)), expected(&[("", "0")]));
    let before = expected(&[("k", "0"), ("", "0")]);
    assert_eq!(pairs(view.scan(KeyRange::all(), Order::Descending)), before);
    assert_eq!(view.get(b"k").expect("get"), Some("0".into()));
    assert_eq!(pairs(last.scan(KeyRange::after(""), Order::Ascending)), expected(&[("k", "2")]));
    let everything = pairs(table.scan(KeyRange::all(), Order::Ascending));
    assert_eq!(everything.len(), 5);
    assert!(everything[0].0.starts_with(&1_u64.to_be_bytes()));

    let inner = first.inner(b"meta/");
    let mut batch = Batch::new();
    batch.put("applied", "7");
    inner.write(batch).expect("write");
    assert_eq!(first.get(b"meta/applied").expect("get"), Some("7".into()));
    let view = first.snapshot().inner(b"meta/");
    assert_eq!(pairs(view.scan(KeyRange::all(), Order::Ascending)), expected(&[("applied", "7")]));
}

/// What an overlay commits is what it showed.
fn check_overlay(table: &dyn Table) {
    write(table, &[("p/a", Some("1")), ("p/b", Some("1")), ("p/c", Some("1"))]);
    let shown = {
        let mut overlay = Overlay::new(table);
        overlay.put("p/b", "2");
        overlay.delete("p/a");
        overlay.put("p/d", "2");
        let shown = pairs(overlay.scan(KeyRange::all(), Order::Ascending));
        table.write(overlay.into_batch(b"")).expect("write");
        shown
    };
    assert_eq!(shown, expected(&[("p/b", "2"), ("p/c", "1"), ("p/d", "2")]));
    assert_eq!(pairs(table.scan(KeyRange::all(), Order::Ascending)), shown);
    let mut overlay = Overlay::new(table);
    overlay.put("e", "3");
    table.write(overlay.into_batch(b"p/")).expect("write");
    assert_eq!(get(table, "p/e"), Some("3".into()));
}

/// A reader sees each batch whole or not at all.
fn check_concurrent_readers(table: &dyn Table) {
    const BATCHES: u64 = 200;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=BATCHES {
                let mut batch = Batch::new();
                for key in ["a", "b", "c"] {
                    batch.put(key, number.to_be_bytes().to_vec());
                }
                table.write(batch).expect("write");
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let newest = BATCHES.to_be_bytes();
                loop {
                    let snapshot = table.snapshot();
                    let seen = pairs(snapshot.scan(KeyRange::all(), Order::Ascending));
                    assert!(seen.is_empty() || seen.len() == 3, "{seen:?}");
                    assert!(seen.windows(2).all(|pair| pair[0].1 == pair[1].1), "{seen:?}");
                    if seen.first().is_some_and(|(_, value)| value[..] == newest) {
                        break;
                    }
                }
            });
        }
    });
}

fn get(view: &(impl View + ?Sized), key: &str) -> Option<Bytes> {
    view.get(key.as_bytes()).expect("get")
}

/// Puts the pairs that have a value and deletes the others.
fn write(table: &dyn Table, writes: &[(&'static str, Option<&'static str>)]) {
    let mut batch = Batch::new();
    for &(key, value) in writes {
        match value {
            Some(value) => batch.put(key, value),
            None => batch.delete(key),
        }
    }
    table.write(batch).expect("write");
}

fn pairs(scan: Scan<'_>) -> Vec<Pair> {
    scan.collect::<Result<_, _>>().expect("scan")
}

fn expected(pairs: &[(&'static str, &'static str)]) -> Vec<Pair> {
    pairs.iter().map(|&(key, value)| (key.into(), value.into())).collect()
}
