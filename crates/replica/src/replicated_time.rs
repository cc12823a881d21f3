//! Replicated time: what state machines take for the time.
//!
//! A command carries the time that its leader stamped on it, and the group's time is the greatest
//! stamp so far. Whatever expires by it (idle sessions, the grace of garbage) relies on it, but no
//! single clock is to be relied on that far: one that shows the year 2099 would expire everything at
//! once, and then the group's time would stand still for decades.
//!
//! So a leader steers. It lets the group's time go on by what has really passed, measured by a clock
//! that nobody can set, and bends it towards what the clocks of the voters show: their median.
//!
//! - While a majority of the voters is heard of, its median is the time: the group's time goes there
//!   at once if it is behind.
//! - Otherwise this node's view is but an opinion: the group's time goes at most at twice the speed.
//! - While it is ahead, it goes at half the speed until the clocks have caught up. It never goes
//!   back, and it never stands still.
//!
//! Pure: both clocks are handed in.

use std::collections::{BTreeMap, BTreeSet};

use onefold_types::{NodeId, Timestamp};

/// What another node said about the time counts for so long.
pub const CLOCK_HEARD_MICROS_MAX: u64 = 10_000_000;

/// Most nodes whose clocks are remembered.
const CLOCKS_MAX: usize = 1024;

/// What the clocks of a group's voters show at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Their median, in microseconds since 1970; the earlier one of two.
    pub wall_micros: u64,
    /// Whether more than half of the voters took part.
    pub is_of_majority: bool,
}

/// The last that was heard of the other nodes' clocks.
#[derive(Clone, Debug, Default)]
pub struct Clocks {
    /// What each showed, and when that was heard by this process's own clock.
    heard: BTreeMap<NodeId, (u64, u64)>,
}

impl Clocks {
    /// A node's clock shows this, at a moment of this process's monotonic clock.
    pub fn heard(&mut self, node: NodeId, wall_micros: u64, now_micros: u64) {
        if self.heard.len() < CLOCKS_MAX || self.heard.contains_key(&node) {
            self.heard.insert(node, (wall_micros, now_micros));
        }
    }

    /// What the clocks of the voters show now, this node's among them if it votes. When nobody is
    /// heard of, what this node's shows.
    pub fn reading(
        &self,
        node: NodeId,
        voters: &BTreeSet<NodeId>,
        wall_micros: u64,
        now_micros: u64,
    ) -> Reading {
        let mut walls: Vec<_> = voters
            .iter()
            .filter_map(|voter| {
                if *voter == node {
                    return Some(wall_micros);
                }
                let (wall, at) = self.heard.get(voter)?;
                let age = now_micros.saturating_sub(*at);
                (age <= CLOCK_HEARD_MICROS_MAX).then(|| wall.saturating_add(age))
            })
            .collect();
        walls.sort_unstable();
        let median = walls.get(walls.len().saturating_sub(1) / 2);
        Reading {
            wall_micros: median.copied().unwrap_or(wall_micros),
            is_of_majority: 2 * walls.len() > voters.len(),
        }
    }
}

/// One group's time, as a node follows it and stamps it on commands when it leads.
#[derive(Clone, Copy, Debug)]
pub struct ReplicatedTime {
    time_micros: u64,
    /// When it was that, by this process's monotonic clock.
    at_micros: u64,
}

impl ReplicatedTime {
    /// The time of a state that was just read from disk.
    pub fn new(time: Timestamp, now_micros: u64) -> Self {
        Self { time_micros: micros(time), at_micros: now_micros }
    }

    /// A command was applied: the group's time is at least this.
    pub fn applied(&mut self, time: Timestamp, now_micros: u64) {
        if micros(time) > self.time_micros {
            self.time_micros = micros(time);
            self.at_micros = self.at_micros.max(now_micros);
        }
    }

    /// The time to stamp on a command.
    pub fn stamp(&mut self, reading: Reading, now_micros: u64) -> Timestamp {
        let passed = now_micros.saturating_sub(self.at_micros);
        let least = self.time_micros.saturating_add(passed / 2);
        let most = match reading.is_of_majority {
            true => u64::MAX,
            false => self.time_micros.saturating_add(passed.saturating_mul(2)),
        };
        let steered = reading.wall_micros.clamp(least, most);
        // Less than two microseconds may be half of nothing: they count for the next stamp.
        if steered > self.time_micros {
            self.time_micros = steered;
            self.at_micros = self.at_micros.max(now_micros);
        }
        Timestamp(self.time_micros / 1000)
    }
}

fn micros(time: Timestamp) -> u64 {
    time.get().saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;
    const YEAR: u64 = 365 * 24 * 3600 * SECOND;
    /// Some day.
    const DAY: u64 = 56 * YEAR;

    fn agreed(wall_micros: u64) -> Reading {
        Reading { wall_micros, is_of_majority: true }
    }

    fn alone(wall_micros: u64) -> Reading {
        Reading { wall_micros, is_of_majority: false }
    }

    /// Time of a group after a leader stamped every millisecond for some seconds.
    fn run(time: &mut ReplicatedTime, seconds: u64, wall: impl Fn(u64) -> Reading) -> u64 {
        let mut last = Timestamp::ZERO;
        let start = time.at_micros;
        for now in (start..=start + seconds * SECOND).step_by(1000) {
            let stamp = time.stamp(wall(now - start), now);
            assert!(stamp >= last, "never back");
            last = stamp;
        }
        last.get() * 1000
    }

    fn at(micros: u64) -> ReplicatedTime {
        ReplicatedTime::new(Timestamp(micros / 1000), 7 * SECOND)
    }

    #[test]
    fn a_good_clock_is_followed() {
        let mut time = at(DAY);
        assert_eq!(run(&mut time, 10, |passed| agreed(DAY + passed)), DAY + 10 * SECOND);
        let mut time = at(DAY);
        assert_eq!(run(&mut time, 10, |passed| alone(DAY + passed)), DAY + 10 * SECOND);
    }

    #[test]
    fn a_wild_clock_pulls_time_at_most_at_twice_the_speed() {
        let mut time = at(DAY);
        let ahead = run(&mut time, 10, |_| alone(DAY + 73 * YEAR));
        assert!(ahead <= DAY + 20 * SECOND, "{ahead}");
        assert!(ahead >= DAY + 19 * SECOND, "it does go there");
    }

    #[test]
    fn after_a_wild_leader_time_goes_on_and_meets_the_clocks_again() {
        let mut time = at(DAY + 10 * SECOND);
        let later = run(&mut time, 4, |passed| agreed(DAY + passed));
        assert!((DAY + 11 * SECOND..=DAY + 12 * SECOND).contains(&later), "half as fast: {later}");
        let met = run(&mut time, 20, |passed| agreed(DAY + 4 * SECOND + passed));
        assert_eq!(met, DAY + 24 * SECOND);
    }

    #[test]
    fn time_does_not_stand_still_when_a_clock_lost_decades() {
        let mut time = at(DAY);
        for reading in [alone(0), agreed(0)] {
            let before = time.time_micros;
            let after = run(&mut time, 10, |_| reading);
            assert!(after - before >= 4 * SECOND, "{before} {after}");
        }
    }

    #[test]
    fn stamps_much_faster_than_the_clock_counts_do_not_stop_time() {
        let mut time = at(DAY);
        let start = time.at_micros;
        for now in start..start + SECOND {
            time.stamp(agreed(0), now);
        }
        assert!(time.time_micros >= DAY + SECOND / 3, "{}", time.time_micros - DAY);
    }

    #[test]
    fn a_group_that_stood_still_is_at_once_where_a_majority_is() {
        let mut time = at(DAY);
        let now = time.at_micros + 1000;
        assert_eq!(time.stamp(agreed(DAY + YEAR), now), Timestamp((DAY + YEAR) / 1000));
    }

    #[test]
    fn what_was_applied_is_never_undercut() {
        let mut time = at(DAY);
        let now = time.at_micros;
        time.applied(Timestamp((DAY + 5 * SECOND) / 1000), now);
        time.applied(Timestamp(3), now + SECOND);
        assert_eq!(time.stamp(agreed(DAY), now), Timestamp((DAY + 5 * SECOND) / 1000));
    }

    #[test]
    fn one_of_three_clocks_does_not_matter() {
        let voters: BTreeSet<_> = (1..=3).map(NodeId).collect();
        for wild in [0, DAY + 73 * YEAR] {
            let mut clocks = Clocks::default();
            clocks.heard(NodeId(2), DAY, 0);
            clocks.heard(NodeId(3), DAY + 5, 0);
            let reading = clocks.reading(NodeId(1), &voters, wild, 0);
            assert!(reading.is_of_majority);
            assert!((DAY..=DAY + 5).contains(&reading.wall_micros), "{reading:?}");
        }
    }

    #[test]
    fn of_two_clocks_the_earlier_one_counts() {
        let voters: BTreeSet<_> = (1..=3).map(NodeId).collect();
        let mut clocks = Clocks::default();
        clocks.heard(NodeId(2), DAY, 0);
        let reading = clocks.reading(NodeId(1), &voters, DAY + YEAR, 0);
        assert_eq!(reading, agreed(DAY));
    }

    #[test]
    fn what_was_heard_goes_on_ticking_and_is_forgotten_in_time() {
        let voters: BTreeSet<_> = (1..=3).map(NodeId).collect();
        let mut clocks = Clocks::default();
        clocks.heard(NodeId(2), DAY, 0);
        clocks.heard(NodeId(9), DAY + YEAR, 0);
        let reading = clocks.reading(NodeId(1), &voters, DAY + YEAR, 3 * SECOND);
        assert_eq!(reading, agreed(DAY + 3 * SECOND), "node 9 does not vote");
        let late = CLOCK_HEARD_MICROS_MAX + 1;
        assert_eq!(clocks.reading(NodeId(1), &voters, DAY + YEAR, late), alone(DAY + YEAR));
        let alone_in_group = BTreeSet::from([NodeId(1)]);
        assert_eq!(clocks.reading(NodeId(1), &alone_in_group, DAY, late), agreed(DAY));
    }
}
