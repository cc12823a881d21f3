//! How messages, entries and states read. An entry is written as index/term.

use onefold_raft::{
    Body, Entry, Membership, Message, Payload, Persist, Raft, ReadState, Role, SnapshotMark,
};
use onefold_types::{LogIndex, NodeId, Term};

pub(super) fn role(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}

fn place(index: LogIndex, term: Term) -> String {
    format!("{index}/{term}")
}

pub(super) fn entry(entry: &Entry) -> String {
    let place = place(entry.index, entry.term);
    match &entry.payload {
        Payload::Empty => format!("{place} no-op"),
        Payload::Command(command) if command.is_empty() => place,
        Payload::Command(command) => format!("{place} {}", String::from_utf8_lossy(command)),
        Payload::Membership(members) => format!("{place} {}", membership(members)),
    }
}

pub(super) fn entries(all: &[Entry]) -> String {
    all.iter().map(entry).collect::<Vec<_>>().join(", ")
}

fn nodes<'a>(ids: impl IntoIterator<Item = &'a NodeId>) -> String {
    let ids: Vec<String> = ids.into_iter().map(NodeId::to_string).collect();
    ids.join(" ")
}

/// `[1 2 3]`, joint `[1 2 3 → 1 2 4]`, with learners `[1 2 3; joins 4; learns 5]`.
pub(super) fn membership(membership: &Membership) -> String {
    let Membership { voters, outgoing, learners, joining } = membership;
    let mut text = nodes(voters);
    if membership.is_joint() {
        text = format!("{} → {text}", nodes(outgoing));
    }
    if !joining.is_empty() {
        text += &format!("; joins {}", nodes(joining));
    }
    let only_learn: Vec<&NodeId> = learners.difference(joining).collect();
    if !only_learn.is_empty() {
        text += &format!("; learns {}", nodes(only_learn));
    }
    format!("[{text}]")
}

pub(super) fn mark(mark: &SnapshotMark) -> String {
    place(mark.index, mark.term)
}

/// The name of the request or answer, as the papers call it where they have one.
pub(super) fn kind(body: &Body) -> &'static str {
    match body {
        Body::RequestPreVote { .. } => "RequestPreVote",
        Body::PreVoteResponse { .. } => "PreVoteResponse",
        Body::RequestVote { .. } => "RequestVote",
        Body::VoteResponse { .. } => "VoteResponse",
        Body::Append { .. } => "AppendEntries",
        Body::AppendAccepted { .. } => "AppendAccepted",
        Body::AppendRejected { .. } => "AppendRejected",
        Body::Heartbeat { .. } => "Heartbeat",
        Body::HeartbeatResponse { .. } => "HeartbeatResponse",
        Body::InstallSnapshot { .. } => "InstallSnapshot",
        Body::SnapshotMissing { .. } => "SnapshotMissing",
        Body::SnapshotInstalled { .. } => "SnapshotInstalled",
        Body::TimeoutNow => "TimeoutNow",
        Body::Quiesce { .. } => "Quiesce",
        Body::Awake => "Awake",
        Body::SnapshotWanted { .. } => "SnapshotWanted",
        Body::TermOver => "TermOver",
    }
}

fn answer(granted: bool) -> &'static str {
    if granted { "granted" } else { "refused" }
}

pub(super) fn message(message: &Message) -> String {
    let about = match &message.body {
        Body::RequestPreVote { last_index, last_term } => {
            format!(", log ends at {}", place(*last_index, *last_term))
        }
        Body::RequestVote { last_index, last_term, transfer } => {
            let asked = if *transfer { ", asked by the leader" } else { "" };
            format!(", log ends at {}{asked}", place(*last_index, *last_term))
        }
        Body::PreVoteResponse { granted } | Body::VoteResponse { granted } => {
            format!(", {}", answer(*granted))
        }
        Body::Append { prev_index, prev_term, entries: sent, commit } => {
            let sent = if sent.is_empty() { "nothing".into() } else { entries(sent) };
            format!(", after {}: {sent}; commit {commit}", place(*prev_index, *prev_term))
        }
        Body::AppendAccepted { matched } => format!(", equal up to {matched}"),
        Body::AppendRejected { prev_index, hint_index, hint_term } => {
            format!(", not after {prev_index}; try {}", place(*hint_index, *hint_term))
        }
        Body::Heartbeat { commit, read_round } => {
            format!(", commit {commit}{}", round(*read_round))
        }
        Body::HeartbeatResponse { read_round, promised_micros } => {
            let promised = match promised_micros {
                0 => String::new(),
                micros => format!(", promised {micros} us"),
            };
            format!("{}{promised}", round(*read_round))
        }
        Body::InstallSnapshot { mark: of } => format!(", through {}", mark(of)),
        Body::SnapshotMissing { index } | Body::SnapshotInstalled { index } => {
            format!(", through {index}")
        }
        Body::Quiesce { last } => format!(", log ends at {last}"),
        Body::SnapshotWanted { least } => format!(", through {least} or later"),
        Body::TimeoutNow | Body::Awake | Body::TermOver => String::new(),
    };
    format!("{} term {}{about}", kind(&message.body), message.term)
}

fn round(read_round: u64) -> String {
    if read_round == 0 { String::new() } else { format!(", read round {read_round}") }
}

pub(super) fn read_state(state: &ReadState) -> String {
    match state {
        ReadState::Ready { id, index } => format!("read {} may go on at {index}", id.0),
        ReadState::Failed { id } => format!("read {} failed", id.0),
    }
}

pub(super) fn persist(persist: &Persist) -> String {
    let mut parts = Vec::new();
    if let Some(hard) = persist.hard_state {
        parts.push(format!("term {}", hard.term));
        parts.extend(hard.vote.map(|vote| format!("vote for n{vote}")));
        parts.push(format!("commit {}", hard.commit));
    }
    parts.extend(persist.truncate_from.map(|from| format!("cut from {from}")));
    parts.extend(persist.snapshot.as_ref().map(|at| format!("log starts after {}", mark(at))));
    parts.extend((!persist.entries.is_empty()).then(|| entries(&persist.entries)));
    format!("write {} ({})", persist.sequence.0, parts.join(", "))
}

/// The terms of a log as the figures of the paper show them; what a snapshot covers in brackets.
pub(super) fn log(core: &Raft) -> String {
    let first = core.first_index();
    let before = LogIndex(first.0 - 1);
    let covered = (before > LogIndex::ZERO).then(|| {
        let term = core.term_at(before).unwrap_or_default();
        format!("[{}]", place(before, term))
    });
    let terms = (first.0..=core.last_index().0).filter_map(|index| core.term_at(LogIndex(index)));
    let all: Vec<String> = covered.into_iter().chain(terms.map(|term| term.to_string())).collect();
    if all.is_empty() { "empty".into() } else { all.join(" ") }
}
