//! How much may be in work at once: what is beyond is refused at once instead of piling up.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::errors;

/// Most bytes of requests in work, where each counts at least [`REQUEST_COST_BYTES_MIN`].
const REQUEST_BYTES_IN_WORK_MAX: usize = 256 << 20;

/// What a request costs beside its own bytes.
const REQUEST_COST_BYTES_MIN: usize = 16 << 10;

/// Most watches on all streams together.
const WATCHES_MAX: usize = 1_000_000;

/// Snapshots that are written or sent at once.
const SNAPSHOTS_MAX: usize = 2;

/// Hands out permits for requests, watches and snapshots.
#[derive(Clone)]
pub(crate) struct Admission {
    bytes: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    snapshots: Arc<Semaphore>,
}

impl Admission {
    pub(crate) fn new() -> Self {
        Self {
            bytes: Arc::new(Semaphore::new(REQUEST_BYTES_IN_WORK_MAX)),
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
            snapshots: Arc::new(Semaphore::new(SNAPSHOTS_MAX)),
        }
    }

    /// Lets a request of so many bytes in, until the permit is dropped.
    pub(crate) fn request(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Status> {
        let cost = u32::try_from(REQUEST_COST_BYTES_MIN.saturating_add(bytes))
            .map_err(|_| errors::request_too_large())?;
        let permit = Arc::clone(&self.bytes).try_acquire_many_owned(cost);
        permit.map_err(|_| errors::too_many_requests())
    }

    /// Lets a watch in, until the permit is dropped; `None` when there are too many.
    pub(crate) fn watch(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.watches).try_acquire_owned().ok()
    }

    /// Lets a snapshot be made, until the permit is dropped.
    pub(crate) fn snapshot(&self) -> Result<OwnedSemaphorePermit, Status> {
        let permit = Arc::clone(&self.snapshots).try_acquire_owned();
        permit.map_err(|_| errors::too_many_requests())
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn requests_are_refused_once_too_many_bytes_are_in_work() {
        let admission = Admission::new();
        let large = REQUEST_BYTES_IN_WORK_MAX - REQUEST_COST_BYTES_MIN;
        let permit = admission.request(large).expect("the first has all the room");
        let refused = admission.request(0).expect_err("nothing is left");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.message(), "etcdserver: too many requests");
        drop(permit);
        assert!(admission.request(0).is_ok());
    }
}
