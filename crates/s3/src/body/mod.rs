//! A request's body on its way in: time limits, framing limits, and a memory of what went wrong.
//!
//! Nothing in here buffers more than one piece of what the connection received.

mod checks;
mod framing;
mod incoming;

use std::fmt;
use std::sync::{Arc, OnceLock};

use hyper::StatusCode;
use s3s::{S3Error, S3ErrorCode};

pub(crate) use checks::BodyChecks;
pub(crate) use framing::{Framing, SIGNED_CHUNK_BYTES_MAX};
pub(crate) use incoming::RequestBody;

/// What was wrong with a body, for the answer. The layers between see only a stream that failed.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    code: S3ErrorCode,
    status: Option<StatusCode>,
    message: String,
}

impl Fault {
    pub(crate) fn new(code: S3ErrorCode, message: impl Into<String>) -> Self {
        Self { status: code.status_code(), code, message: message.into() }
    }

    pub(crate) fn to_s3_error(&self) -> S3Error {
        let mut error = S3Error::with_message(self.code.clone(), self.message.clone());
        if let Some(status) = self.status {
            error.set_status_code(status);
        }
        error
    }
}

impl From<S3Error> for Fault {
    fn from(error: S3Error) -> Self {
        Self {
            code: error.code().clone(),
            status: error.status_code(),
            message: error.message().unwrap_or_default().to_owned(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// Where a body leaves its first fault.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultCell(Arc<OnceLock<Fault>>);

impl FaultCell {
    /// Keeps the fault if it is the first.
    pub(crate) fn record(&self, fault: &Fault) {
        self.0.get_or_init(|| fault.clone());
    }

    pub(crate) fn get(&self) -> Option<&Fault> {
        self.0.get()
    }
}
