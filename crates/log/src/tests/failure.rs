//! Disks that fail.

use std::fs::File;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use onefold_types::{GroupId, LogIndex, Term};

use super::Driver;
use crate::{LogError, Write};

fn entry(index: u64) -> Vec<Write> {
    let (group, term, payload) = (GroupId(1), Term(1), Bytes::from_static(b"command"));
    vec![Write::Entry { group, term, index: LogIndex(index), kind: 0, payload }]
}

#[test]
fn a_failed_write_fails_everyone_and_is_never_retried() {
    let folder = tempfile::tempdir().unwrap();
    let (mut driver, _) = Driver::open(folder.path()).unwrap();
    driver.serve(vec![entry(1)]);
    let path = crate::segment::segment_path(folder.path(), 1);
    driver.writer.replace_file(File::open(path).unwrap());
    let queue = driver.writer.queue();
    for index in 2..=4 {
        queue.push(driver.pending(entry(index))).unwrap();
    }
    let outcomes = driver.outcomes.clone();
    let unwritten = driver.pending(entry(5));
    driver.writer.run();
    let outcomes = outcomes.lock().unwrap();
    assert_eq!(outcomes.len(), 3);
    for outcome in outcomes.iter() {
        assert!(
            matches!(outcome, Err(LogError::Poisoned(cause)) if matches!(**cause, LogError::Io { .. }))
        );
    }
    assert!(matches!(queue.push(unwritten), Err(LogError::Poisoned(_))));
    let (_, recovered) = Driver::open(folder.path()).unwrap();
    assert_eq!(recovered[&GroupId(1)].entries.len(), 1);
}

#[test]
fn a_full_disk_fails_the_append_and_leaves_the_log_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (mut driver, _) = Driver::open(folder.path()).unwrap();
    driver.serve(vec![entry(1)]);
    let segment_bytes = driver.writer.options.segment_bytes;
    driver.writer.options.segment_bytes = 1 << 43;
    let large = Bytes::from(vec![1; 4000]);
    let (group, term, index) = (GroupId(2), Term(1), LogIndex(1));
    let large = vec![Write::Entry { group, term, index, kind: 0, payload: large }];
    let outcomes = driver.commit(vec![entry(2), large.clone(), entry(3)]);
    assert!(outcomes.iter().filter(|outcome| outcome.is_ok()).count() >= 2);
    let Some(error) = outcomes.into_iter().find_map(Result::err) else {
        // A disk of more than 8 TiB, or one that does not lay files out.
        return;
    };
    assert!(matches!(error, LogError::DiskFull { bytes, .. } if bytes == 1 << 43), "{error}");
    driver.writer.options.segment_bytes = segment_bytes;
    driver.serve(vec![large]);
    drop(driver);
    let (_, recovered) = Driver::open(folder.path()).unwrap();
    assert_eq!(recovered[&GroupId(1)].entries.len(), 3);
    assert_eq!(recovered[&GroupId(2)].entries.len(), 1);
}

#[test]
fn a_panic_of_the_thread_fails_those_who_wait() {
    let folder = tempfile::tempdir().unwrap();
    let (driver, _) = Driver::open(folder.path()).unwrap();
    let queue = driver.writer.queue();
    let mut poisonous = driver.pending(entry(1));
    poisonous.done = Box::new(|_| panic!("an appender that breaks the rules"));
    queue.push(poisonous).unwrap();
    // Too large for the same write, so it still waits in the queue.
    let heard = Arc::new(Mutex::new(None));
    let mut large = driver.pending(entry(2));
    large.bytes = 1 << 40;
    large.done = Box::new({
        let heard = heard.clone();
        move |outcome| *heard.lock().unwrap() = Some(outcome)
    });
    let queue_to_fail = queue.clone();
    let push = std::thread::spawn(move || queue.push(large));
    let ran = std::thread::spawn(move || driver.writer.run()).join();
    assert!(ran.is_err());
    match push.join().unwrap() {
        Ok(()) => assert!(matches!(*heard.lock().unwrap(), Some(Err(LogError::Poisoned(_))))),
        Err(error) => assert!(matches!(error, LogError::Poisoned(_)), "{error}"),
    }
    assert!(queue_to_fail.poisoned().is_some());
}
