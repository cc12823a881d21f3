//! Exactly-once: what each session was answered.
//!
//! Replicated state like the state machine's, in the host's part of the key space:
//!
//! ```text
//! 'c' session 8               when it was last used, its floor, which sequences are answered
//! 'a' session 8 sequence 8    the answer
//! 't' time 8 session 8        the sessions in the order of their last use
//! ```
//!
//! Each replica makes the same decisions, so all of them follow from the state, the command and
//! replicated time alone. The bounds are constants for the same reason: a node that used another one
//! would diverge.

use bytes::Bytes;
use onefold_table::{KeyRange, Order, Overlay, TableError, View};
use onefold_types::{GroupId, SessionId, Timestamp};
use serde::{Deserialize, Serialize};

use super::records::{decode, encode};
use crate::{HostError, SessionTag};

/// Most sessions that a group remembers.
pub const SESSIONS_MAX: u64 = 100_000;

/// How long an unused session is remembered at least, in milliseconds of replicated time.
pub const SESSION_IDLE_MS_MIN: u64 = 3_600_000;

/// Most answers that a session keeps: the newest sequences win.
pub const SESSION_ANSWERS_MAX: u64 = 1024;

/// A session unused for this long gives way to a new one when there are too many.
const EVICT_IDLE_MS: u64 = 60_000;

/// The last use of a session is written down again only after this time, to save writes; it may be
/// this much later than what is written.
const TOUCH_STEP_MS: u64 = 30_000;

/// Sessions that one command may expire: the work is spread, and each replica spreads it equally.
const EXPIRED_PER_COMMAND: usize = 4;

/// The bounds, as constants but for tests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    sessions_max: u64,
    answers_max: u64,
}

impl Bounds {
    pub(crate) const REPLICATED: Self =
        Self { sessions_max: SESSIONS_MAX, answers_max: SESSION_ANSWERS_MAX };
}

/// What is to be done with a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Execute it, then [`Sessions::answered`].
    Execute,
    /// It was executed: this was its answer.
    Answered(Bytes),
    /// Its answer is forgotten: the session only takes sequences from `floor` on.
    Trimmed { floor: u64 },
    /// There is no room for another session.
    Full,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    touched: Timestamp,
    /// Sequences below were acknowledged or fell out of the window.
    floor: u64,
    /// The sequences that have an answer, ascending, all at least the floor.
    answered: Vec<u64>,
}

/// The sessions of a group. Holds only what saves reads; the table holds the sessions.
#[derive(Debug)]
pub(crate) struct Sessions {
    group: GroupId,
    bounds: Bounds,
    count: u64,
    /// No session was last used before this; `None` when there is none.
    oldest: Option<Timestamp>,
}

impl Sessions {
    /// The sessions of a state with `count` of them.
    pub(crate) fn new(group: GroupId, bounds: Bounds, count: u64) -> Self {
        Self { group, bounds, count, oldest: (count > 0).then_some(Timestamp::ZERO) }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Decides on a command, before it is executed.
    ///
    /// # Errors
    /// When the table can't be read, or holds what this program does not understand.
    pub(crate) fn admit(
        &mut self,
        table: &mut Overlay<'_>,
        tag: &SessionTag,
        time: Timestamp,
    ) -> Result<Admission, HostError> {
        let Some(session) = self.find(table, tag.session)? else {
            let has_room = self.count < self.bounds.sessions_max || self.make_room(table, time)?;
            return Ok(if has_room { Admission::Execute } else { Admission::Full });
        };
        if session.answered.binary_search(&tag.sequence).is_ok() {
            let answer = table.get(&answer_key(tag.session, tag.sequence))?;
            let answer = answer.ok_or_else(|| HostError::Undecodable {
                group: self.group,
                what: "a session in the table",
                reason: "an answer is missing".to_owned(),
            })?;
            return Ok(Admission::Answered(answer));
        }
        if tag.sequence < session.floor {
            return Ok(Admission::Trimmed { floor: session.floor });
        }
        Ok(Admission::Execute)
    }

    /// Remembers the answer of a command that was admitted for execution.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub(crate) fn answered(
        &mut self,
        table: &mut Overlay<'_>,
        tag: &SessionTag,
        time: Timestamp,
        answer: &Bytes,
    ) -> Result<(), HostError> {
        let found = self.find(table, tag.session)?;
        let is_new = found.is_none();
        let mut session = found.unwrap_or_default();
        if is_new {
            self.count += 1;
        }
        if is_new || time.get() >= session.touched.get() + TOUCH_STEP_MS {
            if !is_new {
                table.delete(touch_key(session.touched, tag.session));
            }
            session.touched = time;
            table.put(touch_key(time, tag.session), Bytes::new());
            self.oldest = Some(self.oldest.map_or(time, |oldest| oldest.min(time)));
        }
        let place = session.answered.partition_point(|&sequence| sequence < tag.sequence);
        session.answered.insert(place, tag.sequence);
        table.put(answer_key(tag.session, tag.sequence), answer.clone());

        let newest = session.answered.last().copied().unwrap_or_default();
        let window = newest.saturating_sub(self.bounds.answers_max - 1);
        // A client cannot acknowledge the answer that it does not have yet.
        let acknowledged = tag.acknowledged_below.min(tag.sequence);
        session.floor = session.floor.max(acknowledged).max(window);
        let kept = session.answered.partition_point(|&sequence| sequence < session.floor);
        for sequence in session.answered.drain(..kept) {
            table.delete(answer_key(tag.session, sequence));
        }
        table.put(session_key(tag.session), encode(&session));
        Ok(())
    }

    /// Forgets sessions that were not used for long; a few at a time.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub(crate) fn expire(
        &mut self,
        table: &mut Overlay<'_>,
        time: Timestamp,
    ) -> Result<(), HostError> {
        for _ in 0..EXPIRED_PER_COMMAND {
            if !self.forget_oldest(table, time, SESSION_IDLE_MS_MIN)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn make_room(&mut self, table: &mut Overlay<'_>, time: Timestamp) -> Result<bool, HostError> {
        self.forget_oldest(table, time, EVICT_IDLE_MS)
    }

    /// Forgets the session that was unused for longest, if that is at least `idle_ms`.
    fn forget_oldest(
        &mut self,
        table: &mut Overlay<'_>,
        time: Timestamp,
        idle_ms: u64,
    ) -> Result<bool, HostError> {
        let is_idle = |touched: Timestamp| touched.get() + TOUCH_STEP_MS + idle_ms <= time.get();
        if !self.oldest.is_some_and(is_idle) {
            return Ok(false);
        }
        let oldest = oldest_touched(table)?;
        self.oldest = oldest.map(|(touched, _)| touched);
        let Some((touched, id)) = oldest.filter(|(touched, _)| is_idle(*touched)) else {
            return Ok(false);
        };
        if let Some(session) = self.find(table, id)? {
            for sequence in session.answered {
                table.delete(answer_key(id, sequence));
            }
        }
        table.delete(session_key(id));
        table.delete(touch_key(touched, id));
        self.count = self.count.saturating_sub(1);
        Ok(true)
    }

    fn find(&self, table: &Overlay<'_>, id: SessionId) -> Result<Option<Session>, HostError> {
        let found = table.get(&session_key(id))?;
        found.map(|bytes| decode(self.group, "a session in the table", &bytes)).transpose()
    }
}

/// The session that was unused for longest.
fn oldest_touched(table: &Overlay<'_>) -> Result<Option<(Timestamp, SessionId)>, TableError> {
    let mut touched = table.scan(KeyRange::prefix(b"t"), Order::Ascending);
    let Some((key, _)) = touched.next().transpose()? else { return Ok(None) };
    let number = |at: usize| {
        let bytes = key.get(at..)?.first_chunk::<8>()?;
        Some(u64::from_be_bytes(*bytes))
    };
    Ok(number(1).zip(number(9)).map(|(time, id)| (Timestamp(time), SessionId(id))))
}

fn session_key(id: SessionId) -> Bytes {
    key(b'c', &[id.get()])
}

fn answer_key(id: SessionId, sequence: u64) -> Bytes {
    key(b'a', &[id.get(), sequence])
}

fn touch_key(touched: Timestamp, id: SessionId) -> Bytes {
    key(b't', &[touched.get(), id.get()])
}

fn key(kind: u8, numbers: &[u64]) -> Bytes {
    let mut key = Vec::with_capacity(1 + 8 * numbers.len());
    key.push(kind);
    for number in numbers {
        key.extend_from_slice(&number.to_be_bytes());
    }
    key.into()
}

#[cfg(test)]
mod tests {
    use onefold_table::{MemoryTable, Table};

    use super::*;

    const BOUNDS: Bounds = Bounds { sessions_max: 3, answers_max: 4 };

    /// Executes commands on sessions over a real table, one round each.
    struct World {
        table: MemoryTable,
        sessions: Sessions,
        executed: Vec<(u64, u64)>,
    }

    impl World {
        fn new() -> Self {
            let sessions = Sessions::new(GroupId::KV, BOUNDS, 0);
            Self { table: MemoryTable::new(), sessions, executed: Vec::new() }
        }

        fn run(&mut self, id: u64, sequence: u64, acknowledged_below: u64, time: u64) -> Admission {
            let tag = SessionTag { session: SessionId(id), sequence, acknowledged_below };
            let time = Timestamp(time);
            let mut overlay = Overlay::new(&self.table);
            self.sessions.expire(&mut overlay, time).expect("memory does not fail");
            let admission =
                self.sessions.admit(&mut overlay, &tag, time).expect("memory does not fail");
            if admission == Admission::Execute {
                self.executed.push((id, sequence));
                let answer = Bytes::from(format!("{id}.{sequence}"));
                let answered = self.sessions.answered(&mut overlay, &tag, time, &answer);
                answered.expect("memory does not fail");
            }
            let batch = overlay.into_batch(b"");
            self.table.write(batch).expect("memory does not fail");
            admission
        }

        fn keys(&self) -> usize {
            self.table.scan(KeyRange::all(), Order::Ascending).count()
        }

        /// A replica that starts from the same table decides the same.
        fn restart(&mut self) {
            self.sessions = Sessions::new(GroupId::KV, BOUNDS, self.sessions.count());
        }
    }

    fn answer(text: &'static str) -> Admission {
        Admission::Answered(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn a_retry_gets_the_first_answer_and_is_not_executed() {
        let mut world = World::new();
        assert_eq!(world.run(1, 1, 1, 10), Admission::Execute);
        assert_eq!(world.run(1, 1, 1, 20), answer("1.1"));
        world.restart();
        assert_eq!(world.run(1, 1, 1, 30), answer("1.1"));
        assert_eq!(world.run(2, 1, 1, 30), Admission::Execute, "another session");
        assert_eq!(world.executed, [(1, 1), (2, 1)]);
    }

    #[test]
    fn acknowledged_answers_are_forgotten_and_refused() {
        let mut world = World::new();
        for sequence in 1..=50 {
            assert_eq!(world.run(1, sequence, sequence, 10), Admission::Execute);
        }
        assert_eq!(world.keys(), 3, "a sequential client costs one answer");
        assert_eq!(world.run(1, 49, 49, 10), Admission::Trimmed { floor: 50 });
        assert_eq!(world.run(1, 50, 50, 10), answer("1.50"));
    }

    #[test]
    fn sequences_may_come_in_any_order_within_the_window() {
        let mut world = World::new();
        for sequence in [3, 1, 4, 2] {
            assert_eq!(world.run(1, sequence, 1, 10), Admission::Execute);
        }
        for (sequence, text) in [(1, "1.1"), (2, "1.2"), (3, "1.3"), (4, "1.4")] {
            assert_eq!(world.run(1, sequence, 1, 10), answer(text));
        }
        assert_eq!(world.run(1, 6, 1, 10), Admission::Execute);
        assert_eq!(world.run(1, 2, 1, 10), Admission::Trimmed { floor: 3 });
        assert_eq!(world.run(1, 5, 1, 10), Admission::Execute, "not answered yet");
    }

    #[test]
    fn an_absurd_acknowledgement_does_not_forget_the_own_answer() {
        let mut world = World::new();
        assert_eq!(world.run(1, 1, u64::MAX, 10), Admission::Execute);
        assert_eq!(world.run(1, 1, u64::MAX, 10), answer("1.1"));
        assert_eq!(world.run(1, 2, 1, 10), Admission::Execute);
    }

    #[test]
    fn idle_sessions_expire_without_a_trace() {
        let mut world = World::new();
        world.run(1, 1, 1, 1_000);
        world.run(1, 2, 1, 2_000);
        world.restart();
        let late = 1_000 + SESSION_IDLE_MS_MIN + TOUCH_STEP_MS;
        world.run(2, 1, 1, late - 1);
        assert_eq!(world.sessions.count(), 2);
        world.run(2, 2, 2, late);
        assert_eq!(world.sessions.count(), 1);
        assert_eq!(world.keys(), 3);
    }

    #[test]
    fn a_used_session_does_not_expire() {
        let mut world = World::new();
        let step = SESSION_IDLE_MS_MIN / 2;
        for sequence in 1..=6 {
            world.run(1, sequence, sequence, sequence * step);
        }
        assert_eq!(world.run(1, 6, 6, 7 * step), answer("1.6"));
    }

    #[test]
    fn a_full_table_takes_a_new_session_for_one_that_is_idle_and_for_no_other() {
        let mut world = World::new();
        for id in 1..=3 {
            assert_eq!(world.run(id, 1, 1, id), Admission::Execute);
        }
        assert_eq!(world.run(4, 1, 1, 4), Admission::Full);
        assert_eq!(world.run(3, 1, 1, 4), answer("3.1"));
        let later = 1 + EVICT_IDLE_MS + TOUCH_STEP_MS;
        assert_eq!(world.run(4, 1, 1, later), Admission::Execute);
        assert_eq!(world.sessions.count(), 3);
        assert_eq!(world.run(2, 1, 1, later), answer("2.1"), "only the oldest was forgotten");
        assert_eq!(world.keys(), 9);
    }
}
