//! Noticing that another process runs as this node: a copied data folder.
//!
//! Every member that the other process is connected to refuses this one. Right after a restart that
//! happens too, until the connections of the former process are found dead; so it only counts once
//! it lasted longer than any dead connection does, and while nobody at all let this process in.

use std::time::Duration;

use bytes::Bytes;
use onefold_transport::{CallError, Class, Limits, Peers, Refusal};
use onefold_types::NodeId;
use tokio::time::Instant;

use crate::formation::Probe;

/// Pause between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a member may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long members must have refused this process before it gives way.
const GIVE_WAY_AFTER: Duration = Limits::SILENCE_TIMEOUT.saturating_mul(2);

/// What one round of asking all members found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Somebody talks to this process, or nobody answers at all.
    Unclear,
    /// A member refused it as a second process of its node, and no other let it in.
    Refused,
}

/// How long rounds have been refused without a break. Pure: it is told the time.
#[derive(Debug, Default)]
struct Patience {
    refused_since: Option<Duration>,
}

impl Patience {
    /// Whether it is time to give way.
    fn is_over(&mut self, round: Round, now: Duration) -> bool {
        match round {
            Round::Unclear => {
                self.refused_since = None;
                false
            }
            Round::Refused => {
                let since = *self.refused_since.get_or_insert(now);
                now.saturating_sub(since) >= GIVE_WAY_AFTER
            }
        }
    }
}

/// Ends when another process runs as this node.
pub(crate) async fn until_duplicated(node: NodeId, peers: &Peers) {
    let started = Instant::now();
    let mut patience = Patience::default();
    let mut refusals_seen = 0;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let refusals = refusals(peers);
        // Nobody is asked anything as long as there is nothing to wonder about.
        let round = if refusals > refusals_seen { ask(node, peers).await } else { Round::Unclear };
        refusals_seen = refusals;
        if patience.is_over(round, started.elapsed()) {
            return;
        }
    }
}

/// How often another process was refused as a second one of a node, or this one was.
fn refusals(peers: &Peers) -> u64 {
    let kind = Refusal::DuplicateNode { node: NodeId::default() }.kind();
    let status = peers.status();
    let refused = status.handshakes_refused_total.kinds();
    refused.filter(|(found, _)| *found == kind).map(|(_, count)| count).sum()
}

async fn ask(node: NodeId, peers: &Peers) -> Round {
    let others: Vec<NodeId> =
        peers.addresses().into_keys().filter(|other| *other != node).collect();
    let calls = others
        .into_iter()
        .map(|other| peers.call::<Probe>(other, Class::Call, &(), Bytes::new(), PATIENCE));
    let answers = futures::future::join_all(calls).await;
    let is_refused = |error: &CallError| {
        matches!(
            error,
            CallError::Refused { reason: Refusal::DuplicateNode { node: refused }, .. }
                if *refused == node
        )
    };
    let is_let_in = answers.iter().any(Result::is_ok);
    let is_refused = answers.iter().filter_map(|answer| answer.as_ref().err()).any(is_refused);
    if is_refused && !is_let_in { Round::Refused } else { Round::Unclear }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refusals_without_a_break_count() {
        let mut patience = Patience::default();
        let half = GIVE_WAY_AFTER / 2;
        assert!(!patience.is_over(Round::Refused, Duration::ZERO));
        assert!(!patience.is_over(Round::Refused, half));
        assert!(!patience.is_over(Round::Unclear, GIVE_WAY_AFTER));
        assert!(!patience.is_over(Round::Refused, GIVE_WAY_AFTER + half));
        assert!(!patience.is_over(Round::Refused, 2 * GIVE_WAY_AFTER));
        assert!(patience.is_over(Round::Refused, 2 * GIVE_WAY_AFTER + half));
    }
}
