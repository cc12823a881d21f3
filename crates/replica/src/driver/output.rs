//! What the cores ask for: messages, writes, entries to apply, snapshots to send.

use onefold_raft::{Input, Output};
use onefold_types::GroupId;

use super::Driver;
use crate::apply::Work;
use crate::inbox::Event;
use crate::wire::MESSAGES;
use crate::{HostError, persist, snapshot};

impl Driver {
    /// Does what the cores ask for, for all groups at once.
    pub(super) fn carry_out(&mut self) -> Result<(), HostError> {
        while let Some(group) = self.stepped.pop_first() {
            let driven = self.groups.get_mut(&group).expect("it was stepped");
            let output = driven.raft.take_output();
            if !output.is_empty() {
                self.dispatch(group, output);
            }
            self.note_members(group)?;
            self.note_activity(group)?;
        }
        // Messages that depend on the writes are still inside the cores; these may go first.
        for (&to, frame) in &mut self.frames {
            let bytes = frame.take();
            if !bytes.is_empty() {
                self.core.counters.frames_sent_total.increment();
                self.core.peers.send(to, MESSAGES, bytes);
            }
        }
        self.send_checkpoints();
        self.append()
    }

    fn dispatch(&mut self, group: GroupId, output: Output) {
        let counters = &self.core.counters;
        counters.messages_sent_total.add(output.messages.len());
        for (to, message) in &output.messages {
            if let Some(full) = self.frames.entry(*to).or_default().push(group, message) {
                counters.frames_sent_total.increment();
                self.core.peers.send(*to, MESSAGES, full);
            }
        }
        let driven = self.groups.get_mut(&group).expect("its output was taken");
        if let Some(persist) = output.persist {
            driven.logged(&persist);
            self.persists.push((group, persist.sequence));
            let before = self.writes.len();
            persist::writes(group, persist, &mut self.writes);
            let bytes = persist::bytes(&self.writes[before..]);
            driven.cell.unsynced.add(bytes);
            self.unsynced.push((driven.cell.clone(), bytes));
        }
        if let Some(change) = output.role_change {
            let has_led = driven.is_leading;
            driven.role_changed(&change, self.ticks, self.core.config.heartbeat_ticks);
            match (has_led, driven.is_leading) {
                (false, true) => counters.groups_led.add(1),
                (true, false) => counters.groups_led.subtract(1),
                _ => {}
            }
        }
        driven.publish();
        driven.answer_reads(output.read_states);
        let applier = &self.appliers[driven.applier];
        if !output.committed.is_empty() {
            let waiters = driven.take_waiters(&output.committed);
            let entries = output.committed;
            // An apply thread that is gone has reported why.
            let _ = applier.send(Work::Apply { group, entries, waiters });
        }
        driven.give_up_waiters_if_removed();
        if let Some(mark) = output.install_snapshot {
            driven.is_installing = true;
            let _ = applier.send(Work::Install { group, mark });
        }
        for to in output.send_snapshot {
            if !driven.begin_sending(to) {
                continue;
            }
            let (core, cell) = (self.core.clone(), driven.cell.clone());
            let sent = snapshot::send(core, cell, to, self.sending.clone());
            self.core.runtime.spawn(sent);
        }
    }

    /// If the members of a group became others: beats with those, and the group learns which of
    /// them are down.
    fn note_members(&mut self, group: GroupId) -> Result<(), HostError> {
        let own = self.core.config.node;
        let driven = self.groups.get_mut(&group).expect("it was stepped");
        let Some(before) = driven.take_new_members() else { return Ok(()) };
        if self.neighbours.replace(own, &before, &driven.members) {
            self.liveness.watch(&self.neighbours.nodes());
        }
        let new: Vec<_> = self.groups[&group].members.difference(&before).copied().collect();
        for node in new {
            // What the core was told of a member that left and came back is long out of date.
            let is_down = self.liveness.is_down(node);
            let input = if is_down { Input::NodeDown(node) } else { Input::NodeUp(node) };
            self.at(group).step(input)?;
        }
        Ok(())
    }

    /// Whether the group needs ticks may have changed.
    fn note_activity(&mut self, group: GroupId) -> Result<(), HostError> {
        let driven = self.groups.get_mut(&group).expect("it was stepped");
        if driven.raft.is_quiet() {
            if self.active.remove(&group) {
                driven.fell_quiet();
                self.note_checkpoint_if_quiet(group)?;
            }
        } else if self.active.insert(group) {
            driven.woke(self.ticks, self.core.config.heartbeat_ticks);
        }
        Ok(())
    }

    /// Writes what all groups have to persist, as one append.
    fn append(&mut self) -> Result<(), HostError> {
        if self.writes.is_empty() && self.persists.is_empty() {
            return Ok(());
        }
        let unsynced = std::mem::take(&mut self.unsynced);
        let writes = std::mem::take(&mut self.writes);
        let persists = std::mem::take(&mut self.persists);
        let bytes = persist::bytes(&writes);
        let counters = &self.core.counters;
        counters.log_appends_total.increment();
        counters.log_records_total.add(writes.len());
        counters.unsynced_bytes.add(bytes);
        let core = self.core.clone();
        let done = move |outcome| {
            core.counters.unsynced_bytes.subtract(bytes);
            for (cell, bytes) in unsynced {
                cell.unsynced.subtract(bytes);
            }
            match outcome {
                Ok(()) => core.inbox.report(Event::Persisted(persists)),
                // Whatever the log can still do: the cores count on this write.
                Err(error) => core.fail(HostError::Log(error)),
            }
        };
        Ok(self.log.append(writes, Box::new(done))?)
    }
}
