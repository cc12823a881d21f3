//! From a log and a table to running threads.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use onefold_log::{Log, Recovered, Write};
use onefold_raft::{Membership, Raft};
use onefold_table::{Space, Table};
use onefold_transport::Peers;
use onefold_types::{GroupId, LogIndex};
use tokio::sync::watch;

use crate::apply::{self, Replica};
use crate::chores::{self, Chores};
use crate::core::{Core, GroupCell};
use crate::driver::{Driver, Seat};
use crate::groups::Groups;
use crate::inbox::Inbox;
use crate::metrics::NodeCounters;
use crate::persist::stored;
use crate::snapshot::{self, Transfers};
use crate::state::{Checkpoint, Generations, GroupState, Logged, stored_groups};
use crate::{Formation, GroupSpec, HostConfig, HostError};

/// A host that was just started: what it shares, and its threads.
pub(crate) struct Started {
    pub(crate) core: Arc<Core>,
    pub(crate) threads: Vec<JoinHandle<()>>,
}

/// A group between recovery and the consensus thread.
pub(crate) struct Restored {
    pub(crate) cell: Arc<GroupCell>,
    pub(crate) raft: Raft,
    /// The entries that are in the log already, and their bytes.
    pub(crate) logged: Vec<(LogIndex, usize)>,
    pub(crate) state: GroupState,
}

impl Restored {
    /// The part for the consensus thread and that for an apply thread.
    pub(crate) fn divide(self, applier: usize) -> (Seat, Replica) {
        let Self { cell, raft, logged, state } = self;
        let last_checkpoint = Checkpoint { index: state.applied(), hash: state.hash() };
        let replica = Replica { cell: cell.clone(), state };
        (Seat { cell, raft, applier, logged, last_checkpoint }, replica)
    }
}

/// Recovers every group and starts the threads.
///
/// # Errors
/// See [`HostError`].
pub(crate) fn start(
    config: HostConfig,
    log: Log,
    mut recovered: Recovered,
    table: Arc<dyn Table>,
    peers: Peers,
    specs: Vec<GroupSpec>,
) -> Result<Started, HostError> {
    config.check()?;
    let runtime = tokio::runtime::Handle::try_current()
        .map_err(|error| HostError::Config(format!("it needs a tokio runtime: {error}")))?;
    let hosted: BTreeSet<_> = specs.iter().map(|spec| spec.id).collect();
    if hosted.len() != specs.len() {
        return Err(HostError::Config("a group is named twice".to_owned()));
    }
    let destroyed = stored_groups(&table)?.destroyed;
    if let Some(&group) = hosted.intersection(&destroyed).next() {
        return Err(HostError::Config(format!("group {group} was destroyed on this node")));
    }
    // A crash may have come between the tombstone and the log.
    recovered.retain(|group, _| !destroyed.contains(group));
    if let Some(&group) = recovered.keys().find(|group| !hosted.contains(group)) {
        return Err(HostError::UnknownGroup { group });
    }
    let mut groups = Vec::new();
    for spec in specs {
        let found = recovered.remove(&spec.id).map(|found| stored(spec.id, found)).transpose()?;
        groups.push(restore(&config, &table, spec, found)?);
    }
    // What was formed and is now told to others must not be formed differently after a crash.
    table.sync()?;

    let cells = groups.iter().map(|group| (group.cell.id, group.cell.clone())).collect();
    let core = Arc::new(Core {
        inbox: Inbox::new(config.limits.clone()),
        groups: Groups::new(cells, destroyed.clone()),
        lifecycle: Mutex::default(),
        table: table.clone(),
        peers,
        chores: Chores::default(),
        transfers: Transfers::default(),
        runtime,
        failure: watch::Sender::new(None),
        counters: NodeCounters::default(),
        clocks: Mutex::default(),
        config,
    });
    snapshot::resume(&core)?;
    forget_destroyed(&core, &log, &destroyed)?;
    let threads = start_threads(&core, log, groups);
    if let Err(error) = &threads {
        core.fail(error.clone());
    }
    Ok(Started { core, threads: threads? })
}

/// Removes what log and table may still have of destroyed groups.
fn forget_destroyed(
    core: &Core,
    log: &Log,
    destroyed: &BTreeSet<GroupId>,
) -> Result<(), HostError> {
    let removals: Vec<_> = destroyed.iter().map(|&group| Write::RemoveGroup { group }).collect();
    for group in destroyed {
        core.chores.reclaim(*group);
    }
    if removals.is_empty() {
        return Ok(());
    }
    // Whoever asks after the next crash finds the tombstones again: nothing waits for this.
    Ok(log.append(removals, Box::new(|_| {}))?)
}

/// What log and table hold of a group. One that they do not know is formed: sync the table before
/// anybody is told of it.
///
/// # Errors
/// When they contradict each other or fail, or hold what this program does not understand.
pub(crate) fn restore(
    config: &HostConfig,
    table: &Arc<dyn Table>,
    spec: GroupSpec,
    found: Option<Logged>,
) -> Result<Restored, HostError> {
    let GroupSpec { id, formed, election_rank, state_machine } = spec;
    let space = Space::new(table.clone(), id);
    let formed = match formed {
        Formation::Founders(voters) => Membership::of_voters(voters),
        Formation::Joining => Membership::default(),
    };
    let generations = Generations::open(id, space, &formed)?;
    let state = GroupState::open(Arc::new(generations), state_machine)?;
    let restored = state.restored(found)?;
    let logged: Vec<_> =
        restored.entries.iter().map(|entry| (entry.index, entry.bytes())).collect();
    let raft = Raft::new(config.raft(id, election_rank, seed()), restored)
        .map_err(|source| HostError::Restore { group: id, source })?;
    let (applied, first) = (state.applied(), raft.first_index());
    if applied.next() < first && raft.membership().voters == BTreeSet::from([config.node]) {
        return Err(HostError::StateLost { group: id, applied, first });
    }
    let kept = raft.first_index()..=raft.last_index();
    let logged = logged.into_iter().filter(|(index, _)| kept.contains(index)).collect();

    let cell = Arc::new(GroupCell::new(config.node, &state));
    if raft.is_state_lost() {
        tracing::error!(
            group = %id,
            %applied,
            log_begins_at = %first,
            "the state in the table is older than the log; it is rebuilt from another replica"
        );
        cell.set_state_lost();
    }
    Ok(Restored { cell, raft, logged, state })
}

/// A number that no other process of this node has had: clocks may go back between two starts.
fn process() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(seed())
}

/// Different on each start: elections that were drawn once are not drawn again.
fn seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as u64)
}

fn start_threads(
    core: &Arc<Core>,
    log: Log,
    groups: Vec<Restored>,
) -> Result<Vec<JoinHandle<()>>, HostError> {
    let count = core.config.limits.apply_threads;
    let mut replicas: Vec<BTreeMap<GroupId, Replica>> = Vec::new();
    replicas.resize_with(count, BTreeMap::new);
    let mut seats = Vec::new();
    for (place, group) in groups.into_iter().enumerate() {
        let applier = place % count;
        let (seat, replica) = group.divide(applier);
        replicas[applier].insert(seat.cell.id, replica);
        seats.push(seat);
    }
    let mut threads = Vec::new();
    let mut appliers = Vec::new();
    for (number, replicas) in replicas.into_iter().enumerate() {
        // Bounded by what the cores hand out: each at most `applying_bytes_max`.
        let (sender, work) = mpsc::channel();
        appliers.push(sender);
        let host = core.clone();
        let run = move || apply::run(&host, replicas, &work);
        threads.push(spawn(core, format!("apply-{number}"), run)?);
    }
    let host = core.clone();
    threads.push(spawn(core, "chores".to_owned(), move || chores::run(&host))?);
    let driver = Driver::new(core.clone(), log, appliers, seats, process());
    threads.push(spawn(core, "consensus".to_owned(), move || driver.run())?);
    Ok(threads)
}

/// Starts a thread whose failure, a panic included, stops the host.
fn spawn(
    core: &Arc<Core>,
    name: String,
    run: impl FnOnce() -> Result<(), HostError> + Send + 'static,
) -> Result<JoinHandle<()>, HostError> {
    let (core, thread) = (core.clone(), name.clone());
    let run = move || {
        let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            let reason = panic_text(&*panic);
            Err(HostError::Thread { thread, reason })
        });
        if let Err(error) = outcome {
            core.fail(error);
        }
    };
    let spawned = thread::Builder::new().name(format!("onefold-{name}")).spawn(run);
    spawned.map_err(|error| HostError::Thread { thread: name, reason: error.to_string() })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("it panicked: {}", text.as_deref().unwrap_or("no message"))
}
