//! The MD5 of a stream, computed beside its transport.

use bytes::Bytes;
use md5::{Digest, Md5};
use tokio::task::JoinHandle;

use crate::api::FilesError;

/// Pieces up to this size are hashed at once: handing them over would cost more.
const INLINE_BYTES: usize = 32 << 10;

/// A running MD5.
pub(super) enum Hasher {
    Idle(Md5),
    /// A thread has it, with the piece it works on.
    Busy(JoinHandle<Md5>),
}

impl Hasher {
    pub(super) fn new() -> Self {
        Self::Idle(Md5::new())
    }

    /// Takes in bytes; waits only for those before them.
    pub(super) async fn update(&mut self, bytes: Bytes) -> Result<(), FilesError> {
        let mut md5 = self.settle().await?;
        *self = if bytes.len() <= INLINE_BYTES {
            md5.update(&bytes);
            Self::Idle(md5)
        } else {
            Self::Busy(tokio::task::spawn_blocking(move || {
                md5.update(&bytes);
                md5
            }))
        };
        Ok(())
    }

    /// The digest of everything taken in.
    pub(super) async fn finish(&mut self) -> Result<[u8; 16], FilesError> {
        Ok(self.settle().await?.finalize().into())
    }

    async fn settle(&mut self) -> Result<Md5, FilesError> {
        match self {
            Self::Idle(md5) => Ok(md5.clone()),
            Self::Busy(task) => task.await.map_err(|error| FilesError::Internal {
                reason: format!("the checksum was not finished: {error}"),
            }),
        }
    }
}
