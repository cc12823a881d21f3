//! Files made here and by a real etcd, whole and damaged.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod damage;
mod etcd;
mod trees;

use std::io::Cursor;

use onefold_bbolt::{BoltError, Database, Entry, Writer};

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// A file with these buckets.
fn written(buckets: &[(&str, Pairs)]) -> Vec<u8> {
    let mut writer = Writer::new(Cursor::new(Vec::new())).unwrap();
    for (name, pairs) in buckets {
        let mut bucket = writer.bucket(name.as_bytes());
        for (key, value) in pairs {
            bucket.put(key, value).unwrap();
        }
        bucket.finish().unwrap();
    }
    let (bytes, file) = writer.finish().unwrap();
    let file = file.into_inner();
    assert_eq!(file.len() as u64, bytes);
    file
}

/// All pairs of all buckets, those of a bucket within another one too.
fn read(file: &[u8]) -> Result<Vec<(String, Pairs)>, BoltError> {
    let database = Database::open(file.to_vec())?;
    let mut buckets = Vec::new();
    for entry in database.entries(&database.root()) {
        let Entry::Bucket { name, bucket } = entry? else { continue };
        let mut pairs = Pairs::new();
        for entry in database.entries(&bucket) {
            if let Entry::Pair { key, value } = entry? {
                pairs.push((key.to_vec(), value.to_vec()));
            }
        }
        buckets.push((String::from_utf8_lossy(&name).into_owned(), pairs));
    }
    Ok(buckets)
}

/// A tree of three levels: so many pairs, every hundredth of which overflows its page.
fn tall() -> Vec<u8> {
    let pair = |at: u32| {
        let value = vec![b'v'; if at.is_multiple_of(100) { 9000 } else { 30 }];
        (format!("key {at:012}").into_bytes(), value)
    };
    written(&[("empty", Pairs::new()), ("tall", (0..12_000).map(pair).collect())])
}
