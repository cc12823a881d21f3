//! The leader has compacted history removed from the table, in bounded steps.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use onefold_replica::Group;
use tokio::time::sleep;

use super::Shared;
use crate::limits::REQUEST_TIMEOUT;
use crate::store::command::Command;

/// Events that one step looks at: a few milliseconds of applying.
const EVENTS_PER_STEP: u32 = 512;

/// Rest between two steps, which belongs to the clients' writes.
const REST: Duration = Duration::from_millis(2);

/// Rest after a failed step.
const RETRY: Duration = Duration::from_millis(500);

/// Runs until it is aborted.
pub(super) async fn run(group: Group, shared: Arc<Shared>) {
    let mut leadership = group.leadership();
    loop {
        let is_due = shared.sweep_is_due.load(Ordering::Acquire);
        if is_due && leadership.borrow_and_update().is_self {
            let step = Command::Sweep { events_max: EVENTS_PER_STEP };
            let rest = match group.propose(step.encode(), None, REQUEST_TIMEOUT).await {
                Ok(_) => REST,
                Err(error) => {
                    tracing::debug!(group = %group.id(), %error, "a step of compaction failed");
                    RETRY
                }
            };
            sleep(rest).await;
        } else {
            tokio::select! {
                () = shared.sweep_wake.notified() => {}
                changed = leadership.changed() => if changed.is_err() { return },
            }
        }
    }
}
