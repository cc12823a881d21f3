//! Reads of a follower: one question to the leader for all that wait.
//!
//! A task asks as long as reads wait, and there is none while nobody reads: most groups of a node
//! are idle most of the time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use onefold_transport::{CallError, Class};
use onefold_types::{LogIndex, NodeId};
use tokio::sync::oneshot;

use crate::ReadError;
use crate::core::{Core, GroupCell, lock};
use crate::wire::{ReadIndex, ReadIndexRequest, milliseconds};

/// How long the leader may take to answer; a read that has more time asks again.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(1);

/// A follower's read that waits for the leader's answer.
type ForwardedRead = oneshot::Sender<Result<LogIndex, ReadError>>;

/// The reads of one group that wait.
#[derive(Default)]
pub(crate) struct Forwarding {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: Vec<ForwardedRead>,
    /// Whether a task takes what waits.
    is_asking: bool,
}

/// Has the leader asked what is committed.
///
/// # Errors
/// When too many wait.
pub(crate) fn forward(
    core: &Arc<Core>,
    cell: &Arc<GroupCell>,
    read: ForwardedRead,
) -> Result<(), ReadError> {
    let mut state = lock(&cell.forwarding_reads.state);
    if state.waiting.len() >= core.config.limits.reads_waiting_max {
        return Err(ReadError::Overloaded { group: cell.id });
    }
    state.waiting.push(read);
    if !std::mem::replace(&mut state.is_asking, true) {
        core.runtime.spawn(run(core.clone(), cell.clone()));
    }
    Ok(())
}

/// Asks for the reads that wait, until there are none. While one question is under way, further
/// reads wait for the next: an answer counts only for reads that began before its question.
async fn run(core: Arc<Core>, cell: Arc<GroupCell>) {
    let group = cell.id;
    let mut leadership = cell.leadership.subscribe();
    loop {
        let batch = {
            let mut state = lock(&cell.forwarding_reads.state);
            state.is_asking = !state.waiting.is_empty();
            if !state.is_asking {
                return;
            }
            std::mem::take(&mut state.waiting)
        };
        let leader = leadership.borrow_and_update().leader;
        let answer = match leader.filter(|leader| *leader != cell.node) {
            Some(leader) => {
                tokio::select! {
                    answer = ask(&core, &cell, leader) => answer,
                    // Whoever leads now answers sooner than one who may be gone.
                    _ = leadership.changed() => Err(ReadError::NotLeader { group, leader: None }),
                }
            }
            None => Err(ReadError::NotLeader { group, leader }),
        };
        for read in batch {
            // Who asked may have given up.
            let _ = read.send(answer.clone());
        }
    }
}

async fn ask(core: &Core, cell: &GroupCell, leader: NodeId) -> Result<LogIndex, ReadError> {
    let group = cell.id;
    let deadline_ms = milliseconds(QUESTION_TIMEOUT);
    let request = ReadIndexRequest { group, deadline_ms };
    let answer = core.peers.call::<ReadIndex>(
        leader,
        Class::Consensus,
        &request,
        Bytes::new(),
        QUESTION_TIMEOUT,
    );
    match answer.await {
        Ok((index, _)) => Ok(index),
        Err(CallError::Remote(error)) => match error.detail() {
            Some(error @ ReadError::Overloaded { .. }) => Err(error),
            _ => Err(ReadError::NotLeader { group, leader: None }),
        },
        Err(CallError::Overloaded { .. }) => Err(ReadError::Overloaded { group }),
        // A read can always be tried again.
        Err(_) => Err(ReadError::NotLeader { group, leader: None }),
    }
}
