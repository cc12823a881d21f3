//! Reads of a follower: one question to the leader for all that wait.

use std::time::Duration;

use bytes::Bytes;
use onefold_transport::{CallError, Class, Peers};
use onefold_types::{GroupId, LogIndex, NodeId};
use tokio::sync::{mpsc, watch};

use crate::core::ForwardedRead;
use crate::wire::{ReadIndex, ReadIndexRequest, milliseconds};
use crate::{Leadership, ReadError};

/// How long the leader may take to answer; a read that has more time asks again.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(1);

/// The queue between a group's reads and the task that asks for them.
pub(crate) fn queue(
    reads_max: usize,
) -> (mpsc::Sender<ForwardedRead>, mpsc::Receiver<ForwardedRead>) {
    mpsc::channel(reads_max)
}

/// Asks for the reads that wait, until the group is gone. While one question is under way, further
/// reads wait for the next: an answer counts only for reads that began before its question.
pub(crate) async fn run(
    group: GroupId,
    node: NodeId,
    peers: Peers,
    mut leadership: watch::Receiver<Leadership>,
    mut waiting: mpsc::Receiver<ForwardedRead>,
) {
    let mut batch = Vec::new();
    let reads_max = waiting.max_capacity();
    while waiting.recv_many(&mut batch, reads_max).await > 0 {
        let leader = leadership.borrow_and_update().leader;
        let answer = match leader.filter(|leader| *leader != node) {
            Some(leader) => {
                tokio::select! {
                    answer = ask(&peers, group, leader) => answer,
                    // Whoever leads now answers sooner than one who may be gone.
                    _ = leadership.changed() => Err(ReadError::NotLeader { group, leader: None }),
                }
            }
            None => Err(ReadError::NotLeader { group, leader }),
        };
        for read in batch.drain(..) {
            // Who asked may have given up.
            let _ = read.send(answer.clone());
        }
    }
}

async fn ask(peers: &Peers, group: GroupId, leader: NodeId) -> Result<LogIndex, ReadError> {
    let deadline_ms = milliseconds(QUESTION_TIMEOUT);
    let request = ReadIndexRequest { group, deadline_ms };
    let answer =
        peers.call::<ReadIndex>(leader, Class::Consensus, &request, Bytes::new(), QUESTION_TIMEOUT);
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
