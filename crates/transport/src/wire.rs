//! Reading and writing frames on a socket, and noticing when nobody is at its other end.

mod reader;
mod silence;
mod writer;

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use crate::Refusal;
use crate::frame::DecodeError;

pub(crate) use reader::FrameReader;
pub(crate) use silence::{Activity, Tick, watch_silence};
pub(crate) use writer::{OutQueue, Outgoing, Share, Tally, WeakOutQueue, out_queue, write_frames};

/// Why a connection ended.
#[derive(Debug, Error)]
pub(crate) enum End {
    #[error("the other side closed it")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Malformed(#[from] DecodeError),
    #[error("{0}")]
    Refused(Refusal),
    #[error("the other side fell silent")]
    Silent,
    #[error("it was not used for long")]
    Unused,
    #[error("this side no longer needs it")]
    Released,
    #[error("this process changed its identity")]
    IdentityChanged,
    #[error("this process is shutting down")]
    ShuttingDown,
}

/// Locks a mutex whose data stays consistent when a holder panics: every critical section of this
/// crate completes its change before it calls anything that could.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
