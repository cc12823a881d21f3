//! The Snapshot call, and files of a real etcd.

use std::path::{Path, PathBuf};

use onefold_etcd::proto::etcdserverpb::{LeaseGrantRequest, PutRequest, SnapshotRequest};
use onefold_etcd::snapshot::{EtcdFile, SnapshotError, VersionRecord};
use onefold_kv::LeaseId;
use onefold_types::Revision;

use crate::fixture::{Node, bytes, revision};

fn real() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../bbolt/tests/data/etcd-3.4-snapshot.db")
}

/// Saves a snapshot as clients do, checking what the messages say.
async fn save(node: &Node, path: &Path) -> Vec<u8> {
    let mut stream =
        node.maintenance().snapshot(SnapshotRequest {}).await.expect("a snapshot").into_inner();
    let mut file = Vec::new();
    let mut remaining = None;
    while let Some(piece) = stream.message().await.expect("it ends well") {
        assert!(revision(&piece.header) > 0);
        assert_eq!(piece.version, "3.5.0");
        if let Some(remaining) = remaining.filter(|remaining| *remaining > 0) {
            assert_eq!(piece.remaining_bytes, remaining - piece.blob.len() as u64);
        }
        remaining = Some(piece.remaining_bytes);
        file.extend_from_slice(&piece.blob);
    }
    assert_eq!(remaining, Some(0));
    std::fs::write(path, &file).expect("a folder of the test");
    file
}

/// Revision, operation, key, value (none for a deletion).
fn told(record: &VersionRecord) -> (u64, u32, String, Option<String>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let value = (!record.is_deletion).then(|| text(&record.kv.value));
    (record.kv.mod_revision.get(), record.sub, text(&record.kv.key), value)
}

#[tokio::test]
async fn a_snapshot_has_what_stood_at_the_compaction_and_all_that_followed() {
    let node = Node::start().await;
    let lease = LeaseGrantRequest { ttl: 600, id: 77 };
    node.lease().lease_grant(lease).await.expect("a good grant");
    for (key, value) in [("c", "1"), ("b", "1"), ("a", "1"), ("b", "2"), ("gone", "1")] {
        node.put(key, value).await;
    }
    node.delete("gone").await;
    node.compact(7).await;
    let leased = PutRequest { lease: 77, key: bytes("l"), value: bytes("x"), ..Default::default() };
    node.kv().put(leased).await.expect("a good put");
    node.put("a", "2").await;
    assert_eq!(node.delete("c").await, 10);

    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("snapshot.db");
    save(&node, &path).await;
    let file = EtcdFile::open(&path).expect("a good file");
    assert!(file.has_digest());
    let contents = file.examine().expect("a good file");
    assert_eq!((contents.revision, contents.compacted), (Revision(10), Revision(7)));
    assert_eq!(file.leases().expect("a good file"), [(LeaseId(77), 600)]);
    let records: Vec<VersionRecord> =
        file.records().expect("keys").map(|record| record.expect("a good record")).collect();
    let put =
        |revision, key: &str, value: &str| (revision, 0, key.to_owned(), Some(value.to_owned()));
    let deletion = |revision, key: &str| (revision, 0, key.to_owned(), None);
    let expected = [
        put(2, "c", "1"),
        put(4, "a", "1"),
        put(5, "b", "2"),
        deletion(7, "gone"),
        put(8, "l", "x"),
        put(9, "a", "2"),
        deletion(10, "c"),
    ];
    assert!(records.iter().map(told).eq(expected), "{records:?}");
    let leased = records.iter().find(|record| record.kv.lease == LeaseId(77));
    assert_eq!(leased.map(|record| record.kv.version), Some(1));
    let second = records.iter().find(|record| told(record) == put(9, "a", "2"));
    assert_eq!(
        second.map(|record| (record.kv.version, record.kv.create_revision.get())),
        Some((2, 4))
    );
    node.stop().await;
}

#[tokio::test]
async fn an_empty_store_has_a_snapshot_too() {
    let node = Node::start().await;
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("snapshot.db");
    save(&node, &path).await;
    let contents = EtcdFile::open(&path).expect("a good file").examine().expect("a good file");
    assert_eq!((contents.revision, contents.records), (Revision(1), 0));
    node.stop().await;
}

#[test]
fn a_file_of_a_real_etcd_is_read() {
    let file = EtcdFile::open(&real()).expect("a good file");
    assert!(file.has_digest());
    let contents = file.examine().expect("a good file");
    assert_eq!((contents.revision, contents.compacted), (Revision(115), Revision(9)));
    assert_eq!((contents.records, contents.leases), (111, 2));
    assert_eq!((contents.users, contents.roles), (1, 1));
    let records: Vec<VersionRecord> =
        file.records().expect("keys").map(|record| record.expect("a good record")).collect();
    let settled: Vec<_> = records.iter().take(5).map(told).collect();
    let put = |revision, sub, key: &str, value: &str| {
        (revision, sub, key.to_owned(), Some(value.to_owned()))
    };
    assert_eq!(
        settled,
        [
            put(6, 0, "t/1", "one"),
            put(6, 1, "t/2", "two"),
            put(7, 0, "leased", "x"),
            put(8, 0, "a", "again"),
            put(9, 0, "b", "again"),
        ]
    );
    assert_eq!(told(&records[5]), (10, 0, "b".to_owned(), None));
}

#[test]
fn damaged_files_are_refused() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let whole = std::fs::read(real()).expect("the file is there");
    let open = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("a folder of the test");
        EtcdFile::open(&path).and_then(|file| file.examine())
    };
    let mut flipped = whole.clone();
    flipped[20_000] ^= 1;
    assert!(matches!(open("flipped", &flipped), Err(SnapshotError::WrongDigest { .. })));
    let cut = open("cut", &whole[..30_000]);
    assert!(matches!(cut, Err(SnapshotError::Bolt { .. })), "{cut:?}");
    let partial = open("without-the-end", &whole[..whole.len() - 40]);
    assert!(partial.is_err(), "{partial:?}");
    assert!(matches!(open("text", b"no store at all"), Err(SnapshotError::Bolt { .. })));
    assert!(matches!(EtcdFile::open(&folder.path().join("none")), Err(SnapshotError::Io { .. })));
    // A member's own file has no digest.
    let member = open("member", &whole[..whole.len() - 32]).expect("a good file");
    assert_eq!(member.records, 111);
    // A bbolt file of something else.
    let writer = onefold_bbolt::Writer::new(std::io::Cursor::new(Vec::new())).expect("memory");
    let (_, other) = writer.finish().expect("memory");
    let other = open("other", other.get_ref());
    assert!(matches!(other, Err(SnapshotError::NotEtcd { .. })), "{other:?}");
}
