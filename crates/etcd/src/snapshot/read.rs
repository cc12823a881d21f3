//! Reading an etcd's file: a snapshot, or the `db` file of a member that is stopped.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use onefold_bbolt::{BoltError, Bucket, Database, Entry, Source};
use onefold_kv::{KeyValue, LeaseId};
use onefold_types::Revision;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::schema::{self, Place};
use super::{DIGEST_BYTES, SECTOR_BYTES};

/// Bytes that are hashed at once.
const HASH_BYTES: usize = 1 << 20;

/// Why a file cannot be read.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// It cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// It is no such file, or a damaged one.
    #[error("{}: {source}", path.display())]
    Bolt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: BoltError,
    },
    /// Its bytes are not those that were sent.
    #[error("{} does not have the SHA-256 that stands at its end: it is damaged; use another copy", path.display())]
    WrongDigest {
        /// The file.
        path: PathBuf,
    },
    /// It is a bbolt file, but what it holds is not etcd's.
    #[error("{} is not a store of etcd's v3 API, or damaged: {what}; use another copy", path.display())]
    NotEtcd {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        what: &'static str,
    },
}

/// One version of a key as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionRecord {
    /// The operation within its revision.
    pub sub: u32,
    /// The version; of a deletion the key and its revision.
    pub kv: KeyValue,
    /// Whether the key was deleted.
    pub is_deletion: bool,
}

/// What a file holds, found by reading all of it once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The store's revision.
    pub revision: Revision,
    /// The oldest readable revision; zero when nothing was compacted.
    pub compacted: Revision,
    /// Records of versions and deletions.
    pub records: u64,
    /// Leases.
    pub leases: u64,
    /// Users.
    pub users: u64,
    /// Roles.
    pub roles: u64,
    /// Bytes of the longest key.
    pub key_bytes_max: usize,
    /// Most bytes of a key and its value together.
    pub record_bytes_max: usize,
}

/// An etcd's file.
#[derive(Debug)]
pub struct EtcdFile {
    path: PathBuf,
    database: Database<File>,
    has_digest: bool,
    sha256: [u8; DIGEST_BYTES],
}

impl EtcdFile {
    /// Opens a file and reads all of it for its SHA-256, which must be right where there is one.
    ///
    /// # Errors
    /// When it cannot be read, is no such file, is cut off, or has another SHA-256 than it says.
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        let failed = |source| SnapshotError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        let has_digest = bytes % SECTOR_BYTES == DIGEST_BYTES as u64;
        let bytes = if has_digest { bytes - DIGEST_BYTES as u64 } else { bytes };
        let bolt = |source| SnapshotError::Bolt { path: path.to_owned(), source };
        let database = Database::open(file.try_clone().map_err(failed)?).map_err(bolt)?;
        if database.bytes() > bytes {
            let cut = BoltError::CutOff { bytes, bytes_expected: database.bytes() };
            return Err(bolt(cut));
        }
        let sha256 = digest(&file, bytes).map_err(failed)?;
        if has_digest {
            let mut expected = [0; DIGEST_BYTES];
            file.read_at(&mut expected, bytes).map_err(failed)?;
            if expected != sha256 {
                return Err(SnapshotError::WrongDigest { path: path.to_owned() });
            }
        }
        Ok(Self { path: path.to_owned(), database, has_digest, sha256 })
    }

    /// Whether the file's SHA-256 stands at its end, as `etcdctl snapshot save` puts it there. The
    /// `db` file of a member has none.
    pub fn has_digest(&self) -> bool {
        self.has_digest
    }

    /// The SHA-256 of its pages.
    pub fn sha256(&self) -> [u8; DIGEST_BYTES] {
        self.sha256
    }

    /// Bytes of its pages.
    pub fn bytes(&self) -> u64 {
        self.database.bytes()
    }

    /// Reads all of it once, and checks what can be checked.
    ///
    /// # Errors
    /// When anything in it is damaged, or is not what etcd writes.
    pub fn examine(&self) -> Result<Contents, SnapshotError> {
        let mut contents = Contents { compacted: self.compacted()?, ..Contents::default() };
        let mut last = Revision(1).max(contents.compacted);
        for record in self.records()? {
            let VersionRecord { kv, .. } = record?;
            contents.records += 1;
            contents.key_bytes_max = contents.key_bytes_max.max(kv.key.len());
            contents.record_bytes_max =
                contents.record_bytes_max.max(kv.key.len() + kv.value.len());
            last = last.max(kv.mod_revision);
        }
        contents.revision = last;
        contents.leases = self.leases()?.len() as u64;
        contents.users = self.count(schema::USERS)?;
        contents.roles = self.count(schema::ROLES)?;
        Ok(contents)
    }

    /// All leases with the seconds that each lives after a keep-alive.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn leases(&self) -> Result<Vec<(LeaseId, i64)>, SnapshotError> {
        let Some(bucket) = self.bucket(schema::LEASE)? else { return Ok(Vec::new()) };
        let mut leases = Vec::new();
        for pair in self.pairs(&bucket) {
            let (_, value) = pair?;
            let lease = schema::decode_lease(value);
            leases.push(lease.ok_or_else(|| self.not_etcd("a lease does not decode"))?);
        }
        Ok(leases)
    }

    /// Every record, in the order of revisions.
    ///
    /// # Errors
    /// When the file has no keys at all.
    pub fn records(
        &self,
    ) -> Result<impl Iterator<Item = Result<VersionRecord, SnapshotError>> + use<'_>, SnapshotError>
    {
        let bucket = self.bucket(schema::KEY)?;
        let bucket = bucket.ok_or_else(|| self.not_etcd("it has no bucket of keys"))?;
        Ok(self.pairs(&bucket).map(|pair| {
            let (key, value) = pair?;
            let record = self.record(&key, value);
            record.ok_or_else(|| self.not_etcd("the record of a key does not decode"))
        }))
    }

    fn record(&self, key: &[u8], value: Bytes) -> Option<VersionRecord> {
        let Place { revision, sub, is_deletion } = Place::decode(key)?;
        let mut kv = schema::decode_record(value)?;
        if is_deletion {
            kv = KeyValue { key: kv.key, mod_revision: revision, ..KeyValue::default() };
        }
        (kv.mod_revision == revision).then_some(VersionRecord { sub, kv, is_deletion })
    }

    /// A compaction that has begun has taken effect for readers, whether it has ended or not.
    fn compacted(&self) -> Result<Revision, SnapshotError> {
        let Some(meta) = self.bucket(schema::META)? else { return Ok(Revision::ZERO) };
        let mut compacted = Revision::ZERO;
        for pair in self.pairs(&meta) {
            let (key, value) = pair?;
            if [schema::SCHEDULED_COMPACTION, schema::FINISHED_COMPACTION].contains(&&key[..]) {
                let place = Place::decode(&value)
                    .ok_or_else(|| self.not_etcd("the compacted revision does not decode"))?;
                compacted = compacted.max(place.revision);
            }
        }
        Ok(compacted)
    }

    fn count(&self, name: &[u8]) -> Result<u64, SnapshotError> {
        let Some(bucket) = self.bucket(name)? else { return Ok(0) };
        let mut count = 0;
        for pair in self.pairs(&bucket) {
            pair?;
            count += 1;
        }
        Ok(count)
    }

    fn bucket(&self, name: &[u8]) -> Result<Option<Bucket>, SnapshotError> {
        self.database.bucket(name).map_err(|source| self.bolt(source))
    }

    fn pairs(
        &self,
        bucket: &Bucket,
    ) -> impl Iterator<Item = Result<(Bytes, Bytes), SnapshotError>> + use<'_> {
        self.database.entries(bucket).map(|entry| match entry {
            Ok(Entry::Pair { key, value }) => Ok((key, value)),
            Ok(Entry::Bucket { .. }) => Err(self.not_etcd("a bucket lies within another one")),
            Err(source) => Err(self.bolt(source)),
        })
    }

    fn bolt(&self, source: BoltError) -> SnapshotError {
        SnapshotError::Bolt { path: self.path.clone(), source }
    }

    fn not_etcd(&self, what: &'static str) -> SnapshotError {
        SnapshotError::NotEtcd { path: self.path.clone(), what }
    }
}

fn digest(file: &File, bytes: u64) -> io::Result<[u8; DIGEST_BYTES]> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; HASH_BYTES];
    let mut place = 0;
    while place < bytes {
        let want = usize::try_from(bytes - place).unwrap_or(HASH_BYTES).min(HASH_BYTES);
        file.read_at(&mut buffer[..want], place)?;
        hash.update(&buffer[..want]);
        place += want as u64;
    }
    Ok(hash.finalize().into())
}
