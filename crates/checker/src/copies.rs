//! When all is over, every node holds the same, and it is what history makes of it.

use std::collections::BTreeMap;

use onefold_types::{NodeId, Revision};

use crate::findings::Findings;
use crate::history::History;
use crate::replay::Replayed;
use crate::violation::{Promise, Unjudged, Violation};

/// Most keys that are named of those that differ.
const DIFFERENCES_MAX: usize = 5;

/// Compares what the nodes hold with the replayed history.
///
/// # Errors
/// When no node's copy was read at the end of the history.
pub(crate) fn check(
    history: &History,
    replayed: &Replayed,
    found: &mut Findings,
) -> Result<(), Unjudged> {
    if history.copies.is_empty() {
        return Err(Unjudged("no node's copy was read".to_owned()));
    }
    for copy in &history.copies {
        if copy.revision != history.end {
            let (node, revision, end) = (copy.node, copy.revision, history.end);
            let text = format!("node {node} was read at revision {revision}, not {end}");
            return Err(Unjudged(text));
        }
        let held = copy.records.iter();
        if held.clone().eq(replayed.state.all()) {
            continue;
        }
        let what = format!("node {} does not hold what history makes", copy.node);
        let mut violation = Violation::new(Promise::NodesAgree, what);
        let extra = held.filter(|record| replayed.state.get(&record.key) != Some(record));
        for record in extra.take(DIFFERENCES_MAX) {
            let right = replayed.state.get(&record.key);
            violation = violation.showing(format!("holds {record:?}, right: {right:?}"));
        }
        let has = |key: &str| copy.records.iter().any(|record| record.key == key);
        let missing = replayed.state.all().filter(|record| !has(&record.key));
        for record in missing.take(DIFFERENCES_MAX) {
            violation = violation.showing(format!("lacks {record:?}"));
        }
        found.add(violation);
    }
    compare_hashes(history, found);
    Ok(())
}

/// Nodes that hash the same stretch of history get the same hash.
fn compare_hashes(history: &History, found: &mut Findings) {
    let mut hashes: BTreeMap<Revision, Vec<(NodeId, u32)>> = BTreeMap::new();
    for copy in &history.copies {
        if let Some((compacted, hash)) = copy.hash {
            hashes.entry(compacted).or_default().push((copy.node, hash));
        }
    }
    for (compacted, hashes) in hashes {
        if hashes.windows(2).all(|pair| pair[0].1 == pair[1].1) {
            continue;
        }
        let what = format!("hashes of the history from {compacted} on differ");
        let mut violation = Violation::new(Promise::NodesAgree, what);
        for (node, hash) in hashes {
            violation = violation.showing(format!("node {node}: {hash}"));
        }
        found.add(violation);
    }
}
