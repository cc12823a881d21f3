//! What is written is read back.

use std::io::Cursor;

use onefold_bbolt::{BoltError, Writer};
use proptest::prelude::*;

use super::{Pairs, read, tall, written};

#[test]
fn a_tall_tree_is_read_back() {
    let buckets = read(&tall()).unwrap();
    assert_eq!(buckets[0], ("empty".to_owned(), Pairs::new()));
    let (name, pairs) = &buckets[1];
    assert_eq!((name.as_str(), pairs.len()), ("tall", 12_000));
    assert!(pairs.is_sorted());
    assert_eq!(pairs[300].1.len(), 9000);
    assert_eq!(pairs[301].1.len(), 30);
}

#[test]
fn no_branch_has_only_one_child() {
    // Leaves of one pair each, so that every number of children occurs, around each full branch.
    for leaves in (1_u32..20).chain(110..400).chain([20_000]) {
        let pair = |at: u32| (format!("{at:017}").into_bytes(), vec![0; 4000]);
        let file = written(&[("b", (0..leaves).map(pair).collect())]);
        let mut branches = 0;
        for page in file.chunks(4096) {
            let (flags, count) = (page[8], u16::from_le_bytes([page[10], page[11]]));
            if flags == 1 {
                branches += 1;
                assert!(count >= 2, "a branch with {count} of {leaves} leaves");
            }
        }
        assert_eq!(branches > 0, leaves > 1, "{leaves} leaves");
        assert_eq!(read(&file).unwrap()[0].1.len(), leaves as usize);
    }
}

#[test]
fn pairs_that_a_file_cannot_hold_are_refused() {
    let mut writer = Writer::new(Cursor::new(Vec::new())).unwrap();
    let mut bucket = writer.bucket(b"b");
    bucket.put(b"k", b"").unwrap();
    for key in [&b""[..], b"a", b"k", &[b'x'; 40_000]] {
        let refused = bucket.put(key, b"");
        assert!(matches!(refused, Err(BoltError::BadPair(_))), "{} bytes", key.len());
    }
    bucket.put(b"l", b"").unwrap();
}

proptest! {
    #[test]
    fn any_pairs_are_read_back(
        keys in prop::collection::btree_map(
            prop::collection::vec(any::<u8>(), 1..600),
            prop::collection::vec(any::<u8>(), 0..6000),
            0..120,
        ),
        buckets in 1_usize..4,
    ) {
        let pairs: Pairs = keys.into_iter().collect();
        let names = ["a", "b", "c"];
        let buckets: Vec<_> = names[..buckets].iter().map(|name| (*name, pairs.clone())).collect();
        let found = read(&written(&buckets)).unwrap();
        let expected: Vec<_> =
            buckets.into_iter().map(|(name, pairs)| (name.to_owned(), pairs)).collect();
        prop_assert_eq!(found, expected);
    }
}
