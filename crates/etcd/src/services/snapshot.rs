//! The Snapshot call: a file that etcd's own tools check and restore.
//!
//! The file is put together before any of it is sent: its first page says how long it is. So the
//! store's view is held only for as long as writing takes, however slow the client is.

use std::fs::File;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use onefold_kv::{Header, Kv};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::task::spawn_blocking;
use tonic::Status;

use crate::errors::{self, status};
use crate::gateway::Gateway;
use crate::proto::etcdserverpb::{ResponseHeader, SnapshotResponse};
use crate::room::Taken;
use crate::snapshot::{WriteError, write};

/// Bytes of the file in one message.
const PIECE_BYTES: usize = 128 << 10;

/// The version of etcd whose files have this form.
const STORAGE_VERSION: &str = "3.5.0";

/// Writes a store to a file and sends it, and then its SHA-256.
pub(super) async fn stream(
    gateway: &Gateway,
    kv: &dyn Kv,
) -> Result<BoxStream<'static, Result<SnapshotResponse, Status>>, Status> {
    let permit = gateway.admission.snapshot()?;
    let export = kv.export().await.map_err(status)?;
    let (revision, raft_term) = (export.revision(), export.raft_term());
    let index = gateway.cluster.status().applied;
    let folder = gateway.options.scratch_dir.clone();
    let written = spawn_blocking(move || write(&export, index, &folder)).await;
    let (file, bytes) = match written {
        Ok(Ok(written)) => written,
        Ok(Err(WriteError::Store(error))) => return Err(status(error)),
        Ok(Err(error @ WriteError::File(_))) => {
            return Err(Status::resource_exhausted(error.to_string()));
        }
        Err(error) => return Err(Status::internal(format!("no snapshot was written: {error}"))),
    };
    let header = gateway.header(Header { revision, raft_term });
    let sender = Sender::new(file, bytes, header, permit);
    let shutdown = gateway.shutdown.clone();
    let pieces = stream::try_unfold(sender, move |sender| {
        let shutdown = shutdown.clone();
        async move {
            tokio::select! {
                piece = sender.next() => piece,
                () = shutdown.cancelled() => Err(errors::stopped()),
            }
        }
    });
    Ok(pieces.boxed())
}

/// A file on its way to a client.
struct Sender {
    file: tokio::fs::File,
    remaining_bytes: u64,
    sha256: Sha256,
    is_done: bool,
    header: Option<ResponseHeader>,
    /// Counts the snapshot as in work.
    _permit: Taken,
}

impl Sender {
    fn new(
        file: File,
        remaining_bytes: u64,
        header: Option<ResponseHeader>,
        permit: Taken,
    ) -> Self {
        let (file, sha256) = (tokio::fs::File::from_std(file), Sha256::new());
        Self { file, remaining_bytes, sha256, is_done: false, header, _permit: permit }
    }

    async fn next(mut self) -> Result<Option<(SnapshotResponse, Self)>, Status> {
        if self.is_done {
            return Ok(None);
        }
        let blob = if self.remaining_bytes == 0 {
            self.is_done = true;
            Bytes::copy_from_slice(&self.sha256.clone().finalize())
        } else {
            self.read().await.map_err(|error| {
                Status::internal(format!("the snapshot cannot be read from the disk: {error}"))
            })?
        };
        let response = SnapshotResponse {
            header: self.header,
            remaining_bytes: self.remaining_bytes,
            blob,
            version: STORAGE_VERSION.to_owned(),
        };
        Ok(Some((response, self)))
    }

    async fn read(&mut self) -> std::io::Result<Bytes> {
        let bytes = usize::try_from(self.remaining_bytes).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let mut piece = BytesMut::zeroed(bytes);
        self.file.read_exact(&mut piece).await?;
        self.sha256.update(&piece);
        self.remaining_bytes -= bytes as u64;
        Ok(piece.freeze())
    }
}
