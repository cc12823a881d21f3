//! raft-rs: `RawNode` over its own `MemStorage`, ready and advance in the same thread, each batch
//! one `MsgPropose`, so that the whole of it is sent as one append.

use std::collections::VecDeque;

use anyhow::{Result, ensure};
use bytes::Bytes;
use raft::{Config, RawNode, StateRole, Storage, storage::MemStorage};
use raft_proto::eraftpb::{Entry, EntryType, Message, MessageType};

use crate::{
    measure::{Applied, Run, Shape, Stopwatch, command},
    retention,
};

const REPLICAS: u64 = 3;

struct Replica {
    node: RawNode<MemStorage>,
    inbox: VecDeque<Message>,
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

impl Cluster {
    fn new() -> Result<Self> {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let voters: Vec<u64> = (1..=REPLICAS).collect();
        let replicas = voters.iter().map(|&id| {
            let config = Config {
                id,
                election_tick: 15,
                heartbeat_tick: 3,
                max_size_per_msg: 1 << 20,
                max_inflight_msgs: 256,
                check_quorum: true,
                pre_vote: true,
                batch_append: true,
                ..Config::default()
            };
            let storage = MemStorage::new_with_conf_state((voters.clone(), vec![]));
            let node = RawNode::new(&config, storage, &logger)?;
            Ok(Replica { node, inbox: VecDeque::new(), applied: Applied::default() })
        });
        let mut cluster = Self { replicas: replicas.collect::<Result<_>>()? };
        cluster.replicas[0].node.campaign()?;
        for _ in 0..16 {
            cluster.round()?;
        }
        ensure!(cluster.replicas[0].node.raft.state == StateRole::Leader, "no leader was elected");
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
                let mut message = Message::default();
                message.set_msg_type(MessageType::MsgPropose);
                message.from = 1;
                message.entries = (proposed..last)
                    .map(|number| Entry {
                        data: Bytes::from(command(shape, number)),
                        ..Entry::default()
                    })
                    .collect::<Vec<_>>()
                    .into();
                self.replicas[0].node.step(message)?;
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

    fn round(&mut self) -> Result<()> {
        for at in 0..self.replicas.len() {
            let replica = &mut self.replicas[at];
            while let Some(message) = replica.inbox.pop_front() {
                replica.node.step(message)?;
            }
            while self.replicas[at].node.has_ready() {
                self.ready(at)?;
            }
        }
        Ok(())
    }

    /// The order of the crate's documentation: send, apply, append, persist, send, advance.
    fn ready(&mut self, at: usize) -> Result<()> {
        let mut ready = self.replicas[at].node.ready();
        self.send(ready.take_messages());
        self.apply(at, ready.take_committed_entries())?;
        let storage = self.replicas[at].node.mut_store();
        storage.wl().append(ready.entries())?;
        if let Some(hard_state) = ready.hs() {
            storage.wl().set_hardstate(hard_state.clone());
        }
        self.send(ready.take_persisted_messages());
        let mut light = self.replicas[at].node.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.replicas[at].node.mut_store().wl().mut_hard_state().set_commit(commit);
        }
        self.send(light.take_messages());
        self.apply(at, light.take_committed_entries())?;
        self.replicas[at].node.advance_apply();
        Ok(())
    }

    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            self.replicas[message.to as usize - 1].inbox.push_back(message);
        }
    }

    fn apply(&mut self, at: usize, entries: Vec<Entry>) -> Result<()> {
        let Replica { node, applied, .. } = &mut self.replicas[at];
        for entry in &entries {
            // The entry with which a leader starts has no data.
            if entry.get_entry_type() == EntryType::EntryNormal && !entry.data.is_empty() {
                applied.apply(&entry.data);
            }
        }
        if let Some(last) = entries.last() {
            let kept = last.index - node.store().first_index()?;
            if let Some(through) = retention::compact_through(last.index, kept) {
                // Keeps everything from the given index on.
                node.mut_store().wl().compact(through + 1)?;
            }
        }
        Ok(())
    }
}
