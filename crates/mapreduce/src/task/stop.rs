//! Telling an attempt from outside to stop.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};

use super::error::TaskError;

/// Shared between an attempt and who may stop it. Native code looks at it now and then; commands are
/// killed with all the processes that they started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    activity: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    reason: Option<Reason>,
    /// The process groups of running commands. A group is here only while its first process has not
    /// been waited for, so its number cannot have been given to another one.
    groups: Vec<Pid>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Unwanted,
    TimedOut { seconds: u64 },
}

impl Stop {
    /// Stops the attempt because nobody wants its result.
    pub(crate) fn stop(&self) {
        self.stop_for(Reason::Unwanted);
    }

    /// Stops the attempt because it has made no progress for so long.
    pub(crate) fn time_out(&self, seconds: u64) {
        self.stop_for(Reason::TimedOut { seconds });
    }

    /// An error once the attempt is to stop.
    pub(crate) fn check(&self) -> Result<(), TaskError> {
        match self.lock().reason {
            None => Ok(()),
            Some(Reason::Unwanted) => Err(TaskError::Stopped),
            Some(Reason::TimedOut { seconds }) => Err(TaskError::TimedOut { seconds }),
        }
    }

    /// Notes that something was read, written or reported.
    pub(crate) fn note_activity(&self) {
        self.0.activity.fetch_add(1, Ordering::Relaxed);
    }

    /// A number that changes when there was activity.
    pub(crate) fn activity(&self) -> u64 {
        self.0.activity.load(Ordering::Relaxed)
    }

    /// Has a command killed when the attempt is stopped, at once if it has been already.
    pub(crate) fn watch_group(&self, group: Pid) {
        let mut state = self.lock();
        if state.reason.is_some() {
            kill(group);
        }
        state.groups.push(group);
    }

    /// Kills a command that is still being watched.
    pub(crate) fn kill_group(&self, group: Pid) {
        let state = self.lock();
        if state.groups.contains(&group) {
            kill(group);
        }
    }

    /// Kills what is left of a command, whose first process has ended and was not waited for yet.
    pub(crate) fn end_group(&self, group: Pid) {
        let mut state = self.lock();
        kill(group);
        state.groups.retain(|&other| other != group);
    }

    fn stop_for(&self, reason: Reason) {
        let mut state = self.lock();
        state.reason.get_or_insert(reason);
        for &group in &state.groups {
            kill(group);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kill(group: Pid) {
    // The only way to fail is that no process of the group is left.
    let _ = kill_process_group(group, Signal::KILL);
}
