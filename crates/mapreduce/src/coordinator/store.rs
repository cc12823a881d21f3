//! Jobs in kv: what anybody may do with them, and what only the elected coordinator may.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onefold_kv::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, KeyValue, Kv, KvError, Operation,
    OperationResponse, PutRequest, RangeRequest, SortOrder, TxnRequest,
};
use onefold_types::{Revision, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::records::{
    ACTIVE, ActiveRecord, COORDINATOR, GARBAGE, NEXT, PlanRecord, STATE, SpecRecord, active_key,
    decode, done_key, done_prefix, encode, garbage_key, job_of, plan_key, spec_key, split_key,
    splits_prefix, state_key, token_key,
};
use crate::api::limits::{JOBS_ACTIVE_MAX, JOBS_KEPT_MAX};
use crate::api::{
    Counters, JobId, JobPage, JobSpec, JobStatus, JobSummary, MapReduceError, Phase, TaskCounts,
};
use crate::input::MapInput;
use crate::job::TaskRecord;

/// Jobs in one page of a listing.
const LIST_JOBS_MAX: u64 = 100;

/// Small records that are read at once.
const PAGE_RECORDS: u64 = 500;

/// Splits that are read at once; each has up to a quarter of a megabyte.
const PAGE_SPLITS: u64 = 16;

/// Records that are deleted at once.
const DELETE_RECORDS: u64 = 500;

/// Times that a submission is tried while others submit too, or kv does not answer.
const SUBMIT_TRIES: u32 = 10;

/// Pause between two tries.
const SUBMIT_PAUSE: Duration = Duration::from_millis(200);

/// Why a coordinator's write is not done.
#[derive(Debug)]
pub(super) enum FencedError {
    /// Another coordinator was elected.
    Deposed,
    /// Trying again may help: the write is the same however often it is done.
    Unavailable(KvError),
    /// Trying again does not help.
    Refused(KvError),
}

/// The job records of a cluster.
#[derive(Clone)]
pub(crate) struct Store {
    kv: Arc<dyn Kv>,
}

fn is_transient(error: &KvError) -> bool {
    matches!(
        error,
        KvError::TimedOut { .. } | KvError::Unavailable { .. } | KvError::Overloaded { .. }
    )
}

pub(super) fn failed(error: KvError) -> MapReduceError {
    if is_transient(&error) {
        MapReduceError::unavailable(error)
    } else {
        MapReduceError::internal(error)
    }
}

fn put<T: Serialize>(key: String, record: &T) -> Operation {
    Operation::Put(PutRequest::new(key, encode(record)))
}

fn delete(key: String) -> Operation {
    Operation::DeleteRange(DeleteRangeRequest::key(key))
}

impl Store {
    pub(crate) fn new(kv: Arc<dyn Kv>) -> Self {
        Self { kv }
    }

    pub(super) fn kv(&self) -> &Arc<dyn Kv> {
        &self.kv
    }

    /// Accepts a job. `token` is drawn by the caller, so that trying again does not submit twice.
    pub(crate) async fn submit(
        &self,
        spec: &JobSpec,
        token: u64,
        now: Timestamp,
    ) -> Result<JobId, MapReduceError> {
        let mut last = MapReduceError::unavailable("too many jobs are submitted at once");
        for _ in 0..SUBMIT_TRIES {
            match self.try_submit(spec, token, now).await {
                Ok(Some(job)) => return Ok(job),
                Ok(None) => {}
                Err(error @ MapReduceError::Unavailable { .. }) => last = error,
                Err(error) => return Err(error),
            }
            tokio::time::sleep(SUBMIT_PAUSE).await;
        }
        Err(last)
    }

    /// The job that a submission became, if it did.
    pub(crate) async fn submitted(&self, token: u64) -> Result<Option<JobId>, MapReduceError> {
        self.read(&token_key(token)).await
    }

    /// `None` when another submission came in between.
    async fn try_submit(
        &self,
        spec: &JobSpec,
        token: u64,
        now: Timestamp,
    ) -> Result<Option<JobId>, MapReduceError> {
        if let Some(job) = self.submitted(token).await? {
            return Ok(Some(job));
        }
        let active = RangeRequest { count_only: true, ..RangeRequest::prefix(ACTIVE) };
        let active = self.kv.range(active).await.map_err(failed)?.count;
        let active = usize::try_from(active).unwrap_or(usize::MAX);
        if active >= JOBS_ACTIVE_MAX {
            return Err(MapReduceError::Overloaded { active });
        }
        let next = self.kv.range(RangeRequest::key(NEXT)).await.map_err(failed)?;
        let next = next.kvs.first();
        let job = next.map_or(Ok(JobId(1)), |kv| decode(&kv.key, &kv.value))?;
        let revision = next.map_or(Revision::ZERO, |kv| kv.mod_revision);
        let record = SpecRecord { spec: spec.clone(), token, submitted: now };
        let request = TxnRequest {
            compare: vec![
                Compare::new(
                    NEXT,
                    CompareResult::Equal,
                    CompareTarget::ModRevision(revision.get() as i64),
                ),
                Compare::absent(token_key(token)),
            ],
            success: vec![
                put(NEXT.to_owned(), &JobId(job.0 + 1)),
                put(token_key(token), &job),
                put(spec_key(job), &record),
                put(state_key(job), &first_status(job, &record)),
                put(active_key(job), &ActiveRecord { cancel: false }),
            ],
            failure: Vec::new(),
        };
        let response = self.kv.txn(request).await.map_err(failed)?;
        Ok(response.succeeded.then_some(job))
    }

    /// The last known status of a job.
    pub(crate) async fn status(&self, job: JobId) -> Result<JobStatus, MapReduceError> {
        let status = self.read(&state_key(job)).await?;
        status.ok_or(MapReduceError::NoSuchJob { job })
    }

    /// The jobs before `before`, the latest first.
    pub(crate) async fn list(&self, before: Option<JobId>) -> Result<JobPage, MapReduceError> {
        let mut request = RangeRequest::prefix(STATE);
        if let Some(before) = before {
            request.range_end = state_key(before).into();
        }
        request.limit = LIST_JOBS_MAX;
        request.sort_order = SortOrder::Descend;
        let response = self.kv.range(request).await.map_err(failed)?;
        let statuses = response.kvs.iter().map(|kv| decode::<JobStatus>(&kv.key, &kv.value));
        let jobs: Result<Vec<JobSummary>, _> =
            statuses.map(|status| status.map(|status| status.summary)).collect();
        let jobs = jobs?;
        let next = if response.more { jobs.last().map(|summary| summary.job) } else { None };
        Ok(JobPage { jobs, next })
    }

    /// Asks for a job to be cancelled.
    pub(crate) async fn cancel(&self, job: JobId) -> Result<(), MapReduceError> {
        let exists =
            Compare::new(active_key(job), CompareResult::Greater, CompareTarget::CreateRevision(0));
        let request = TxnRequest {
            compare: vec![exists],
            success: vec![put(active_key(job), &ActiveRecord { cancel: true })],
            failure: Vec::new(),
        };
        if self.kv.txn(request).await.map_err(failed)?.succeeded {
            return Ok(());
        }
        let status = self.status(job).await?;
        Err(MapReduceError::JobEnded { job: status.summary.job })
    }

    /// Jobs that have not ended, whether each is to be cancelled, and the revision read.
    pub(super) async fn active(&self) -> Result<(Vec<(JobId, bool)>, Revision), MapReduceError> {
        // At most JOBS_ACTIVE_MAX and the few that were submitted at the same moment.
        let response = self.kv.range(RangeRequest::prefix(ACTIVE)).await.map_err(failed)?;
        let mut jobs = Vec::with_capacity(response.kvs.len());
        for kv in &response.kvs {
            let record: ActiveRecord = decode(&kv.key, &kv.value)?;
            if let Some(job) = job_of(&kv.key, ACTIVE) {
                jobs.push((job, record.cancel));
            }
        }
        Ok((jobs, response.header.revision))
    }

    /// What was submitted.
    pub(super) async fn spec(&self, job: JobId) -> Result<SpecRecord, MapReduceError> {
        self.read(&spec_key(job)).await?.ok_or(MapReduceError::NoSuchJob { job })
    }

    /// The plan of a job, once it has one.
    pub(super) async fn plan(&self, job: JobId) -> Result<Option<PlanRecord>, MapReduceError> {
        self.read(&plan_key(job)).await
    }

    /// All splits of a job.
    pub(super) async fn splits(&self, job: JobId) -> Result<Vec<MapInput>, MapReduceError> {
        self.read_all(&splits_prefix(job), PAGE_SPLITS).await
    }

    /// All results of a job.
    pub(super) async fn done(&self, job: JobId) -> Result<Vec<TaskRecord>, MapReduceError> {
        self.read_all(&done_prefix(job), PAGE_RECORDS).await
    }

    async fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, MapReduceError> {
        let request = RangeRequest::key(key.to_owned());
        let response = self.kv.range(request).await.map_err(failed)?;
        response.kvs.first().map(|kv| decode(&kv.key, &kv.value)).transpose()
    }

    async fn read_all<T: DeserializeOwned>(
        &self,
        prefix: &str,
        page: u64,
    ) -> Result<Vec<T>, MapReduceError> {
        let mut request = RangeRequest::prefix(prefix.to_owned());
        request.limit = page;
        let mut records = Vec::new();
        loop {
            let response = self.kv.range(request.clone()).await.map_err(failed)?;
            for KeyValue { key, value, .. } in &response.kvs {
                records.push(decode(key, value)?);
            }
            match response.kvs.last() {
                Some(last) if response.more => request.key = behind(&last.key),
                _ => return Ok(records),
            }
        }
    }

    /// Carries operations out, provided that the coordinator of this epoch is still the elected one.
    pub(super) async fn fenced(
        &self,
        epoch: u64,
        operations: Vec<Operation>,
    ) -> Result<Vec<OperationResponse>, FencedError> {
        let elected = CompareTarget::CreateRevision(epoch as i64);
        let request = TxnRequest {
            compare: vec![Compare::new(COORDINATOR, CompareResult::Equal, elected)],
            success: operations,
            failure: Vec::new(),
        };
        match self.kv.txn(request).await {
            Ok(response) if response.succeeded => Ok(response.responses),
            Ok(_) => Err(FencedError::Deposed),
            Err(error) if is_transient(&error) => Err(FencedError::Unavailable(error)),
            Err(error) => Err(FencedError::Refused(error)),
        }
    }

    /// Deletes what is not needed of ended jobs: the plans of all, and all of the oldest ones.
    pub(super) async fn collect_garbage(&self, epoch: u64) -> Result<(), FencedError> {
        let garbage = self.keys(GARBAGE, PAGE_RECORDS).await?;
        for job in garbage.iter().filter_map(|key| job_of(key, GARBAGE)) {
            for prefix in [splits_prefix(job), done_prefix(job)] {
                self.delete_all(epoch, &prefix).await?;
            }
            self.fenced(epoch, vec![delete(plan_key(job)), delete(garbage_key(job))]).await?;
        }
        let kept = JOBS_KEPT_MAX + JOBS_ACTIVE_MAX;
        let states = self.keys(STATE, kept as u64 + PAGE_RECORDS).await?;
        let excess = states.len().saturating_sub(JOBS_KEPT_MAX);
        for job in states.iter().take(excess).filter_map(|key| job_of(key, STATE)) {
            self.forget(epoch, job).await?;
        }
        Ok(())
    }

    async fn forget(&self, epoch: u64, job: JobId) -> Result<(), FencedError> {
        let is_active = self.read::<ActiveRecord>(&active_key(job)).await;
        if is_active.map_err(unavailable)?.is_some() {
            return Ok(());
        }
        let mut operations = vec![delete(state_key(job)), delete(spec_key(job))];
        if let Some(record) = self.read::<SpecRecord>(&spec_key(job)).await.map_err(unavailable)? {
            operations.push(delete(token_key(record.token)));
        }
        self.fenced(epoch, operations).await.map(|_| ())
    }

    async fn keys(&self, prefix: &str, limit: u64) -> Result<Vec<Bytes>, FencedError> {
        let mut request = RangeRequest::prefix(prefix.to_owned());
        (request.keys_only, request.limit) = (true, limit);
        let response = self.kv.range(request).await.map_err(FencedError::Unavailable)?;
        Ok(response.kvs.into_iter().map(|kv| kv.key).collect())
    }

    async fn delete_all(&self, epoch: u64, prefix: &str) -> Result<(), FencedError> {
        loop {
            let keys = self.keys(prefix, DELETE_RECORDS).await?;
            let (Some(first), Some(last)) = (keys.first(), keys.last()) else { return Ok(()) };
            let range = DeleteRangeRequest {
                key: first.clone(),
                range_end: behind(last),
                ..DeleteRangeRequest::default()
            };
            self.fenced(epoch, vec![Operation::DeleteRange(range)]).await?;
        }
    }
}

fn unavailable(error: MapReduceError) -> FencedError {
    FencedError::Unavailable(KvError::Unavailable { reason: error.to_string() })
}

/// The smallest key after `key`.
fn behind(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

/// What is written of a job's progress.
pub(super) fn put_split(job: JobId, index: u32, input: &MapInput) -> Operation {
    put(split_key(job, index), input)
}

pub(super) fn put_plan(job: JobId, plan: &PlanRecord) -> Operation {
    put(plan_key(job), plan)
}

pub(super) fn put_done(job: JobId, record: &TaskRecord) -> Operation {
    put(done_key(job, record.task), record)
}

pub(super) fn put_status(status: &JobStatus) -> Operation {
    put(state_key(status.summary.job), status)
}

/// The end of a job, in one step.
pub(super) fn put_end(status: &JobStatus) -> Vec<Operation> {
    let job = status.summary.job;
    vec![put_status(status), put(garbage_key(job), &()), delete(active_key(job))]
}

fn first_status(job: JobId, record: &SpecRecord) -> JobStatus {
    JobStatus {
        summary: JobSummary {
            job,
            name: record.spec.name.clone(),
            phase: Phase::Preparing,
            maps: TaskCounts::default(),
            reduces: TaskCounts::default(),
            submitted: record.submitted,
            started: None,
            ended: None,
        },
        output: record.spec.output.clone(),
        input_bytes: 0,
        counters: Counters::default(),
        failed_attempts: 0,
        failures: Vec::new(),
        workers: 0,
        error: None,
    }
}
