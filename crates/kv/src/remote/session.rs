//! Numbers for commands, so that a command sent twice is executed once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use onefold_replica::SessionTag;
use onefold_types::SessionId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Commands of one session under way at once. A group remembers more answers than that.
const COMMANDS_MAX: usize = 256;

/// A session of this process.
pub(super) struct Session {
    id: SessionId,
    numbers: Mutex<Numbers>,
    room: Arc<Semaphore>,
}

struct Numbers {
    next: u64,
    under_way: BTreeSet<u64>,
}

/// A command's number, in use until it is dropped.
pub(super) struct Number<'a> {
    session: &'a Session,
    sequence: u64,
    _room: OwnedSemaphorePermit,
}

impl Session {
    /// A session that nobody else has.
    pub(super) fn new() -> Self {
        Self {
            id: SessionId(rand::random()),
            numbers: Mutex::new(Numbers { next: 1, under_way: BTreeSet::new() }),
            room: Arc::new(Semaphore::new(COMMANDS_MAX)),
        }
    }

    /// Takes the next number, after waiting until few enough are in use.
    pub(super) async fn number(&self) -> Number<'_> {
        let room = self.room.clone().acquire_owned().await.expect("it is never closed");
        let mut numbers = self.lock();
        let sequence = numbers.next;
        numbers.next += 1;
        numbers.under_way.insert(sequence);
        drop(numbers);
        Number { session: self, sequence, _room: room }
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        // Nothing under the lock panics half-way through a change.
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Number<'_> {
    /// What goes with the command, each time it is sent.
    pub(super) fn tag(&self) -> SessionTag {
        let numbers = self.session.lock();
        let acknowledged_below = numbers.under_way.first().copied().unwrap_or(numbers.next);
        SessionTag { session: self.session.id, sequence: self.sequence, acknowledged_below }
    }
}

impl Drop for Number<'_> {
    fn drop(&mut self) {
        self.session.lock().under_way.remove(&self.sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_are_kept_for_the_oldest_command_under_way() {
        let session = Session::new();
        let first = session.number().await;
        let second = session.number().await;
        assert_eq!((first.tag().sequence, second.tag().sequence), (1, 2));
        assert_eq!(second.tag().acknowledged_below, 1);
        drop(first);
        assert_eq!(second.tag().acknowledged_below, 2);
    }
}
