//! A snapshot that `etcdctl snapshot save` 3.4.23 made of a store with a few keys.

use super::read;

const SNAPSHOT: &[u8] = include_bytes!("../data/etcd-3.4-snapshot.db");

#[test]
fn every_bucket_of_a_real_etcd_is_read() {
    let buckets = read(SNAPSHOT).unwrap();
    let names: Vec<&str> = buckets.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "alarm",
            "auth",
            "authRoles",
            "authUsers",
            "cluster",
            "key",
            "lease",
            "members",
            "members_removed",
            "meta"
        ]
    );
    let counts: Vec<usize> = buckets.iter().map(|(_, pairs)| pairs.len()).collect();
    // The keys span several leaves, one of which overflows its page. The small buckets are inline.
    assert_eq!(counts, [0, 1, 1, 1, 1, 111, 2, 1, 0, 3]);
    let (_, keys) = &buckets[5];
    let large = keys.iter().find(|(_, value)| value.len() > 5000).expect("a large value");
    assert_eq!(large.0, b"\0\0\0\0\0\0\0\x0b_\0\0\0\0\0\0\0\0");
    assert_eq!(large.1.iter().filter(|byte| **byte == b'z').count(), 5000);
}

#[test]
fn what_stands_behind_the_pages_is_not_part_of_them() {
    let database = onefold_bbolt::Database::open(SNAPSHOT.to_vec()).unwrap();
    assert!(database.bytes() <= SNAPSHOT.len() as u64 - 32);
}
