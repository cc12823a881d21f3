//! The keyspace that becomes the same as the source.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{bail, ensure};
use bytes::{Bytes, BytesMut};
use onefold_kv::limits::{REQUEST_BYTES_MAX, TXN_OPERATIONS_MAX};
use onefold_kv::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, Kv, KvError, Operation, PutRequest,
    RangeRequest, TxnRequest,
};
use onefold_types::Revision;

use super::cursor::Cursor;

/// Changes in one transaction, which writes the cursor, too.
const CHANGES_MAX: usize = TXN_OPERATIONS_MAX - 1;

/// Bytes of keys and values in one transaction, unless a single change has more.
const CHANGE_BYTES_MAX: usize = REQUEST_BYTES_MAX / 2;

/// What happens to each key: its value, or none if it is deleted. A later change of a key replaces
/// an earlier one.
#[derive(Default)]
pub struct Changes {
    by_key: BTreeMap<Bytes, Option<Bytes>>,
    bytes: usize,
}

impl Changes {
    pub fn add(&mut self, key: Bytes, value: Option<Bytes>) {
        self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        self.by_key.insert(key, value);
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Whether it is time to write them.
    pub fn is_full(&self) -> bool {
        self.by_key.len() >= CHANGES_MAX || self.bytes >= CHANGE_BYTES_MAX
    }

    /// Whether both together fit one transaction.
    pub fn fits(&self, more: &Self) -> bool {
        self.len() + more.len() <= CHANGES_MAX && self.bytes + more.bytes <= CHANGE_BYTES_MAX
    }

    pub fn append(&mut self, more: Self) {
        self.bytes += more.bytes;
        self.by_key.extend(more.by_key);
    }

    /// As many parts as transactions are needed: one, unless it is too much for that.
    fn into_parts(self) -> Vec<Vec<Operation>> {
        let mut parts = vec![Vec::new()];
        let mut bytes = 0;
        for (key, value) in self.by_key {
            let more = key.len() + value.as_ref().map_or(0, Bytes::len);
            let last = parts.last().map_or(0, Vec::len);
            if last > 0 && (last >= CHANGES_MAX || bytes + more > CHANGE_BYTES_MAX) {
                parts.push(Vec::new());
                bytes = 0;
            }
            bytes += more;
            if let Some(part) = parts.last_mut() {
                part.push(match value {
                    Some(value) => Operation::Put(PutRequest::new(key, value)),
                    None => Operation::DeleteRange(DeleteRangeRequest::key(key)),
                });
            }
        }
        parts
    }
}

/// The target and its cursor.
pub struct Target {
    kv: Arc<dyn Kv>,
    prefix: Bytes,
    dest_prefix: Bytes,
    cursor_key: Bytes,
    cursor: Option<Cursor>,
    /// The revision that wrote the cursor last: nobody else may write it meanwhile.
    cursor_revision: Revision,
    source: String,
}

impl Target {
    /// Opens a target and reads its cursor.
    pub async fn open(
        kv: Arc<dyn Kv>,
        prefix: Bytes,
        dest_prefix: Bytes,
        cursor_key: Bytes,
    ) -> anyhow::Result<Self> {
        let found = kv.range(RangeRequest::key(cursor_key.clone())).await?.kvs.pop();
        let name = String::from_utf8_lossy(&cursor_key).into_owned();
        let cursor = found.as_ref().map(|kv| Cursor::decode(&name, &kv.value)).transpose()?;
        let cursor_revision = found.map_or(Revision::ZERO, |kv| kv.mod_revision);
        let source = String::new();
        Ok(Self { kv, prefix, dest_prefix, cursor_key, cursor, cursor_revision, source })
    }

    /// Says which cluster is mirrored; refuses a cursor of another one.
    pub fn expect_source(&mut self, cluster_id: u64) -> anyhow::Result<()> {
        self.source = format!("{cluster_id:x}");
        let prefix = String::from_utf8_lossy(&self.prefix);
        if let Some(cursor) = &self.cursor
            && (cursor.source != self.source || cursor.prefix != prefix)
        {
            let name = String::from_utf8_lossy(&self.cursor_key);
            bail!(
                "the cursor {name:?} is of another mirror (prefix {:?} of cluster {}); delete the \
                 key to begin anew, or choose another with --cursor-key",
                cursor.prefix,
                cursor.source
            );
        }
        Ok(())
    }

    /// The revision of the source that the target is at, if it is at one.
    pub fn followed_to(&self) -> Option<i64> {
        self.cursor.as_ref().and_then(|cursor| cursor.revision)
    }

    /// Notes that the target is at no revision: it is copied.
    pub async fn lose_track(&mut self) -> anyhow::Result<()> {
        self.write(Changes::default(), Some(None)).await
    }

    /// Writes changes, and that the target is at a revision with them.
    ///
    /// In one transaction where they fit one. Else the cursor is written with the last part, so
    /// that after an interruption all of them are written again.
    pub async fn follow_to(&mut self, changes: Changes, revision: i64) -> anyhow::Result<()> {
        self.write(changes, Some(Some(revision))).await
    }

    /// Writes changes of a copy.
    pub async fn copy(&mut self, changes: Changes) -> anyhow::Result<()> {
        self.write(changes, None).await
    }

    /// The target's name of a key of the source.
    pub fn rename(&self, key: &Bytes) -> anyhow::Result<Bytes> {
        let rest = key.strip_prefix(&self.prefix[..]).unwrap_or(key);
        let mut renamed = BytesMut::from(&self.dest_prefix[..]);
        renamed.extend_from_slice(rest);
        ensure!(
            renamed != self.cursor_key,
            "the source has a key in the place of the cursor; choose another with --cursor-key"
        );
        Ok(renamed.freeze())
    }

    /// The store, and the span of all mirrored keys in it.
    pub fn kv(&self) -> (&dyn Kv, RangeRequest) {
        (&*self.kv, RangeRequest::prefix(self.dest_prefix.clone()))
    }

    /// Whether a key of the target is the mirror's own.
    pub fn is_cursor(&self, key: &Bytes) -> bool {
        *key == self.cursor_key
    }

    async fn write(&mut self, changes: Changes, at: Option<Option<i64>>) -> anyhow::Result<()> {
        let mut parts = changes.into_parts().into_iter().peekable();
        while let Some(mut success) = parts.next() {
            let is_last = parts.peek().is_none();
            let cursor = at.filter(|_| is_last).map(|revision| self.cursor_at(revision));
            if let Some(cursor) = &cursor {
                let put = PutRequest::new(self.cursor_key.clone(), cursor.encode()?);
                success.push(Operation::Put(put));
            }
            let unchanged = CompareTarget::ModRevision(self.cursor_revision.get().cast_signed());
            let compare = Compare::new(self.cursor_key.clone(), CompareResult::Equal, unchanged);
            let request = TxnRequest { compare: vec![compare], success, failure: Vec::new() };
            let answer = match self.kv.txn(request).await {
                Err(KvError::RequestTooLarge { bytes }) => bail!(
                    "a change of {bytes} bytes is larger than a request here may be; mirror \
                     without it with --prefix"
                ),
                answer => answer?,
            };
            ensure!(
                answer.succeeded,
                "another mirror writes the cursor {:?}; stop one of them, or give each its own with \
                 --cursor-key",
                String::from_utf8_lossy(&self.cursor_key)
            );
            if cursor.is_some() {
                self.cursor_revision = answer.header.revision;
                self.cursor = cursor;
            }
        }
        Ok(())
    }

    fn cursor_at(&self, revision: Option<i64>) -> Cursor {
        let prefix = String::from_utf8_lossy(&self.prefix).into_owned();
        Cursor { source: self.source.clone(), prefix, revision }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(at: usize, bytes: usize) -> (Bytes, Option<Bytes>) {
        (format!("{at:05}").into(), Some(vec![0; bytes].into()))
    }

    #[test]
    fn changes_are_parted_only_when_they_do_not_fit_a_transaction() {
        for (count, bytes, parts) in
            [(0, 0, 1), (1, 0, 1), (127, 0, 1), (128, 0, 2), (3, 300_000, 2), (2, 1_000_000, 2)]
        {
            let mut changes = Changes::default();
            (0..count).map(|at| change(at, bytes)).for_each(|(key, value)| changes.add(key, value));
            let found = changes.into_parts();
            assert_eq!(found.len(), parts, "{count} changes of {bytes} bytes");
            assert_eq!(found.iter().map(Vec::len).sum::<usize>(), count);
        }
    }

    #[test]
    fn the_last_change_of_a_key_counts() {
        let mut changes = Changes::default();
        changes.add("k".into(), Some("v".into()));
        changes.add("k".into(), None);
        let parts = changes.into_parts();
        assert_eq!(parts, [[Operation::DeleteRange(DeleteRangeRequest::key("k"))]]);
    }
}
