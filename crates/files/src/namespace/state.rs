//! The state machine: from a command to a change and an answer.

use bytes::Bytes;
use onefold_replica::{Apply, StateMachine};
use onefold_table::{Operation, Overlay, SpaceView, TableError, View};
use onefold_types::Timestamp;

use super::command::{Command, Reply, encode_answer};
use super::keys;
use super::records::{Counters, decode, encode};
use crate::api::FilesError;

/// The namespace of the file system as a replicated state machine. All its state is in its table.
#[derive(Debug, Default)]
pub struct Namespace;

/// Why a command changed nothing: it was refused, or the disk is broken.
pub(super) enum Stop {
    Refused(FilesError),
    Table(TableError),
}

impl From<FilesError> for Stop {
    fn from(error: FilesError) -> Self {
        Self::Refused(error)
    }
}

impl From<TableError> for Stop {
    fn from(error: TableError) -> Self {
        Self::Table(error)
    }
}

pub(super) type Applied<T> = Result<T, Stop>;

/// One command being applied: its writes stay apart until it has succeeded.
pub(super) struct Change<'a> {
    pub(super) time: Timestamp,
    pub(super) table: Overlay<'a>,
    pub(super) counters: Counters,
}

impl Change<'_> {
    /// A number that was never given out before.
    pub(super) fn next_id(&mut self) -> u64 {
        self.counters.last_id += 1;
        self.counters.last_id
    }

    fn carry_out(&mut self, command: Command) -> Applied<Reply> {
        match command {
            Command::CreateBucket { bucket } => self.create_bucket(&bucket),
            Command::DeleteBucket { bucket } => self.delete_bucket(&bucket),
            Command::PutFile { bucket, key, content, etag, options } => {
                self.put_file(&bucket, &key, content, etag, options)
            }
            Command::MakeDirectory { bucket, key, etag } => {
                self.make_directory(&bucket, &key, etag)
            }
            Command::Remove { bucket, keys } => self.remove(&bucket, &keys),
            Command::RemovePrefix { bucket, prefix, limit } => {
                self.remove_prefix(&bucket, &prefix, limit)
            }
            Command::Rename { from, to, condition } => self.rename(&from, &to, &condition),
            Command::Copy { from, to, options } => self.copy(&from, None, &to, options),
            Command::CopyVersion { from, version, to, options } => {
                self.copy(&from, version, &to, options)
            }
            Command::CreateUpload { bucket, key, options } => {
                self.create_upload(&bucket, &key, options)
            }
            Command::PutPart { bucket, key, upload, number, content, etag, options } => {
                self.put_part((&bucket, &key, &upload), number, content, etag, options)
            }
            Command::CompleteUpload { bucket, key, upload, parts, condition, options } => {
                self.complete_upload((&bucket, &key, &upload), &parts, &condition, options)
            }
            Command::AbortUpload { bucket, key, upload } => {
                self.abort_upload((&bucket, &key, &upload))
            }
            Command::Allocate { replicas, writer } => self.allocate(replicas, writer),
            Command::BeginSeal { chunk } => self.begin_seal(chunk),
            Command::FinishSeal { chunk, version, length, survivors } => {
                self.finish_seal(chunk, version, length, &survivors)
            }
            Command::AddReplica { chunk, version, node, instead_of } => {
                self.add_replica(chunk, version, node, instead_of)
            }
            Command::DropReplica { chunk, version, node } => {
                self.drop_replica(chunk, version, node)
            }
            Command::Touch { chunks } => self.touch(&chunks),
            Command::Collect { grace_ms, limit } => self.collect(grace_ms, limit),
            Command::SetVersioning { bucket, versioning } => {
                self.set_versioning(&bucket, versioning)
            }
            Command::SetSetting { bucket, setting, value } => {
                self.set_setting(&bucket, setting, value)
            }
            Command::RemoveVersions { bucket, targets } => self.remove_versions(&bucket, &targets),
            Command::ChangeHeaders { bucket, key, version, expected, changes } => {
                self.change_headers((&bucket, &key), version, &expected, changes)
            }
        }
    }
}

/// Applies one command to the state below `table`, all of it or nothing.
pub(super) fn apply(
    time: Timestamp,
    table: &mut Overlay<'_>,
    command: &[u8],
) -> Result<Result<Reply, FilesError>, TableError> {
    let command = match Command::decode(command) {
        Ok(command) => command,
        Err(error) => return Ok(Err(error)),
    };
    let counters = match table.get(keys::COUNTERS)? {
        Some(bytes) => decode::<Counters>("counters", &bytes)?,
        None => Counters::default(),
    };
    let before = counters.clone();
    let mut change = Change { time, table: Overlay::new(&*table), counters };
    let reply = match change.carry_out(command) {
        Ok(reply) => reply,
        Err(Stop::Refused(error)) => return Ok(Err(error)),
        Err(Stop::Table(error)) => return Err(error),
    };
    if change.counters != before {
        change.table.put(keys::COUNTERS, encode(&change.counters));
    }
    for operation in change.table.into_batch(b"").into_operations() {
        match operation {
            Operation::Put { key, value } => table.put(key, value),
            Operation::Delete { key } => table.delete(key),
        }
    }
    Ok(Ok(reply))
}

impl StateMachine for Namespace {
    fn apply(&mut self, context: &mut Apply<'_, '_>, command: &Bytes) -> Result<Bytes, TableError> {
        let answer = apply(context.time, context.table, command)?;
        Ok(encode_answer(&answer))
    }

    fn restored(&mut self, view: &SpaceView) -> Result<(), TableError> {
        // Nothing is cached; but a format that this version cannot read is refused at once.
        view.get(keys::COUNTERS)?
            .map_or(Ok(()), |bytes| decode::<Counters>("counters", &bytes).map(drop))
    }
}
