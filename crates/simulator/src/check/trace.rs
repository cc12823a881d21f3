//! A path of the search as a person reads it.

use onefold_raft::{Body, Message, Raft, Role};
use onefold_types::LogIndex;

use super::{
    state::State,
    universe::{Choice, Universe},
};

/// One line a step: what happens and what it changes.
pub(super) fn tell(universe: &mut Universe, choices: &[Choice]) -> Vec<String> {
    let mut state = universe.first_state().expect("it was found before");
    let mut lines = Vec::new();
    for &choice in choices {
        let what = describe(universe, choice);
        // The last step may be the one that breaks an invariant.
        let Some(Ok(next)) = universe.next(&state, choice) else {
            lines.push(what);
            continue;
        };
        let changed = changes(universe, &state, &next);
        lines.push(if changed.is_empty() { what } else { format!("{what}: {changed}") });
        state = next;
    }
    lines
}

fn describe(universe: &Universe, choice: Choice) -> String {
    match choice {
        Choice::Delivers(message) => {
            let flight = universe.flight(message);
            let (from, to) = (flight.from, flight.to);
            format!("n{from}→n{to} {}", message_words(&flight.message))
        }
        Choice::TimesOut(one) => format!("the election timeout of n{} passes", one + 1),
        Choice::Lapses(one) => format!("n{} has not heard a leader for a while", one + 1),
        Choice::Beats(one) => format!("a tick of the leader n{}", one + 1),
        Choice::Proposes(one) => format!("a client proposes to n{}", one + 1),
        Choice::Changes(one) => format!("an operator asks n{} to change the members", one + 1),
        Choice::Writes(one) => format!("the oldest write of n{} is durable", one + 1),
        Choice::Crashes(one) => format!("n{} crashes and starts again", one + 1),
        Choice::Compacts(one) => format!("n{} compacts its log", one + 1),
        Choice::Installs(one) => format!("n{} installs its staged snapshot", one + 1),
        Choice::Reads(one) => format!("a client reads at n{}", one + 1),
        Choice::HandsOver(one, two) => {
            format!("an operator has n{} hand leadership to n{}", one + 1, two + 1)
        }
        Choice::Transfers(one, two) => format!("the snapshot of n{} is at n{}", one + 1, two + 1),
        Choice::FailsTransfer(one, two) => {
            format!("the snapshot of n{} does not reach n{}", one + 1, two + 1)
        }
    }
}

fn changes(universe: &Universe, before: &State, after: &State) -> String {
    let pairs = before.servers.iter().zip(&after.servers).filter(|(old, new)| old != new);
    let told = pairs.map(|(&old, &new)| {
        let (old, new) = (&universe.server(old).core, &universe.server(new).core);
        (server_words(old), server_words(new), new.status().id)
    });
    let news = told.filter(|(old, new, _)| old != new);
    news.map(|(_, new, id)| format!("n{id} is {new}")).collect::<Vec<_>>().join("; ")
}

fn server_words(core: &Raft) -> String {
    let role = match core.role() {
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    };
    let terms = (core.first_index().0..=core.last_index().0)
        .filter_map(|index| core.term_at(LogIndex(index)))
        .map(|term| term.to_string());
    let log = terms.collect::<Vec<_>>().join(" ");
    let status = core.status();
    let vote = status.vote.map(|vote| format!(", voted for n{vote}")).unwrap_or_default();
    let start = match core.first_index().0 {
        1 => String::new(),
        first => format!(" from {first}"),
    };
    let (term, commit) = (core.term(), core.commit_index());
    format!("{role} in term {term}{vote}, log{start} [{log}], commit {commit}")
}

fn message_words(message: &Message) -> String {
    let term = message.term;
    match &message.body {
        Body::Append { prev_index, prev_term, entries, commit } => {
            let entries: Vec<String> =
                entries.iter().map(|entry| format!("{}/{}", entry.index, entry.term)).collect();
            let entries = entries.join(" ");
            format!(
                "Append in term {term}: after {prev_index}/{prev_term} [{entries}], commit {commit}"
            )
        }
        Body::InstallSnapshot { mark } => {
            format!("InstallSnapshot in term {term}: through {}/{}", mark.index, mark.term)
        }
        body => {
            // The fields of the others are numbers and flags that speak for themselves.
            let text = format!("{body:?}").replace("LogIndex", "").replace("Term(", "(");
            format!("{text} in term {term}")
        }
    }
}
