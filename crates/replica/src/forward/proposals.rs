//! Commands of a follower: those that come while a few calls are under way share the next one.
//!
//! A call for each command would cost more than the command itself, on both sides. A lonely command
//! leaves at once; under load the calls grow and their number does not.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use onefold_transport::{CallError, Class};
use onefold_types::NodeId;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::core::{Core, GroupCell, lock};
use crate::group::{AnswerSize, Command};
use crate::inbox::Proposal;
use crate::state::seal_command;
use crate::wire::{
    self, ProposeItem, ProposeManyRequest, ProposeManyResponse, milliseconds, split_body,
};
use crate::{ProposeError, SessionTag};

/// Calls of one group that are under way at once: enough that a command need not wait for a whole
/// round of the leader's disk, few enough that calls are shared.
const CALLS_MAX: usize = 4;

/// Most commands in one call.
const COMMANDS_PER_CALL_MAX: usize = 1024;

/// Bytes of commands at which a call is full; one command may make it longer.
const CALL_BYTES: usize = 1 << 20;

/// Most bytes of an answer that shares its call with others: all of them fit into one frame.
const SHARED_ANSWER_BYTES_MAX: usize = 16 << 10;

/// A command that waits for its call.
struct Item {
    command: Bytes,
    session: Option<SessionTag>,
    leader: NodeId,
    until: Instant,
    /// Whether its answer is [small](AnswerSize::Small).
    is_sharing: bool,
    reply: oneshot::Sender<Result<Bytes, ProposeError>>,
}

/// The commands of one group that wait.
#[derive(Default)]
pub(crate) struct Forwarding {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: Vec<Item>,
    bytes: usize,
    /// Tasks that take what waits.
    calls: usize,
}

impl State {
    /// The oldest commands for one leader, as many as a call takes.
    fn take(&mut self) -> Vec<Item> {
        let Some(first) = self.waiting.first() else { return Vec::new() };
        let leader = first.leader;
        let (mut count, mut bytes) = (1, first.command.len());
        if first.is_sharing {
            for item in &self.waiting[1..] {
                if !item.is_sharing
                    || item.leader != leader
                    || bytes >= CALL_BYTES
                    || count == COMMANDS_PER_CALL_MAX
                {
                    break;
                }
                count += 1;
                bytes += item.command.len();
            }
        }
        self.bytes -= self.waiting[..count].iter().map(|item| item.command.len()).sum::<usize>();
        let rest = self.waiting.split_off(count);
        std::mem::replace(&mut self.waiting, rest)
    }
}

/// Has the leader execute a command.
///
/// # Errors
/// What the leader says, or what became of the call.
pub(crate) async fn forward(
    core: &Arc<Core>,
    cell: &Arc<GroupCell>,
    leader: NodeId,
    command: &Command,
    until: Instant,
) -> Result<Bytes, ProposeError> {
    let group = cell.id;
    let (reply, answer) = oneshot::channel();
    let Command { bytes: command, session, answer: size } = command.clone();
    let is_sharing = size == AnswerSize::Small;
    {
        let limits = &core.config.limits;
        let mut state = lock(&cell.forwarding_proposals.state);
        let bytes = state.bytes + command.len();
        if state.waiting.len() >= limits.proposals_waiting_max
            || bytes > limits.proposals_waiting_bytes_max
        {
            return Err(ProposeError::Overloaded { group });
        }
        state.bytes = bytes;
        state.waiting.push(Item { command, session, leader, until, is_sharing, reply });
        if state.calls < CALLS_MAX {
            state.calls += 1;
            core.runtime.spawn(run(core.clone(), cell.clone()));
        }
    }
    match timeout_at(until, answer).await {
        Ok(Ok(answer)) => answer,
        // The task ends only with the process.
        Ok(Err(_)) => Err(unknown(cell, "the node is shutting down")),
        Err(_) => Err(unknown(cell, "it was not committed in time")),
    }
}

/// Makes calls until no command waits.
async fn run(core: Arc<Core>, cell: Arc<GroupCell>) {
    // Whatever else is ready to run may have commands for the same call.
    tokio::task::yield_now().await;
    loop {
        let items = {
            let mut state = lock(&cell.forwarding_proposals.state);
            let items = state.take();
            if items.is_empty() {
                state.calls -= 1;
                return;
            }
            items
        };
        call(&core, &cell, items).await;
    }
}

/// One call for commands to the same leader.
async fn call(core: &Core, cell: &GroupCell, items: Vec<Item>) {
    let now = Instant::now();
    let leader = items[0].leader;
    let until = items.iter().map(|item| item.until).max().unwrap_or(now);
    let left = until.saturating_duration_since(now);
    let mut body = BytesMut::with_capacity(items.iter().map(|item| item.command.len()).sum());
    let mut described = Vec::with_capacity(items.len());
    for item in &items {
        body.extend_from_slice(&item.command);
        described.push(ProposeItem { session: item.session, bytes: item.command.len() as u64 });
    }
    let deadline_ms = milliseconds(left);
    let request = ProposeManyRequest { group: cell.id, deadline_ms, items: described };
    let answered = core
        .peers
        .call::<wire::ProposeMany>(leader, Class::Call, &request, body.freeze(), left)
        .await;
    let answers = match answered {
        Ok((response, body)) => answers(cell, response, body, items.len()),
        Err(error) => vec![Err(from_call(cell, error)); items.len()],
    };
    for (item, answer) in items.into_iter().zip(answers) {
        // Who waited may have given up.
        let _ = item.reply.send(answer);
    }
}

/// The answers to so many commands.
fn answers(
    cell: &GroupCell,
    response: ProposeManyResponse,
    body: Bytes,
    count: usize,
) -> Vec<Result<Bytes, ProposeError>> {
    let lengths = response.answers.iter().map(|answer| answer.as_ref().map_or(0, |bytes| *bytes));
    let bodies = split_body(body, lengths).filter(|bodies| bodies.len() == count);
    let Some(bodies) = bodies else {
        return vec![Err(unknown(cell, "the leader's answer makes no sense")); count];
    };
    let answers = response.answers.into_iter().zip(bodies);
    answers.map(|(answer, body)| answer.map(|_| body).map_err(|error| of(cell, error))).collect()
}

/// What an error of the leader means here.
fn of(cell: &GroupCell, error: ProposeError) -> ProposeError {
    match error {
        // That host took nothing any more; another one may.
        ProposeError::Stopped { .. } => ProposeError::NotLeader { group: cell.id, leader: None },
        error => error,
    }
}

fn from_call(cell: &GroupCell, error: CallError) -> ProposeError {
    let group = cell.id;
    match error {
        CallError::Remote(remote) => match remote.detail() {
            Some(error) => of(cell, error),
            None => unknown(cell, &remote.to_string()),
        },
        CallError::Overloaded { .. } => ProposeError::Overloaded { group },
        error if error.is_unsent() => ProposeError::NotLeader { group, leader: None },
        error => unknown(cell, &error.to_string()),
    }
}

fn unknown(cell: &GroupCell, reason: &str) -> ProposeError {
    ProposeError::Unknown { group: cell.id, reason: reason.to_owned() }
}

/// Answers a call of a follower: proposes all commands at once and waits for all.
///
/// # Errors
/// When the request makes no sense; what becomes of single commands is in the response.
pub(crate) async fn answer(
    core: &Core,
    cell: &GroupCell,
    request: ProposeManyRequest,
    body: Bytes,
) -> Result<(ProposeManyResponse, Bytes), ProposeError> {
    let group = cell.id;
    let until = Instant::now() + Duration::from_millis(request.deadline_ms);
    let lengths = request.items.iter().map(|item| item.bytes);
    let commands = split_body(body, lengths).ok_or_else(|| ProposeError::Unknown {
        group,
        reason: "the lengths of the commands do not fit their bytes".to_owned(),
    })?;
    let mut proposals = Vec::with_capacity(commands.len());
    let mut waiting = Vec::with_capacity(commands.len());
    for (item, command) in request.items.iter().zip(&commands) {
        let (reply, answer) = oneshot::channel();
        match seal_command(cell.stamp(core), item.session, command) {
            Ok(command) => {
                proposals.push(Proposal { group, command, reply });
                waiting.push(Ok(answer));
            }
            Err(error) => {
                cell.counters.proposals_too_large_total.increment();
                waiting.push(Err(error));
            }
        }
    }
    core.inbox.propose_all(proposals);
    let is_shared = waiting.len() > 1;
    let mut answers = Vec::with_capacity(waiting.len());
    let mut body = BytesMut::new();
    for answer in waiting {
        let answer = match answer {
            Ok(answer) => outcome(core, cell, answer, until).await,
            Err(error) => Err(error),
        };
        answers.push(match answer {
            Ok(answer) if is_shared && answer.len() > SHARED_ANSWER_BYTES_MAX => {
                Err(unknown(cell, "its answer is larger than the proposer said"))
            }
            Ok(answer) => {
                body.extend_from_slice(&answer);
                Ok(answer.len() as u64)
            }
            Err(error) => Err(error),
        });
    }
    Ok((ProposeManyResponse { answers }, body.freeze()))
}

/// What became of a proposal of this node.
pub(crate) async fn outcome(
    core: &Core,
    cell: &GroupCell,
    answer: oneshot::Receiver<Result<Bytes, ProposeError>>,
    until: Instant,
) -> Result<Bytes, ProposeError> {
    match timeout_at(until, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => {
            let reason = core.inbox.closed();
            Err(unknown(cell, reason.as_deref().unwrap_or("the command was dropped")))
        }
        Err(_) => Err(unknown(cell, "it was not committed in time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(items: &[(u64, bool, usize)]) -> State {
        let item = |&(leader, is_sharing, bytes): &(u64, bool, usize)| Item {
            command: vec![0; bytes].into(),
            session: None,
            leader: NodeId(leader),
            until: Instant::now(),
            is_sharing,
            reply: oneshot::channel().0,
        };
        let waiting: Vec<_> = items.iter().map(item).collect();
        State { bytes: waiting.iter().map(|item| item.command.len()).sum(), waiting, calls: 0 }
    }

    /// How many commands each call takes.
    fn calls(items: &[(u64, bool, usize)]) -> Vec<usize> {
        let mut state = state(items);
        let taken = std::iter::from_fn(|| Some(state.take().len()).filter(|count| *count > 0));
        let calls = taken.collect();
        assert_eq!((state.bytes, state.waiting.len()), (0, 0));
        calls
    }

    #[test]
    fn commands_for_one_leader_share_a_call_in_their_order() {
        assert_eq!(calls(&[(1, true, 5), (1, true, 5), (2, true, 5), (1, true, 5)]), [2, 1, 1]);
    }

    #[test]
    fn a_command_with_a_large_answer_has_a_call_of_its_own() {
        assert_eq!(calls(&[(1, true, 5), (1, false, 5), (1, false, 5), (1, true, 5)]), [1; 4]);
    }

    #[test]
    fn a_call_is_bounded_in_commands_and_bytes() {
        let many = vec![(1, true, 1); COMMANDS_PER_CALL_MAX + 1];
        assert_eq!(calls(&many), [COMMANDS_PER_CALL_MAX, 1]);
        assert_eq!(calls(&[(1, true, CALL_BYTES), (1, true, 1), (1, true, 1)]), [1, 2]);
    }
}
