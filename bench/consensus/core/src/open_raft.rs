//! openraft: its whole `Raft` (tasks and channels; it has no core without them) on one thread of
//! tokio, over a log, a state machine and a network in memory.
//!
//! It gets what its documentation recommends for throughput: batches through `client_write_many`,
//! replication as a native stream of pipelined appends, 4,096 entries a batch and 1,024 an append.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::{self, Debug},
    future::Future,
    io,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, future::BoxFuture, stream::BoxStream};
use openraft::{
    Config, EntryPayload, OptionalSend, Raft, RaftLogReader, RaftNetworkFactory,
    RaftSnapshotBuilder, RaftTypeConfig, SnapshotPolicy, StoredMembership,
    alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf},
    entry::RaftEntry,
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{RPCOption, v2::RaftNetworkV2},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
        VoteRequest, VoteResponse,
    },
    storage::{
        EntryResponder, IOFlushed, LogState, RaftLogStorage, RaftStateMachine, Snapshot,
        SnapshotMeta,
    },
};

use crate::{
    measure::{Applied, Run, Shape, Stopwatch, command},
    retention::{ENTRIES_DROPPED, ENTRIES_KEPT},
};

const REPLICAS: u64 = 3;
/// Batches that wait for their answers. More than the other contenders have on the way (two or
/// three): openraft merges what waits in its queue, and gains by it.
const BATCHES_IN_FLIGHT: usize = 16;
/// Longest wait for an election.
const ELECTION_MAX: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub(crate) struct Command(Bytes);

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

openraft::declare_raft_types!(
    Types:
        D = Command,
        R = (),
        Node = openraft::EmptyNode,
);

type Entry = <Types as RaftTypeConfig>::Entry;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// Log

#[derive(Default)]
struct LogInner {
    vote: Option<VoteOf<Types>>,
    purged: Option<LogIdOf<Types>>,
    /// The index of the first of `entries`.
    first: u64,
    entries: VecDeque<Entry>,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<LogInner>>);

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, io::Error> {
        let log = lock(&self.0);
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end + 1,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => u64::MAX,
        };
        let len = log.entries.len();
        let from = (start.saturating_sub(log.first) as usize).min(len);
        let through = (end.saturating_sub(log.first) as usize).clamp(from, len);
        Ok(log.entries.range(from..through).cloned().collect())
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<Types>>, io::Error> {
        Ok(lock(&self.0).vote)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let log = lock(&self.0);
        let last_log_id = log.entries.back().map(|entry| entry.log_id()).or(log.purged);
        Ok(LogState { last_purged_log_id: log.purged, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types>) -> Result<(), io::Error> {
        lock(&self.0).vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        {
            let mut log = lock(&self.0);
            log.entries.extend(entries);
            if log.purged.is_none() {
                log.first = log.entries.front().map_or(0, |entry| entry.index());
            }
        }
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<Types>>) -> Result<(), io::Error> {
        let mut log = lock(&self.0);
        let keep = last.map_or(0, |last| last.index() + 1).saturating_sub(log.first);
        log.entries.truncate(keep as usize);
        Ok(())
    }

    async fn purge(&mut self, through: LogIdOf<Types>) -> Result<(), io::Error> {
        let mut log = lock(&self.0);
        let count =
            ((through.index() + 1).saturating_sub(log.first) as usize).min(log.entries.len());
        log.entries.drain(..count);
        log.first = through.index() + 1;
        log.purged = Some(through);
        Ok(())
    }
}

// State machine

#[derive(Default)]
struct StateInner {
    last: Option<LogIdOf<Types>>,
    membership: StoredMembershipOf<Types>,
    applied: Applied,
}

/// Counts. Its snapshot is its marks alone: the same work as the other contenders' compaction.
#[derive(Clone, Default)]
struct State(Arc<Mutex<StateInner>>);

impl State {
    fn snapshot(&self) -> SnapshotOf<Types, ()> {
        let state = lock(&self.0);
        Snapshot {
            meta: SnapshotMeta {
                last_log_id: state.last,
                last_membership: state.membership.clone(),
            },
            snapshot: (),
        }
    }
}

impl RaftSnapshotBuilder<Types> for State {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, ()>, io::Error> {
        Ok(self.snapshot())
    }
}

impl RaftStateMachine<Types> for State {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<Types>>, StoredMembershipOf<Types>), io::Error> {
        let state = lock(&self.0);
        Ok((state.last, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            {
                let mut state = lock(&self.0);
                state.last = Some(entry.log_id);
                match &entry.payload {
                    EntryPayload::Blank => {}
                    EntryPayload::Normal(Command(command)) => state.applied.apply(command),
                    EntryPayload::Membership(membership) => {
                        state.membership =
                            StoredMembership::new(Some(entry.log_id), membership.clone());
                    }
                }
            }
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMetaOf<Types>,
        _snapshot: (),
    ) -> Result<(), io::Error> {
        Err(io::Error::other("no replica is ever so far behind that it needs a snapshot"))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<Types, ()>>, io::Error> {
        Ok(Some(self.snapshot()))
    }
}

// Network

type Node = Raft<Types, State>;

#[derive(Clone, Default)]
struct Router(Arc<Mutex<BTreeMap<u64, Node>>>);

struct Link(Node);

impl RaftNetworkFactory<Types> for Router {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _node: &openraft::EmptyNode) -> Link {
        Link(lock(&self.0).get(&target).expect("every replica is registered first").clone())
    }
}

fn unreachable(error: &(impl std::error::Error + 'static)) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(error))
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = ();

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.0.append_entries(rpc).await.map_err(|error| unreachable(&error))
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let answers = self.0.stream_append(input);
        async move { Ok(answers.map_err(|error| unreachable(&error)).boxed()) }.boxed()
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.0.vote(rpc).await.map_err(|error| unreachable(&error))
    }

    async fn full_snapshot(
        &mut self,
        _vote: VoteOf<Types>,
        _snapshot: SnapshotOf<Types, ()>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let error = io::Error::other("snapshots are not sent");
        Err(StreamingError::Unreachable(Unreachable::new(&error)))
    }
}

// Drive

struct Cluster {
    leader: Node,
    nodes: Vec<Node>,
    states: Vec<State>,
}

pub(crate) fn run(shape: Shape) -> Result<Run> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let cluster = Cluster::start().await?;
        cluster.drive(shape, shape.entries / 10).await?;
        let stopwatch = Stopwatch::start();
        cluster.drive(shape, shape.entries).await?;
        let run = stopwatch.finish(shape.entries);
        for node in &cluster.nodes {
            node.shutdown().await?;
        }
        Ok(run)
    })
}

impl Cluster {
    async fn start() -> Result<Self> {
        let config = Config {
            cluster_name: "bench".into(),
            max_payload_entries: 1024,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(ENTRIES_DROPPED),
            max_in_snapshot_log_to_keep: ENTRIES_KEPT,
            purge_batch_size: ENTRIES_KEPT,
            ..Config::default()
        };
        let config = Arc::new(config.validate()?);
        let router = Router::default();
        let (mut nodes, mut states) = (Vec::new(), Vec::new());
        for id in 1..=REPLICAS {
            let state = State::default();
            let log = Log::default();
            let node = Raft::new(id, config.clone(), router.clone(), log, state.clone()).await?;
            lock(&router.0).insert(id, node.clone());
            nodes.push(node);
            states.push(state);
        }
        let leader = nodes[0].clone();
        let members: BTreeMap<u64, openraft::EmptyNode> =
            (1..=REPLICAS).map(|id| (id, openraft::EmptyNode {})).collect();
        leader.initialize(members).await?;
        leader
            .wait(Some(ELECTION_MAX))
            .current_leader(1, "the first node leads")
            .await
            .context("no leader was elected")?;
        Ok(Self { leader, nodes, states })
    }

    async fn drive(&self, shape: Shape, entries: u64) -> Result<()> {
        let mut proposed = self.applied(0).commands;
        let end = proposed + entries;
        let mut waiting = VecDeque::new();
        while proposed < end {
            let last = (proposed + shape.batch as u64).min(end);
            let batch = (proposed..last).map(|number| Command(Bytes::from(command(shape, number))));
            waiting.push_back(self.leader.client_write_many(batch).await?);
            proposed = last;
            if waiting.len() >= BATCHES_IN_FLIGHT
                && let Some(answers) = waiting.pop_front()
            {
                finish(answers).await?;
            }
        }
        for answers in waiting {
            finish(answers).await?;
        }
        while (0..self.states.len()).any(|at| self.applied(at).commands < end) {
            tokio::task::yield_now().await;
        }
        let first = self.applied(0);
        ensure!(
            (0..self.states.len()).all(|at| self.applied(at) == first && first.commands == end),
            "the replicas were handed different commands"
        );
        Ok(())
    }

    fn applied(&self, at: usize) -> Applied {
        lock(&self.states[at].0).applied
    }
}

async fn finish<T, E, F>(mut answers: BoxStream<'static, Result<Result<T, E>, F>>) -> Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
    F: std::error::Error + Send + Sync + 'static,
{
    while let Some(answer) = answers.next().await {
        answer??;
    }
    Ok(())
}
