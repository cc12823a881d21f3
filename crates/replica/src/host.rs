//! The host: all groups of a node.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use onefold_log::{Log, Recovered};
use onefold_table::Table;
use onefold_transport::{Peers, RemoteError, Router};
use onefold_types::{GroupId, NodeId};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::checkpoints::CHECKPOINTS;
use crate::core::{Core, lock};
use crate::forward::proposals;
use crate::start::{Started, start};
use crate::wire::{BEATS, ChangeMembership, MESSAGES, ProposeMany, ReadIndex};
use crate::{
    ChangeError, Group, GroupError, GroupStatus, HostConfig, HostError, HostMetrics, ProposeError,
    ReadError, SnapshotMetrics, StateMachine, change, driver, lifecycle, read, snapshot,
};

/// A group that a node hosts.
pub struct GroupSpec {
    /// The group.
    pub id: GroupId,
    /// How it came to this node. Later the node knows the members from its own data.
    pub formed: Formation,
    /// The place of this node in the order of those that should lead the group; 0 is preferred.
    pub election_rank: u32,
    /// What it replicates.
    pub state_machine: Box<dyn StateMachine>,
}

impl GroupSpec {
    /// A group that this node should lead as much as any other.
    pub fn new(id: GroupId, formed: Formation, state_machine: Box<dyn StateMachine>) -> Self {
        Self { id, formed, election_rank: 0, state_machine }
    }
}

/// How a group came to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Formation {
    /// These nodes founded it, and vote from the beginning. All of them must be told the same.
    Founders(BTreeSet<NodeId>),
    /// The node came later: it waits until the group's leader tells it who the members are, and
    /// never stands for election before.
    Joining,
}

/// Many Raft groups on one node. Cheap to clone; the host ends with the last clone of it and of its
/// [`Group`]s.
#[derive(Clone)]
pub struct Host {
    core: Arc<Core>,
    life: Arc<Life>,
}

/// Ends the host when it is dropped. The host's own threads and handlers hold the core, not this.
pub(crate) struct Life {
    core: Arc<Core>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.core.close();
    }
}

impl Host {
    /// Recovers the groups from log and table, and starts to take part in them. Call it within a
    /// tokio runtime; [`register`](Self::register) its methods, or it hears from nobody.
    ///
    /// `recovered` is what [`Log::open`] gave, and `table` must be opened from the same data folder.
    /// Groups that are in neither are formed as their [`GroupSpec`] says.
    ///
    /// # Errors
    /// When the configuration cannot work, when log and table contradict each other, or when they
    /// fail. Nothing runs then.
    pub fn start(
        config: HostConfig,
        log: Log,
        recovered: Recovered,
        table: Arc<dyn Table>,
        peers: Peers,
        groups: Vec<GroupSpec>,
    ) -> Result<Self, HostError> {
        let Started { core, threads } = start(config, log, recovered, table, peers, groups)?;
        let life = Arc::new(Life { core: core.clone(), threads: Mutex::new(threads) });
        Ok(Self { core, life })
    }

    /// Enters the host's methods and messages into the node's router.
    pub fn register(&self, router: &mut Router) {
        let core = self.core.clone();
        router.one_way(MESSAGES, move |from, frame| driver::deliver(&core, from, frame));

        let core = self.core.clone();
        router.one_way(BEATS, move |from, beat| driver::deliver_beat(&core, from, &beat));

        let core = self.core.clone();
        router.one_way(CHECKPOINTS, move |from, frame| {
            driver::deliver_checkpoints(&core, from, &frame);
        });

        let core = self.core.clone();
        router.call::<ProposeMany, _, _>(move |_, request, commands| {
            let core = core.clone();
            async move {
                let group = request.group;
                let cell = core.group(group).ok_or(ProposeError::NotHosted { group })?;
                Ok::<_, RemoteError>(proposals::answer(&core, &cell, request, commands).await?)
            }
        });

        let core = self.core.clone();
        router.call::<ReadIndex, _, _>(move |_, request, _| {
            let core = core.clone();
            async move {
                let group = request.group;
                let cell = core.group(group).ok_or(ReadError::NotHosted { group })?;
                let until = Instant::now() + Duration::from_millis(request.deadline_ms);
                let index = read::confirm_here(&core, &cell, until).await?;
                Ok::<_, RemoteError>((index, Bytes::new()))
            }
        });
        let core = self.core.clone();
        router.call::<ChangeMembership, _, _>(move |_, request, _| {
            let core = core.clone();
            async move {
                let group = request.group;
                let cell = core.group(group).ok_or(ChangeError::NotHosted { group })?;
                let until = Instant::now() + Duration::from_millis(request.deadline_ms);
                change::here(&core, &cell, &request.change, until).await?;
                Ok::<_, RemoteError>(((), Bytes::new()))
            }
        });
        snapshot::register(&self.core, router);
    }

    /// A group, if this node hosts it.
    pub fn group(&self, id: GroupId) -> Option<Group> {
        let cell = self.core.group(id)?;
        Some(Group::new(self.core.clone(), cell, self.life.clone()))
    }

    /// Creates a group on this node and takes part in it from now on, also after a restart: name it
    /// to [`start`](Self::start) then, with those that [`stored_groups`](crate::state::stored_groups)
    /// finds. When this returns, the group is durable.
    ///
    /// # Errors
    /// See [`GroupError`].
    pub async fn create_group(&self, spec: GroupSpec) -> Result<Group, GroupError> {
        let core = self.core.clone();
        let cell = on_blocking_thread(move || lifecycle::create(&core, spec)).await?;
        Ok(Group::new(self.core.clone(), cell, self.life.clone()))
    }

    /// Destroys a group on this node, for good: the node forgets all of it and never hosts a group
    /// of that number again. When this returns, that is durable; the space comes back by and by.
    /// Says whether the group was here. Other nodes keep theirs.
    ///
    /// Only for groups that shall be nowhere any more: a voter that forgets can break what others
    /// rely on.
    ///
    /// # Errors
    /// See [`GroupError`].
    pub async fn destroy_group(&self, group: GroupId) -> Result<bool, GroupError> {
        let core = self.core.clone();
        on_blocking_thread(move || lifecycle::destroy(&core, group)).await
    }

    /// What this node knows of each of its groups, in the order of their numbers.
    pub fn status(&self) -> Vec<GroupStatus> {
        self.core.groups.all().iter().map(|cell| cell.status()).collect()
    }

    /// What this node's transfers of snapshots amount to since it was started.
    pub fn snapshot_metrics(&self) -> SnapshotMetrics {
        self.core.transfers.metrics()
    }

    /// Everything that this host counted.
    pub fn metrics(&self) -> HostMetrics {
        let counters = &self.core.counters;
        self.core.inbox.count(counters);
        let groups = self.core.groups.all();
        let groups = groups.iter().map(|cell| (cell.id, cell.metrics())).collect();
        HostMetrics { node: counters.values(), snapshots: self.snapshot_metrics(), groups }
    }

    /// Becomes `Some` when the host stopped because log, table or a thread failed. It serves nothing
    /// any more; the process should end with the error and be started again.
    pub fn failure(&self) -> watch::Receiver<Option<HostError>> {
        self.core.failure.subscribe()
    }

    /// Stops serving and waits until the threads have ended and the log is closed. What was
    /// acknowledged is durable.
    pub async fn shutdown(&self) {
        self.core.close();
        let threads = std::mem::take(&mut *lock(&self.life.threads));
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // A panic was reported as the host's failure.
                let _ = thread.join();
            }
        });
        // Fails only when the runtime itself shuts down.
        let _ = joined.await;
    }
}

async fn on_blocking_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, GroupError> + Send + 'static,
) -> Result<T, GroupError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(GroupError::Stopped { reason: error.to_string() }))
}
