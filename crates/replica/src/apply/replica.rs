//! One group's state machine over its key space.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use onefold_raft::{Entry, Payload, SnapshotMark};
use onefold_table::{Batch, Overlay, Space};
use onefold_types::{GroupId, LogIndex, Timestamp};

use crate::command::Envelope;
use crate::core::{Core, GroupCell};
use crate::inbox::Event;
use crate::records::{self, HOST, MACHINE, STATE, State, encode, generation_space};
use crate::sessions::{Admission, Bounds, Sessions};
use crate::{Apply, HostError, ProposeError, SessionTag, StateMachine};

/// One group's state machine, how far it is, and its sessions.
pub(crate) struct Replica {
    cell: Arc<GroupCell>,
    machine: Box<dyn StateMachine>,
    state: State,
    sessions: Sessions,
    generation: Space,
    host: Space,
    machine_space: Space,
}

/// What one round did.
pub(crate) struct Applied {
    /// The last entry of the round.
    pub(crate) index: LogIndex,
    /// Bytes of its entries.
    pub(crate) bytes: usize,
    /// One for each command, in the order of the log.
    pub(crate) answers: Vec<(LogIndex, Result<Bytes, ProposeError>)>,
}

impl Replica {
    /// The replica of a group over what the table holds. The state machine rebuilds its caches.
    ///
    /// # Errors
    /// What the table answers.
    pub(crate) fn new(
        cell: Arc<GroupCell>,
        mut machine: Box<dyn StateMachine>,
        state: State,
    ) -> Result<Self, HostError> {
        let generation = generation_space(&cell.space, cell.current_generation());
        machine.restored(&cell.view())?;
        Ok(Self {
            sessions: Sessions::new(cell.id, Bounds::REPLICATED, state.sessions),
            host: generation.inner(HOST),
            machine_space: generation.inner(MACHINE),
            generation,
            cell,
            machine,
            state,
        })
    }

    /// The group.
    pub(crate) fn id(&self) -> GroupId {
        self.cell.id
    }

    /// Applies entries from the front, at least one, until the round has written enough.
    ///
    /// # Errors
    /// When the table fails, or an entry can't be understood.
    pub(crate) fn apply(
        &mut self,
        entries: &mut VecDeque<Entry>,
        bytes_max: usize,
    ) -> Result<Applied, HostError> {
        let (host, machine) = (self.host.clone(), self.machine_space.clone());
        let mut round = Round {
            host: Overlay::new(&host),
            machine: Overlay::new(&machine),
            answers: Vec::new(),
            bytes: 0,
        };
        while round.machine.bytes() + round.host.bytes() < bytes_max {
            let Some(entry) = entries.pop_front() else { break };
            self.apply_entry(entry, &mut round)?;
        }
        self.state.sessions = self.sessions.count();
        round.host.put(STATE, encode(&self.state));

        let mut batch = Batch::new();
        batch.append(round.machine.into_batch(MACHINE));
        batch.append(round.host.into_batch(HOST));
        self.generation.write(batch)?;
        self.published();
        Ok(Applied { index: self.state.applied, bytes: round.bytes, answers: round.answers })
    }

    fn apply_entry(&mut self, entry: Entry, round: &mut Round<'_>) -> Result<(), HostError> {
        assert_eq!(
            entry.index,
            self.state.applied.next(),
            "group {}: entries are applied in the order of the log, each once",
            self.cell.id
        );
        assert!(entry.term >= self.state.term, "terms of applied entries never go back");
        round.bytes += entry.bytes();
        self.state.applied = entry.index;
        self.state.term = entry.term;
        match entry.payload {
            Payload::Empty => {}
            Payload::Membership(membership) => self.state.membership = *membership,
            Payload::Command(sealed) => {
                let answer = self.apply_command(entry.index, &sealed, round)?;
                round.answers.push((entry.index, answer));
            }
        }
        Ok(())
    }

    fn apply_command(
        &mut self,
        index: LogIndex,
        sealed: &Bytes,
        round: &mut Round<'_>,
    ) -> Result<Result<Bytes, ProposeError>, HostError> {
        let group = self.cell.id;
        let envelope = Envelope::open(sealed).map_err(|reason| HostError::Undecodable {
            group,
            what: "a command in the log",
            reason: format!("entry {index}: {reason}"),
        })?;
        // Clocks of leaders differ; replicated time never goes back.
        self.state.time = self.state.time.max(envelope.time);
        let time = self.state.time;
        let outcome = match envelope.session {
            None => Ok(self.execute(index, time, &envelope.command, round)?),
            Some(tag) => self.apply_once(index, time, &tag, &envelope.command, round)?,
        };
        // Only now: when time jumps, the command's own session must still know whether the command
        // was executed before.
        self.sessions.expire(&mut round.host, time)?;
        Ok(outcome)
    }

    /// Executes a command unless its session knows that it was executed.
    fn apply_once(
        &mut self,
        index: LogIndex,
        time: Timestamp,
        tag: &SessionTag,
        command: &Bytes,
        round: &mut Round<'_>,
    ) -> Result<Result<Bytes, ProposeError>, HostError> {
        let group = self.cell.id;
        Ok(match self.sessions.admit(&mut round.host, tag, time)? {
            Admission::Answered(answer) => Ok(answer),
            Admission::Full => Err(ProposeError::SessionsFull { group }),
            Admission::Trimmed { floor } => Err(ProposeError::SequenceTrimmed {
                session: tag.session,
                sequence: tag.sequence,
                floor,
            }),
            Admission::Execute => {
                let answer = self.execute(index, time, command, round)?;
                self.sessions.answered(&mut round.host, tag, time, &answer)?;
                Ok(answer)
            }
        })
    }

    fn execute(
        &mut self,
        index: LogIndex,
        time: Timestamp,
        command: &Bytes,
        round: &mut Round<'_>,
    ) -> Result<Bytes, HostError> {
        let mut context = Apply { index, time, table: &mut round.machine };
        Ok(self.machine.apply(&mut context, command)?)
    }

    /// Readers and watchers may see the state as it is now in the table.
    fn published(&mut self) {
        self.machine.committed(self.state.applied);
        self.cell.applied.send_replace(self.state.applied);
    }

    /// Replaces the state by the staged snapshot with this mark, and says whether there was one.
    ///
    /// # Errors
    /// When the table fails.
    pub(crate) fn install(&mut self, core: &Core, mark: SnapshotMark) -> Result<Event, HostError> {
        let group = self.cell.id;
        let staged = core.transfers.take_staged(group, &mark);
        let Some(generation) = staged.filter(|_| mark.index > self.state.applied) else {
            return Ok(Event::SnapshotMissing { group, mark });
        };
        let space = generation_space(&self.cell.space, generation);
        let state = records::read_state(group, &space)?;
        assert_eq!(state.mark(), mark, "a staged snapshot is what it was announced as");

        let replaced = self.cell.install(generation, &mark)?;
        core.chores.wipe(group, replaced);
        self.switch_to(space, state)?;
        tracing::info!(%group, index = %mark.index, "installed a snapshot");
        Ok(Event::SnapshotInstalled { group, mark })
    }

    fn switch_to(&mut self, generation: Space, state: State) -> Result<(), HostError> {
        self.host = generation.inner(HOST);
        self.machine_space = generation.inner(MACHINE);
        self.generation = generation;
        self.sessions = Sessions::new(self.cell.id, Bounds::REPLICATED, state.sessions);
        self.state = state;
        self.machine.restored(&self.cell.view())?;
        self.published();
        Ok(())
    }
}

/// The writes and answers of one round.
struct Round<'a> {
    host: Overlay<'a>,
    machine: Overlay<'a>,
    answers: Vec<(LogIndex, Result<Bytes, ProposeError>)>,
    bytes: usize,
}

#[cfg(test)]
mod tests {
    use onefold_raft::Membership;
    use onefold_table::{MemoryTable, SpaceView, TableError};
    use onefold_types::{NodeId, SessionId, Term};
    use tokio::sync::mpsc;

    use super::*;
    use crate::command::seal;
    use crate::records::Root;

    /// Answers time, index and how often it was asked.
    #[derive(Default)]
    struct Clock {
        count: u64,
    }

    impl StateMachine for Clock {
        fn apply(&mut self, context: &mut Apply<'_, '_>, _: &Bytes) -> Result<Bytes, TableError> {
            self.count += 1;
            context.table.put("time", context.time.to_string());
            Ok(format!("{} {} {}", context.time, context.index, self.count).into())
        }

        fn restored(&mut self, _: &SpaceView) -> Result<(), TableError> {
            Ok(())
        }
    }

    fn replica() -> Replica {
        let space = Space::new(Arc::new(MemoryTable::new()), GroupId::KV);
        let membership = Membership::of_voters([NodeId(1)]);
        let state = State { membership, ..State::default() };
        let (reads, _) = mpsc::channel(1);
        let cell = GroupCell::new(GroupId::KV, NodeId(1), space, Root::default(), &state, reads);
        Replica::new(Arc::new(cell), Box::new(Clock::default()), state)
            .expect("memory does not fail")
    }

    #[test]
    fn a_retry_after_a_jump_of_time_is_not_executed_again() {
        const DAY_MS: u64 = 24 * 3600 * 1000;
        let mut replica = replica();
        let tag = SessionTag { session: SessionId(9), sequence: 1, acknowledged_below: 1 };
        let first = answers(&mut replica, vec![entry(1, 1000, Some(tag))], 1 << 20);
        let again = answers(&mut replica, vec![entry(2, 1000 + DAY_MS, Some(tag))], 1 << 20);
        assert_eq!(first, again);
    }

    fn entry(index: u64, time: u64, session: Option<SessionTag>) -> Entry {
        let command = seal(Timestamp(time), session, b"now").expect("a small command");
        Entry { term: Term(1), index: LogIndex(index), payload: Payload::Command(command) }
    }

    fn answers(replica: &mut Replica, entries: Vec<Entry>, bytes_max: usize) -> Vec<String> {
        let mut entries = VecDeque::from(entries);
        let mut answers = Vec::new();
        while !entries.is_empty() {
            let applied = replica.apply(&mut entries, bytes_max).expect("memory does not fail");
            assert_eq!(*replica.cell.applied.borrow(), applied.index);
            let texts = applied.answers.into_iter().map(|(_, answer)| answer.expect("answered"));
            answers.extend(texts.map(|text| String::from_utf8_lossy(&text).into_owned()));
        }
        answers
    }

    #[test]
    fn time_stands_still_while_a_leaders_clock_is_behind() {
        let entries = vec![entry(1, 50, None), entry(2, 20, None), entry(3, 60, None)];
        assert_eq!(answers(&mut replica(), entries, 1 << 20), ["50 1 1", "50 2 2", "60 3 3"]);
    }

    #[test]
    fn rounds_of_any_size_give_the_same_state_and_answers() {
        let tag =
            |sequence| Some(SessionTag { session: SessionId(1), sequence, acknowledged_below: 1 });
        let entries: Vec<_> =
            (1..=40).map(|index| entry(index, 100 - index, tag(1 + index / 3))).collect();
        let mut states = Vec::new();
        for bytes_max in [1, 300, 1 << 20] {
            let mut replica = replica();
            let answers = answers(&mut replica, entries.clone(), bytes_max);
            assert_eq!(answers[3], answers[4], "a retry gets the first answer");
            assert_eq!(replica.state.applied, LogIndex(40));
            let pairs: Result<Vec<_>, _> = onefold_table::View::scan(
                &replica.generation,
                onefold_table::KeyRange::all(),
                onefold_table::Order::Ascending,
            )
            .collect();
            states.push((answers, pairs.expect("memory does not fail")));
        }
        assert_eq!(states[0], states[1]);
        assert_eq!(states[1], states[2]);
    }

    #[test]
    #[should_panic(expected = "in the order of the log")]
    fn an_entry_out_of_order_is_never_applied() {
        answers(&mut replica(), vec![entry(1, 1, None), entry(3, 1, None)], 1 << 20);
    }
}
