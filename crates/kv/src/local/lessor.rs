//! The leader ends leases whose time is over.
//!
//! Only the leader counts time. A new one announces its term through the log before it counts, which
//! makes the expiries of an older one void, and gives every lease its full time: a lease may live
//! longer because of an election, never shorter.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use onefold_replica::Group;
use onefold_types::Term;
use tokio::time::{Instant, sleep, sleep_until};

use super::Shared;
use super::errors::from_propose;
use crate::limits::REQUEST_TIMEOUT;
use crate::store::command::{Answer, Command, Outcome, decode_outcome};
use crate::store::lease;
use crate::{KvError, LeaseId};

/// How often the book is looked at.
const TICK: Duration = Duration::from_millis(200);

/// A tick that comes later than this means that the process or its machine did not run. That time
/// does not count against leases: their keep-alives could not arrive.
const STALL: Duration = Duration::from_secs(1);

/// Leases ended in one tick at most, so that a mass expiry leaves room for others' writes.
const EXPIRIES_PER_TICK_MAX: usize = 200;

/// How long to wait after a proposal failed.
const RETRY: Duration = Duration::from_millis(100);

/// Runs until it is aborted.
pub(super) async fn run(group: Group, shared: Arc<Shared>) {
    let mut leadership = group.leadership();
    loop {
        let now = *leadership.borrow_and_update();
        if now.is_self {
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
    shared.book.open(term);
    while let Err(error) = propose(group, Command::Lead(term)).await {
        tracing::debug!(group = %group.id(), %term, %error, "announcing the lessor failed");
        sleep(RETRY).await;
    }
    match lease::all(&group.view()) {
        Ok(leases) => shared.book.complete(leases, Instant::now()),
        Err(error) => {
            // The host stops on the same error; until then nothing expires.
            tracing::error!(group = %group.id(), %error, "reading the leases failed");
            return std::future::pending().await;
        }
    }
    let mut clock = Clock { last: Instant::now() };
    loop {
        clock.tick(group, shared).await;
        for id in shared.book.due(Instant::now(), EXPIRIES_PER_TICK_MAX) {
            let mut expiry = pin!(expire(group, shared, id, term));
            loop {
                tokio::select! {
                    () = &mut expiry => break,
                    () = clock.tick(group, shared) => {}
                }
            }
        }
    }
}

/// Ticks also while an expiry waits for the log, so that a long wait is not taken for a stall.
struct Clock {
    last: Instant,
}

impl Clock {
    /// Waits for the next tick. Dropping it early loses nothing.
    async fn tick(&mut self, group: &Group, shared: &Shared) {
        sleep_until(self.last + TICK).await;
        let now = Instant::now();
        let late = now.duration_since(self.last).saturating_sub(TICK);
        self.last = now;
        if late > STALL {
            tracing::warn!(group = %group.id(), ?late, "leases get the time that was lost");
            shared.book.extend(late);
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

async fn propose(group: &Group, command: Command) -> Result<Answer, KvError> {
    let answer = group.propose(command.encode(), None, REQUEST_TIMEOUT).await;
    let outcome: Outcome = decode_outcome(&answer.map_err(from_propose)?);
    outcome
}
