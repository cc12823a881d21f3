//! From a submission to a plan: splits computed, output reserved, both on record. A job that has a
//! plan already is loaded instead.

use onefold_kv::Operation;

use super::{Done, RETRY_PAUSE, wall_clock};
use crate::api::{JobId, JobSpec, JobStatus, MapReduceError};
use crate::coordinator::election::Context;
use crate::coordinator::output::OutputFolder;
use crate::coordinator::plan::{is_final, splits};
use crate::coordinator::records::PlanRecord;
use crate::coordinator::store::{FencedError, put_plan, put_split};
use crate::input::MapInput;
use crate::job::TaskRecord;

/// Bytes of splits in one transaction.
const BATCH_BYTES: usize = 512 << 10;

/// Splits in one transaction.
const BATCH_SPLITS: usize = 100;

/// Most reduce tasks that are chosen when the job does not say.
const REDUCES_DEFAULT_MAX: usize = 64;

/// A job that can run.
pub(super) struct Prepared {
    pub(super) spec: JobSpec,
    pub(super) plan: PlanRecord,
    pub(super) inputs: Vec<MapInput>,
    pub(super) records: Vec<TaskRecord>,
    pub(super) output: OutputFolder,
    pub(super) status: JobStatus,
}

/// The work of preparing one job.
pub(super) struct Prepare {
    pub(super) context: Context,
    pub(super) epoch: u64,
    pub(super) job: JobId,
    /// Whether to plan the job if nobody has done so.
    pub(super) may_plan: bool,
    /// Where the jobs that are under way write.
    pub(super) others: Vec<OutputFolder>,
    /// Nodes of the cluster.
    pub(super) nodes: usize,
}

/// Why a job is not prepared yet.
enum Failure {
    Unplanned,
    Deposed,
    Job(MapReduceError),
}

impl From<MapReduceError> for Failure {
    fn from(error: MapReduceError) -> Self {
        Self::Job(error)
    }
}

impl From<FencedError> for Failure {
    fn from(error: FencedError) -> Self {
        match error {
            FencedError::Deposed => Self::Deposed,
            FencedError::Unavailable(error) => Self::Job(MapReduceError::unavailable(error)),
            FencedError::Refused(error) => Self::Job(MapReduceError::internal(error)),
        }
    }
}

impl Prepare {
    pub(super) async fn run(self) -> Done {
        loop {
            match self.prepare_or_load().await {
                Ok(prepared) => return Done::Prepared(self.job, Ok(Box::new(prepared))),
                Err(Failure::Unplanned) => return Done::Unplanned(self.job),
                Err(Failure::Deposed) => return Done::Deposed,
                Err(Failure::Job(error)) if is_final(&error) => {
                    return Done::Prepared(self.job, Err(error.to_string()));
                }
                Err(Failure::Job(error)) => {
                    tracing::warn!(job = %self.job, %error, "a job cannot be prepared yet");
                    tokio::time::sleep(RETRY_PAUSE).await;
                    if self.is_given_up().await {
                        let reason = format!("it was cancelled while it waited: {error}");
                        return Done::Prepared(self.job, Err(reason));
                    }
                }
            }
        }
    }

    /// Whether a job that has no plan yet was cancelled. What it reserved is given back.
    async fn is_given_up(&self) -> bool {
        let store = &self.context.store;
        let (Ok(None), Ok((active, _))) = (store.plan(self.job).await, store.active().await) else {
            return false;
        };
        if !active.contains(&(self.job, true)) {
            return false;
        }
        let Ok(spec) = store.spec(self.job).await else { return false };
        let output = OutputFolder::new(self.context.files.clone(), &spec.spec.output, self.job);
        match output {
            Ok(output) => output.give_back().await.is_ok(),
            Err(_) => true,
        }
    }

    async fn prepare_or_load(&self) -> Result<Prepared, Failure> {
        let store = &self.context.store;
        let spec = store.spec(self.job).await?.spec;
        let status = store.status(self.job).await?;
        let output = OutputFolder::new(self.context.files.clone(), &spec.output, self.job)?;
        if let Some(plan) = store.plan(self.job).await? {
            let inputs = store.splits(self.job).await?;
            let records = store.done(self.job).await?;
            if inputs.len() != plan.maps as usize {
                return Err(MapReduceError::internal(format!(
                    "{} of {} splits are on record",
                    inputs.len(),
                    plan.maps
                ))
                .into());
            }
            return Ok(Prepared { spec, plan, inputs, records, output, status });
        }
        if !self.may_plan {
            return Err(Failure::Unplanned);
        }
        let inputs = splits(&self.context.files, &spec).await?;
        self.reserve(&spec, &output).await?;
        let plan = self.write_plan(&spec, &inputs).await?;
        Ok(Prepared { spec, plan, inputs, records: Vec::new(), output, status })
    }

    async fn reserve(&self, spec: &JobSpec, output: &OutputFolder) -> Result<(), Failure> {
        if self.others.iter().any(|other| other.overlaps(output)) {
            let reason = format!("another job is writing to {}", spec.output);
            return Err(MapReduceError::Invalid { reason }.into());
        }
        if output.exists().await? {
            if !spec.overwrite {
                let path = spec.output.clone();
                return Err(MapReduceError::OutputExists { path }.into());
            }
            check_overwrite(spec, output)?;
            output.remove().await.map_err(MapReduceError::from)?;
        }
        Ok(output.create().await?)
    }

    async fn write_plan(&self, spec: &JobSpec, inputs: &[MapInput]) -> Result<PlanRecord, Failure> {
        let mut batch: Vec<Operation> = Vec::new();
        let mut bytes = 0;
        for (index, input) in (0_u32..).zip(inputs) {
            let operation = put_split(self.job, index, input);
            let Operation::Put(put) = &operation else { continue };
            if batch.len() == BATCH_SPLITS || bytes + put.value.len() > BATCH_BYTES {
                let full = std::mem::take(&mut batch);
                self.context.store.fenced(self.epoch, full).await?;
                bytes = 0;
            }
            bytes += put.value.len();
            batch.push(operation);
        }
        let default = (2 * self.nodes).clamp(1, REDUCES_DEFAULT_MAX);
        let default = u32::try_from(default).expect("it is clamped");
        let plan = PlanRecord {
            maps: u32::try_from(inputs.len()).expect("the number of splits is bounded"),
            reduces: spec.reducers.unwrap_or(default),
            input_bytes: inputs.iter().map(MapInput::bytes).sum(),
            started: wall_clock(),
        };
        batch.push(put_plan(self.job, &plan));
        self.context.store.fenced(self.epoch, batch).await?;
        Ok(plan)
    }
}

/// Refuses to overwrite what the job is to read.
pub(crate) fn check_overwrite(spec: &JobSpec, output: &OutputFolder) -> Result<(), MapReduceError> {
    for input in &spec.input {
        let path: onefold_files::FilePath = input.parse()?;
        let key = path.key().trim_end_matches(['*', '/']);
        if output.contains(path.bucket(), key) {
            return Err(MapReduceError::invalid(format!(
                "its input {input} lies in its output {}, which is to be overwritten",
                spec.output
            )));
        }
    }
    Ok(())
}
