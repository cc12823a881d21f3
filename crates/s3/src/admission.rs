//! How much work is let in at once.

use std::sync::Arc;

use s3s::{S3Error, s3_error};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::config::Config;

/// Memory that one transfer may hold on this node, whatever its length: a piece being received, one
/// being written, and the storage's own buffers; for a download the storage's read-ahead.
pub(crate) const TRANSFER_BYTES: u64 = 4 << 20;

/// The places for requests and for their bodies' bytes.
#[derive(Debug)]
pub(crate) struct Admission {
    requests: Arc<Semaphore>,
    body_bytes: Arc<Semaphore>,
    body_bytes_max: u32,
    wait: std::time::Duration,
}

/// A place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Admission {
    pub(crate) fn new(config: &Config) -> Self {
        let body_bytes_max = u32::try_from(config.body_bytes_max).unwrap_or(u32::MAX);
        let permits = (body_bytes_max as usize).min(Semaphore::MAX_PERMITS);
        Self {
            requests: Arc::new(Semaphore::new(config.requests_max)),
            body_bytes: Arc::new(Semaphore::new(permits)),
            body_bytes_max,
            wait: config.admission_wait,
        }
    }

    /// A place for a request.
    pub(crate) async fn request(&self) -> Result<Place, S3Error> {
        self.acquire(&self.requests, 1, "requests").await
    }

    /// A place for a transfer of so many bytes.
    pub(crate) async fn transfer(&self, length: u64) -> Result<Place, S3Error> {
        self.memory(length.min(TRANSFER_BYTES)).await
    }

    /// A place for so many bytes that are held in memory together.
    pub(crate) async fn memory(&self, bytes: u64) -> Result<Place, S3Error> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.body_bytes_max);
        self.acquire(&self.body_bytes, bytes, "bytes in transfer").await
    }

    async fn acquire(
        &self,
        places: &Arc<Semaphore>,
        count: u32,
        what: &str,
    ) -> Result<Place, S3Error> {
        match timeout(self.wait, Arc::clone(places).acquire_many_owned(count)).await {
            Ok(Ok(permit)) => Ok(Place(permit)),
            Ok(Err(_)) | Err(_) => Err(s3_error!(
                SlowDown,
                "this node has as many {what} at work as it may; reduce your request rate"
            )),
        }
    }
}
