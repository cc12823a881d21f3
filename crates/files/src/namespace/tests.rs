//! The namespace against the flat model, and its own bookkeeping after every command.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::FutureExt;
use onefold_table::{KeyRange, MemoryTable, Order, Overlay, Table, TableError, View};
use onefold_types::{ChunkId, ChunkVersion, NodeId, Timestamp};
use proptest::prelude::*;

use super::command::{Command, Reply};
use super::query::Query;
use super::records::{
    BucketRecord, ChunkRecord, ChunkState, Content, Counters, DirectoryId, Entry, Extent,
    PartRecord, decode,
};
use super::versions::{VersionRecord, sequence_of};
use super::{keys, state};
use crate::api::{
    Condition, CopyOptions, CreateOptions, FilePath, FileSystem, FilesError, FinishOptions,
    ListRequest, RemoveCondition, RemoveTarget, Removed, Version, VersionEntry, VersionPage,
    VersionedFiles, Versioning, VersionsRequest,
};
use crate::testing::MemoryFiles;

#[derive(Default)]
struct Store {
    table: MemoryTable,
    time: u64,
}

impl Store {
    fn run(&mut self, command: Command) -> Result<Reply, FilesError> {
        self.time += 1;
        let mut overlay = Overlay::new(&self.table);
        let answer = state::apply(Timestamp(self.time), &mut overlay, &command.encode()).unwrap();
        let batch = overlay.into_batch(b"");
        assert!(answer.is_ok() || batch.is_empty(), "a refused command changes nothing");
        self.table.write(batch).unwrap();
        answer
    }

    fn query(&self) -> Query<'_> {
        Query(&self.table)
    }

    fn allocate(&mut self, nodes: &[u64]) -> ChunkId {
        let replicas = nodes.iter().copied().map(NodeId).collect();
        match self.run(Command::Allocate { replicas, writer: NodeId(nodes[0]) }) {
            Ok(Reply::Chunk { chunk, .. }) => chunk,
            other => panic!("{other:?}"),
        }
    }

    fn seal(
        &mut self,
        chunk: ChunkId,
        length: u64,
        survivors: &[u64],
    ) -> Result<Reply, FilesError> {
        self.run(Command::BeginSeal { chunk })?;
        let survivors = survivors.iter().copied().map(NodeId).collect();
        self.run(Command::FinishSeal { chunk, version: ChunkVersion(2), length, survivors })
    }

    fn chunk(&self, chunk: ChunkId) -> Option<ChunkRecord> {
        self.query().chunk(chunk).unwrap()
    }

    fn put(&mut self, key: &str, content: Content) -> Result<Reply, FilesError> {
        let (bucket, key, etag) = ("bucket".to_owned(), key.to_owned(), "e".to_owned());
        let options = CreateOptions::default();
        self.run(Command::PutFile { bucket, key, content, etag, options })
    }

    fn with_tag<T: for<'de> serde::Deserialize<'de>>(&self, tag: u8) -> Vec<(Bytes, T)> {
        let pairs = self.table.scan(KeyRange::prefix(&[tag]), Order::Ascending);
        pairs
            .map(|pair| pair.map(|(key, value)| (key, decode("", &value).unwrap())))
            .collect::<Result<_, TableError>>()
            .unwrap()
    }

    fn keys_of(&self, tag: u8) -> Vec<Bytes> {
        self.table
            .scan(KeyRange::prefix(&[tag]), Order::Ascending)
            .map(|pair| pair.unwrap().0)
            .collect()
    }

    /// Everything that is kept twice agrees.
    fn check(&self) {
        let mut references: BTreeMap<ChunkId, u64> = BTreeMap::new();
        let mut count = |content: &Content| {
            for extent in content.extents() {
                *references.entry(extent.chunk).or_default() += 1;
            }
        };
        let mut expected = Counters::default();
        let mut known: Vec<DirectoryId> = Vec::new();
        for key in self.keys_of(b'B') {
            let bucket = BucketRecord::decode(&self.table.get(&key).unwrap().unwrap()).unwrap();
            expected.buckets += 1;
            known.push(bucket.root);
        }
        self.check_versions(&mut expected, &mut count);
        let entries: Vec<_> = self
            .keys_of(b'D')
            .into_iter()
            .map(|key| {
                let value = self.table.get(&key).unwrap().unwrap();
                (key, Entry::decode(&value).unwrap())
            })
            .collect();
        for (key, entry) in &entries {
            match entry {
                Entry::Directory(directory) => {
                    assert!(key.ends_with(b"/"));
                    assert!(!super::tree::is_empty(&self.table, *directory).unwrap());
                    known.push(*directory);
                }
                Entry::File(file) => {
                    assert!(!key[keys::ENTRY_NAME_AT..].contains(&b'/'));
                    expected.files += 1;
                    expected.file_bytes += file.info.size;
                    assert_eq!(file.info.size, file.content.size());
                    count(&file.content);
                }
            }
        }
        for (key, _) in &entries {
            let directory = u64::from_be_bytes(key[1..9].try_into().unwrap());
            assert!(known.contains(&DirectoryId(directory)), "an entry of no directory");
        }
        for (_, part) in self.with_tag::<PartRecord>(b'P') {
            count(&part.content);
        }
        let (mut garbage, mut replicas, mut open, mut wanting) = (0, 0, 0, 0);
        for (key, chunk) in self.with_tag::<ChunkRecord>(b'C') {
            let id = keys::trailing_chunk(&key).unwrap();
            assert_eq!(chunk.references, references.remove(&id).unwrap_or(0));
            let sealed = chunk.state == ChunkState::Sealed;
            let live = chunk.references > 0;
            expected.chunks += 1;
            expected.live_bytes += if sealed && live { chunk.length } else { 0 };
            expected.garbage_bytes += if sealed && !live { chunk.length } else { 0 };
            garbage += usize::from(sealed && !live);
            let in_garbage = self.table.get(&keys::garbage(chunk.unreferenced_since, id)).unwrap();
            assert!(in_garbage.is_some() || !sealed || live);
            open += usize::from(!sealed);
            assert_eq!(self.table.get(&keys::open_chunk(id)).unwrap().is_some(), !sealed);
            let wants = sealed && chunk.replicas.len() < 3;
            wanting += usize::from(wants);
            let listed = self.table.get(&keys::wanting(chunk.replicas.len(), id)).unwrap();
            assert_eq!(listed.is_some(), wants);
            for node in &chunk.replicas {
                replicas += 1;
                assert!(self.table.get(&keys::replica(*node, id)).unwrap().is_some());
            }
        }
        assert!(references.is_empty(), "files refer to chunks without records: {references:?}");
        let counts = [b'G', b'R', b'O', b'W'].map(|tag| self.keys_of(tag).len());
        assert_eq!(counts, [garbage, replicas, open, wanting]);
        let counters = self.query().counters().unwrap();
        expected.last_id = counters.last_id;
        assert_eq!(counters, expected);
    }
}

impl Store {
    /// What the list of versions says of files, and that each null version is where it is said to be.
    fn check_versions(&self, expected: &mut Counters, count: &mut dyn FnMut(&Content)) {
        let mut nulls = 0;
        let mut newest = None;
        for (key, record) in self.with_tag::<VersionRecord>(b'V') {
            let root = DirectoryId(u64::from_be_bytes(key[1..9].try_into().unwrap()));
            let (name, sequence) = keys::parse_version(&key).unwrap();
            let file = super::tree::find_file(&self.table, root, &name).unwrap();
            let is_newest = newest.replace((root, name.clone())) != Some((root, name.clone()));
            assert!(file.is_some() || !is_newest || record.file.is_none(), "a file lies hidden");
            match record.version {
                Version::Number(number) => assert_eq!(number, sequence),
                Version::Null => {
                    nulls += 1;
                    let at = sequence_of(&self.table, root, &name, Version::Null).unwrap();
                    assert_eq!(at, Some(sequence));
                    let latest = file.map(|file| file.info.attributes.version());
                    assert_ne!(latest, Some(Version::Null), "one null version a key");
                }
            }
            if let Some((info, content)) = record.file {
                assert_eq!(info.attributes.version(), record.version);
                expected.files += 1;
                expected.file_bytes += info.size;
                count(&content);
            }
        }
        assert_eq!(self.keys_of(b'L').len(), nulls);
    }
}

fn extent(chunk: ChunkId, offset: u32, length: u32) -> Extent {
    Extent { chunk, offset, length }
}

fn with_bucket() -> Store {
    let mut store = Store::default();
    store.run(Command::CreateBucket { bucket: "bucket".to_owned() }).unwrap();
    store
}

#[test]
fn a_chunk_lives_as_long_as_something_refers_to_it() {
    let mut store = with_bucket();
    let chunk = store.allocate(&[1, 2, 3]);
    store.put("a", Content::Extents(vec![extent(chunk, 0, 100)])).unwrap();
    let from: FilePath = "/bucket/a".parse().unwrap();
    let to: FilePath = "/bucket/d/b".parse().unwrap();
    store.run(Command::Copy { from, to, options: CopyOptions::default() }).unwrap();
    store.seal(chunk, 100, &[1, 2, 3]).unwrap();
    let collect = Command::Collect { grace_ms: 0, limit: 10 };
    for key in ["a", "d/b"] {
        assert_eq!(store.run(collect.clone()).unwrap(), Reply::Collected(Vec::new()));
        let keys = vec![key.to_owned()];
        store.run(Command::Remove { bucket: "bucket".to_owned(), keys }).unwrap();
        store.check();
    }
    let since = store.chunk(chunk).unwrap().unreferenced_since;
    let early = Command::Collect { grace_ms: store.time + 1 - since.0, limit: 10 };
    assert_eq!(store.run(early).unwrap(), Reply::Collected(Vec::new()));
    let gone = vec![(chunk, vec![NodeId(1), NodeId(2), NodeId(3)])];
    assert_eq!(store.run(collect).unwrap(), Reply::Collected(gone));
    assert_eq!(store.chunk(chunk), None);
    store.check();
}

#[test]
fn a_seal_never_cuts_committed_bytes() {
    let mut store = with_bucket();
    let chunk = store.allocate(&[1, 2, 3]);
    store.put("a", Content::Extents(vec![extent(chunk, 10, 90)])).unwrap();
    assert!(matches!(store.seal(chunk, 99, &[1, 2]), Err(FilesError::Unavailable { .. })));
    store.check();
    store.seal(chunk, 120, &[2]).unwrap();
    let record = store.chunk(chunk).unwrap();
    assert_eq!(
        (record.length, record.replicas, record.state),
        (120, vec![NodeId(2)], ChunkState::Sealed)
    );
    store.check();
}

#[test]
fn a_file_is_refused_when_its_chunk_was_sealed_below_it_or_collected() {
    let mut store = with_bucket();
    let chunk = store.allocate(&[1]);
    store.seal(chunk, 50, &[1]).unwrap();
    let beyond = store.put("a", Content::Extents(vec![extent(chunk, 0, 51)]));
    assert!(matches!(beyond, Err(FilesError::Unavailable { .. })));
    let within = Content::Extents(vec![extent(chunk, 0, 50)]);
    let collect = Command::Collect { grace_ms: 0, limit: 10 };
    store.run(collect).unwrap();
    assert!(matches!(store.put("a", within), Err(FilesError::Unavailable { .. })));
    assert_eq!(store.query().find_file("bucket", "a").unwrap(), None);
    store.check();
}

#[test]
fn a_touched_chunk_is_spared() {
    let mut store = with_bucket();
    let chunk = store.allocate(&[1, 2]);
    store.seal(chunk, 50, &[1, 2]).unwrap();
    let since = store.chunk(chunk).unwrap().unreferenced_since.0;
    store.run(Command::Touch { chunks: vec![chunk, ChunkId(999)] }).unwrap();
    let collect = Command::Collect { grace_ms: store.time - since, limit: 10 };
    assert_eq!(store.run(collect).unwrap(), Reply::Collected(Vec::new()));
    store.check();
}

#[test]
fn replicas_come_and_go_only_at_the_version_they_were_meant_for() {
    let mut store = with_bucket();
    let chunk = store.allocate(&[1, 2]);
    store.seal(chunk, 50, &[1, 2]).unwrap();
    assert_eq!(store.query().chunks_wanting(2, None, 10).unwrap(), vec![chunk]);
    let add = |version, node| Command::AddReplica {
        chunk,
        version: ChunkVersion(version),
        node: NodeId(node),
        instead_of: None,
    };
    assert!(matches!(store.run(add(1, 3)).unwrap(), Reply::Chunk { changed: false, .. }));
    assert!(matches!(store.run(add(2, 3)).unwrap(), Reply::Chunk { changed: true, .. }));
    assert_eq!(store.query().chunks_wanting(2, None, 10).unwrap(), vec![]);
    assert_eq!(store.query().chunks_on(NodeId(3), None, 10).unwrap(), vec![chunk]);
    store.check();
    for node in [3, 2, 1] {
        let (version, node) = (ChunkVersion(2), NodeId(node));
        store.run(Command::DropReplica { chunk, version, node }).unwrap();
        store.check();
    }
    assert_eq!(store.chunk(chunk).unwrap().replicas, vec![NodeId(1)], "the last one stays");
}

#[test]
fn parts_become_one_file_and_unused_parts_are_dropped() {
    const PART: u32 = 5 << 20;
    let mut store = with_bucket();
    let chunk = store.allocate(&[1]);
    let (bucket, key) = ("bucket".to_owned(), "big".to_owned());
    let create = Command::CreateUpload {
        bucket: bucket.clone(),
        key: key.clone(),
        options: CreateOptions::default(),
    };
    let Reply::Upload(upload) = store.run(create).unwrap() else { panic!("no upload") };
    for number in [3, 1, 2, 1] {
        let content = Content::Extents(vec![extent(chunk, u32::from(number) * PART, PART)]);
        let (bucket, key, upload) = (bucket.clone(), key.clone(), upload.clone());
        let (etag, options) = (format!("part{number}"), FinishOptions::default());
        let put = Command::PutPart { bucket, key, upload, number, content, etag, options };
        store.run(put).unwrap();
        store.check();
    }
    let complete = |parts: &[(u16, &str)]| Command::CompleteUpload {
        bucket: bucket.clone(),
        key: key.clone(),
        upload: upload.clone(),
        parts: parts.iter().map(|(number, etag)| (*number, (*etag).to_owned())).collect(),
        condition: Condition::IfAbsent,
        options: FinishOptions::default(),
    };
    let refused = store.run(complete(&[(3, "part3"), (1, "part1")]));
    assert_eq!(refused, Err(FilesError::InvalidPartOrder));
    let refused = store.run(complete(&[(1, "part1"), (2, "other")]));
    assert!(matches!(refused, Err(FilesError::InvalidPart { number: 2, .. })));
    let refused = store.run(complete(&[(1, "part1"), (9, "part9")]));
    assert!(matches!(refused, Err(FilesError::InvalidPart { number: 9, .. })));
    store.run(complete(&[(1, "part1"), (3, "part3")])).unwrap();
    store.check();
    let file = store.query().file("bucket", "big").unwrap();
    assert_eq!(file.info.size, u64::from(2 * PART));
    assert!(file.info.etag.ends_with("-2"));
    assert_eq!(store.chunk(chunk).unwrap().references, 2);
    let again = store.run(complete(&[(1, "part1")]));
    assert!(matches!(again, Err(FilesError::NoSuchUpload { .. })));
}

#[derive(Clone, Debug)]
enum Step {
    Put(String, Condition, u8),
    Remove(Vec<String>),
    RemoveTree(String),
    Rename(String, String, bool),
    Copy(String, String, bool),
    MakeDirectory(String),
    Upload(String),
    Part(usize, u16, u8),
    Complete(usize, Vec<u16>, bool),
    Abort(usize),
    List(String, Option<String>, Option<String>, usize),
    ListUploads(String, Option<(String, Option<usize>)>, usize),
    Enable(bool),
    RemoveLatest(String, u8),
    RemoveVersion(usize),
    CopyVersion(usize, String),
    ChangeHeaders(usize, String),
    ListVersions(String, Option<String>, Option<usize>, usize),
}

fn key() -> impl Strategy<Value = String> {
    let component = prop::sample::select(vec!["a", "b", "ab", "a-", "", "é", "a0", "\0"]);
    let name = prop::sample::select(vec!["a", "b", "x", "", "a\0"]);
    (prop::collection::vec(component, 0..3), name)
        .prop_map(|(path, name)| path.iter().map(|c| format!("{c}/")).collect::<String>() + name)
        .prop_filter("a key has a byte", |key| !key.is_empty())
}

fn prefix() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        key(),
        key().prop_map(|key| {
            let end = key.char_indices().nth(1).map_or(key.len(), |(at, _)| at);
            key[..end].to_owned()
        })
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let condition = prop_oneof![
        4 => Just(Condition::Always),
        1 => Just(Condition::IfAbsent),
        1 => any::<u8>().prop_map(|n| Condition::IfMatch(format!("etag{}", n % 4))),
    ];
    let delimiter = prop::option::of(prop::sample::select(vec!["/", "a", "b/", ""]))
        .prop_map(|delimiter| delimiter.map(str::to_owned));
    let after = prop::option::of((key(), prop::option::of(0..4_usize)));
    prop_oneof![
        6 => (key(), condition, any::<u8>()).prop_map(|(k, c, n)| Step::Put(k, c, n)),
        2 => prop::collection::vec(key(), 1..4).prop_map(Step::Remove),
        1 => prefix().prop_map(Step::RemoveTree),
        3 => (key(), key(), any::<bool>()).prop_map(|(a, b, c)| Step::Rename(a, b, c)),
        2 => (key(), key(), any::<bool>()).prop_map(|(a, b, c)| Step::Copy(a, b, c)),
        1 => key().prop_map(Step::MakeDirectory),
        1 => key().prop_map(Step::Upload),
        2 => (0..4_usize, 1..4_u16, any::<u8>()).prop_map(|(u, n, e)| Step::Part(u, n, e)),
        1 => (0..4_usize, prop::collection::vec(1..4_u16, 0..3), any::<bool>())
            .prop_map(|(u, p, c)| Step::Complete(u, p, c)),
        1 => (0..4_usize).prop_map(Step::Abort),
        6 => (prefix(), delimiter, prop::option::of(key()), 1..5_usize)
            .prop_map(|(p, d, a, l)| Step::List(p, d, a, l)),
        1 => (prefix(), after, 1..4_usize).prop_map(|(p, a, l)| Step::ListUploads(p, a, l)),
    ]
}

fn versions_step() -> impl Strategy<Value = Step> {
    let delimiter = prop::option::of(prop::sample::select(vec!["/", "a", "b/"]))
        .prop_map(|delimiter| delimiter.map(str::to_owned));
    let at = prop::option::of(0..20_usize);
    prop_oneof![
        1 => any::<bool>().prop_map(Step::Enable),
        2 => (key(), any::<u8>()).prop_map(|(k, n)| Step::RemoveLatest(k, n)),
        3 => (0..20_usize).prop_map(Step::RemoveVersion),
        1 => (0..20_usize, key()).prop_map(|(n, k)| Step::CopyVersion(n, k)),
        1 => (0..20_usize, key()).prop_map(|(n, v)| Step::ChangeHeaders(n, v)),
        3 => (prefix(), delimiter, at, 1..5_usize)
            .prop_map(|(p, d, a, l)| Step::ListVersions(p, d, a, l)),
    ]
}

/// Key, whether it is the latest and the null version; of a file its ETag, size and a header.
type Shape = (String, bool, bool, Option<(String, u64, Option<String>)>);

/// A version without its number, which both sides give out on their own.
fn shape(entry: &VersionEntry) -> Shape {
    let file = entry.file.as_ref().map(|file| {
        let header = file.attributes.headers.get("x-header").cloned();
        (file.etag.clone(), file.size, header)
    });
    (entry.key.clone(), entry.is_latest, entry.version == Version::Null, file)
}

/// Both sides of one run: the namespace and the model.
struct Pair {
    store: Store,
    model: MemoryFiles,
    /// Key, the upload's id in the namespace, and in the model.
    uploads: Vec<(String, String, String)>,
    chunk: ChunkId,
    used: u32,
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the model never waits")
}

fn kind<T>(result: &Result<T, FilesError>) -> Option<crate::api::ErrorKind> {
    result.as_ref().err().map(FilesError::kind)
}

const BUCKET: &str = "bucket";

impl Pair {
    fn new() -> Self {
        let mut store = with_bucket();
        let model = MemoryFiles::new();
        now(model.create_bucket(BUCKET)).unwrap();
        let chunk = store.allocate(&[1, 2, 3]);
        Self { store, model, uploads: Vec::new(), chunk, used: 0 }
    }

    fn content(&mut self, length: u32) -> Content {
        if length == 0 {
            return Content::Extents(Vec::new());
        }
        self.used += length;
        Content::Extents(vec![extent(self.chunk, self.used - length, length)])
    }

    fn put(&mut self, key: String, condition: Condition, number: u8) {
        let etag = format!("etag{}", number % 4);
        let options = CreateOptions { condition, ..CreateOptions::default() };
        let expected = now(async {
            let mut writer = self.model.create(BUCKET, &key, options.clone()).await?;
            writer.write(vec![0; number.into()].into()).await?;
            let finish = FinishOptions { etag: Some(etag.clone()), ..FinishOptions::default() };
            writer.finish(finish).await
        });
        let content = self.content(number.into());
        let bucket = BUCKET.to_owned();
        let actual = self.store.run(Command::PutFile { bucket, key, content, etag, options });
        assert_eq!(kind(&actual), kind(&expected));
    }

    fn rename(&mut self, from: &str, to: &str, absent: bool) {
        let condition = if absent { Condition::IfAbsent } else { Condition::Always };
        let from = FilePath::new(BUCKET, from).unwrap();
        let to = FilePath::new(BUCKET, to).unwrap();
        let expected = now(self.model.rename(&from, &to, condition.clone()));
        let actual = self.store.run(Command::Rename { from, to, condition });
        assert_eq!(kind(&actual), kind(&expected));
    }

    fn copy(&mut self, from: &str, to: &str, absent: bool) {
        let condition = if absent { Condition::IfAbsent } else { Condition::Always };
        let options = CopyOptions { condition, ..CopyOptions::default() };
        let from = FilePath::new(BUCKET, from).unwrap();
        let to = FilePath::new(BUCKET, to).unwrap();
        let expected = now(self.model.copy(&from, &to, options.clone()));
        let actual = self.store.run(Command::Copy { from, to, options });
        assert_eq!(kind(&actual), kind(&expected));
    }

    fn part(&mut self, upload: usize, number: u16, bytes: u8) {
        let Some((key, ours, theirs)) = self.uploads.get(upload).cloned() else { return };
        let etag = format!("part{}", bytes % 2);
        let finish = FinishOptions { etag: Some(etag.clone()), ..FinishOptions::default() };
        let expected = now(async {
            let mut writer = self.model.upload_part(BUCKET, &key, &theirs, number).await?;
            writer.write(vec![0; bytes.into()].into()).await?;
            writer.finish(finish.clone()).await
        });
        let (content, bucket) = (self.content(bytes.into()), BUCKET.to_owned());
        let put =
            Command::PutPart { bucket, key, upload: ours, number, content, etag, options: finish };
        assert_eq!(kind(&self.store.run(put)), kind(&expected));
    }

    fn complete(&mut self, upload: usize, numbers: &[u16], absent: bool) {
        let Some((key, ours, theirs)) = self.uploads.get(upload).cloned() else { return };
        let parts: Vec<_> = numbers.iter().map(|number| (*number, "part0".to_owned())).collect();
        let condition = if absent { Condition::IfAbsent } else { Condition::Always };
        let finish = FinishOptions { etag: Some("whole".to_owned()), ..FinishOptions::default() };
        let expected = now(self.model.complete_upload(
            BUCKET,
            &key,
            &theirs,
            &parts,
            condition.clone(),
            finish.clone(),
        ));
        let bucket = BUCKET.to_owned();
        let complete = Command::CompleteUpload {
            bucket,
            key,
            upload: ours,
            parts,
            condition,
            options: finish,
        };
        assert_eq!(kind(&self.store.run(complete)), kind(&expected));
    }

    fn list(&self, request: &ListRequest) {
        let expected = now(self.model.list(request.clone())).unwrap();
        let actual = self.store.query().list(request).unwrap();
        let keys = |page: &crate::api::ListPage| -> Vec<_> {
            let entries = page.entries.iter();
            entries.map(|e| (e.key.clone(), e.info.etag.clone(), e.info.size)).collect()
        };
        assert_eq!(keys(&actual), keys(&expected), "{request:?}");
        assert_eq!(actual.common_prefixes, expected.common_prefixes, "{request:?}");
        assert_eq!(actual.next, expected.next, "{request:?}");
    }

    fn list_uploads(&self, prefix: &str, after: Option<(String, Option<usize>)>, limit: usize) {
        let upload = |at: Option<usize>| at.and_then(|at| self.uploads.get(at));
        let ours = after.clone().map(|(key, at)| (key, upload(at).map(|u| u.1.clone())));
        let theirs = after.map(|(key, at)| (key, upload(at).map(|u| u.2.clone())));
        let expected = now(self.model.list_uploads(BUCKET, prefix, theirs, limit)).unwrap();
        let actual = self.store.query().uploads(BUCKET, prefix, ours.as_ref(), limit).unwrap();
        let expected: Vec<_> = expected.uploads.into_iter().map(|u| (u.key, u.upload)).collect();
        let known = |id: &str| self.uploads.iter().find(|u| u.1 == id).unwrap().2.clone();
        let actual: Vec<_> =
            actual.uploads.into_iter().map(|u| (u.key, known(&u.upload))).collect();
        assert_eq!(actual, expected);
    }

    /// All versions, ours and the model's, which are alike.
    fn all_versions(&self) -> (Vec<VersionEntry>, Vec<VersionEntry>) {
        let bucket = BUCKET.to_owned();
        let request = VersionsRequest { bucket, limit: 1000, ..VersionsRequest::default() };
        let theirs = now(self.model.list_versions(request.clone())).unwrap().entries;
        let ours = self.store.query().list_versions(&request).unwrap().entries;
        let shapes = |entries: &[VersionEntry]| entries.iter().map(shape).collect::<Vec<_>>();
        assert_eq!(shapes(&ours), shapes(&theirs));
        (ours, theirs)
    }

    fn list_versions(
        &self,
        prefix: String,
        delimiter: Option<String>,
        at: Option<usize>,
        limit: usize,
    ) {
        let (ours, theirs) = self.all_versions();
        let after = |all: &[VersionEntry]| {
            let entry = all.get(at?)?;
            Some((entry.key.clone(), (at? % 3 > 0).then_some(entry.version)))
        };
        let (after_ours, after_theirs) = (after(&ours), after(&theirs));
        let mut request =
            VersionsRequest { bucket: BUCKET.to_owned(), prefix, delimiter, after: None, limit };
        request.after = after_theirs;
        let expected = now(self.model.list_versions(request.clone())).unwrap();
        request.after = after_ours;
        let actual = self.store.query().list_versions(&request).unwrap();
        let shapes = |page: &VersionPage| page.entries.iter().map(shape).collect::<Vec<_>>();
        assert_eq!(shapes(&actual), shapes(&expected), "{request:?}");
        assert_eq!(actual.common_prefixes, expected.common_prefixes, "{request:?}");
        let key = |page: VersionPage| page.next.map(|(key, version)| (key, version.is_some()));
        assert_eq!(key(actual), key(expected), "{request:?}");
    }

    fn remove_version(&mut self, at: usize) {
        let (ours, theirs) = self.all_versions();
        let target = |all: &[VersionEntry]| RemoveTarget {
            key: all[at].key.clone(),
            version: Some(all[at].version),
            ..RemoveTarget::default()
        };
        if at >= ours.len() {
            return;
        }
        let expected = now(self.model.remove_versions(BUCKET, &[target(&theirs)])).unwrap();
        let (bucket, targets) = (BUCKET.to_owned(), vec![target(&ours)]);
        let actual = self.store.run(Command::RemoveVersions { bucket, targets }).unwrap();
        let Reply::RemovedVersions(actual) = actual else { panic!("another reply") };
        let told = |removed: &Result<Removed, FilesError>| {
            removed.as_ref().map(|removed| (removed.existed, removed.is_marker)).unwrap()
        };
        assert_eq!(told(&actual[0]), told(&expected[0]));
    }

    fn remove_latest(&mut self, key: String, number: u8) {
        let etag = number.is_multiple_of(2).then(|| format!("etag{}", number % 4));
        let condition = RemoveCondition { etag, ..RemoveCondition::default() };
        let targets = vec![RemoveTarget { key, condition, ..RemoveTarget::default() }];
        let expected = now(self.model.remove_versions(BUCKET, &targets)).unwrap();
        let bucket = BUCKET.to_owned();
        let actual = self.store.run(Command::RemoveVersions { bucket, targets }).unwrap();
        let Reply::RemovedVersions(actual) = actual else { panic!("another reply") };
        let told = |removed: &Result<Removed, FilesError>| {
            let of = |removed: &Removed| (removed.existed, removed.is_marker);
            removed.as_ref().map(of).map_err(FilesError::kind)
        };
        assert_eq!(told(&actual[0]), told(&expected[0]));
    }

    fn run_on_versions(&mut self, step: Step) {
        let bucket = BUCKET.to_owned();
        match step {
            Step::Enable(enabled) => {
                let versioning = if enabled { Versioning::Enabled } else { Versioning::Suspended };
                now(self.model.set_versioning(BUCKET, versioning)).unwrap();
                self.store.run(Command::SetVersioning { bucket, versioning }).unwrap();
            }
            Step::RemoveLatest(key, number) => self.remove_latest(key, number),
            Step::RemoveVersion(at) => self.remove_version(at),
            Step::CopyVersion(at, to) => {
                let (ours, theirs) = self.all_versions();
                let (Some(ours), Some(theirs)) = (ours.get(at), theirs.get(at)) else { return };
                let from = FilePath::new(BUCKET, &ours.key).unwrap();
                let to = FilePath::new(BUCKET, &to).unwrap();
                let options = CopyOptions::default();
                let version = Some(theirs.version);
                let expected = now(self.model.copy_version(&from, version, &to, options.clone()));
                let version = Some(ours.version);
                let actual = self.store.run(Command::CopyVersion { from, version, to, options });
                assert_eq!(kind(&actual), kind(&expected));
            }
            Step::ChangeHeaders(at, value) => {
                let (ours, theirs) = self.all_versions();
                let (Some(ours), Some(theirs)) = (ours.get(at), theirs.get(at)) else { return };
                let changes = vec![("x-header".to_owned(), (at % 2 == 0).then_some(value))];
                let (key, version) = (ours.key.clone(), Some(theirs.version));
                let expected = now(self.model.change_headers(
                    BUCKET,
                    &key,
                    version,
                    Vec::new(),
                    changes.clone(),
                ));
                let version = Some(ours.version);
                let actual = self.store.run(Command::ChangeHeaders {
                    bucket,
                    key,
                    version,
                    expected: Vec::new(),
                    changes,
                });
                assert_eq!(kind(&actual), kind(&expected));
            }
            Step::ListVersions(prefix, delimiter, at, limit) => {
                self.list_versions(prefix, delimiter, at, limit);
            }
            other => self.run(other),
        }
    }

    fn run(&mut self, step: Step) {
        let bucket = BUCKET.to_owned();
        match step {
            Step::Put(key, condition, number) => self.put(key, condition, number),
            Step::Remove(keys) => {
                let expected = now(self.model.remove_many(BUCKET, &keys)).unwrap();
                let actual = self.store.run(Command::Remove { bucket, keys }).unwrap();
                assert_eq!(actual, Reply::Removed(expected));
            }
            Step::RemoveTree(prefix) => {
                let expected = now(self.model.remove_tree(BUCKET, &prefix)).unwrap();
                let mut removed = 0;
                loop {
                    let (bucket, prefix) = (bucket.clone(), prefix.clone());
                    let command = Command::RemovePrefix { bucket, prefix, limit: 2 };
                    let Reply::RemovedSome { count, more } = self.store.run(command).unwrap()
                    else {
                        panic!("another reply")
                    };
                    removed += count;
                    if !more {
                        break;
                    }
                }
                assert_eq!(removed, expected);
            }
            Step::Rename(from, to, absent) => self.rename(&from, &to, absent),
            Step::Copy(from, to, absent) => self.copy(&from, &to, absent),
            Step::MakeDirectory(key) => {
                let key = format!("{}/", key.strip_suffix('/').unwrap_or(&key));
                now(self.model.make_directory(BUCKET, &key)).unwrap();
                let etag = "d41d8cd98f00b204e9800998ecf8427e".to_owned();
                self.store.run(Command::MakeDirectory { bucket, key, etag }).unwrap();
            }
            Step::Upload(key) if self.uploads.len() < 4 => {
                let options = CreateOptions::default();
                let theirs = now(self.model.create_upload(BUCKET, &key, options.clone())).unwrap();
                let create = Command::CreateUpload { bucket, key: key.clone(), options };
                let Reply::Upload(ours) = self.store.run(create).unwrap() else { panic!("reply") };
                self.uploads.push((key, ours, theirs));
            }
            Step::Upload(_) => {}
            Step::Part(upload, number, bytes) => self.part(upload, number, bytes),
            Step::Complete(upload, parts, absent) => self.complete(upload, &parts, absent),
            Step::Abort(at) => {
                let Some((key, ours, theirs)) = self.uploads.get(at).cloned() else { return };
                let expected = now(self.model.abort_upload(BUCKET, &key, &theirs));
                let actual = self.store.run(Command::AbortUpload { bucket, key, upload: ours });
                assert_eq!(kind(&actual), kind(&expected));
            }
            Step::List(prefix, delimiter, start_after, limit) => {
                self.list(&ListRequest { bucket, prefix, delimiter, start_after, limit });
            }
            Step::ListUploads(prefix, after, limit) => self.list_uploads(&prefix, after, limit),
            other => self.run_on_versions(other),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_namespace_behaves_as_a_flat_map(steps in prop::collection::vec(step(), 1..60)) {
        let mut pair = Pair::new();
        for step in steps {
            pair.run(step);
            pair.store.check();
        }
        let all = ListRequest { bucket: BUCKET.to_owned(), limit: 1000, ..ListRequest::default() };
        pair.list(&all);
    }

    #[test]
    fn versions_are_kept_as_in_plain_lists(
        steps in prop::collection::vec(prop_oneof![step(), versions_step()], 1..60)
    ) {
        let mut pair = Pair::new();
        pair.run_on_versions(Step::Enable(true));
        for step in steps {
            pair.run_on_versions(step);
            pair.store.check();
            pair.all_versions();
        }
        let all = ListRequest { bucket: BUCKET.to_owned(), limit: 1000, ..ListRequest::default() };
        pair.list(&all);
    }
}
