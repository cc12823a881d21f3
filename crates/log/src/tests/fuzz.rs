//! Segments whose checksums are right and whose contents are anything: what a bug, and no disk,
//! could have written. Reading them must end in an error or in a state, and in nothing else.

use std::fs;

use bytes::Bytes;
use onefold_types::{GroupId, LogIndex, NodeId, Term};
use proptest::prelude::*;

use super::OPTIONS;
use crate::format::{
    BatchWriter, EntryRecord, Origin, Record, SEGMENT_HEADER_BYTES, SegmentHeader,
};
use crate::manifest::Manifest;
use crate::recovery::recover;
use crate::segment::segment_path;
use crate::types::HardState;

/// A record as plain numbers: kind, group, two numbers, a payload's length.
type Plain = (u8, u64, u64, u64, usize);

fn numbers() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..6_u64, 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1), 1 => any::<u64>()]
}

fn record(plain: Plain, payload: &[u8]) -> Record<'_> {
    let (kind, group, first, second, bytes) = plain;
    let (group, index, term) = (GroupId(group), LogIndex(first), Term(second));
    let payload = &payload[..bytes];
    let entry = EntryRecord { term, index, kind, payload };
    match kind % 6 {
        0 => {
            let vote = Some(NodeId(first)).filter(|_| first % 2 == 0);
            Record::HardState { group, state: HardState { term, vote, commit: index } }
        }
        1 => Record::CarriedEntry { group, entry },
        2 => Record::Truncate { group, from: index },
        3 => Record::SnapshotMark { group, index, term, data: payload },
        4 if bytes % 4 == 0 => Record::RemoveGroup { group },
        _ => Record::Entry { group, entry },
    }
}

/// Writes a log of one segment that holds these batches, and perhaps bytes instead of a last one.
fn read(batches: &[Vec<Plain>], noise: Option<&[u8]>) -> Result<(), crate::LogError> {
    let folder = tempfile::tempdir().unwrap();
    let owner = OPTIONS.owner;
    let manifest = Manifest { owner, oldest: 1, newest: 1 }.write(folder.path())?;
    let payload = Bytes::from(vec![0; 2000]);
    let mut writer = BatchWriter::default();
    let origin = Origin { owner, segment: 1 };
    let mut number = 0;
    for batch in batches {
        number += 1;
        let records = batch.iter().map(|plain| record(*plain, &payload));
        writer.push(origin, SEGMENT_HEADER_BYTES as u64, (number, number - 1), records, |_, _| {});
    }
    let mut bytes = writer.bytes().to_vec();
    bytes.extend(noise.unwrap_or_default());
    let file_bytes = (SEGMENT_HEADER_BYTES + bytes.len() + 512) as u64;
    let header = SegmentHeader { owner, segment: 1, first_batch: 1, file_bytes };
    let mut file = header.encode().to_vec();
    file.extend(bytes);
    file.resize(usize::try_from(file_bytes).unwrap(), 0);
    fs::write(segment_path(folder.path(), 1), file).unwrap();
    recover(folder.path(), manifest).map(|_| ())
}

#[test]
fn an_entry_before_the_newest_mark_is_refused_even_if_an_older_mark_follows_it() {
    let batches = [vec![(3, 0, 9, 0, 0)], vec![(5, 0, 1, 0, 100)], vec![(3, 0, 1, 0, 0)]];
    assert!(read(&batches, None).is_err(), "it is no log that anybody wrote");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_records_with_right_checksums_are_read_or_refused(
        batches in prop::collection::vec(
            prop::collection::vec((any::<u8>(), 0..3_u64, numbers(), numbers(), 0..2000_usize), 0..6),
            0..8,
        ),
    ) {
        // Either is right; what is asked for is that it ends.
        let _ = read(&batches, None);
    }

    #[test]
    fn any_bytes_behind_the_batches_are_refused_or_cut(
        noise in prop::collection::vec(any::<u8>(), 1..3000),
        zeros in 0..700_usize,
    ) {
        let batches = [vec![(5, 1, 1, 1, 100)]];
        let noise = [vec![0; zeros], noise].concat();
        let outcome = read(&batches, Some(&noise));
        let looks_like_a_header = noise.iter().take(32).any(|&byte| byte != 0);
        prop_assert_eq!(outcome.is_err(), looks_like_a_header);
    }
}
