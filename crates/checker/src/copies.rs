//! When all is over, every node holds the same, and it is what history makes of it.

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
    let hashes: Vec<_> = history.copies.iter().filter(|copy| copy.hash.is_some()).collect();
    if hashes.windows(2).any(|pair| pair[0].hash != pair[1].hash) {
        let mut violation = Violation::new(Promise::NodesAgree, "hashes of the history differ");
        for copy in hashes {
            violation = violation.showing(format!("node {}: {:?}", copy.node, copy.hash));
        }
        found.add(violation);
    }
    Ok(())
}
