//! A keyspace as a file that etcd can be restored from.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::Path;

use onefold_bbolt::{BoltError, Writer};
use onefold_kv::{EventKind, Export, KeyValue, KvError};
use onefold_types::Revision;
use thiserror::Error;

use super::schema::{self, Place};
use super::sort::Sorter;

/// Bytes that are written to the file at once.
const BUFFER_BYTES: usize = 1 << 20;

/// Why a snapshot was not written.
#[derive(Debug, Error)]
pub(crate) enum WriteError {
    /// The store's error.
    #[error(transparent)]
    Store(#[from] KvError),
    /// The file's error.
    #[error(
        "the snapshot cannot be written to the data folder: {0}; make room there, then try again"
    )]
    File(#[from] BoltError),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::File(error.into())
    }
}

/// Writes a keyspace to a file without a name in `folder`, and answers the file, at its start, and
/// how many bytes it has.
///
/// `index` is the log entry that the store stands at: etcd's restore looks for the number, and
/// begins a log of its own.
pub(crate) fn write(export: &Export, index: u64, folder: &Path) -> Result<(File, u64), WriteError> {
    let file = tempfile::tempfile_in(folder)?;
    let mut writer = Writer::new(BufWriter::with_capacity(BUFFER_BYTES, file))?;
    for name in schema::EMPTY {
        writer.bucket(name).finish()?;
    }
    write_meta(&mut writer, export, index)?;
    let mut leases = writer.bucket(schema::LEASE);
    for lease in export.leases() {
        let (key, value) = schema::encode_lease(lease?);
        leases.put(&key, &value)?;
    }
    leases.finish()?;
    write_keys(&mut writer, export, folder)?;
    let (bytes, out) = writer.finish()?;
    let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok((file, bytes))
}

fn write_meta<W: Write + Seek>(
    writer: &mut Writer<W>,
    export: &Export,
    index: u64,
) -> Result<(), WriteError> {
    let mut meta = writer.bucket(schema::META);
    meta.put(schema::CONSISTENT_INDEX, &index.to_be_bytes())?;
    if export.compacted() != Revision::ZERO {
        let compacted = Place { revision: export.compacted(), sub: 0, is_deletion: false }.encode();
        meta.put(schema::FINISHED_COMPACTION, &compacted)?;
        meta.put(schema::SCHEDULED_COMPACTION, &compacted)?;
    }
    Ok(meta.finish()?)
}

/// What stood at the compacted revision, in the order in which it was written, and then every event.
fn write_keys<W: Write + Seek>(
    writer: &mut Writer<W>,
    export: &Export,
    folder: &Path,
) -> Result<(), WriteError> {
    let mut keys = writer.bucket(schema::KEY);
    let mut sorter = Sorter::new(folder);
    for kv in export.settled() {
        let kv: KeyValue = kv?;
        sorter.add(kv.mod_revision, schema::encode_record(kv, false))?;
    }
    let mut sorted = sorter.finish()?;
    let mut place = Place { revision: Revision::ZERO, sub: 0, is_deletion: false };
    while let Some((revision, record)) = sorted.next()? {
        // The numbers of operations are given up with the history; any will do that differ.
        let sub = if revision == place.revision { place.sub + 1 } else { 0 };
        place = Place { revision, sub, is_deletion: false };
        keys.put(&place.encode(), &record)?;
    }
    for event in export.events() {
        let (sub, event) = event?;
        let is_deletion = event.kind == EventKind::Delete;
        let place = Place { revision: event.kv.mod_revision, sub, is_deletion };
        keys.put(&place.encode(), &schema::encode_record(event.kv, is_deletion))?;
    }
    Ok(keys.finish()?)
}
