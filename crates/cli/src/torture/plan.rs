//! Which faults happen when: drawn from a seed, told before they happen.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde::Serialize;

/// What is done to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// A node is killed with SIGKILL and started again later.
    Kill,
    /// A node is stopped in order and started again later.
    Stop,
    /// A node's process stands still for a while.
    Pause,
    /// All nodes are killed at once and started again.
    RestartAll,
    /// Nodes are cut off from the others, in both directions.
    Partition,
    /// A node does not hear the others, or they do not hear it.
    OneWay,
    /// A node is cut off and back in short turns.
    Flap,
    /// Everything between a node and the others takes longer.
    Slow,
    /// All connections between nodes break.
    Cut,
}

impl Fault {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Kill,
        Self::Stop,
        Self::Pause,
        Self::RestartAll,
        Self::Partition,
        Self::OneWay,
        Self::Flap,
        Self::Slow,
        Self::Cut,
    ];

    /// Whether it is done to the network and not to processes.
    pub fn is_of_network(self) -> bool {
        match self {
            Self::Kill | Self::Stop | Self::Pause | Self::RestartAll => false,
            Self::Partition | Self::OneWay | Self::Flap | Self::Slow | Self::Cut => true,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_possible_value() {
            Some(value) => f.write_str(value.get_name()),
            None => write!(f, "{self:?}"),
        }
    }
}

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Victim {
    /// Whichever node leads the key-value group at that moment.
    Leader,
    /// The node with this number.
    Node(u64),
}

/// One fault of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// When it begins, after the beginning of the round.
    #[serde(rename = "after_ms", serialize_with = "as_millis")]
    pub after: Duration,
    /// How long it lasts.
    #[serde(rename = "lasts_ms", serialize_with = "as_millis")]
    pub lasts: Duration,
    /// What happens.
    pub fault: Fault,
    /// To whom.
    pub victim: Victim,
    /// Decides what the fault leaves open: the direction, the delay, whom a victim is cut off with.
    pub detail: u64,
}

fn as_millis<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (after, lasts) = (self.after.as_secs_f64(), self.lasts.as_secs_f64());
        write!(f, "{after:6.2} s  {} for {lasts:.2} s, ", self.fault)?;
        match self.victim {
            Victim::Leader => f.write_str("the leader"),
            Victim::Node(node) => write!(f, "node {node}"),
        }
    }
}

/// Quiet between two faults of one kind, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 800..4_000;
/// How long a fault lasts, in milliseconds: below and beyond the time that an election takes.
const LASTS_MS: std::ops::Range<u64> = 300..6_000;

/// Draws the faults of one round. Those of processes and those of the network are drawn apart, so
/// that they overlap.
pub fn draw(seed: u64, faults: &[Fault], nodes: u64, round: Duration) -> Vec<Step> {
    let mut steps = Vec::new();
    for of_network in [false, true] {
        let mut random = SmallRng::seed_from_u64(seed ^ u64::from(of_network));
        let kinds: Vec<Fault> =
            faults.iter().copied().filter(|fault| fault.is_of_network() == of_network).collect();
        let mut time = Duration::ZERO;
        loop {
            time += Duration::from_millis(random.random_range(PAUSE_MS));
            let lasts = Duration::from_millis(random.random_range(LASTS_MS));
            let Some(&fault) = kinds.choose(&mut random).filter(|_| time + lasts < round) else {
                break;
            };
            let victim = match random.random_bool(0.5) {
                true => Victim::Leader,
                false => Victim::Node(random.random_range(1..=nodes)),
            };
            steps.push(Step { after: time, lasts, fault, victim, detail: random.random() });
            time += lasts;
        }
    }
    steps.sort_by_key(|step| step.after);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        let plan = draw(7, Fault::ALL, 3, MINUTE);
        assert_eq!(plan, draw(7, Fault::ALL, 3, MINUTE));
        assert_ne!(plan, draw(8, Fault::ALL, 3, MINUTE));
    }

    #[test]
    fn a_plan_keeps_to_its_faults_and_its_time() {
        let plan = draw(7, &[Fault::Kill, Fault::Slow], 3, MINUTE);
        assert!(plan.iter().any(|step| step.fault == Fault::Kill));
        assert!(plan.iter().any(|step| step.fault == Fault::Slow));
        for step in plan {
            assert!(matches!(step.fault, Fault::Kill | Fault::Slow), "{step}");
            assert!(step.after + step.lasts < MINUTE, "{step}");
        }
        assert!(draw(7, &[], 3, MINUTE).is_empty());
    }
}
