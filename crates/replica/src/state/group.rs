//! One group's state machine over its key space.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use onefold_raft::{Entry, HardState, Payload, Restored, SnapshotMark};
use onefold_table::{Batch, Overlay, Space, SpaceView};
use onefold_types::{GroupId, LogIndex, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

use super::command::Envelope;
use super::hash::{Kind, Step};
use super::records::read_state;
use super::records::{Generation, HOST, MACHINE, STATE, State, encode, generation_space};
use super::sessions::{Admission, Bounds, Sessions};
use super::{Checkpoint, Generations, Staged, StateHash};
use crate::{Apply, HostError, ProposeError, SessionTag, StateMachine};

/// One group's state machine, its sessions, and how far they are.
pub struct GroupState {
    generations: Arc<Generations>,
    machine: Box<dyn StateMachine>,
    state: State,
    sessions: Sessions,
    generation: Space,
    host: Space,
    machine_space: Space,
}

/// What one round did.
#[derive(Debug)]
pub struct Applied {
    /// The last entry of the round.
    pub index: LogIndex,
    /// The hash of the state after it.
    pub hash: StateHash,
    /// Bytes of its entries.
    pub bytes: usize,
    /// One for each command, in the order of the log.
    pub answers: Vec<(LogIndex, Result<Bytes, ProposeError>)>,
    /// The checkpoints that it passed, oldest first: those at every
    /// [`CHECKPOINT_EVERY`](super::CHECKPOINT_EVERY) entries.
    pub checkpoints: Vec<Checkpoint>,
}

/// What a log holds of a group, in the core's terms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logged {
    /// The last hard state.
    pub hard_state: HardState,
    /// The last snapshot mark, if there is any.
    pub snapshot: Option<SnapshotMark>,
    /// The entries, contiguous.
    pub entries: Vec<Entry>,
}

impl GroupState {
    /// The state of a group as the table holds it. The state machine rebuilds its caches.
    ///
    /// # Errors
    /// When the table fails or holds what this program does not understand.
    pub fn open(
        generations: Arc<Generations>,
        machine: Box<dyn StateMachine>,
    ) -> Result<Self, HostError> {
        let generation = generation_space(generations.space(), generations.current());
        let mut opened = Self {
            sessions: Sessions::new(generations.group(), Bounds::REPLICATED, 0),
            state: State::default(),
            host: generation.inner(HOST),
            machine_space: generation.inner(MACHINE),
            generation,
            generations,
            machine,
        };
        opened.reload()?;
        Ok(opened)
    }

    fn reload(&mut self) -> Result<(), HostError> {
        self.read_generation()?;
        Ok(self.machine.restored(&self.view())?)
    }

    /// Reads the current generation.
    fn read_generation(&mut self) -> Result<(), HostError> {
        let group = self.id();
        let generation = generation_space(self.generations.space(), self.generations.current());
        let mut state = read_state(group, &generation)?;
        if state.applied == LogIndex::ZERO {
            state.membership = self.generations.formed();
        }
        self.host = generation.inner(HOST);
        self.machine_space = generation.inner(MACHINE);
        self.generation = generation;
        self.sessions = Sessions::new(group, Bounds::REPLICATED, state.sessions);
        self.state = state;
        Ok(())
    }

    /// The group.
    pub fn id(&self) -> GroupId {
        self.generations.group()
    }

    /// Where the state is in the table.
    pub fn generations(&self) -> &Arc<Generations> {
        &self.generations
    }

    /// The last entry that was applied.
    pub fn applied(&self) -> LogIndex {
        self.state.applied
    }

    /// Replicated time: that of the last command.
    pub fn time(&self) -> Timestamp {
        self.state.time
    }

    /// The hash of everything that the entries did.
    pub fn hash(&self) -> StateHash {
        self.state.hash
    }

    /// What a snapshot of the state covers.
    pub fn mark(&self) -> SnapshotMark {
        self.state.mark()
    }

    /// What the state machine sees of the state, as it is now.
    pub fn view(&self) -> SpaceView {
        self.generations.view()
    }

    /// With what the core starts again: this state, and what the log held of the group, if that was
    /// anything.
    ///
    /// # Errors
    /// When there is a state and no log: then votes and acknowledgements are lost, and the node
    /// must not take part under its old name.
    pub fn restored(&self, logged: Option<Logged>) -> Result<Restored, HostError> {
        let applied = self.state.applied;
        if logged.is_none() && applied > LogIndex::ZERO {
            return Err(HostError::LogLost { group: self.id(), applied });
        }
        let Logged { hard_state, snapshot, entries } = logged.unwrap_or_default();
        // A crash may have come after a snapshot was installed in the table and before the log
        // learned of it.
        let marks = snapshot.into_iter().chain(self.generations.installed());
        let latest = marks.max_by_key(|mark| mark.index);
        Ok(Restored {
            // The table holds nothing but committed entries.
            hard_state: HardState { commit: hard_state.commit.max(applied), ..hard_state },
            snapshot: latest.unwrap_or_else(|| SnapshotMark::initial(self.generations.formed())),
            applied,
            entries,
        })
    }

    /// Applies entries from the front, at least one, until the round has written enough.
    ///
    /// # Errors
    /// When the table fails, or an entry can't be understood. The state in memory is then ahead of
    /// the table: drop it.
    ///
    /// # Panics
    /// When an entry is not the one after the last.
    pub fn apply(
        &mut self,
        entries: &mut VecDeque<Entry>,
        bytes_max: usize,
    ) -> Result<Applied, HostError> {
        let (host, machine) = (self.host.clone(), self.machine_space.clone());
        let mut round = Round {
            host: Overlay::hashing(&host),
            machine: Overlay::hashing(&machine),
            answers: Vec::new(),
            checkpoints: Vec::new(),
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
        self.machine.committed(self.state.applied);
        Ok(Applied {
            index: self.state.applied,
            hash: self.state.hash,
            bytes: round.bytes,
            answers: round.answers,
            checkpoints: round.checkpoints,
        })
    }

    fn apply_entry(&mut self, entry: Entry, round: &mut Round<'_>) -> Result<(), HostError> {
        assert_eq!(
            entry.index,
            self.state.applied.next(),
            "group {}: entries are applied in the order of the log, each once",
            self.id()
        );
        assert!(entry.term >= self.state.term, "terms of applied entries never go back");
        round.bytes += entry.bytes();
        self.state.applied = entry.index;
        self.state.term = entry.term;
        let mut members = 0;
        let kind = match entry.payload {
            Payload::Empty => Kind::Empty,
            Payload::Membership(membership) => {
                members = xxh3_64(&encode(&*membership));
                self.state.membership = *membership;
                Kind::Membership
            }
            Payload::Command(sealed) => {
                let answer = self.apply_command(entry.index, &sealed, round)?;
                round.answers.push((entry.index, answer));
                Kind::Command
            }
        };
        self.state.hash = self.state.hash.after(&Step {
            index: entry.index,
            term: entry.term,
            kind,
            time: self.state.time,
            members,
            machine: round.machine.take_hash(),
            host: round.host.take_hash(),
        });
        if Checkpoint::is_due(entry.index) {
            round.checkpoints.push(Checkpoint { index: entry.index, hash: self.state.hash });
        }
        Ok(())
    }

    fn apply_command(
        &mut self,
        index: LogIndex,
        sealed: &Bytes,
        round: &mut Round<'_>,
    ) -> Result<Result<Bytes, ProposeError>, HostError> {
        let group = self.id();
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
        let group = self.id();
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

    /// Replaces the state by a staged snapshot, durably, and gives the generation that it replaces:
    /// [wipe](Generations::wipe) it. Gives `None`, and changes nothing, when the snapshot is not
    /// ahead of the state.
    ///
    /// # Errors
    /// When the table fails.
    pub fn install(&mut self, staged: &Staged) -> Result<Option<Generation>, HostError> {
        if staged.mark.index <= self.state.applied {
            return Ok(None);
        }
        let replaced = self.generations.install(staged.generation, &staged.mark)?;
        self.reload()?;
        assert_eq!(self.mark(), staged.mark, "a staged snapshot is what it was announced as");
        self.machine.committed(self.state.applied);
        Ok(Some(replaced))
    }

    /// Gives up the state, durably: it begins again with nothing, and only a snapshot makes it whole.
    /// The state machine hears of it when one is installed: whoever follows it goes on from there.
    /// Until then nothing may be applied.
    /// Gives the generation that it was: [wipe](Generations::wipe) it.
    ///
    /// # Errors
    /// When the table fails.
    pub fn discard(&mut self) -> Result<Generation, HostError> {
        let replaced = self.generations.discard()?;
        self.read_generation()?;
        Ok(replaced)
    }
}

/// The writes and answers of one round.
struct Round<'a> {
    host: Overlay<'a>,
    machine: Overlay<'a>,
    answers: Vec<(LogIndex, Result<Bytes, ProposeError>)>,
    checkpoints: Vec<Checkpoint>,
    bytes: usize,
}

#[cfg(test)]
mod tests {
    use onefold_raft::Membership;
    use onefold_table::{KeyRange, MemoryTable, Order, TableError, View};
    use onefold_types::{NodeId, SessionId, Term};

    use super::*;
    use crate::state::seal_command;

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

    fn state() -> GroupState {
        let space = Space::new(Arc::new(MemoryTable::new()), GroupId::KV);
        let formed = Membership::of_voters([NodeId(1)]);
        let generations = Generations::open(GroupId::KV, space, &formed);
        let generations = Arc::new(generations.expect("memory does not fail"));
        GroupState::open(generations, Box::new(Clock::default())).expect("memory does not fail")
    }

    #[test]
    fn a_retry_after_a_jump_of_time_is_not_executed_again() {
        const DAY_MS: u64 = 24 * 3600 * 1000;
        let mut state = state();
        let tag = SessionTag { session: SessionId(9), sequence: 1, acknowledged_below: 1 };
        let first = answers(&mut state, vec![entry(1, 1000, Some(tag))], 1 << 20);
        let again = answers(&mut state, vec![entry(2, 1000 + DAY_MS, Some(tag))], 1 << 20);
        assert_eq!(first, again);
    }

    fn entry(index: u64, time: u64, session: Option<SessionTag>) -> Entry {
        let command = seal_command(Timestamp(time), session, b"now").expect("a small command");
        Entry { term: Term(1), index: LogIndex(index), payload: Payload::Command(command) }
    }

    fn answers(state: &mut GroupState, entries: Vec<Entry>, bytes_max: usize) -> Vec<String> {
        let mut entries = VecDeque::from(entries);
        let mut answers = Vec::new();
        while !entries.is_empty() {
            let applied = state.apply(&mut entries, bytes_max).expect("memory does not fail");
            assert_eq!(state.applied(), applied.index);
            let texts = applied.answers.into_iter().map(|(_, answer)| answer.expect("answered"));
            answers.extend(texts.map(|text| String::from_utf8_lossy(&text).into_owned()));
        }
        answers
    }

    #[test]
    fn time_stands_still_while_a_leaders_clock_is_behind() {
        let entries = vec![entry(1, 50, None), entry(2, 20, None), entry(3, 60, None)];
        assert_eq!(answers(&mut state(), entries, 1 << 20), ["50 1 1", "50 2 2", "60 3 3"]);
    }

    #[test]
    fn rounds_of_any_size_give_the_same_state_and_answers() {
        let tag =
            |sequence| Some(SessionTag { session: SessionId(1), sequence, acknowledged_below: 1 });
        let entries: Vec<_> =
            (1..=40).map(|index| entry(index, 100 - index, tag(1 + index / 3))).collect();
        let mut states = Vec::new();
        for bytes_max in [1, 300, 1 << 20] {
            let mut state = state();
            let answers = answers(&mut state, entries.clone(), bytes_max);
            assert_eq!(answers[3], answers[4], "a retry gets the first answer");
            assert_eq!(state.applied(), LogIndex(40));
            let hash = state.hash();
            let pairs: Result<Vec<_>, _> =
                state.generation.scan(KeyRange::all(), Order::Ascending).collect();
            states.push((answers, hash, pairs.expect("memory does not fail")));
        }
        assert_eq!(states[0], states[1]);
        assert_eq!(states[1], states[2]);
    }

    #[test]
    #[should_panic(expected = "in the order of the log")]
    fn an_entry_out_of_order_is_never_applied() {
        answers(&mut state(), vec![entry(1, 1, None), entry(3, 1, None)], 1 << 20);
    }
}
