//! The state machine.

use std::path::PathBuf;

use bytes::Bytes;
use onefold_replica::{Apply, StateMachine};
use onefold_table::{Batch, Overlay, SpaceView, TableError, View};
use onefold_types::{LogIndex, Revision, Term, Timestamp};

use super::auth::change::AuthCommand;
use super::auth::{AuthState, permit};
use super::command::{Answer, Command, Outcome, encode_outcome};
use super::counts::Blocks;
use super::error::{StoreError, split};
use super::import::Import;
use super::state::State;
use super::stored::{self, StoredLease};
use super::txn::{self, Plan};
use super::usage::{Usage, growth_of_put};
use super::writer::Writer;
use super::{check, compact, import, keys, lease, retention};
use crate::{
    Caller, CompactResponse, DeleteRangeRequest, Event, Feed, Header, ImportResponse, ImportStep,
    KvError, LeaseId, LeaseRevokeResponse, PutRequest, TxnRequest, TxnResponse,
};

/// All that one revision changed, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RevisionEvents {
    pub(crate) revision: Revision,
    /// At least one. Each has its `prev_kv`, whether watchers want it or not.
    pub(crate) events: Vec<Event>,
}

/// What happened to a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseChange {
    /// It exists from now on.
    Granted {
        /// The lease.
        id: LeaseId,
        /// Seconds to live after each keep-alive.
        ttl_seconds: i64,
    },
    /// It is gone.
    Ended(LeaseId),
}

/// How far the store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// The newest revision.
    pub(crate) revision: Revision,
    /// The oldest readable revision.
    pub(crate) compacted: Revision,
    /// Whether compacted history waits to be removed.
    pub(crate) sweep_is_due: bool,
    /// The bound on the store's room in bytes; 0 for none.
    pub(crate) quota_bytes: u64,
    /// Whether growth is refused.
    pub(crate) is_full: bool,
}

/// What a round of commands changed, once readers can see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) revisions: Vec<RevisionEvents>,
    pub(crate) leases: Vec<LeaseChange>,
    /// Users and roles, if they are others now.
    pub(crate) auth: Option<AuthState>,
    /// How far the store is now.
    pub(crate) position: Position,
}

/// Who hears what a store commits. Called on the thread that applies: it must not wait.
pub(crate) trait Observer: Send + 'static {
    /// A round is visible to readers.
    fn committed(&mut self, round: Round);

    /// The whole state is another one.
    fn restored(&mut self, position: Position, auth: &AuthState);
}

/// The key-value store as a replicated state machine.
pub struct KvStore {
    observer: Box<dyn Observer>,
    /// The same as the table's record.
    state: State,
    /// The import that fills the store; until its end nothing else is done.
    import: Option<Import>,
    blocks: Blocks,
    /// The same as the table's records.
    auth: AuthState,
    /// What the commands since the last commit changed.
    round: Round,
    /// Where the store stood when an import ended since the last commit.
    imported: Option<Position>,
}

impl KvStore {
    /// A store that tells `feed` what it commits.
    pub fn new(feed: Feed) -> Self {
        Self::with_observer(Box::new(feed))
    }

    /// A store that tells `observer` what it commits.
    pub(crate) fn with_observer(observer: Box<dyn Observer>) -> Self {
        Self {
            observer,
            state: State::default(),
            blocks: Blocks::default(),
            import: None,
            auth: AuthState::default(),
            round: Round::default(),
            imported: None,
        }
    }

    /// Runs a command if the caller may have it.
    fn run_for(
        &mut self,
        table: &mut Overlay<'_>,
        time: Timestamp,
        caller: &Caller,
        command: Command,
    ) -> Result<Answer, StoreError> {
        if self.state.enforced.is_some() {
            let rights = self.auth.rights(caller)?;
            permit::command(&rights, table, &command)?;
        }
        self.run(table, time, command)
    }

    fn run(
        &mut self,
        table: &mut Overlay<'_>,
        time: Timestamp,
        command: Command,
    ) -> Result<Answer, StoreError> {
        let goes_on_during_import =
            matches!(command, Command::Import(_) | Command::Lead(_) | Command::SetQuota { .. });
        if self.import.is_some() && !goes_on_during_import {
            return Err(KvError::Importing.into());
        }
        match command {
            Command::Put(request) => self.put(table, &request),
            Command::DeleteRange(request) => self.delete_range(table, &request),
            Command::Txn(request) => self.txn(table, &request),
            Command::Compact(revision) => {
                compact::compact(&mut self.state, revision)?;
                self.save(table);
                Ok(Answer::Compact(CompactResponse { header: self.header() }))
            }
            Command::Sweep { events_max } => {
                compact::sweep(table, &mut self.state, events_max)?;
                self.save(table);
                Ok(Answer::Sweep { due: self.state.sweep_is_due() })
            }
            Command::LeaseGrant(request) => {
                self.admit(table, stored::lease_bytes())?;
                let response = lease::grant(table, &mut self.state, request)?;
                self.save(table);
                let (id, ttl_seconds) = (response.id, response.ttl_seconds);
                self.round.leases.push(LeaseChange::Granted { id, ttl_seconds });
                Ok(Answer::LeaseGrant(response))
            }
            Command::LeaseRevoke(id) => {
                if lease::ttl_seconds(table, id)?.is_none() {
                    return Err(KvError::LeaseNotFound { id }.into());
                }
                self.end_lease(table, id)?;
                Ok(Answer::LeaseRevoke(LeaseRevokeResponse { header: self.header() }))
            }
            Command::LeaseExpire { id, term } => {
                let ended = self.may_expire(table, id, term)?;
                if ended {
                    self.end_lease(table, id)?;
                }
                Ok(Answer::LeaseExpire { ended })
            }
            Command::Lead(term) => {
                self.state.lessor_term = self.state.lessor_term.max(term);
                self.save(table);
                Ok(Answer::Lead)
            }
            Command::Import(step) => self.import(table, &step),
            Command::SetQuota { quota_bytes } => {
                self.state.usage.quota_bytes = quota_bytes;
                self.state.usage.settle();
                self.save(table);
                Ok(Answer::SetQuota)
            }
            Command::Retain(wanted) => {
                retention::retain(table, &mut self.state, wanted, time)?;
                self.save(table);
                Ok(Answer::Retain)
            }
            Command::LeaseCheckpoint { term, left } => {
                if term == self.state.lessor_term {
                    lease::checkpoint(table, &left)?;
                }
                Ok(Answer::LeaseCheckpoint)
            }
            Command::Auth(change) => self.change_auth(table, change),
        }
    }

    /// Takes a step of an import, all of it or nothing.
    fn import(&mut self, table: &mut Overlay<'_>, step: &ImportStep) -> Result<Answer, StoreError> {
        if let (ImportStep::Records { records, .. }, Some(_)) = (step, &self.import) {
            self.admit(table, records.iter().map(import::growth).sum())?;
        }
        let mut import = self.import.clone();
        let mut usage = self.state.usage;
        let mut scratch = Overlay::new(&*table);
        let stage = &mut scratch;
        let begun = || import::refused("it has not begun here, or has ended");
        match (step, &mut import) {
            (ImportStep::Begin(begin), None) => {
                import = Some(Import::begin(stage, &self.state, *begin)?);
            }
            (ImportStep::Begin(begin), Some(import)) => import.resume(begin)?,
            (ImportStep::Leases { id, after, leases }, Some(import)) => {
                import.leases(stage, &mut usage, id, *after, leases)?;
                self.state.usage = usage;
            }
            (ImportStep::Records { id, after, records }, Some(import)) => {
                let events = import.records(stage, &mut usage, id, *after, records)?;
                self.blocks.count(stage, &events)?;
                self.state.usage = usage;
            }
            (ImportStep::End { id, expected }, Some(running)) => {
                self.state = running.end(&self.state, id, expected)?;
                self.imported = Some(self.position());
                for lease in lease::scan(stage) {
                    let (id, StoredLease { ttl_seconds, .. }) = lease?;
                    self.round.leases.push(LeaseChange::Granted { id, ttl_seconds });
                }
                import = None;
            }
            (ImportStep::Abort { entries_max }, Some(running)) => {
                self.blocks.clear();
                if running.abort(stage, *entries_max)? {
                    let quota_bytes = usage.quota_bytes;
                    self.state.usage = Usage { quota_bytes, ..Usage::default() };
                    import = None;
                }
            }
            (ImportStep::Abort { .. }, None) => {}
            (_, None) => return Err(begun()),
        }
        let changes = scratch.into_batch(&[]);
        apply_changes(changes, table);
        let progress = import.as_ref().map(|import| import.progress).unwrap_or_default();
        self.import = import;
        self.save(table);
        let is_open = self.import.is_none();
        Ok(Answer::Import(ImportResponse { header: self.header(), progress, is_open }))
    }

    fn put(&mut self, table: &mut Overlay<'_>, request: &PutRequest) -> Result<Answer, StoreError> {
        check::put(request)?;
        txn::check_put(table, request)?;
        self.admit(table, growth_of_put(&request.key, &request.value))?;
        let mut writer = Writer::new(table, &self.state);
        let response = writer.put(request)?;
        let events = writer.into_events();
        self.commit(table, events)?;
        Ok(Answer::Put(response))
    }

    fn delete_range(
        &mut self,
        table: &mut Overlay<'_>,
        request: &DeleteRangeRequest,
    ) -> Result<Answer, StoreError> {
        check::delete_range(request)?;
        let response = self.whole(table, |writer| writer.delete_range(request))?;
        Ok(Answer::DeleteRange(response))
    }

    fn txn(&mut self, table: &mut Overlay<'_>, request: &TxnRequest) -> Result<Answer, StoreError> {
        check::txn(request)?;
        let plan = Plan::new(table, request)?;
        txn::check(table, &self.state, request, &plan)?;
        let growth_bytes = txn::growth(request, &plan);
        if growth_bytes > 0 {
            self.admit(table, growth_bytes)?;
        }
        let response = self.whole(table, |writer| txn::run(writer, request, &plan))?;
        Ok(Answer::Txn(response))
    }

    fn end_lease(&mut self, table: &mut Overlay<'_>, id: LeaseId) -> Result<(), StoreError> {
        let mut writer = Writer::new(table, &self.state);
        writer.revoke(id)?;
        let events = writer.into_events();
        self.state.usage.live_bytes -= stored::lease_bytes();
        self.state.usage.settle();
        self.save(table);
        self.commit(table, events)?;
        self.round.leases.push(LeaseChange::Ended(id));
        Ok(())
    }

    fn change_auth(
        &mut self,
        table: &mut Overlay<'_>,
        change: AuthCommand,
    ) -> Result<Answer, StoreError> {
        self.auth.change(table, change)?;
        self.state.enforced = self.auth.enforced();
        self.save(table);
        self.round.auth = Some(self.auth.clone());
        Ok(Answer::Auth(self.header()))
    }

    /// A leader that was deposed without knowing it ends no leases: its successor has given them
    /// their full time again.
    fn may_expire(&self, view: &dyn View, id: LeaseId, term: Term) -> Result<bool, TableError> {
        Ok(term == self.state.lessor_term && lease::ttl_seconds(view, id)?.is_some())
    }

    /// Writes all of one revision, or nothing when the answer grows too large on the way.
    fn whole<T>(
        &mut self,
        table: &mut Overlay<'_>,
        write: impl FnOnce(&mut Writer<'_, '_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut scratch = Overlay::new(&*table);
        let mut writer = Writer::new(&mut scratch, &self.state);
        let response = write(&mut writer)?;
        let events = writer.into_events();
        let changes = scratch.into_batch(&[]);
        apply_changes(changes, table);
        self.commit(table, events)?;
        Ok(response)
    }

    /// Lets the store grow by so much, or refuses it and remembers that.
    fn admit(&mut self, table: &mut Overlay<'_>, growth_bytes: u64) -> Result<(), StoreError> {
        let before = self.state.usage.is_full;
        let admitted = self.state.usage.admit(growth_bytes);
        if self.state.usage.is_full != before {
            self.save(table);
        }
        Ok(admitted?)
    }

    /// Makes the revision that these events are, if there are any.
    fn commit(&mut self, table: &mut Overlay<'_>, events: Vec<Event>) -> Result<(), TableError> {
        if events.is_empty() {
            return Ok(());
        }
        self.blocks.count(table, &events)?;
        events.iter().for_each(|event| self.state.usage.count(event));
        self.state.usage.settle();
        self.state.revision = self.state.revision.next();
        self.save(table);
        self.round.revisions.push(RevisionEvents { revision: self.state.revision, events });
        Ok(())
    }

    fn save(&self, table: &mut Overlay<'_>) {
        table.put(keys::STATE, self.state.encode(self.import.as_ref()));
    }

    fn position(&self) -> Position {
        Position {
            revision: self.state.revision,
            compacted: self.state.compacted,
            sweep_is_due: self.state.sweep_is_due(),
            quota_bytes: self.state.usage.quota_bytes,
            is_full: self.state.usage.is_full,
        }
    }

    fn header(&self) -> Header {
        Header { revision: self.state.revision, ..Header::default() }
    }
}

impl StateMachine for KvStore {
    fn apply(&mut self, context: &mut Apply<'_, '_>, command: &Bytes) -> Result<Bytes, TableError> {
        // A replica that cannot read what the others can must stop, or it would drift from them.
        let (caller, command) = Command::decode(command).map_err(|reason| TableError::Corrupt {
            file: PathBuf::from("of the key-value store"),
            reason: format!("log entry {}: {reason}", context.index),
        })?;
        let (table, time) = (&mut *context.table, context.time);
        let outcome: Outcome = split(self.run_for(table, time, &caller, command))?;
        Ok(encode_outcome(&outcome))
    }

    fn committed(&mut self, _applied: LogIndex) {
        if let Some(position) = self.imported.take() {
            self.observer.restored(position, &self.auth);
        }
        let mut round = std::mem::take(&mut self.round);
        round.position = self.position();
        self.observer.committed(round);
    }

    fn restored(&mut self, view: &SpaceView) -> Result<(), TableError> {
        (self.state, self.import) = State::read_with_import(view)?;
        self.auth = AuthState::read(view)?;
        self.imported = None;
        self.blocks.clear();
        self.round = Round::default();
        self.observer.restored(self.position(), &self.auth);
        Ok(())
    }
}

/// Writes what an overlay has changed into the one below it.
fn apply_changes(changes: Batch, table: &mut Overlay<'_>) {
    for operation in changes.into_operations() {
        match operation {
            onefold_table::Operation::Put { key, value } => table.put(key, value),
            onefold_table::Operation::Delete { key } => table.delete(key),
        }
    }
}

/// Runs a transaction that cannot write on a view of the store.
pub(crate) fn read_only_txn(
    view: &dyn View,
    state: &State,
    request: &TxnRequest,
) -> Result<TxnResponse, StoreError> {
    debug_assert!(request.is_read_only(), "its writes would be lost");
    let plan = Plan::new(view, request)?;
    txn::check(view, state, request, &plan)?;
    let mut nothing = Overlay::new(view);
    txn::run(&mut Writer::new(&mut nothing, state), request, &plan)
}
