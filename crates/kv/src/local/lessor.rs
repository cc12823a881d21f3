//! The leader ends leases whose time is over, and notes the time that the others have left.
//!
//! Only the leader counts time. A new one announces its term through the log before it counts, which
//! makes the expiries of an older one void, and goes on from the time that was last noted of each
//! lease: a lease may live longer because of an election, never shorter.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use onefold_replica::Group;
use onefold_types::Term;
use tokio::time::{Instant, sleep, sleep_until};

use super::book::TICK;
use super::{Shared, propose};
use crate::LeaseId;
use crate::store::command::Command;
use crate::store::lease;

/// Leases ended in one tick at most, so that a mass expiry leaves room for others' writes.
const EXPIRIES_PER_TICK_MAX: usize = 200;

/// Leases whose time is noted in one tick at most, in one command.
const NOTES_PER_TICK_MAX: usize = 1000;

/// How long to wait after a proposal failed.
const RETRY: Duration = Duration::from_millis(100);

/// Runs until it is aborted. `note_interval` is the time after which what a lease has left is noted.
pub(super) async fn run(group: Group, shared: Arc<Shared>, note_interval: Duration) {
    let mut leadership = group.leadership();
    loop {
        let now = *leadership.borrow_and_update();
        if now.is_self {
            shared.book.open(now.term, note_interval, shared.now());
            tokio::select! {
                () = lead(&group, &shared, now.term) => {}
                changed = leadership.changed() => if changed.is_err() { return },
            }
        } else if leadership.changed().await.is_err() {
            return;
        }
        shared.book.close();
    }
}

/// Keeps the book of a term. Dropped when leadership changes.
async fn lead(group: &Group, shared: &Shared, term: Term) {
    while let Err(error) = propose(group, Command::Lead(term)).await {
        tracing::debug!(group = %group.id(), %term, %error, "announcing the lessor failed");
        sleep(RETRY).await;
    }
    match lease::all(&group.view()) {
        Ok(leases) => shared.book.complete(leases, shared.now()),
        Err(error) => {
            // The host stops on the same error; until then nothing expires.
            tracing::error!(group = %group.id(), %error, "reading the leases failed");
            return std::future::pending().await;
        }
    }
    let mut clock = Clock { last: Instant::now() };
    loop {
        clock.tick(group, shared).await;
        for id in shared.book.due(shared.now(), EXPIRIES_PER_TICK_MAX) {
            clock.tick_during(group, shared, expire(group, shared, id, term)).await;
        }
        clock.tick_during(group, shared, note(group, shared, term)).await;
    }
}

/// The ticks of the book.
struct Clock {
    last: Instant,
}

impl Clock {
    /// Waits for the next tick. Dropping it early loses nothing.
    async fn tick(&mut self, group: &Group, shared: &Shared) {
        sleep_until(self.last + TICK).await;
        self.last = Instant::now();
        let lost = shared.book.tick(shared.now());
        if !lost.is_zero() {
            tracing::warn!(group = %group.id(), ?lost, "leases get the time that was lost");
        }
    }

    /// Ticks also while the work waits for the log, so that a long wait is not taken for a stall.
    async fn tick_during(
        &mut self,
        group: &Group,
        shared: &Shared,
        work: impl Future<Output = ()>,
    ) {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                () = &mut work => break,
                () = self.tick(group, shared) => {}
            }
        }
    }
}

async fn expire(group: &Group, shared: &Shared, id: LeaseId, term: Term) {
    match propose(group, Command::LeaseExpire { id, term }).await {
        // The store has told the book; but one that it did not know stays only in the book.
        Ok(_) => shared.book.ended(id),
        Err(error) => {
            tracing::debug!(group = %group.id(), lease = %id, %error, "expiring a lease failed");
            sleep(RETRY).await;
        }
    }
}

/// Notes the time of some leases in the log.
async fn note(group: &Group, shared: &Shared, term: Term) {
    // Who clears a note waits, so that the log has both in this order.
    let _alone = shared.notes.write().await;
    let left = shared.book.to_note(shared.now(), NOTES_PER_TICK_MAX);
    if left.is_empty() {
        return;
    }
    if let Err(error) = propose(group, Command::LeaseCheckpoint { term, left }).await {
        // What was noted before still holds, only for longer.
        tracing::debug!(group = %group.id(), %error, "noting the time of leases failed");
    }
}
