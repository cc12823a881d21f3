//! Onefold's core. The log that its replicas keep in memory is the only one, as for the peers;
//! what it asks to have persisted is reported durable at once.

use std::collections::VecDeque;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use onefold_raft::{
    Config, Input, Membership, Message, Payload, Raft, Restored, Role, SnapshotMark,
};
use onefold_types::{GroupId, LogIndex, NodeId};

use crate::{
    measure::{Applied, Run, Shape, Stopwatch, command},
    retention,
};

const REPLICAS: usize = 3;

struct Replica {
    raft: Raft,
    inbox: VecDeque<(NodeId, Message)>,
    applied: Applied,
}

struct Cluster {
    replicas: Vec<Replica>,
}

pub(crate) fn run(shape: Shape) -> Result<Run> {
    let mut cluster = Cluster::new()?;
    cluster.drive(shape, shape.entries / 10)?;
    let stopwatch = Stopwatch::start();
    cluster.drive(shape, shape.entries)?;
    Ok(stopwatch.finish(shape.entries))
}

fn position(id: NodeId) -> usize {
    id.0 as usize - 1
}

impl Cluster {
    fn new() -> Result<Self> {
        let ids: Vec<NodeId> = (1..=REPLICAS as u64).map(NodeId).collect();
        let membership = Membership::of_voters(ids.iter().copied());
        let replicas = ids.iter().map(|&id| {
            let restored = Restored {
                snapshot: SnapshotMark::initial(membership.clone()),
                ..Restored::default()
            };
            let raft = Raft::new(Config::new(id, GroupId(1), 1), restored)?;
            Ok(Replica { raft, inbox: VecDeque::new(), applied: Applied::default() })
        });
        let mut cluster = Self { replicas: replicas.collect::<Result<_>>()? };
        cluster.replicas[0].raft.step(Input::Campaign)?;
        for _ in 0..16 {
            cluster.round()?;
        }
        ensure!(cluster.replicas[0].raft.role() == Role::Leader, "no leader was elected");
        Ok(cluster)
    }

    /// Proposes a batch each round until all replicas were handed `entries` more commands.
    fn drive(&mut self, shape: Shape, entries: u64) -> Result<()> {
        let start = self.replicas[0].applied.commands;
        let mut proposed = start;
        let end = start + entries;
        while self.replicas.iter().any(|replica| replica.applied.commands < end) {
            if proposed < end {
                let last = (proposed + shape.batch as u64).min(end);
                let batch =
                    (proposed..last).map(|number| Bytes::from(command(shape, number))).collect();
                self.replicas[0].raft.step(Input::Propose(batch))?;
                proposed = last;
            }
            self.round()?;
        }
        let first = self.replicas[0].applied;
        ensure!(
            self.replicas.iter().all(|replica| replica.applied == first && first.commands == end),
            "the replicas were handed different commands"
        );
        Ok(())
    }

    /// Every replica takes what is in its inbox and does what its core asks for.
    fn round(&mut self) -> Result<()> {
        for at in 0..self.replicas.len() {
            let replica = &mut self.replicas[at];
            while let Some((from, message)) = replica.inbox.pop_front() {
                replica.raft.step(Input::Message { from, message })?;
            }
            while self.take_output(at)? {}
        }
        Ok(())
    }

    /// True if the core was told something new.
    fn take_output(&mut self, at: usize) -> Result<bool> {
        let from = NodeId(at as u64 + 1);
        let output = self.replicas[at].raft.take_output();
        for (to, message) in output.messages {
            self.replicas[position(to)].inbox.push_back((from, message));
        }
        let Replica { raft, applied, .. } = &mut self.replicas[at];
        let mut is_news = false;
        if let Some(persist) = output.persist {
            raft.step(Input::Persisted(persist.sequence))?;
            is_news = true;
        }
        if let Some(last) = output.committed.last() {
            let last = last.index;
            for entry in &output.committed {
                if let Payload::Command(command) = &entry.payload {
                    applied.apply(command);
                }
            }
            raft.step(Input::Applied(last))?;
            let kept = last.0 - raft.first_index().0;
            if let Some(through) = retention::compact_through(last.0, kept) {
                raft.step(Input::Compact(LogIndex(through))).context("compaction")?;
            }
            is_news = true;
        }
        Ok(is_news)
    }
}
