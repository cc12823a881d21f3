//! Replicas on disk: what survives crashes, and that damage is always found.
#![allow(clippy::unwrap_used)]

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use onefold_types::{ChunkId, ChunkVersion, ClusterId, NodeId};
use proptest::prelude::*;

use super::error::ChunkError;
use super::file::{ChunkFile, Identity};
use super::folder::StoreError;
use super::format::{DATA_AT, SLOT_AT};
use super::store::ChunkStore;

const CHUNK: ChunkId = ChunkId(7);
const V1: ChunkVersion = ChunkVersion(1);
const IDENTITY: Identity = Identity { chunk: CHUNK, cluster: ClusterId(42), node: NodeId(1) };

fn bytes(length: usize, seed: u8) -> Bytes {
    let mut state = u64::from(seed) + 1;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(next).collect::<Vec<u8>>().into()
}

/// A replica with these appends; answers its content and its file after each of them.
fn written(path: &Path, lengths: &[usize]) -> (Vec<u8>, Vec<(usize, Vec<u8>)>) {
    let file = ChunkFile::create(IDENTITY, path, V1).unwrap();
    let (mut content, mut states) = (Vec::new(), Vec::new());
    for (place, length) in lengths.iter().enumerate() {
        let piece = bytes(*length, place as u8);
        let half = piece.len() / 2;
        file.append(V1, &[piece.slice(..half), piece.slice(half..)]).unwrap();
        content.extend_from_slice(&piece);
        states.push((content.len(), std::fs::read(path).unwrap()));
    }
    (content, states)
}

fn read_all(file: &ChunkFile) -> Result<Bytes, ChunkError> {
    file.read(0, file.summary().length as usize)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_range_reads_back_before_and_after_reopening(
        lengths in prop::collection::vec(1_usize..200_000, 1..6),
        at in 0.0..1.0_f64,
        to in 0.0..1.0_f64,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let (content, _) = written(&path, &lengths);
        let start = (at * content.len() as f64) as usize;
        let length = (to * (content.len() - start) as f64) as usize;
        let file = ChunkFile::open(IDENTITY, &path).unwrap();
        let read = file.read(start as u64, length).unwrap();
        prop_assert_eq!(&read[..], &content[start..start + length]);
        let more = bytes(100_000, 99);
        file.append(V1, std::slice::from_ref(&more)).unwrap();
        drop(file);
        let file = ChunkFile::open(IDENTITY, &path).unwrap();
        prop_assert_eq!(read_all(&file).unwrap(), [&content[..], &more].concat());
        let past = file.read(content.len() as u64, more.len() + 1);
        let refused = matches!(past, Err(ChunkError::OutOfRange { .. }));
        prop_assert!(refused);
    }

    /// A crash during the last append: any part of what it wrote may be on disk.
    #[test]
    fn a_torn_append_never_damages_what_was_acknowledged(
        lengths in prop::collection::vec(1_usize..150_000, 2..5),
        kept in any::<u64>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let (content, states) = written(&path, &lengths);
        let [.., (acknowledged, before), (_, after)] = &states[..] else { panic!("two") };
        // Sectors of 512 bytes go to disk or not, each on its own.
        let mut torn = before.clone();
        torn.resize(after.len(), 0);
        for (place, sector) in after.chunks(512).enumerate() {
            if (kept.rotate_left(place as u32 * 7)) & 1 == 1 {
                torn[place * 512..place * 512 + sector.len()].copy_from_slice(sector);
            }
        }
        std::fs::write(&path, torn).unwrap();
        let file = ChunkFile::open(IDENTITY, &path).unwrap();
        let read = read_all(&file).unwrap();
        prop_assert!(read.len() >= *acknowledged);
        prop_assert_eq!(&read[..], &content[..read.len()]);
    }

    #[test]
    fn a_flipped_bit_is_found(
        length in 1_usize..200_000,
        place in any::<prop::sample::Index>(),
        bit in 0..8,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let (content, _) = written(&path, &[length]);
        ChunkFile::open(IDENTITY, &path).unwrap().seal(ChunkVersion(2), length as u64).unwrap();
        let mut damaged = std::fs::read(&path).unwrap();
        let place = place.index(damaged.len());
        damaged[place] ^= 1_u8 << bit;
        std::fs::write(&path, damaged).unwrap();
        let read = ChunkFile::open(IDENTITY, &path).and_then(|file| read_all(&file));
        match read {
            Err(ChunkError::Corrupt { chunk, node, .. }) => {
                prop_assert_eq!((chunk, node), (CHUNK, NodeId(1)));
            }
            Err(other) => prop_assert!(false, "{}", other),
            // The bit was in a place that nothing relies on, or in the slot before the seal's.
            Ok(read) => {
                prop_assert_eq!(&read[..], &content[..]);
                prop_assert!(place < DATA_AT as usize);
            }
        }
    }
}

#[test]
fn a_damaged_newest_slot_falls_back_to_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    let (content, _) = written(&path, &[10, 20]);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    // Creation wrote slot A, the appends B and A.
    file.write_all_at(&[0xff; 8], SLOT_AT[0]).unwrap();
    let opened = ChunkFile::open(IDENTITY, &path).unwrap();
    assert_eq!(read_all(&opened).unwrap(), &content[..10]);
    file.write_all_at(&[0xff; 8], SLOT_AT[1]).unwrap();
    assert!(matches!(ChunkFile::open(IDENTITY, &path), Err(ChunkError::Corrupt { .. })));
}

#[test]
fn a_seal_cuts_and_ends_the_replica() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    let (content, _) = written(&path, &[70_000, 70_000]);
    let file = ChunkFile::open(IDENTITY, &path).unwrap();
    let too_long = file.seal(ChunkVersion(2), 140_001);
    assert!(matches!(too_long, Err(ChunkError::OutOfRange { .. })));
    file.seal(ChunkVersion(2), 100_000).unwrap();
    let refused = file.append(ChunkVersion(2), &[bytes(1, 0)]);
    assert!(matches!(refused, Err(ChunkError::NotWritable { .. })));
    drop(file);
    let file = ChunkFile::open(IDENTITY, &path).unwrap();
    let summary = file.summary();
    assert_eq!((summary.length, summary.sealed), (100_000, true));
    assert_eq!(read_all(&file).unwrap(), &content[..100_000]);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), DATA_AT + 100_000);
}

#[test]
fn a_replica_of_another_cluster_or_chunk_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    written(&path, &[10]);
    let other_cluster = Identity { cluster: ClusterId(43), ..IDENTITY };
    let other_chunk = Identity { chunk: ChunkId(8), ..IDENTITY };
    for identity in [other_cluster, other_chunk] {
        let Err(ChunkError::Foreign { reason, .. }) = ChunkFile::open(identity, &path) else {
            panic!("it was opened")
        };
        assert!(reason.contains("cluster") || reason.contains("chunk 7"), "{reason}");
    }
    std::fs::write(&path, b"something else").unwrap();
    assert!(matches!(ChunkFile::open(IDENTITY, &path), Err(ChunkError::Corrupt { .. })));
}

fn open(folder: &Path) -> Result<ChunkStore, StoreError> {
    ChunkStore::open(folder, ClusterId(42), NodeId(1))
}

fn file_of(folder: &Path, chunk: ChunkId) -> PathBuf {
    folder.join(format!("{:016x}.chunk", chunk.0))
}

async fn append(store: &ChunkStore, data: Bytes) -> Result<u64, ChunkError> {
    let (offset, done) = store.order(CHUNK, V1, data)?;
    done.await.unwrap()?;
    Ok(offset)
}

#[tokio::test]
async fn concurrent_appends_each_get_their_own_place() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    store.create(CHUNK, V1).await.unwrap();
    let appends = (0..64_u8).map(|seed| append(&store, bytes(1000, seed)));
    let offsets = futures::future::try_join_all(appends).await.unwrap();
    for (seed, offset) in offsets.into_iter().enumerate() {
        let read = store.read(CHUNK, V1, offset, 1000).await.unwrap();
        assert_eq!(read, bytes(1000, seed as u8));
    }
    assert_eq!(store.used(), (1, 64_000));
}

#[tokio::test]
async fn a_fenced_replica_acknowledges_nothing_under_the_old_version() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    store.create(CHUNK, V1).await.unwrap();
    append(&store, bytes(10, 0)).await.unwrap();
    let report = store.fence(CHUNK, ChunkVersion(2)).await.unwrap();
    assert_eq!((report.length, report.version), (10, ChunkVersion(2)));
    assert!(append(&store, bytes(10, 1)).await.is_err());
    let old = store.read(CHUNK, ChunkVersion(3), 0, 10).await;
    assert!(matches!(old, Err(ChunkError::Stale { .. })));
    store.seal(CHUNK, ChunkVersion(2), 10).await.unwrap();
    assert_eq!(store.read(CHUNK, ChunkVersion(2), 0, 10).await.unwrap(), bytes(10, 0));
}

/// Whatever is acknowledged while a fence comes lies within what the fence reports.
#[tokio::test(flavor = "multi_thread")]
async fn no_append_slips_past_a_fence() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    for chunk in (0..200).map(ChunkId) {
        store.create(chunk, V1).await.unwrap();
        let appends = (0..8_u8).map(|seed| {
            let store = store.clone();
            tokio::spawn(async move {
                let (offset, done) = store.order(chunk, V1, bytes(100, seed))?;
                done.await.unwrap()?;
                Ok::<_, ChunkError>(offset + 100)
            })
        });
        let appends: Vec<_> = appends.collect();
        for _ in 0..chunk.0 % 8 {
            tokio::task::yield_now().await;
        }
        let fenced = store.fence(chunk, ChunkVersion(2)).await.unwrap();
        let results = futures::future::join_all(appends).await;
        for end in results.into_iter().filter_map(|result| result.unwrap().ok()) {
            assert!(end <= fenced.length, "{end} was acknowledged, the fence says {fenced:?}");
        }
        assert_eq!(store.stat(chunk).unwrap().length, fenced.length);
    }
}

#[tokio::test]
async fn a_restarted_node_serves_its_replicas_and_takes_no_old_appends() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    store.create(CHUNK, V1).await.unwrap();
    append(&store, bytes(100_000, 0)).await.unwrap();
    drop(store);
    let store = open(folder.path()).unwrap();
    assert_eq!(store.read(CHUNK, V1, 0, 100_000).await.unwrap(), bytes(100_000, 0));
    assert!(append(&store, bytes(10, 1)).await.is_err());
    assert_eq!(store.fence(CHUNK, ChunkVersion(2)).await.unwrap().length, 100_000);
}

#[tokio::test]
async fn damage_is_reported_and_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    store.create(CHUNK, V1).await.unwrap();
    append(&store, bytes(200_000, 0)).await.unwrap();
    store.fence(CHUNK, ChunkVersion(2)).await.unwrap();
    store.seal(CHUNK, ChunkVersion(2), 200_000).await.unwrap();
    let path = file_of(folder.path(), CHUNK);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"!", DATA_AT + 100_000).unwrap();
    let v2 = ChunkVersion(2);
    assert_eq!(store.read(CHUNK, v2, 0, 10).await.unwrap(), bytes(200_000, 0)[..10]);
    let read = store.read(CHUNK, v2, 99_000, 10_000).await;
    assert!(matches!(read, Err(ChunkError::Corrupt { chunk: CHUNK, node: NodeId(1), .. })));
    let damaged = store.damaged(10);
    assert!(matches!(&damaged[..], [report] if report.damaged && report.chunk == CHUNK));
    drop(store);
    let store = open(folder.path()).unwrap();
    assert!(store.stat(CHUNK).unwrap().damaged);
    store.delete(CHUNK).await.unwrap();
    assert!(!path.exists() && store.stat(CHUNK).is_none());
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_kept_aside_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    store.create(CHUNK, V1).await.unwrap();
    append(&store, bytes(100, 0)).await.unwrap();
    drop(store);
    let path = file_of(folder.path(), CHUNK);
    OpenOptions::new().write(true).open(&path).unwrap().set_len(5000).unwrap();
    std::fs::write(folder.path().join("0000000000000009.new"), b"").unwrap();
    for _ in 0..2 {
        let store = open(folder.path()).unwrap();
        assert!(store.damaged(10)[0].damaged);
        assert!(path.with_extension("damaged").exists());
    }
    assert!(!folder.path().join("0000000000000009.new").exists());
}

#[tokio::test]
async fn a_file_that_is_not_damaged_but_cannot_be_opened_refuses_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    store.create(CHUNK, V1).await.unwrap();
    append(&store, bytes(100, 0)).await.unwrap();
    drop(store);
    let path = file_of(folder.path(), CHUNK);
    let whole = std::fs::read(&path).unwrap();
    let mut newer = whole.clone();
    newer[8..12].copy_from_slice(&2_u32.to_le_bytes());
    let checksum = super::format::crc32c(&newer[..32]);
    newer[32..36].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(&path, newer).unwrap();
    let refused = open(folder.path()).err();
    assert!(matches!(refused, Some(StoreError::Chunk(ChunkError::Foreign { .. }))));
    // Opening a folder as a file fails as a broken disk does.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let refused = open(folder.path()).err();
    assert!(matches!(refused, Some(StoreError::Chunk(ChunkError::Io { .. }))));
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, whole).unwrap();
    let store = open(folder.path()).unwrap();
    assert_eq!(store.read(CHUNK, V1, 0, 100).await.unwrap(), bytes(100, 0));
}

#[tokio::test]
async fn a_replica_that_was_set_aside_is_tried_again_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    store.create(CHUNK, V1).await.unwrap();
    append(&store, bytes(100, 0)).await.unwrap();
    drop(store);
    let path = file_of(folder.path(), CHUNK);
    std::fs::rename(&path, path.with_extension("damaged")).unwrap();
    let store = open(folder.path()).unwrap();
    assert!(!store.stat(CHUNK).unwrap().damaged);
    assert_eq!(store.read(CHUNK, V1, 0, 100).await.unwrap(), bytes(100, 0));
    assert!(path.exists() && !path.with_extension("damaged").exists());
}

#[tokio::test]
async fn a_folder_of_another_cluster_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).unwrap();
    let other = ChunkStore::open(folder.path(), ClusterId(43), NodeId(1));
    assert!(matches!(other, Err(StoreError::OtherCluster { .. })));
    std::fs::remove_file(folder.path().join("chunks.format")).unwrap();
    std::fs::write(folder.path().join("x"), b"").unwrap();
    assert!(matches!(open(folder.path()), Err(StoreError::Foreign { .. })));
    std::fs::write(folder.path().join("chunks.format"), "onefold chunks 2\n").unwrap();
    assert!(matches!(open(folder.path()), Err(StoreError::Newer { .. })));
}
