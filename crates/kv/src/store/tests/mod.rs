//! The core under test: over a table in memory, against a model, and case by case.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod auth;
mod hashes;
mod import;
mod leases;
mod model;
mod operations;
mod property;
mod purity;
mod room;
mod transactions;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use onefold_replica::{Apply, StateMachine};
use onefold_table::{KeyRange, MemoryTable, Order, Overlay, Space, SpaceView, View};
use onefold_types::{GroupId, LogIndex, Revision, Timestamp};

use super::auth::AuthState;
use super::command::{Answer, Command, Outcome, decode_outcome};
use super::error::StoreError;
use super::history::{self, Events, Query};
use super::range;
use super::state::State;
use super::{KvStore, Observer, Position, Round};
use crate::{
    Caller, DeleteRangeRequest, DeleteRangeResponse, KeySpan, KvError, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse, WatchFilters,
};

/// A store, its table and what it told its observer.
struct Fixture {
    machine: KvStore,
    space: Space,
    heard: Arc<Mutex<Vec<Round>>>,
    index: LogIndex,
}

struct Listener(Arc<Mutex<Vec<Round>>>);

impl Observer for Listener {
    fn committed(&mut self, round: Round) {
        self.0.lock().unwrap().push(round);
    }

    fn restored(&mut self, _: Position, _: &AuthState) {}
}

impl Fixture {
    fn new() -> Self {
        let space = Space::new(Arc::new(MemoryTable::new()), GroupId::KV);
        Self::over(space)
    }

    fn over(space: Space) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mut machine = KvStore::with_observer(Box::new(Listener(heard.clone())));
        machine.restored(&space.snapshot()).unwrap();
        Self { machine, space, heard, index: LogIndex::ZERO }
    }

    /// The same table under a machine that starts anew.
    fn restarted(self) -> Self {
        Self::over(self.space)
    }

    /// Applies one command in a round of its own.
    fn apply(&mut self, command: &Command) -> Outcome {
        self.apply_round(std::slice::from_ref(command)).pop().unwrap()
    }

    /// Applies a command of a client.
    fn apply_for(&mut self, caller: &Caller, command: &Command) -> Outcome {
        self.apply_encoded(&[command.encode_for(caller)]).pop().unwrap()
    }

    /// Applies commands in one round.
    fn apply_round(&mut self, commands: &[Command]) -> Vec<Outcome> {
        self.apply_encoded(&commands.iter().map(Command::encode).collect::<Vec<_>>())
    }

    fn apply_encoded(&mut self, commands: &[Bytes]) -> Vec<Outcome> {
        let view = self.space.snapshot();
        let mut table = Overlay::new(&view);
        let mut outcomes = Vec::new();
        for command in commands {
            self.index = self.index.next();
            let (index, time) = (self.index, Timestamp(self.index.get()));
            let mut context = Apply { index, time, table: &mut table };
            let answer = self.machine.apply(&mut context, command).unwrap();
            outcomes.push(decode_outcome(&answer));
        }
        let batch = table.into_batch(&[]);
        self.space.write(batch).unwrap();
        self.machine.committed(self.index);
        outcomes
    }

    fn put(&mut self, request: PutRequest) -> Result<PutResponse, KvError> {
        match self.apply(&Command::Put(request))? {
            Answer::Put(response) => Ok(response),
            other => panic!("a put was answered with {other:?}"),
        }
    }

    fn delete(&mut self, request: DeleteRangeRequest) -> Result<DeleteRangeResponse, KvError> {
        match self.apply(&Command::DeleteRange(request))? {
            Answer::DeleteRange(response) => Ok(response),
            other => panic!("a deletion was answered with {other:?}"),
        }
    }

    fn txn(&mut self, request: TxnRequest) -> Result<TxnResponse, KvError> {
        match self.apply(&Command::Txn(request))? {
            Answer::Txn(response) => Ok(response),
            other => panic!("a transaction was answered with {other:?}"),
        }
    }

    fn compact(&mut self, revision: u64) -> Result<(), KvError> {
        self.apply(&Command::Compact(Revision(revision))).map(|_| ())
    }

    /// Removes all that compaction has made unreadable, in small steps.
    fn sweep(&mut self) {
        while self.apply(&Command::Sweep { events_max: 3 }).unwrap()
            == (Answer::Sweep { due: true })
        {}
    }

    fn view(&self) -> SpaceView {
        self.space.snapshot()
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, KvError> {
        self.page(request, usize::MAX).map(|page| page.response)
    }

    fn page(&self, request: &RangeRequest, bytes_max: usize) -> Result<range::Page, KvError> {
        let view = self.view();
        let state = State::read(&view).unwrap();
        range::range(&view, &state, request, bytes_max).map_err(StoreError::into)
    }

    /// The keys of a span as they stood at a revision, with their values.
    fn pairs(&self, request: &RangeRequest) -> Vec<(String, String)> {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let kvs = self.range(request).unwrap().kvs;
        kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect()
    }

    fn history(&self, span: KeySpan, from: u64, bytes_max: usize) -> Result<Events, KvError> {
        let query = Query {
            span,
            filters: WatchFilters::default(),
            prev_kv: true,
            from: Revision(from),
            bytes_max,
            looks_max: usize::MAX,
        };
        let view = self.view();
        history::read(&view, &State::read(&view).unwrap(), &query).map_err(StoreError::into)
    }

    /// Records of one kind in the table.
    fn records(&self, kind: u8) -> usize {
        self.view().scan(KeyRange::prefix(&[kind]), Order::Ascending).count()
    }

    fn revision(&self) -> u64 {
        State::read(&self.view()).unwrap().revision.get()
    }
}
