//! The log through its public interface, with its thread.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use onefold_log::{HardState, Log, LogError, LogOptions, SnapshotMark, Write};
use onefold_types::{GroupId, LogIndex, NodeId, Term};

const SMALL: LogOptions = LogOptions {
    segment_bytes: 16 << 10,
    retained_bytes: 64 << 10,
    queue_bytes: 64 << 10,
    owner: 7,
    must_exist: false,
};

fn entry(group: u64, index: u64) -> Write {
    Write::Entry {
        group: GroupId(group),
        term: Term(1),
        index: LogIndex(index),
        kind: 2,
        payload: Bytes::from(format!("command {index} of group {group}")),
    }
}

/// Appends and waits until that is durable.
fn append(log: &Log, writes: Vec<Write>) -> Result<(), LogError> {
    let (sender, receiver) = mpsc::channel();
    log.append(writes, Box::new(move |outcome| sender.send(outcome).unwrap()))?;
    receiver.recv().unwrap()
}

fn indexes(state: &onefold_log::GroupState) -> Vec<u64> {
    state.entries.iter().map(|entry| entry.index.get()).collect()
}

#[test]
fn everything_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let (log, recovered) = Log::open(&path, LogOptions::default()).unwrap();
    assert!(recovered.is_empty());
    let (one, two, three) = (GroupId(1), GroupId(2), GroupId(3));
    let (term, vote, commit) = (Term(3), Some(NodeId(2)), LogIndex(4));
    append(&log, (1..=6).map(|index| entry(1, index)).collect()).unwrap();
    append(&log, vec![Write::HardState { group: one, term, vote, commit }, entry(2, 1)]).unwrap();
    append(&log, vec![entry(1, 5), Write::Truncate { group: two, from: LogIndex(1) }]).unwrap();
    append(&log, vec![entry(3, 1), Write::RemoveGroup { group: three }]).unwrap();
    log.compact(one, LogIndex(2), Term(1), Bytes::from_static(b"members")).unwrap();
    log.close();
    let (_log, recovered) = Log::open(&path, LogOptions::default()).unwrap();
    assert_eq!(recovered.keys().collect::<Vec<_>>(), [&one]);
    let state = &recovered[&one];
    assert_eq!(state.hard_state, Some(HardState { term, vote, commit }));
    let mark = SnapshotMark { index: LogIndex(2), term: Term(1), data: Bytes::from("members") };
    assert_eq!(state.snapshot, Some(mark));
    assert_eq!(indexes(state), [3, 4, 5]);
    assert_eq!(state.entries[0].payload, "command 3 of group 1");
    assert_eq!(state.entries[0].kind, 2);
}

#[test]
fn groups_append_at_the_same_time_and_share_syncs() {
    const GROUPS: u64 = 8;
    const ENTRIES: u64 = 300;
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(folder.path(), SMALL).unwrap();
    let durable = Arc::new(AtomicU64::new(0));
    std::thread::scope(|scope| {
        for group in 1..=GROUPS {
            let (log, durable) = (&log, &durable);
            scope.spawn(move || {
                for index in 1..=ENTRIES {
                    let durable = durable.clone();
                    let done = move |outcome: Result<(), LogError>| {
                        outcome.unwrap();
                        durable.fetch_add(1, Ordering::Relaxed);
                    };
                    log.append(vec![entry(group, index)], Box::new(done)).unwrap();
                }
            });
        }
    });
    log.sync_barrier().unwrap();
    assert_eq!(durable.load(Ordering::Relaxed), GROUPS * ENTRIES);
    let status = log.status();
    assert_eq!(status.appends, GROUPS * ENTRIES + 1);
    assert!(status.fsyncs < status.appends, "{status:?}");
    assert!(status.segments > 1 && !status.is_poisoned, "{status:?}");
    drop(log);
    let (_log, recovered) = Log::open(folder.path(), SMALL).unwrap();
    for group in 1..=GROUPS {
        assert_eq!(indexes(&recovered[&GroupId(group)]), (1..=ENTRIES).collect::<Vec<_>>());
    }
}

#[test]
fn an_append_larger_than_a_segment_and_the_queue_gets_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(folder.path(), SMALL).unwrap();
    let payload = Bytes::from(vec![7; 300 << 10]);
    let (group, term, index) = (GroupId(1), Term(1), LogIndex(2));
    append(&log, vec![entry(1, 1)]).unwrap();
    let large = Write::Entry { group, term, index, kind: 0, payload: payload.clone() };
    append(&log, vec![large]).unwrap();
    append(&log, vec![entry(1, 3)]).unwrap();
    drop(log);
    let (_log, recovered) = Log::open(folder.path(), SMALL).unwrap();
    assert_eq!(indexes(&recovered[&group]), [1, 2, 3]);
    assert_eq!(recovered[&group].entries[1].payload, payload);
}

#[test]
fn a_closed_log_refuses_appends_and_lets_go_of_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(folder.path(), SMALL).unwrap();
    assert!(matches!(Log::open(folder.path(), SMALL), Err(LogError::InUse(_))));
    log.close();
    assert!(matches!(append(&log, vec![entry(1, 1)]), Err(LogError::Closed)));
    assert!(Log::open(folder.path(), SMALL).is_ok());
}

#[test]
fn the_last_handle_may_be_dropped_by_done() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(folder.path(), SMALL).unwrap();
    let (sender, receiver) = mpsc::channel();
    let last = log.clone();
    let done = move |outcome| {
        sender.send(outcome).unwrap();
        drop(last);
    };
    log.append(vec![entry(1, 1)], Box::new(done)).unwrap();
    drop(log);
    receiver.recv().unwrap().unwrap();
}

#[test]
fn opening_and_closing_again_and_again_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(folder.path(), SMALL).unwrap();
    append(&log, vec![entry(1, 1)]).unwrap();
    drop(log);
    let read = || fs::read(folder.path().join("00000000000000000001.log")).unwrap();
    let before = read();
    for _ in 0..5 {
        let (log, recovered) = Log::open(folder.path(), SMALL).unwrap();
        assert_eq!(indexes(&recovered[&GroupId(1)]), [1]);
        log.sync_barrier().unwrap();
    }
    assert_eq!(read(), before);
}

#[test]
fn a_foreign_folder_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.txt"), "mine").unwrap();
    let error = Log::open(folder.path(), SMALL).err().unwrap();
    assert!(matches!(&error, LogError::Foreign(path) if path.ends_with("thesis.txt")), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_foreign_file_among_segments_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(Log::open(folder.path(), SMALL).unwrap());
    fs::write(folder.path().join("7.log"), "mine").unwrap();
    assert!(matches!(Log::open(folder.path(), SMALL), Err(LogError::Foreign(_))));
    assert_eq!(fs::read(folder.path().join("7.log")).unwrap(), b"mine");
}

#[test]
fn segments_without_their_manifest_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(folder.path(), SMALL).unwrap();
    append(&log, vec![entry(1, 1)]).unwrap();
    drop(log);
    fs::remove_file(folder.path().join("manifest")).unwrap();
    assert!(matches!(Log::open(folder.path(), SMALL), Err(LogError::Missing(_))));
}

#[test]
fn a_log_that_is_gone_is_not_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let again = LogOptions { must_exist: true, ..SMALL };
    for _ in 0..2 {
        let error = Log::open(&path, again).err().unwrap();
        assert!(matches!(&error, LogError::Missing(file) if file.ends_with("manifest")), "{error}");
    }
    let (log, _) = Log::open(&path, SMALL).unwrap();
    append(&log, vec![entry(1, 1)]).unwrap();
    drop(log);
    let (_log, recovered) = Log::open(&path, again).unwrap();
    assert_eq!(indexes(&recovered[&GroupId(1)]), [1]);
}

/// Writes another format into a file whose checksum is its last four bytes of `header_bytes`.
fn set_format(path: &Path, header_bytes: usize, format: u32) {
    let mut bytes = fs::read(path).unwrap();
    bytes[8..12].copy_from_slice(&format.to_le_bytes());
    let crc32c = crc_fast::CrcAlgorithm::Crc32Iscsi;
    let checksum = crc_fast::checksum(crc32c, &bytes[..header_bytes - 4]) as u32;
    bytes[header_bytes - 4..header_bytes].copy_from_slice(&checksum.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn another_format_is_refused_by_its_number() {
    for (file, header_bytes) in [("manifest", 40), ("00000000000000000001.log", 64)] {
        let folder = tempfile::tempdir().unwrap();
        let (log, _) = Log::open(folder.path(), SMALL).unwrap();
        append(&log, vec![entry(1, 1)]).unwrap();
        drop(log);
        set_format(&folder.path().join(file), header_bytes, 9);
        let error = Log::open(folder.path(), SMALL).err().unwrap();
        assert!(matches!(error, LogError::OtherFormat { found: 9, .. }), "{error}");
    }
}

#[test]
fn the_manifest_of_the_first_format_is_refused_by_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manifest");
    let mut bytes = b"OFLOGMAN".to_vec();
    bytes.extend([1, 0, 0, 0]);
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    fs::write(&path, &bytes).unwrap();
    set_format(&path, 32, 1);
    let error = Log::open(folder.path(), SMALL).err().unwrap();
    assert!(matches!(error, LogError::OtherFormat { found: 1, .. }), "{error}");
}

#[test]
fn a_quiet_log_makes_its_confirmation_durable_once() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(folder.path(), SMALL).unwrap();
    append(&log, vec![entry(1, 1)]).unwrap();
    let give_up = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while log.status().fsyncs < 2 {
        assert!(std::time::Instant::now() < give_up, "{:?}", log.status());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    drop(log);
    let (log, _) = Log::open(folder.path(), SMALL).unwrap();
    log.sync_barrier().unwrap();
    assert_eq!(log.status().fsyncs, 0, "nothing was appended, so there is nothing to confirm");
}
