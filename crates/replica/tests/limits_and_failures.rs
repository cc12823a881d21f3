//! Too much work, broken tables, and folders that do not fit.

mod cluster;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cluster::{Cluster, GROUP, LONG, Setup, Storage, eventually, propose};
use onefold_log::{Log, LogOptions, Write};
use onefold_replica::{
    Apply, Consistency, Formation, Group, GroupSpec, Host, HostConfig, HostError, Limits,
    ProposeError, ReadError, StateMachine,
};
use onefold_table::{
    Batch, KeyRange, MemoryTable, Order, Scan, SpaceView, Table, TableError, View,
};
use onefold_transport::{Identity, IdentityCell, Peers};
use onefold_types::limits::COMMAND_BYTES_MAX;
use onefold_types::{ClusterId, GroupId, LogIndex, NodeId, Term};
use tempfile::TempDir;

/// A host of one node, over any table and state machine.
fn single(
    folder: &TempDir,
    table: Arc<dyn Table>,
    limits: Limits,
    state_machine: Box<dyn StateMachine>,
) -> Result<Host, HostError> {
    let node = NodeId(1);
    let identity = Arc::new(IdentityCell::new(Identity::node(ClusterId(1), node)));
    let peers = Peers::new(identity, onefold_transport::Limits::default());
    let (log, recovered) =
        Log::open(&folder.path().join("log"), LogOptions::default()).expect("a good log");
    let mut config = HostConfig::new(node);
    config.limits = limits;
    let spec = GroupSpec::new(GROUP, Formation::Founders(BTreeSet::from([node])), state_machine);
    Host::start(config, log, recovered, table, peers, vec![spec])
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder for the test")
}

/// Applies only while it is open.
#[derive(Clone, Default)]
struct Gate {
    open: Arc<(Mutex<bool>, Condvar)>,
}

impl Gate {
    fn open(&self) {
        let (open, changed) = &*self.open;
        *open.lock().expect("nobody panics with it") = true;
        changed.notify_all();
    }
}

impl StateMachine for Gate {
    fn apply(&mut self, _: &mut Apply<'_, '_>, command: &Bytes) -> Result<Bytes, TableError> {
        let (open, changed) = &*self.open;
        let open = open.lock().expect("nobody panics with it");
        drop(changed.wait_while(open, |open| !*open).expect("nobody panics with it"));
        Ok(command.slice(..4))
    }

    fn restored(&mut self, _: &SpaceView) -> Result<(), TableError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_applies_too_slowly_refuses_and_recovers() {
    let gate = Gate::default();
    let limits = Limits { backlog_bytes_max: 64 << 10, ..Limits::default() };
    let folder = folder();
    let table = Arc::new(MemoryTable::new());
    let host = single(&folder, table, limits, Box::new(gate.clone())).expect("a fresh folder");
    let group = host.group(GROUP).expect("it is hosted");
    let mut accepted = Vec::new();
    let refused = loop {
        let (group, command) = (group.clone(), Bytes::from(vec![b'x'; 4 << 10]));
        let mut proposal = tokio::spawn(async move { group.propose(command, None, LONG).await });
        match tokio::time::timeout(Duration::from_millis(20), &mut proposal).await {
            Ok(answer) => break answer.expect("no task panics"),
            Err(_) => accepted.push(proposal),
        }
        assert!(accepted.len() < 1000, "64 KiB hold no thousand commands of 4 KiB");
    };
    assert_eq!(refused, Err(ProposeError::Overloaded { group: GROUP }));
    gate.open();
    for proposal in accepted {
        let answer = proposal.await.expect("no task panics");
        assert_eq!(answer, Ok(Bytes::from_static(b"xxxx")), "what was accepted is executed");
    }
    eventually("the leader accepts again", || async {
        group.propose(Bytes::from_static(b"more"), None, LONG).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_too_large_is_refused_at_once() {
    let cluster = Cluster::start(Setup::new(3)).await;
    let follower = cluster.follower().await;
    let command = Bytes::from(vec![b'x'; COMMAND_BYTES_MAX]);
    let refused = cluster.group(follower).propose(command, None, LONG).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { .. })), "{refused:?}");
    let largest = Bytes::from(vec![b'x'; COMMAND_BYTES_MAX - 64]);
    let answer = cluster.group(follower).propose(largest, None, LONG).await;
    assert_eq!(answer, Ok(Bytes::from_static(b"unknown command")));
}

/// A table whose writes fail when they are told to.
#[derive(Default)]
struct Breakable {
    table: MemoryTable,
    is_broken: AtomicBool,
}

impl View for Breakable {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TableError> {
        self.table.get(key)
    }

    fn scan(&self, range: KeyRange, order: Order) -> Scan<'_> {
        self.table.scan(range, order)
    }
}

impl Table for Breakable {
    fn snapshot(&self) -> Arc<dyn View> {
        self.table.snapshot()
    }

    fn write(&self, batch: Batch) -> Result<(), TableError> {
        if self.is_broken.load(Ordering::Relaxed) {
            let reason = "no such luck".to_owned();
            return Err(TableError::Stopped { path: "/table".into(), reason });
        }
        self.table.write(batch)
    }

    fn sync(&self) -> Result<(), TableError> {
        self.table.sync()
    }

    fn size_bytes(&self) -> u64 {
        self.table.size_bytes()
    }
}

async fn failure(host: &Host) -> HostError {
    let mut failure = host.failure();
    let failed = failure.wait_for(Option::is_some);
    let failed = tokio::time::timeout(LONG, failed).await.expect("the host stops");
    failed.expect("the host exists").clone().expect("it was waited for")
}

async fn assert_stopped(group: &Group) {
    let refused = group.propose(Bytes::from_static(b"more"), None, LONG).await;
    assert!(matches!(refused, Err(ProposeError::Stopped { .. })), "{refused:?}");
    for consistency in [Consistency::Linearizable, Consistency::Local] {
        let refused = group.read(consistency, LONG).await.err();
        assert!(matches!(refused, Some(ReadError::Stopped { .. })), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_fails_stops_the_host() {
    let gate = Gate::default();
    gate.open();
    let table = Arc::new(Breakable::default());
    let folder = folder();
    let host = single(&folder, table.clone(), Limits::default(), Box::new(gate));
    let host = host.expect("a fresh folder");
    let group = host.group(GROUP).expect("it is hosted");
    propose(&group, "fine").await.expect("the table is good");
    table.is_broken.store(true, Ordering::Relaxed);
    let doubtful = propose(&group, "lost").await;
    assert!(matches!(doubtful, Err(ProposeError::Unknown { .. })), "{doubtful:?}");
    let error = failure(&host).await;
    assert!(error.to_string().contains("no such luck"), "{error}");
    assert_stopped(&group).await;
}

/// Panics on its first command.
struct Panics;

impl StateMachine for Panics {
    fn apply(&mut self, _: &mut Apply<'_, '_>, _: &Bytes) -> Result<Bytes, TableError> {
        panic!("an invariant is violated");
    }

    fn restored(&mut self, _: &SpaceView) -> Result<(), TableError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_violated_invariant_stops_the_host() {
    let folder = folder();
    let table = Arc::new(MemoryTable::new());
    let host = single(&folder, table, Limits::default(), Box::new(Panics)).expect("a fresh folder");
    let group = host.group(GROUP).expect("it is hosted");
    propose(&group, "go").await.expect_err("nobody answers");
    let error = failure(&host).await;
    assert!(error.to_string().contains("an invariant is violated"), "{error}");
    assert_stopped(&group).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_shut_down_says_so() {
    let cluster = Cluster::start(Setup::new(1)).await;
    let group = cluster.group(NodeId(1));
    propose(&group, "add").await.expect("it leads");
    cluster.node(NodeId(1)).host.shutdown().await;
    assert_stopped(&group).await;
    assert!(cluster.node(NodeId(1)).host.failure().borrow().is_none(), "that is no failure");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_its_log_is_refused() {
    let mut cluster = Cluster::start(Setup { storage: Storage::Disk, ..Setup::new(1) }).await;
    propose(&cluster.group(NodeId(1)), "add").await.expect("it leads");
    cluster.stop(NodeId(1)).await;
    std::fs::remove_dir_all(cluster.folder(0).join("log")).expect("the log is closed");
    let refused = cluster.try_restart(NodeId(1)).await;
    assert!(matches!(refused, Err(HostError::LogLost { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_log_without_its_table_is_refused_when_nobody_else_has_the_state() {
    let limits = Limits {
        compact_after_entries: 100,
        keep_entries: 10,
        keep_bytes: 1 << 10,
        ..Limits::default()
    };
    let setup = Setup { storage: Storage::Disk, limits, ..Setup::new(1) };
    let mut cluster = Cluster::start(setup).await;
    for _ in 0..1000 {
        propose(&cluster.group(NodeId(1)), "add").await.expect("it leads");
    }
    cluster.stop(NodeId(1)).await;
    std::fs::remove_dir_all(cluster.folder(0).join("table")).expect("the table is closed");
    let refused = cluster.try_restart(NodeId(1)).await;
    assert!(matches!(refused, Err(HostError::StateLost { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_a_group_that_is_not_hosted_is_refused() {
    let folder = folder();
    let path = folder.path().join("log");
    let (log, _) = Log::open(&path, LogOptions::default()).expect("a new log");
    let hard_state =
        Write::HardState { group: GroupId(99), term: Term(1), vote: None, commit: LogIndex::ZERO };
    log.append(vec![hard_state], Box::new(|_| {})).expect("the log is open");
    log.close();
    drop(log);
    let table = Arc::new(MemoryTable::new());
    let refused = single(&folder, table, Limits::default(), Box::new(Panics)).err();
    assert!(matches!(refused, Some(HostError::UnknownGroup { group: GroupId(99) })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_work_is_refused() {
    let folder = folder();
    let limits = Limits { apply_threads: 0, ..Limits::default() };
    let table = Arc::new(MemoryTable::new());
    let refused = single(&folder, table, limits, Box::new(Panics)).err();
    assert!(matches!(refused, Some(HostError::Config(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_groups_start_and_serve() {
    let groups: Vec<_> = (0..200).map(|number| GroupId(GROUP.get() + number)).collect();
    let setup = Setup { groups: groups.clone(), ..Setup::new(3) };
    let cluster = Cluster::start(setup).await;
    for (place, id) in groups.into_iter().enumerate() {
        let node = NodeId(place as u64 % 3 + 1);
        let group = cluster.node(node).host.group(id).expect("every node hosts every group");
        assert_eq!(propose(&group, "add").await, Ok("1".to_owned()), "group {id}");
    }
    let status = cluster.node(NodeId(1)).host.status();
    assert_eq!(status.len(), 200);
    assert!(status.iter().all(|group| group.voters.len() == 3 && group.leader.is_some()));
}
