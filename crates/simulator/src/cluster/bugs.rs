//! How bugs that are put in on purpose change what goes into the cores and comes out of them.

use onefold_raft::{Body, Entry, Output, Payload, Raft, Restored, Role};
use onefold_types::{LogIndex, NodeId};

use super::{sabotage::Sabotage, world::World};

impl World {
    /// What a core asks for.
    pub(super) fn sabotage_output(&mut self, id: NodeId, group: usize, output: &mut Output) {
        let Some(sabotage) = self.sabotage else { return };
        match sabotage {
            Sabotage::InflateAcknowledgement => {
                for (_, message) in &mut output.messages {
                    if let Body::AppendAccepted { matched } = &mut message.body {
                        *matched = matched.next();
                    }
                }
            }
            Sabotage::CommitEarlierTerm => {
                let core = self.node(id).raft(group).expect("its output was taken");
                let Some(counted) = counted_on_majority(core) else { return };
                let followers = core.status().followers;
                for (to, message) in &mut output.messages {
                    let matched = followers.get(to).map_or(LogIndex::ZERO, |it| it.matched);
                    match &mut message.body {
                        Body::Append { commit, .. } => *commit = (*commit).max(counted),
                        Body::Heartbeat { commit, .. } => {
                            *commit = (*commit).max(counted.min(matched));
                        }
                        _ => {}
                    }
                }
            }
            Sabotage::SingleStepMembership => {
                for (_, message) in &mut output.messages {
                    if let Body::Append { entries, .. } = &mut message.body {
                        entries.iter_mut().for_each(forget_outgoing);
                    }
                }
                if let Some(persist) = &mut output.persist {
                    persist.entries.iter_mut().for_each(forget_outgoing);
                }
                output.committed.iter_mut().for_each(forget_outgoing);
            }
            Sabotage::SnapshotSkipsEntry if !output.committed.is_empty() => {
                let hosted = self.hosted(id, group).expect("its output was taken");
                if std::mem::take(&mut hosted.skips_next) {
                    output.committed.remove(0);
                }
            }
            _ => {}
        }
    }

    /// What a core starts from.
    pub(super) fn sabotage_restored(&self, restored: &mut Restored) {
        match self.sabotage {
            Some(Sabotage::CutDurableTail) => {
                restored.entries.pop();
            }
            Some(Sabotage::LearnersVote) => {
                let snapshot = &mut restored.snapshot.membership;
                let learners = std::mem::take(&mut snapshot.learners);
                snapshot.voters.extend(learners);
                snapshot.joining.clear();
                for entry in &mut restored.entries {
                    if let Payload::Membership(membership) = &mut entry.payload {
                        let learners = std::mem::take(&mut membership.learners);
                        membership.voters.extend(learners);
                        membership.joining.clear();
                    }
                }
            }
            _ => {}
        }
    }
}

/// The last index that a majority has, whatever its term: what must not be committed by counting
/// (§5.4.2).
fn counted_on_majority(core: &Raft) -> Option<LogIndex> {
    if core.role() != Role::Leader {
        return None;
    }
    let status = core.status();
    let mut matched: Vec<LogIndex> = status
        .membership
        .voters
        .iter()
        .map(|voter| status.followers.get(voter).map_or(status.durable_index, |f| f.matched))
        .collect();
    matched.sort_unstable();
    matched.get((matched.len().checked_sub(1)?) / 2).copied()
}

fn forget_outgoing(entry: &mut Entry) {
    if let Payload::Membership(membership) = &mut entry.payload {
        membership.outgoing.clear();
    }
}
