//! The bounded queue of appends before the log's thread.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::log::Done;
use crate::{LogError, Write};

/// Most appends that wait; small ones are bounded by this rather than by their bytes.
const APPENDS_MAX: usize = 16 << 10;
/// Most bytes of appends that share one write. A larger one is written alone.
const GROUP_BYTES_MAX: u64 = 8 << 20;

/// An append that waits.
pub(crate) struct Pending {
    pub(crate) writes: Vec<Write>,
    /// Bytes of its batch; 0 for one that only waits for those before it.
    pub(crate) bytes: u64,
    pub(crate) done: Done,
}

/// The queue between the appenders and the log's thread.
pub(crate) struct Queue {
    state: Mutex<State>,
    has_work: Condvar,
    has_space: Condvar,
    bytes_max: u64,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Pending>,
    bytes: u64,
    is_closed: bool,
    poison: Option<LogError>,
}

impl Queue {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self {
            state: Mutex::default(),
            has_work: Condvar::new(),
            has_space: Condvar::new(),
            bytes_max,
        }
    }

    /// Adds an append; waits while the queue is full.
    pub(crate) fn push(&self, pending: Pending) -> Result<(), LogError> {
        let mut state = self.lock();
        loop {
            if let Some(error) = &state.poison {
                return Err(error.clone());
            }
            if state.is_closed {
                return Err(LogError::Closed);
            }
            // One that is larger than the whole queue goes in when it is empty.
            let fits = state.waiting.is_empty() || state.bytes + pending.bytes <= self.bytes_max;
            if fits && state.waiting.len() < APPENDS_MAX {
                break;
            }
            state = self.has_space.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.bytes += pending.bytes;
        state.waiting.push_back(pending);
        self.has_work.notify_one();
        Ok(())
    }

    /// Takes what waits, at most what one write should hold. Waits for something, at most for
    /// `patience` if there is any: then it may be nothing. None once the queue is closed and empty.
    pub(crate) fn take(&self, patience: Option<Duration>) -> Option<Vec<Pending>> {
        let mut state = self.lock();
        if patience != Some(Duration::ZERO) {
            let idle = |state: &mut State| state.waiting.is_empty() && !state.is_closed;
            state = match patience {
                None => {
                    self.has_work.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner)
                }
                Some(patience) => {
                    let woken = self.has_work.wait_timeout_while(state, patience, idle);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            if state.waiting.is_empty() && state.is_closed {
                return None;
            }
        }
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(next) = state.waiting.front() {
            if bytes > 0 && bytes + next.bytes > GROUP_BYTES_MAX {
                break;
            }
            bytes += next.bytes;
            taken.extend(state.waiting.pop_front());
        }
        state.bytes -= bytes;
        self.has_space.notify_all();
        Some(taken)
    }

    /// Refuses everything from now on with `error`.
    pub(crate) fn poison(&self, error: LogError) {
        self.lock().poison.get_or_insert(error);
        self.has_space.notify_all();
    }

    pub(crate) fn poisoned(&self) -> Option<LogError> {
        self.lock().poison.clone()
    }

    /// Takes no more; what waits is still written.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.has_space.notify_all();
        self.has_work.notify_all();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
