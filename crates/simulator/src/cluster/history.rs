//! What clients did and saw, and what the log says that they should have seen.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    hash::BuildHasherDefault,
};

use bytes::Bytes;
use onefold_checker::linearizability::{
    Model, Operation, Register, RegisterInput, RegisterOutput, Unproven, check, simplify,
};
use onefold_kv::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, Operation as KvOperation,
    OperationResponse, PutRequest, RangeRequest, TxnRequest,
    core::{self, Response},
};
use onefold_replica::{ProposeError, SessionTag};
use onefold_types::LogIndex;

use super::{
    checker::{Checked, Violation, ensure},
    clock::Micros,
    coverage::{Branch, Coverage},
};
use crate::trace::{Fnv, hash_of};

/// Configurations that the search of one key's history may look at.
const CONFIGURATIONS_MAX: usize = 400_000;

/// The revision of an empty store.
const REVISION_FIRST: u64 = 1;

/// One operation of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct OpId {
    pub(super) client: u32,
    /// Also its sequence number within the client's session.
    pub(super) number: u64,
}

impl OpId {
    pub(super) fn fingerprint(self) -> u64 {
        u64::from(self.client) << 32 | self.number
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}#{}", self.client, self.number)
    }
}

/// A key is named by a number, and so is each value that is ever written.
pub(super) fn key_bytes(key: u64) -> Bytes {
    Bytes::from(format!("key-{key}"))
}

pub(super) fn value_bytes(value: u64, bytes_max: u64) -> Bytes {
    let length = 8 + (value.wrapping_mul(7919) % bytes_max) as usize;
    let mut bytes = vec![0; length];
    bytes[..8].copy_from_slice(&value.to_le_bytes());
    Bytes::from(bytes)
}

pub(super) fn value_of(bytes: &Bytes) -> Option<u64> {
    bytes.first_chunk::<8>().map(|number| u64::from_le_bytes(*number))
}

/// The command that does this to a key.
pub(super) fn command(key: u64, input: RegisterInput, bytes_max: u64) -> Bytes {
    let key = key_bytes(key);
    let put = |value| PutRequest::new(key.clone(), value_bytes(value, bytes_max));
    match input {
        RegisterInput::Get => unreachable!("reads are no commands"),
        RegisterInput::Put(value) => core::put(put(value)),
        RegisterInput::Delete => core::delete_range(DeleteRangeRequest::key(key)),
        RegisterInput::CompareAndSwap { expected, new } => {
            let condition = match expected {
                Some(value) => {
                    let target = CompareTarget::Value(value_bytes(value, bytes_max));
                    Compare::new(key.clone(), CompareResult::Equal, target)
                }
                None => Compare::absent(key.clone()),
            };
            core::txn(TxnRequest {
                compare: vec![condition],
                success: vec![KvOperation::Put(put(new))],
                failure: Vec::new(),
            })
        }
        RegisterInput::Swap(value) => core::txn(TxnRequest {
            compare: Vec::new(),
            success: vec![
                KvOperation::Range(RangeRequest::key(key.clone())),
                KvOperation::Put(put(value)),
            ],
            failure: Vec::new(),
        }),
    }
}

/// What an operation saw: the store's revision and the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) revision: u64,
    pub(super) output: RegisterOutput,
}

/// The state machine's answer, in the terms of a register.
pub(super) fn decode(answer: &Bytes) -> Result<Seen, Violation> {
    let wrong = |what: String| Violation { invariant: "answers are well-formed", detail: what };
    let response = core::response(answer).map_err(|error| wrong(error.to_string()))?;
    let (revision, output) = match response {
        Response::Put(put) => (put.header.revision, RegisterOutput::Done),
        Response::DeleteRange(delete) => {
            (delete.header.revision, RegisterOutput::Did(delete.deleted > 0))
        }
        Response::Txn(txn) => {
            let revision = txn.header.revision;
            let output = match txn.responses.first() {
                Some(OperationResponse::Range(range)) => {
                    let first = range.kvs.first();
                    RegisterOutput::Value(first.and_then(|kv| value_of(&kv.value)))
                }
                _ => RegisterOutput::Did(txn.succeeded),
            };
            (revision, output)
        }
        Response::Compact(_)
        | Response::LeaseGrant(_)
        | Response::LeaseRevoke(_)
        | Response::Other => return Err(wrong("no client asked for that".to_owned())),
    };
    Ok(Seen { revision: revision.get(), output })
}

/// What the log makes of one group, entry by entry, in terms much simpler than the store's.
#[derive(Debug, Default)]
struct Oracle {
    revision: u64,
    /// For each key, what it was from a revision on.
    versions: BTreeMap<u64, Vec<(u64, Option<u64>)>>,
    /// What the first execution of each operation saw.
    executed: BTreeMap<OpId, Seen>,
    /// For each client, the answers that its session keeps, and the first sequence that it takes.
    sessions: BTreeMap<u32, (u64, Vec<u64>)>,
    /// At position i, the hash of the answer at index i + 1.
    answers: Vec<Option<u64>>,
}

/// What an entry is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Seen(Seen),
    Trimmed,
}

impl Oracle {
    fn at(&self, key: u64, revision: u64) -> Option<u64> {
        let versions = self.versions.get(&key)?;
        let after = versions.partition_point(|(since, _)| *since <= revision);
        versions[..after].last().and_then(|(_, value)| *value)
    }

    fn now(&self, key: u64) -> Option<u64> {
        self.versions.get(&key).and_then(|versions| versions.last()).and_then(|(_, value)| *value)
    }

    /// The next entry of the log carries this operation.
    fn execute(&mut self, asked: &Asked, op: OpId, tag: &SessionTag) -> (Expected, bool) {
        let (floor, kept) = self.sessions.entry(op.client).or_default();
        if kept.contains(&op.number) {
            return (Expected::Seen(self.executed[&op]), false);
        }
        if op.number < *floor {
            return (Expected::Trimmed, false);
        }
        kept.push(op.number);
        *floor = (*floor).max(tag.acknowledged_below.min(tag.sequence));
        let floor = *floor;
        kept.retain(|sequence| *sequence >= floor);

        let before = self.now(asked.key);
        let (after, output) = Model::apply(&Register, &before, &asked.input);
        let writes = match asked.input {
            RegisterInput::Get => false,
            RegisterInput::Put(_) | RegisterInput::Swap(_) => true,
            RegisterInput::Delete => before.is_some(),
            RegisterInput::CompareAndSwap { .. } => output == RegisterOutput::Did(true),
        };
        self.revision = self.revision.max(REVISION_FIRST) + u64::from(writes);
        if writes {
            self.versions.entry(asked.key).or_default().push((self.revision, after));
        }
        let seen = Seen { revision: self.revision, output };
        (Expected::Seen(seen), true)
    }
}

/// An operation as its client asked for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) group: usize,
    pub(super) key: u64,
    pub(super) input: RegisterInput,
    pub(super) called: Micros,
    /// The newest revision that any finished operation of the group had seen by then.
    pub(super) floor: u64,
}

/// How an operation ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Seen { seen: Seen, returned: Micros },
    Unknown,
    Refused,
}

type KeyHistory = Vec<Operation<RegisterInput, RegisterOutput>>;

/// Everything that clients did.
#[derive(Debug)]
pub(super) struct History {
    oracles: Vec<Oracle>,
    asked: BTreeMap<OpId, Asked>,
    ended: BTreeMap<OpId, Ended>,
    /// Which operation a command in a log carries.
    sealed: HashMap<Bytes, (OpId, SessionTag), BuildHasherDefault<Fnv>>,
    /// For each group, when which revision was first seen by a client.
    acknowledged: Vec<Vec<(Micros, u64)>>,
    /// Answers that were compared with what they should be.
    pub(super) checked: u64,
}

impl History {
    pub(super) fn new(groups: usize) -> Self {
        Self {
            oracles: (0..groups).map(|_| Oracle::default()).collect(),
            asked: BTreeMap::new(),
            ended: BTreeMap::new(),
            sealed: HashMap::default(),
            acknowledged: vec![Vec::new(); groups],
            checked: 0,
        }
    }

    /// The newest revision that any finished operation has seen.
    pub(super) fn floor(&self, group: usize) -> u64 {
        self.acknowledged[group].last().map_or(0, |(_, revision)| *revision)
    }

    /// The newest revision that any finished operation had seen at a time.
    fn floor_at(&self, group: usize, time: Micros) -> u64 {
        let acknowledged = &self.acknowledged[group];
        let after = acknowledged.partition_point(|(at, _)| *at <= time);
        acknowledged[..after].last().map_or(0, |(_, revision)| *revision)
    }

    /// A client begins an operation.
    pub(super) fn begins(&mut self, op: OpId, asked: Asked) {
        self.asked.insert(op, asked);
    }

    /// A leader is about to propose an operation as these bytes.
    pub(super) fn sealed(&mut self, bytes: &Bytes, op: OpId, tag: SessionTag) {
        self.sealed.insert(bytes.clone(), (op, tag));
    }

    /// A replica has applied a command at an index and answers this. The first one that does says
    /// what the log is worth; all others must say the same.
    pub(super) fn applied(
        &mut self,
        group: usize,
        index: LogIndex,
        sealed: &Bytes,
        answer: &Result<Bytes, ProposeError>,
        coverage: &mut Coverage,
    ) -> Checked {
        let hash = match answer {
            Ok(bytes) => hash_of(&(true, bytes)),
            Err(error) => hash_of(&(false, error.to_string())),
        };
        let place = index.0 as usize - 1;
        let oracle = &mut self.oracles[group];
        if oracle.answers.len() <= place {
            oracle.answers.resize(place + 1, None);
        }
        if let Some(first) = oracle.answers[place] {
            return ensure(first == hash, "equal answers at equal indexes", || {
                format!("g{group} at {index}: {answer:?}")
            });
        }
        oracle.answers[place] = Some(hash);
        let Some((op, tag)) = self.sealed.get(sealed).copied() else {
            return ensure(false, "what is applied was proposed", || {
                format!("g{group} at {index}: {sealed:?}")
            });
        };
        let asked = self.asked[&op];
        let (expected, is_first) = oracle.execute(&asked, op, &tag);
        self.checked += 1;
        let found = match answer {
            Ok(bytes) => Expected::Seen(decode(bytes)?),
            Err(ProposeError::SequenceTrimmed { .. }) => Expected::Trimmed,
            Err(error) => {
                return ensure(false, "commands are answered", || {
                    format!("g{group} at {index}: {op} got {error}")
                });
            }
        };
        ensure(found == expected, "commands are executed exactly once", || {
            format!(
                "g{group} at {index}: {op} {:?} on key {} must be answered {expected:?}, not \
                 {found:?}",
                asked.input, asked.key
            )
        })?;
        match expected {
            Expected::Trimmed => coverage.hit(Branch::RetryTrimmed),
            Expected::Seen(_) if !is_first => coverage.hit(Branch::RetryAnswered),
            Expected::Seen(seen) => {
                let before = oracle.executed.insert(op, seen);
                ensure(before.is_none(), "commands are executed exactly once", || {
                    format!("g{group} at {index}: {op} was executed before")
                })?;
                if seen.output == RegisterOutput::Did(false) {
                    coverage.hit(Branch::ComparisonFailed);
                }
                match self.ended.get(&op) {
                    Some(Ended::Unknown) => coverage.hit(Branch::ExecutedAfterGivenUp),
                    Some(Ended::Refused) => {
                        return ensure(false, "what was refused is not executed", || {
                            format!("g{group} at {index}: {op}")
                        });
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// A replica has applied a command of a whole store at an index and answers this: all others must
    /// say the same.
    pub(super) fn applied_somewhere(
        &mut self,
        group: usize,
        index: LogIndex,
        answer: &Result<Bytes, ProposeError>,
    ) -> Checked {
        let hash = match answer {
            Ok(bytes) => hash_of(&(true, bytes)),
            Err(error) => hash_of(&(false, error.to_string())),
        };
        let place = index.0 as usize - 1;
        let oracle = &mut self.oracles[group];
        if oracle.answers.len() <= place {
            oracle.answers.resize(place + 1, None);
        }
        let first = *oracle.answers[place].get_or_insert(hash);
        ensure(first == hash, "equal answers at equal indexes", || {
            format!("g{group} at {index}: {answer:?}")
        })
    }

    /// A write came back to its client.
    pub(super) fn written(&mut self, op: OpId, answer: &Bytes, now: Micros) -> Checked {
        let asked = self.asked[&op];
        let seen = decode(answer)?;
        let executed = self.oracles[asked.group].executed.get(&op);
        ensure(executed == Some(&seen), "nothing acknowledged is lost", || {
            format!("{op} was answered {seen:?}, but the log says {executed:?}")
        })?;
        self.check_fresh(op, &asked, &seen)?;
        self.finish(op, asked, seen, now);
        Ok(())
    }

    /// A linearizable read came back to its client.
    pub(super) fn read(&mut self, op: OpId, seen: Seen, now: Micros) -> Checked {
        let asked = self.asked[&op];
        self.check_state(op, &asked, &seen)?;
        self.check_fresh(op, &asked, &seen)?;
        self.finish(op, asked, seen, now);
        Ok(())
    }

    /// A read came back that may be so much behind. `None` for whatever the replica has.
    pub(super) fn stale_read(&mut self, op: OpId, seen: Seen, lag_max: Option<Micros>) -> Checked {
        let asked = self.asked.remove(&op).expect("a read that began");
        self.check_state(op, &asked, &seen)?;
        self.checked += 1;
        let Some(lag_max) = lag_max else { return Ok(()) };
        let floor = self.floor_at(asked.group, asked.called.saturating_sub(lag_max));
        ensure(seen.revision >= floor, "bounded-stale reads keep their bound", || {
            format!(
                "{op} saw revision {}, but {floor} was known {lag_max} us before",
                seen.revision
            )
        })
    }

    fn finish(&mut self, op: OpId, asked: Asked, seen: Seen, now: Micros) {
        self.checked += 1;
        self.ended.insert(op, Ended::Seen { seen, returned: now });
        if seen.revision > self.floor(asked.group) {
            self.acknowledged[asked.group].push((now, seen.revision));
        }
    }

    /// Real time: it sees all that any operation had seen which ended before it began.
    fn check_fresh(&self, op: OpId, asked: &Asked, seen: &Seen) -> Checked {
        ensure(seen.revision >= asked.floor, "operations see what ended before them", || {
            format!("{op} saw revision {}, but {} was seen before", seen.revision, asked.floor)
        })
    }

    /// What was read is what the log says that the key was at that revision.
    fn check_state(&self, op: OpId, asked: &Asked, seen: &Seen) -> Checked {
        let oracle = &self.oracles[asked.group];
        let value = RegisterOutput::Value(oracle.at(asked.key, seen.revision));
        let holds = seen.revision <= oracle.revision.max(REVISION_FIRST) && seen.output == value;
        ensure(holds, "reads show committed states", || {
            format!("{op} read {seen:?} of key {}, but that was {value:?}", asked.key)
        })
    }

    /// A client gave an operation up.
    pub(super) fn given_up(&mut self, op: OpId, is_refused: bool) -> Checked {
        let ended = if is_refused { Ended::Refused } else { Ended::Unknown };
        self.ended.insert(op, ended);
        let asked = self.asked[&op];
        let is_executed = self.oracles[asked.group].executed.contains_key(&op);
        ensure(!is_refused || !is_executed, "what was refused is not executed", || op.to_string())
    }

    /// The value of every key in the end.
    pub(super) fn final_values(&self, group: usize) -> impl Iterator<Item = (u64, Option<u64>)> {
        let oracle = &self.oracles[group];
        oracle.versions.keys().map(|&key| (key, oracle.now(key)))
    }

    /// The revision of the store in the end.
    pub(super) fn final_revision(&self, group: usize) -> u64 {
        self.oracles[group].revision.max(REVISION_FIRST)
    }

    /// Searches an order for the operations of each key.
    pub(super) fn check_linearizable(&self) -> Checked {
        let mut keys: BTreeMap<(usize, u64), (KeyHistory, Vec<OpId>)> = BTreeMap::new();
        for (&op, asked) in &self.asked {
            let (output, returned) = match self.ended.get(&op) {
                Some(Ended::Seen { seen, returned }) => (Some(seen.output), *returned),
                Some(Ended::Refused) => continue,
                _ if asked.input == RegisterInput::Get => continue,
                Some(Ended::Unknown) | None => (None, u64::MAX),
            };
            let (history, ops) = keys.entry((asked.group, asked.key)).or_default();
            history.push(Operation { input: asked.input, output, called: asked.called, returned });
            ops.push(op);
        }
        for ((group, key), (mut history, ops)) in keys {
            simplify(&mut history);
            check(&Register, &history, CONFIGURATIONS_MAX).map_err(|unproven| {
                let detail = match &unproven {
                    Unproven::Violated { at } => {
                        format!("g{group} key {key}: {unproven}, {} {:?}", ops[*at], history[*at])
                    }
                    Unproven::BudgetUsedUp { .. } => format!("g{group} key {key}: {unproven}"),
                };
                Violation { invariant: "histories are linearizable", detail }
            })?;
        }
        Ok(())
    }
}

impl History {
    /// The key of an operation.
    pub(super) fn key_of(&self, op: OpId) -> u64 {
        self.asked[&op].key
    }

    /// The key of a write that was answered, and what the key was after it, if that is known.
    pub(super) fn value_after(&self, op: OpId) -> (usize, u64, Option<u64>) {
        let asked = self.asked[&op];
        let value = match asked.input {
            RegisterInput::Put(value) | RegisterInput::Swap(value) => Some(value),
            RegisterInput::CompareAndSwap { new, .. } => Some(new),
            RegisterInput::Get | RegisterInput::Delete => None,
        };
        (asked.group, asked.key, value)
    }
}
