//! The shuffle against a plain sort, with buffers so small that everything spills and merges.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::task::{Stop, TaskError};

type Record = (Vec<u8>, Vec<u8>);

fn tiny(sort_bytes: usize, merge_ways: usize) -> CollectorLimits {
    CollectorLimits { sort_bytes, merge_ways }
}

fn collect(
    records: &[Record],
    partitions: u32,
    combiner: Option<Box<dyn Combiner>>,
    limits: CollectorLimits,
    folder: &TempDir,
) -> Run {
    let scratch = tempfile::tempdir_in(folder).expect("a folder");
    let mut collector =
        Collector::new(partitions, combiner, scratch.path(), limits, Stop::default());
    for (key, value) in records {
        collector.emit(key, value).expect("a collected record");
    }
    let name = format!("out-{}", std::fs::read_dir(folder).expect("a folder").count());
    let (run, _) = collector.finish(&folder.path().join(name)).expect("a finished run");
    let left = std::fs::read_dir(scratch.path()).expect("a folder").count();
    assert_eq!(left, 0, "spilled runs and merges are cleaned away");
    run
}

fn source(run: &Run, partition: u32, origin: u32) -> Source {
    let segment = run.segment(partition).expect("an index entry");
    let file = run.file().clone();
    let bytes = SourceBytes::File { file, offset: segment.offset, length: segment.length };
    Source { bytes, origin: Some(origin) }
}

fn read_all(merge: &mut Merge) -> Result<Vec<Record>, TaskError> {
    let mut records = Vec::new();
    while let Some((key, value)) = merge.peek() {
        records.push((key.to_vec(), value.to_vec()));
        merge.advance()?;
    }
    Ok(records)
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let key = prop_oneof![
        prop::collection::vec(0_u8..3, 0..12),
        "[ab]{0,10}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..40),
    ];
    prop::collection::vec((key, prop::collection::vec(any::<u8>(), 0..20)), 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_shuffle_is_a_stable_sort_of_each_partition(
        maps in prop::collection::vec(records(), 1..5),
        partitions in 1_u32..5,
        sort_bytes in 1_usize..2000,
        ways in 2_usize..5,
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let runs: Vec<Run> = maps
            .iter()
            .map(|records| collect(records, partitions, None, tiny(sort_bytes, ways), &folder))
            .collect();
        for partition in 0..partitions {
            let sources = (0_u32..).zip(&runs).map(|(map, run)| source(run, partition, map));
            let sources = merge_passes(sources.collect(), ways, folder.path(), &Stop::default()).expect("passes");
            let mut merge = Merge::open(sources, 0, Stop::default()).expect("open sources");
            let merged = read_all(&mut merge).expect("whole sources");
            let mut expected: Vec<Record> = maps.iter().flatten().cloned().collect();
            expected.retain(|(key, _)| partition_of(key, partitions) == partition);
            expected.sort_by(|a, b| a.0.cmp(&b.0));
            prop_assert_eq!(merged, expected);
        }
    }

    #[test]
    fn sums_survive_any_number_of_spills_and_merges(
        counts in prop::collection::vec(("[a-d]{1,3}", 1_u64..1000), 0..300),
        sort_bytes in 1_usize..500,
        ways in 2_usize..4,
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut expected = BTreeMap::new();
        let mut records = Vec::new();
        for (word, count) in &counts {
            *expected.entry(word.clone().into_bytes()).or_insert(0) += count;
            let mut value = Vec::new();
            encode_count(&mut value, *count);
            records.push((word.clone().into_bytes(), value));
        }
        let run =
            collect(&records, 3, Some(Box::new(SumCombiner)), tiny(sort_bytes, ways), &folder);
        let mut sums = BTreeMap::new();
        for partition in 0..3 {
            let mut merge =
                Merge::open(vec![source(&run, partition, 0)], 0, Stop::default()).expect("an open source");
            for (key, value) in read_all(&mut merge).expect("a whole source") {
                let count = decode_count(&value).expect("a count");
                prop_assert!(sums.insert(key, count).is_none(), "a key came twice");
            }
        }
        prop_assert_eq!(sums, expected);
    }

    #[test]
    fn damage_is_an_error_and_never_other_records(
        records in records(),
        position in any::<prop::sample::Index>(),
        bit in 0_u8..8,
        truncate in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let run = collect(&records, 2, None, tiny(300, 3), &folder);
        let intact: Vec<_> = (0..2).map(|p| read_partition(&run, p).expect("intact")).collect();
        let path = run.path().to_owned();
        let mut bytes = std::fs::read(&path).expect("the run's bytes");
        let position = position.index(bytes.len());
        if truncate {
            bytes.truncate(position);
        } else {
            bytes[position] ^= 1 << bit;
        }
        std::fs::write(&path, &bytes).expect("a damaged run");
        let Ok(run) = Run::open(&path) else { return Ok(()) };
        let mut damaged = 0;
        for (partition, intact) in (0..2).zip(intact) {
            match read_partition(&run, partition) {
                Ok(read) => prop_assert_eq!(read, intact),
                Err(_) => damaged += 1,
            }
        }
        prop_assert_eq!(damaged, 1, "one flipped bit is in one place");
    }
}

fn read_partition(run: &Run, partition: u32) -> Result<Vec<Record>, TaskError> {
    let segment = run.segment(partition)?;
    let file = run.file().clone();
    let bytes = SourceBytes::File { file, offset: segment.offset, length: segment.length };
    read_all(&mut Merge::open(vec![Source { bytes, origin: Some(7) }], partition, Stop::default())?)
}

#[test]
fn a_damaged_segment_names_the_map_task_that_made_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let records = vec![(b"key".to_vec(), b"value".to_vec())];
    let run = collect(&records, 1, None, CollectorLimits::default(), &folder);
    let segment = run.segment(0).expect("an index entry");
    let mut bytes = std::fs::read(run.path()).expect("the run's bytes");
    let start = usize::try_from(segment.offset).expect("a small run");
    bytes[start + 13] ^= 1;
    let bytes = bytes::Bytes::from(bytes).slice(start..start + segment.length as usize);
    let source = Source { bytes: SourceBytes::Memory(bytes), origin: Some(3) };
    let error = Merge::open(vec![source], 0, Stop::default()).err().expect("the damage shows");
    assert!(matches!(error, TaskError::Corrupt { origin: Some(3), .. }), "{error}");
}

#[test]
fn records_larger_than_the_buffer_and_than_a_block_pass_through() {
    let folder = tempfile::tempdir().expect("a folder");
    let big = vec![b'x'; 1 << 20];
    let records =
        vec![(b"b".to_vec(), big.clone()), (big.clone(), b"a".to_vec()), (Vec::new(), Vec::new())];
    let run = collect(&records, 1, None, tiny(100, 2), &folder);
    let expected =
        vec![(Vec::new(), Vec::new()), (b"b".to_vec(), big.clone()), (big, b"a".to_vec())];
    assert_eq!(read_partition(&run, 0).expect("a whole run"), expected);
}

#[test]
fn a_record_beyond_the_bound_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut collector =
        Collector::new(1, None, folder.path(), CollectorLimits::default(), Stop::default());
    let error = collector.emit(&vec![0; (16 << 20) + 1], b"").expect_err("it is too long");
    assert!(matches!(error, TaskError::RecordTooLong { .. }));
}
