//! Handing map output to reducers.

use std::os::unix::fs::FileExt;

use bytes::Bytes;
use onefold_transport::{RemoteCode, RemoteError};
use serde::{Deserialize, Serialize};

use super::folder::Folder;
use crate::api::JobId;
use crate::api::limits::FETCH_PIECE_BYTES_MAX;
use crate::job::{AttemptId, WorkerId};
use crate::shuffle::Run;
use crate::task::TaskError;

/// Asks for a piece of one partition of a map output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FetchRequest {
    /// The life of the worker that made it.
    pub(crate) worker: WorkerId,
    /// The job.
    pub(crate) job: JobId,
    /// The map task.
    pub(crate) map: u32,
    /// The attempt at it.
    pub(crate) attempt: AttemptId,
    /// The partition.
    pub(crate) partition: u32,
    /// Where in the partition's bytes the piece starts.
    pub(crate) offset: u64,
}

/// What the partition has. The piece itself travels beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FetchResponse {
    /// Bytes of the whole partition.
    pub(crate) length: u64,
    /// Records of the whole partition.
    pub(crate) records: u64,
}

/// Reads a piece; blocks.
pub(super) fn read_piece(
    folder: &Folder,
    me: WorkerId,
    request: &FetchRequest,
) -> Result<(FetchResponse, Bytes), RemoteError> {
    if request.worker != me {
        return Err(gone("its worker was restarted since"));
    }
    let path = folder.map_output(request.job, request.map, request.attempt);
    let run = Run::open(&path).map_err(|error| match error {
        TaskError::Disk { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            gone("the file does not exist")
        }
        other => corrupt(&other),
    })?;
    if request.partition >= run.partitions() {
        return Err(RemoteError::new(RemoteCode::Invalid, "there is no such partition"));
    }
    let segment = run.segment(request.partition).map_err(|error| corrupt(&error))?;
    let Some(left) = segment.length.checked_sub(request.offset) else {
        return Err(RemoteError::new(RemoteCode::Invalid, "the partition ends before that offset"));
    };
    let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(FETCH_PIECE_BYTES_MAX);
    let mut piece = vec![0; bytes];
    run.file()
        .read_exact_at(&mut piece, segment.offset + request.offset)
        .map_err(|error| corrupt(&TaskError::disk("read", &path, error)))?;
    let response = FetchResponse { length: segment.length, records: segment.records };
    Ok((response, piece.into()))
}

fn gone(reason: &str) -> RemoteError {
    RemoteError::new(RemoteCode::NotFound, format!("the map output is gone: {reason}"))
}

fn corrupt(error: &TaskError) -> RemoteError {
    RemoteError::new(RemoteCode::Corrupt, error.to_string())
}
