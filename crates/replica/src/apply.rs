//! The apply threads: committed entries become state and answers.
//!
//! Each group is pinned to one thread. A thread takes all that waits, and applies what a group has
//! in rounds of bounded size: one overlay, one atomic batch with the data, the sessions and the
//! applied index, then the answers. The core hands out only entries that are durable in this node's
//! log, so the table is never ahead of the log, however fast it is and whatever the disk does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use bytes::Bytes;
use onefold_raft::{Entry, SnapshotMark};
use onefold_types::{GroupId, LogIndex};
use tokio::sync::oneshot;

use crate::core::{Core, GroupCell};
use crate::inbox::Event;
use crate::state::{Applied, Checkpoint, GroupState};
use crate::{HostError, ProposeError};

/// One group's state on its apply thread, and those who see it from others.
pub(crate) struct Replica {
    pub(crate) cell: Arc<GroupCell>,
    pub(crate) state: GroupState,
}

/// Somebody waits for the answer of an entry.
pub(crate) struct Waiter {
    pub(crate) index: LogIndex,
    pub(crate) reply: oneshot::Sender<Result<Bytes, ProposeError>>,
}

/// What the consensus thread hands to an apply thread.
pub(crate) enum Work {
    /// Apply these entries, and answer who waits for them; both in the order of the log.
    Apply { group: GroupId, entries: Vec<Entry>, waiters: Vec<Waiter> },
    /// Replace the state by the staged snapshot.
    Install { group: GroupId, mark: SnapshotMark },
    /// A group is on this thread from now on.
    Host(Box<Replica>),
    /// A group is on this node no more.
    Abandon { group: GroupId },
    /// Give the state up, since it is wrong. Nothing is to be applied until a snapshot is installed.
    Discard { group: GroupId },
}

/// What one group has to apply.
#[derive(Default)]
struct Backlog {
    entries: VecDeque<Entry>,
    waiters: VecDeque<Waiter>,
}

/// Applies until the consensus thread is gone.
///
/// # Errors
/// What stops the host.
pub(crate) fn run(
    core: &Arc<Core>,
    mut replicas: BTreeMap<GroupId, Replica>,
    work: &Receiver<Work>,
) -> Result<(), HostError> {
    let mut backlogs: BTreeMap<GroupId, Backlog> = BTreeMap::new();
    loop {
        let first = if backlogs.is_empty() { work.recv().ok() } else { None };
        if backlogs.is_empty() && first.is_none() {
            return Ok(());
        }
        for item in first.into_iter().chain(work.try_iter()) {
            match item {
                Work::Apply { group, entries, waiters } => {
                    let backlog = backlogs.entry(group).or_default();
                    backlog.entries.extend(entries);
                    backlog.waiters.extend(waiters);
                }
                Work::Install { group, mark } => {
                    let replica = hosted(&mut replicas, group);
                    // What came before is part of the snapshot or of the state that it replaces.
                    if let Some(mut before) = backlogs.remove(&group) {
                        while !before.entries.is_empty() {
                            round(core, replica, &mut before)?;
                        }
                    }
                    core.inbox.report(install(core, replica, mark)?);
                }
                Work::Host(replica) => {
                    replicas.insert(replica.cell.id, *replica);
                }
                Work::Abandon { group } => {
                    if let Some(backlog) = backlogs.remove(&group) {
                        give_up(group, backlog, "the group was destroyed on this node");
                    }
                    replicas.remove(&group);
                    // Nothing writes to its space any more.
                    core.chores.reclaim(group);
                }
                Work::Discard { group } => {
                    // What waits would be answered out of a wrong state.
                    if let Some(backlog) = backlogs.remove(&group) {
                        give_up(group, backlog, "this replica's state was found to be wrong");
                    }
                    discard(core, hosted(&mut replicas, group))?;
                }
            }
        }
        // One round each, so that a busy group does not starve the others of the thread.
        for (&group, backlog) in &mut backlogs {
            round(core, hosted(&mut replicas, group), backlog)?;
        }
        backlogs.retain(|_, backlog| !backlog.entries.is_empty());
    }
}

fn hosted(replicas: &mut BTreeMap<GroupId, Replica>, group: GroupId) -> &mut Replica {
    replicas.get_mut(&group).expect("work is sent to the thread that has the group")
}

fn round(core: &Core, replica: &mut Replica, backlog: &mut Backlog) -> Result<(), HostError> {
    let bytes_max = core.config.limits.apply_round_bytes_max;
    let mut applied = replica.state.apply(&mut backlog.entries, bytes_max)?;
    // Readers and watchers may see it before its proposers have their answers.
    replica.cell.applied.send_replace(applied.index);
    replica.cell.applied_time(replica.state.time());
    for (index, answer) in std::mem::take(&mut applied.answers) {
        // Waiters whose index has passed are those of this index: the log has one entry there.
        if let Some(waiter) = backlog.waiters.pop_front_if(|waiter| waiter.index <= index) {
            assert_eq!(waiter.index, index, "every entry that is waited for is answered");
            // Who waited may have given up.
            let _ = waiter.reply.send(answer);
        }
    }
    let (group, index) = (replica.cell.id, applied.index);
    let Applied { hash, bytes, checkpoints, .. } = applied;
    let last = Checkpoint { index, hash };
    core.inbox.report(Event::Applied { group, bytes, last, checkpoints });
    Ok(())
}

fn give_up(group: GroupId, backlog: Backlog, reason: &str) {
    for waiter in backlog.waiters {
        let reason = reason.to_owned();
        let _ = waiter.reply.send(Err(ProposeError::Unknown { group, reason }));
    }
}

/// Gives the state up, durably: whatever happens, it is never served again.
fn discard(core: &Core, replica: &mut Replica) -> Result<(), HostError> {
    let group = replica.cell.id;
    let wrong = replica.state.discard()?;
    replica.cell.applied.send_replace(replica.state.applied());
    core.chores.wipe(group, wrong);
    Ok(())
}

/// Replaces the state by the staged snapshot with this mark, and says whether there was one.
fn install(core: &Core, replica: &mut Replica, mark: SnapshotMark) -> Result<Event, HostError> {
    let group = replica.cell.id;
    let Some(staged) = core.transfers.take_staged(group, &mark) else {
        return Ok(Event::SnapshotMissing { group, mark });
    };
    let Some(replaced) = replica.state.install(&staged)? else {
        core.chores.wipe(group, staged.generation());
        return Ok(Event::SnapshotMissing { group, mark });
    };
    core.chores.wipe(group, replaced);
    replica.cell.applied.send_replace(mark.index);
    replica.cell.applied_time(replica.state.time());
    tracing::info!(%group, index = %mark.index, "installed a snapshot");
    let hash = replica.state.hash();
    Ok(Event::SnapshotInstalled { group, mark, hash })
}
