//! Both tables do what a table must, and an overlay shows what a map would.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use onefold_table::{
    Batch, FjallTable, KeyRange, MemoryTable, Operation, Order, Overlay, Table, TableOptions, View,
    conformance,
};
use proptest::prelude::*;

#[test]
fn the_table_in_memory_conforms() {
    conformance::check_all(MemoryTable::new);
}

#[test]
fn the_table_on_disk_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let mut number = 0;
    conformance::check_all(|| {
        number += 1;
        let path = folder.path().join(number.to_string());
        FjallTable::open(&path, TableOptions::default()).unwrap()
    });
}

/// Few short keys, so that writes and ranges meet.
fn key() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(prop_oneof![Just(0_u8), Just(b'a'), Just(b'b'), Just(0xff)], 0..3)
        .prop_map(Bytes::from)
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        2 => (key(), any::<u8>())
            .prop_map(|(key, value)| Operation::Put { key, value: vec![value].into() }),
        1 => key().prop_map(|key| Operation::Delete { key }),
    ]
}

fn bound() -> impl Strategy<Value = Bound<Bytes>> {
    prop_oneof![
        key().prop_map(Bound::Included),
        key().prop_map(Bound::Excluded),
        Just(Bound::Unbounded),
    ]
}

fn apply(model: &mut BTreeMap<Bytes, Bytes>, operation: &Operation) {
    match operation.clone() {
        Operation::Put { key, value } => model.insert(key, value),
        Operation::Delete { key } => model.remove(&key),
    };
}

fn pairs(view: &dyn View, range: &KeyRange, order: Order) -> Vec<(Bytes, Bytes)> {
    view.scan(range.clone(), order).map(Result::unwrap).collect()
}

fn model_pairs(model: &BTreeMap<Bytes, Bytes>, range: &KeyRange) -> Vec<(Bytes, Bytes)> {
    model
        .iter()
        .filter(|(key, _)| range.contains(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

proptest! {
    #[test]
    fn an_overlay_is_like_a_map(
        stored in prop::collection::vec(operation(), 0..20),
        changes in prop::collection::vec(operation(), 0..20),
        ranges in prop::collection::vec((bound(), bound()), 1..8),
        probe in key(),
    ) {
        let mut model = BTreeMap::new();
        let table = MemoryTable::new();
        let mut batch = Batch::new();
        for operation in &stored {
            apply(&mut model, operation);
            match operation.clone() {
                Operation::Put { key, value } => batch.put(key, value),
                Operation::Delete { key } => batch.delete(key),
            }
        }
        table.write(batch).unwrap();
        let before = table.snapshot();
        let mut overlay = Overlay::new(&*before);
        for operation in &changes {
            apply(&mut model, operation);
            match operation.clone() {
                Operation::Put { key, value } => overlay.put(key, value),
                Operation::Delete { key } => overlay.delete(key),
            }
        }
        prop_assert_eq!(overlay.get(&probe).unwrap(), model.get(&probe).cloned());
        for (start, end) in ranges {
            let range = KeyRange { start, end };
            let mut expected = model_pairs(&model, &range);
            prop_assert_eq!(pairs(&overlay, &range, Order::Ascending), expected.clone());
            expected.reverse();
            prop_assert_eq!(pairs(&overlay, &range, Order::Descending), expected);
        }
        let written = changes.iter().map(Operation::key).collect::<std::collections::BTreeSet<_>>();
        prop_assert_eq!(overlay.len(), written.len());
        let bytes: usize = written
            .iter()
            .map(|key| key.len() + overlay.get(key).unwrap().map_or(0, |value| value.len()))
            .sum();
        prop_assert_eq!(overlay.bytes(), bytes);
        table.write(overlay.into_batch(b"")).unwrap();
        let all = KeyRange::all();
        prop_assert_eq!(pairs(&table, &all, Order::Ascending), model_pairs(&model, &all));
    }
}
