//! Locks and elections, by the recipe that all clients of etcd share: a key with a lease for each
//! contender below the name, and the one created first holds it.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use onefold_kv::{
    Compare, EventKind, KeyValue, Kv, LeaseId, Operation, OperationResponse, PutRequest,
    RangeRequest, SortOrder, SortTarget, TxnRequest, WatchRequest,
};
use onefold_types::Revision;

use super::lease::{grant, keep_alive};
use super::text::Text;

/// A contender's place in the queue.
struct Contender {
    prefix: String,
    key: Bytes,
    created: Revision,
    lease: LeaseId,
}

impl Contender {
    /// Queues up below a name.
    async fn enter(kv: &dyn Kv, name: &str, value: &str, ttl: i64) -> anyhow::Result<Self> {
        ensure!(!name.is_empty(), "the name is empty; give one");
        let lease = grant(kv, ttl).await?;
        let prefix = format!("{name}/");
        let key = Bytes::from(format!("{prefix}{lease}"));
        let put = PutRequest { lease, ..PutRequest::new(key.clone(), value.to_owned()) };
        let answer = kv
            .txn(TxnRequest {
                compare: vec![Compare::absent(key.clone())],
                success: vec![Operation::Put(put)],
                failure: vec![Operation::Range(RangeRequest::key(key.clone()))],
            })
            .await?;
        // The key exists already when an earlier try got through although its answer was lost.
        let created = match answer.responses.first() {
            Some(OperationResponse::Range(found)) => {
                found.kvs.first().context("the key vanished; try again")?.create_revision
            }
            _ => answer.header.revision,
        };
        Ok(Self { prefix, key, created, lease })
    }

    /// Waits until nobody is ahead in the queue.
    async fn wait_for_turn(&self, kv: &Arc<dyn Kv>) -> anyhow::Result<()> {
        loop {
            let request = RangeRequest {
                limit: 1,
                sort_order: SortOrder::Descend,
                sort_target: SortTarget::Create,
                max_create_revision: Some(Revision(self.created.get() - 1)),
                ..RangeRequest::prefix(self.prefix.clone())
            };
            let answer = kv.range(request).await?;
            let Some(ahead) = answer.kvs.into_iter().next() else { return Ok(()) };
            wait_for_deletion(kv, ahead, answer.header.revision.next()).await?;
        }
    }

    async fn leave(&self, kv: &dyn Kv) -> anyhow::Result<()> {
        kv.lease_revoke(self.lease).await?;
        Ok(())
    }
}

async fn wait_for_deletion(
    kv: &Arc<dyn Kv>,
    ahead: KeyValue,
    from_revision: Revision,
) -> anyhow::Result<()> {
    let request = WatchRequest { key: ahead.key, from_revision, ..WatchRequest::default() };
    let mut watcher = kv.watch(request).await?;
    loop {
        let batch = watcher.next().await?;
        // After a compaction the caller looks again.
        let gone = batch.events.iter().any(|event| event.kind == EventKind::Delete);
        if gone || batch.compacted.is_some() {
            return Ok(());
        }
    }
}

/// Holds a lock while a command runs, or until Ctrl-C.
pub async fn lock(
    kv: &Arc<dyn Kv>,
    name: &str,
    ttl: i64,
    command: &[String],
) -> anyhow::Result<ExitCode> {
    let contender = Contender::enter(&**kv, name, "", ttl).await?;
    let hold = async {
        contender.wait_for_turn(kv).await?;
        let Some((program, arguments)) = command.split_first() else {
            println!("{}", Text(contender.key.clone()));
            return std::future::pending().await;
        };
        let status = tokio::process::Command::new(program)
            .args(arguments)
            .env("ONEFOLD_LOCK_KEY", Text(contender.key.clone()).to_string())
            .kill_on_drop(true)
            .status()
            .await
            .with_context(|| format!("cannot run {program:?}"))?;
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        anyhow::Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
    };
    let outcome = while_alive(kv, contender.lease, hold).await;
    contender.leave(&**kv).await?;
    Ok(outcome?.unwrap_or(ExitCode::SUCCESS))
}

/// Stands for election until Ctrl-C.
pub async fn campaign(kv: &Arc<dyn Kv>, name: &str, value: &str, ttl: i64) -> anyhow::Result<()> {
    let contender = Contender::enter(&**kv, name, value, ttl).await?;
    let lead = async {
        contender.wait_for_turn(kv).await?;
        println!("{}\n{value}", Text(contender.key.clone()));
        std::future::pending::<anyhow::Result<()>>().await
    };
    let outcome = while_alive(kv, contender.lease, lead).await;
    contender.leave(&**kv).await?;
    outcome?;
    Ok(())
}

/// Runs `work` while the lease is kept alive. `None` when Ctrl-C ended it.
async fn while_alive<T>(
    kv: &Arc<dyn Kv>,
    lease: LeaseId,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Option<T>> {
    tokio::select! {
        outcome = work => outcome.map(Some),
        lost = keep_alive(kv, lease) => match lost {
            Err(error) => Err(error.context("the lease was lost, and what it held with it")),
            Ok(()) => bail!("the lease ended"),
        },
        () = told_to_stop() => Ok(None),
    }
}

/// Waits for Ctrl-C or SIGTERM: either way what is held is given up at once.
async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        // Without the one signal there is still the other.
        return tokio::signal::ctrl_c().await.unwrap_or_default();
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// Prints each leader of an election, until Ctrl-C.
pub async fn observe(kv: &Arc<dyn Kv>, name: &str) -> anyhow::Result<()> {
    let prefix = format!("{name}/");
    let mut last: Option<Bytes> = None;
    loop {
        let request = RangeRequest {
            limit: 1,
            sort_order: SortOrder::Ascend,
            sort_target: SortTarget::Create,
            ..RangeRequest::prefix(prefix.clone())
        };
        let answer = kv.range(request).await?;
        let leader = answer.kvs.into_iter().next();
        if let Some(leader) = &leader
            && last.as_ref() != Some(&leader.key)
        {
            println!("{}\n{}", Text(leader.key.clone()), Text(leader.value.clone()));
        }
        last = leader.map(|leader| leader.key);
        let from_revision = answer.header.revision.next();
        let request = WatchRequest { from_revision, ..WatchRequest::prefix(prefix.clone()) };
        let mut watcher = kv.watch(request).await?;
        loop {
            let batch = watcher.next().await?;
            // Of history that is compacted nothing will be told: what is there now is read again.
            if !batch.events.is_empty() || batch.compacted.is_some() {
                break;
            }
        }
    }
}
