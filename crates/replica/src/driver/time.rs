//! The passing of time: ticks for the groups that need them, and beats to the neighbours.

use std::time::{Duration, Instant};

use onefold_raft::Input;

use super::Driver;
use crate::HostError;
use crate::clock;
use crate::liveness::LivenessChange;
use crate::wire::{BEATS, encode_beat};

/// Ticks between two looks for proposers that gave up waiting.
const PRUNE_TICKS: u64 = 64;

impl Driver {
    /// How many ticks the thread may sleep through, beside the next one: up to the next beat if all
    /// groups are quiet.
    pub(super) fn idle_ticks(&self) -> u32 {
        if !self.active.is_empty() {
            return 0;
        }
        let interval = self.core.config.beat_ticks();
        let since_beat = u32::try_from(self.ticks % u64::from(interval));
        interval - 1 - since_beat.expect("it is less than the interval")
    }

    /// Ticks are due.
    pub(super) fn pass_ticks(&mut self, due: u32) -> Result<(), HostError> {
        let interval = self.core.config.beat_ticks();
        // Missed ticks are made up for as far as heartbeats and beats need it. More would make elections that
        // nobody needs, since what others said meanwhile may still be under way.
        let due = due.min(interval);
        let mut is_beating = false;
        for _ in 0..due {
            self.ticks += 1;
            is_beating |= self.ticks.is_multiple_of(u64::from(interval));
            self.tick_active()?;
        }
        for change in self.liveness.tick(due) {
            self.step_liveness(change)?;
        }
        if is_beating {
            self.beat();
        }
        Ok(())
    }

    fn tick_active(&mut self) -> Result<(), HostError> {
        let tick = self.ticks;
        let is_publishing = tick.is_multiple_of(u64::from(self.core.config.heartbeat_ticks));
        let is_pruning = tick.is_multiple_of(PRUNE_TICKS);
        for group in &self.active {
            let driven = self.groups.get_mut(group).expect("active groups are on this node");
            driven.set_clock(self.now_micros);
            driven.tick(tick)?;
            if is_publishing {
                driven.publish_progress();
            }
            if is_pruning {
                driven.forget_waiters_that_gave_up();
            }
            self.stepped.insert(*group);
        }
        Ok(())
    }

    /// Tells all neighbours that this process is alive.
    fn beat(&mut self) {
        let payload = encode_beat(self.liveness.beat(), clock::wall_micros());
        let greeted = std::mem::take(&mut self.greeted);
        for node in self.liveness.watched().chain(greeted) {
            self.core.peers.send(node, BEATS, payload.clone());
            self.core.counters.beats_sent_total.increment();
        }
    }

    /// A neighbour fell silent, restarted or came back: its groups must know.
    pub(super) fn step_liveness(&mut self, change: LivenessChange) -> Result<(), HostError> {
        let (node, input) = match change {
            LivenessChange::Down(node) => (node, Input::NodeDown(node)),
            LivenessChange::Up(node) => (node, Input::NodeUp(node)),
        };
        tracing::debug!(%node, ?change, "a neighbour changed");
        for (group, driven) in &mut self.groups {
            if driven.members.contains(&node) {
                driven.set_clock(self.now_micros);
                driven.step(input.clone())?;
                self.stepped.insert(*group);
            }
        }
        self.core.counters.nodes_down.set(self.liveness.down().count());
        Ok(())
    }
}

/// The tick up to which a group that begins to send heartbeats at `tick` waits, so that all groups
/// send theirs at the same ticks, in one frame for each node.
pub(super) fn aligned(tick: u64, heartbeat_ticks: u32) -> u64 {
    tick.next_multiple_of(u64::from(heartbeat_ticks))
}

/// How many ticks are due, and when the next one is.
pub(super) fn ticks_due(next: Instant, now: Instant, tick: Duration) -> (u32, Instant) {
    let Some(late) = now.checked_duration_since(next) else { return (0, next) };
    let due = late.as_nanos() / tick.as_nanos() + 1;
    match u32::try_from(due).ok().and_then(|due| Some((due, next.checked_add(tick * due)?))) {
        Some(due_and_next) => due_and_next,
        // The machine slept for months.
        None => (u32::MAX, now + tick),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_keep_their_rhythm_and_none_is_counted_twice() {
        let tick = Duration::from_millis(20);
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(ticks_due(at(20), at(19), tick), (0, at(20)));
        assert_eq!(ticks_due(at(20), at(20), tick), (1, at(40)));
        assert_eq!(ticks_due(at(20), at(39), tick), (1, at(40)));
        assert_eq!(ticks_due(at(20), at(85), tick), (4, at(100)));
    }

    #[test]
    fn groups_begin_their_heartbeats_at_common_ticks() {
        assert_eq!([9, 10, 11, 12].map(|tick| aligned(tick, 3)), [9, 12, 12, 12]);
        assert_eq!(aligned(7, 1), 7);
    }
}
