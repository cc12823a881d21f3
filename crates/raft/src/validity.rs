//! What a message must keep to be taken at all. It is looked at before it changes anything: a
//! message that is refused has had no effect.

use onefold_types::{LogIndex, NodeId, Term};

use crate::{
    entry::{Entry, Payload},
    membership::Membership,
    message::{Body, Message},
    raft::{Raft, StepError},
    status::Role,
};

/// Terms and indexes beyond this are refused: counting never gets there, so a peer sent nonsense.
const NUMBER_MAX: u64 = u64::MAX / 2;

impl Raft {
    pub(crate) fn check_message(&self, from: NodeId, message: &Message) -> Result<(), StepError> {
        let Message { term, body } = message;
        if from == self.config.id {
            return Err(StepError::Malformed { from, what: "it bears this node's own id" });
        }
        check_form(*term, body).map_err(|what| StepError::Malformed { from, what })?;
        if *term < self.term {
            return Ok(());
        }
        if *term == self.term {
            self.check_sender(from, body)?;
        }
        self.check_against_log(from, body)
    }

    /// Of the present term.
    fn check_sender(&self, from: NodeId, body: &Body) -> Result<(), StepError> {
        match body {
            body if body.is_of_a_leader() => match self.leader {
                Some(known) if known != from => {
                    Err(StepError::TwoLeaders { term: self.term, known, from })
                }
                _ => Ok(()),
            },
            Body::AppendAccepted { matched: index } | Body::SnapshotInstalled { index }
                if self.role == Role::Leader && *index > self.log.last_index() =>
            {
                Err(StepError::Malformed { from, what: "entries that were never sent" })
            }
            _ => Ok(()),
        }
    }

    /// A leader has every entry that is committed (§5.4), and its followers have what they told it.
    fn check_against_log(&self, from: NodeId, body: &Body) -> Result<(), StepError> {
        let last_index = self.log.last_index();
        let replaced = match body {
            Body::Heartbeat { commit, .. } if *commit > last_index => {
                let acknowledged = *commit;
                return Err(StepError::AcknowledgedEntriesLost { last_index, acknowledged });
            }
            Body::Append { prev_index, prev_term, entries, .. } => {
                let prev = (*prev_index, *prev_term);
                let places = entries.iter().map(|entry| (entry.index, entry.term));
                self.first_replaced([prev].into_iter().chain(places))
            }
            Body::InstallSnapshot { mark } => self.first_replaced([(mark.index, mark.term)]),
            _ => None,
        };
        match replaced {
            Some(index) => Err(StepError::CommittedEntryReplaced { index, from }),
            None => Ok(()),
        }
    }

    /// The first of these places that is committed here in another term.
    fn first_replaced(
        &self,
        places: impl IntoIterator<Item = (LogIndex, Term)>,
    ) -> Option<LogIndex> {
        let mut committed = places.into_iter().take_while(|(index, _)| *index <= self.commit);
        let replaced = committed
            .find(|(index, term)| self.log.term_at(*index).is_some_and(|known| known != *term));
        replaced.map(|(index, _)| index)
    }
}

/// What is wrong with a message whoever gets it.
fn check_form(term: Term, body: &Body) -> Result<(), &'static str> {
    let (index_max, term_max) = greatest_numbers(body);
    if term.0.max(index_max.0).max(term_max.0) > NUMBER_MAX {
        return Err("a term or index out of all range");
    }
    match body {
        Body::Append { prev_index, prev_term, entries, .. } => {
            check_entries(term, (*prev_index, *prev_term), entries)
        }
        Body::InstallSnapshot { mark } if mark.term > term => Err("a snapshot of a later term"),
        Body::InstallSnapshot { mark } => check_membership(&mark.membership),
        _ => Ok(()),
    }
}

/// The greatest index and the greatest term in a message. Entries follow each other from the one
/// before them, so they need not be looked at.
fn greatest_numbers(body: &Body) -> (LogIndex, Term) {
    match body {
        Body::RequestPreVote { last_index, last_term }
        | Body::RequestVote { last_index, last_term, transfer: _ } => (*last_index, *last_term),
        Body::Append { prev_index, prev_term, entries: _, commit } => {
            (*prev_index.max(commit), *prev_term)
        }
        Body::AppendRejected { prev_index, hint_index, hint_term } => {
            (*prev_index.max(hint_index), *hint_term)
        }
        Body::InstallSnapshot { mark } => (mark.index, mark.term),
        Body::AppendAccepted { matched: index }
        | Body::Heartbeat { commit: index, read_round: _ }
        | Body::SnapshotMissing { index }
        | Body::SnapshotInstalled { index }
        | Body::Quiesce { last: index }
        | Body::SnapshotWanted { least: index } => (*index, Term::ZERO),
        Body::PreVoteResponse { granted: _ }
        | Body::VoteResponse { granted: _ }
        | Body::HeartbeatResponse { read_round: _, promised_micros: _ }
        | Body::TimeoutNow
        | Body::Awake
        | Body::TermOver => (LogIndex::ZERO, Term::ZERO),
    }
}

fn check_entries(
    term: Term,
    mut previous: (LogIndex, Term),
    entries: &[Entry],
) -> Result<(), &'static str> {
    for entry in entries {
        if entry.index != previous.0.next() || entry.term < previous.1 {
            return Err("entries out of order");
        }
        if let Payload::Membership(membership) = &entry.payload {
            check_membership(membership)?;
        }
        previous = (entry.index, entry.term);
    }
    if previous.1 > term { Err("an entry of a later term") } else { Ok(()) }
}

fn check_membership(membership: &Membership) -> Result<(), &'static str> {
    if membership.is_consistent() { Ok(()) } else { Err("members that no group can have") }
}
