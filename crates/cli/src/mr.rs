//! `onefold mr`: MapReduce jobs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use clap::{Args, Subcommand};
use onefold_mapreduce::{
    JobId, JobSpec, JobStatus, JobSummary, LocalOptions, LogRequest, MapReduce, Phase, Program,
    ShippedFile, TaskName,
};

use crate::Global;
use crate::output::{Format, Progress, Unit, bytes, print_json, print_rows, time};

/// What can be done with jobs.
#[derive(Subcommand)]
pub enum MrCommand {
    /// Run a job and wait for it.
    Run(Box<RunArgs>),
    /// Show how a job stands.
    Status {
        /// As `onefold mr run` printed it.
        job: JobId,
    },
    /// List jobs, the latest first.
    List {
        /// How many at most.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Cancel a job.
    Cancel {
        /// As `onefold mr run` printed it.
        job: JobId,
    },
    /// Print what a job's commands wrote to standard error.
    Logs {
        /// As `onefold mr run` printed it.
        job: JobId,
        /// One task only, as m-00003 or r-00000.
        #[arg(long)]
        task: Option<TaskName>,
    },
}

/// Run a job: a built-in one (`wordcount`, `grep`), or commands that read and write lines.
///
///   onefold mr run wordcount --input /texts/in/ --output /texts/counts
///   onefold mr run --mapper ./map.py --reducer ./reduce.py --file map.py --file reduce.py \
///       --input /logs/ --output /results/1
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct RunArgs {
    /// The built-in job (wordcount or grep), then inputs and the output unless --input and
    /// --output name them.
    #[arg(value_name = "JOB INPUT… OUTPUT")]
    words: Vec<String>,

    /// A file, a folder with everything below it, or everything that starts so (ending in *).
    #[arg(short, long, env = "ONEFOLD_INPUT", value_name = "PATH")]
    input: Vec<String>,

    /// For grep: a regular expression.
    #[arg(short = 'e', long, env = "ONEFOLD_PATTERN")]
    pattern: Option<String>,

    /// A command that reads lines and writes lines KEY<TAB>VALUE.
    #[arg(long, env = "ONEFOLD_MAPPER", value_name = "COMMAND")]
    mapper: Option<String>,

    /// A command that reads a map task's sorted lines and writes fewer, in the same order.
    #[arg(long, env = "ONEFOLD_COMBINER", value_name = "COMMAND", requires = "mapper")]
    combiner: Option<String>,

    /// A command that reads sorted lines KEY<TAB>VALUE and writes the output.
    #[arg(long, env = "ONEFOLD_REDUCER", value_name = "COMMAND", requires = "mapper")]
    reducer: Option<String>,

    /// How many reduce tasks, and thereby output files; 0 writes the map output unsorted
    /// [default: two for each node].
    #[arg(long, env = "ONEFOLD_REDUCERS", value_name = "N")]
    reducers: Option<u32>,

    /// Replace the output folder if it exists.
    #[arg(long, env = "ONEFOLD_OVERWRITE")]
    overwrite: bool,

    /// A local file to send along; the commands find it in their folder.
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,

    /// A variable for the commands' environment.
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,

    /// A name for listings.
    #[arg(long, env = "ONEFOLD_JOB_NAME")]
    name: Option<String>,

    /// Give up an attempt that makes no progress for so long.
    #[arg(long, env = "ONEFOLD_TASK_TIMEOUT", value_name = "SECONDS")]
    task_timeout: Option<u64>,

    /// Submit the job and don't wait for it.
    #[arg(long, env = "ONEFOLD_DETACH")]
    detach: bool,

    /// Run in this process, on files of this machine, without a cluster.
    #[arg(long, env = "ONEFOLD_LOCAL", conflicts_with = "detach")]
    local: bool,
}

/// Runs the verb.
pub async fn run(command: MrCommand, global: &Global) -> anyhow::Result<ExitCode> {
    let format = global.format();
    match command {
        MrCommand::Run(arguments) => return run_job(*arguments, global).await,
        MrCommand::Status { job } => {
            let status = global.client()?.mapreduce().status(job).await?;
            show(&status, format)?;
        }
        MrCommand::List { limit } => {
            let jobs = list(&*global.client()?.mapreduce(), limit).await?;
            print_rows(
                format,
                &["job", "name", "state", "maps", "reduces", "submitted"],
                &jobs,
                row,
            )?;
        }
        MrCommand::Cancel { job } => global.client()?.mapreduce().cancel(job).await?,
        MrCommand::Logs { job, task } => {
            let logs = global.client()?.mapreduce().logs(LogRequest { job, task }).await?;
            if format == Format::Json {
                print_json(&logs)?;
            } else {
                for log in logs {
                    println!("== {} attempt {} on node {}", log.task, log.attempt, log.node);
                    print!("{}", log.text);
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(mapreduce: &dyn MapReduce, limit: usize) -> anyhow::Result<Vec<JobSummary>> {
    let mut jobs = Vec::new();
    let mut before = None;
    while jobs.len() < limit {
        let page = mapreduce.list(before).await?;
        jobs.extend(page.jobs);
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    jobs.truncate(limit);
    Ok(jobs)
}

fn row(job: &JobSummary) -> Vec<String> {
    vec![
        job.job.to_string(),
        job.name.clone(),
        job.phase.to_string(),
        format!("{}/{}", job.maps.done, job.maps.total),
        format!("{}/{}", job.reduces.done, job.reduces.total),
        time(job.submitted.get()),
    ]
}

async fn run_job(arguments: RunArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let (local, detach) = (arguments.local, arguments.detach);
    let spec = spec(arguments, global.output_path())?;
    if local {
        return conclude(&run_local(spec).await?, global.format());
    }
    let mapreduce = global.client()?.mapreduce();
    let job = mapreduce.submit(spec).await?;
    if detach {
        match global.format() {
            Format::Json => print_json(&job)?,
            Format::Table => println!("{job}"),
        }
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{job} submitted");
    let mut progress = Progress::new("preparing", Unit::Items, 100);
    let status =
        onefold_mapreduce::wait(&*mapreduce, job, |status| show_progress(&mut progress, status))
            .await?;
    progress.finish();
    conclude(&status, global.format())
}

/// Runs a job on this machine's files. Ctrl-C gives it up and leaves no output.
async fn run_local(spec: JobSpec) -> anyhow::Result<JobStatus> {
    let options = LocalOptions::default();
    let cancel = Arc::clone(&options.cancel);
    let mut progress = Progress::new("preparing", Unit::Items, 100);
    let mut job = tokio::task::spawn_blocking(move || {
        let status = onefold_mapreduce::run_local(spec, &options, |status| {
            show_progress(&mut progress, status);
        });
        progress.finish();
        status
    });
    tokio::select! {
        status = &mut job => return Ok(status??),
        _ = tokio::signal::ctrl_c() => cancel.store(true, Ordering::Relaxed),
    }
    Ok(job.await??)
}

fn show_progress(progress: &mut Progress, status: &JobStatus) {
    progress.rename(&status.summary.phase.to_string());
    progress.set(u64::from(status.permille() / 10), 100);
}

fn conclude(status: &JobStatus, format: Format) -> anyhow::Result<ExitCode> {
    if status.summary.phase == Phase::Succeeded {
        show(status, format)?;
        return Ok(ExitCode::SUCCESS);
    }
    if format == Format::Json {
        print_json(status)?;
    }
    let reason = status.error.as_deref().unwrap_or("it was cancelled");
    bail!("{} {}: {reason}", status.summary.job, status.summary.phase);
}

fn show(status: &JobStatus, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        return print_json(status);
    }
    let summary = &status.summary;
    println!("job        {} ({})", summary.job, summary.name);
    println!("state      {} ({} %)", summary.phase, status.permille() / 10);
    println!("maps       {} of {}", summary.maps.done, summary.maps.total);
    println!("reduces    {} of {}", summary.reduces.done, summary.reduces.total);
    println!("input      {}", bytes(status.input_bytes));
    println!("output     {}", status.output);
    if let (Some(started), Some(ended)) = (summary.started, summary.ended) {
        let took_ms = ended.get().saturating_sub(started.get());
        println!("took       {}.{:03} s", took_ms / 1000, took_ms % 1000);
    }
    println!("failures   {} attempts", status.failed_attempts);
    for failure in &status.failures {
        println!("           {} on node {}: {}", failure.attempt, failure.node, failure.reason);
    }
    if let Some(error) = &status.error {
        println!("error      {error}");
    }
    for (group, counters) in &status.counters.0 {
        for (name, value) in counters {
            println!("counter    {group}.{name} = {value}");
        }
    }
    Ok(())
}

fn spec(arguments: RunArgs, output: Option<&str>) -> anyhow::Result<JobSpec> {
    let mut words = arguments.words;
    let program = match arguments.mapper {
        Some(mapper) => {
            Program::Streaming { mapper, combiner: arguments.combiner, reducer: arguments.reducer }
        }
        None => {
            ensure!(!words.is_empty(), "which job? Give wordcount, grep or --mapper COMMAND");
            builtin(&words.remove(0), arguments.pattern)?
        }
    };
    let mut input = arguments.input;
    let output = match output {
        Some(output) => output.to_owned(),
        None => words.pop().context("where shall the output go? Give --output PATH")?,
    };
    input.extend(words);
    ensure!(!input.is_empty(), "what shall be read? Give --input PATH");
    let mut spec = JobSpec::new(program, input, output);
    spec.reducers = arguments.reducers;
    spec.overwrite = arguments.overwrite;
    if let Some(name) = arguments.name {
        spec.name = name;
    }
    if let Some(seconds) = arguments.task_timeout {
        spec.task_timeout = Duration::from_secs(seconds);
    }
    spec.environment = environment(&arguments.env)?;
    spec.files = arguments.file.iter().map(shipped).collect::<anyhow::Result<_>>()?;
    Ok(spec)
}

fn builtin(job: &str, pattern: Option<String>) -> anyhow::Result<Program> {
    match job {
        "wordcount" => Ok(Program::WordCount),
        "grep" => {
            let pattern = pattern.context("grep needs a pattern; give --pattern REGEX")?;
            Ok(Program::Grep { pattern })
        }
        other => bail!(
            "there is no built-in job {other:?}; there are wordcount and grep, and commands of \
             your own with --mapper"
        ),
    }
}

fn environment(pairs: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let parse = |pair: &String| {
        let (name, value) = pair
            .split_once('=')
            .with_context(|| format!("{pair:?} sets no variable; write NAME=VALUE"))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    pairs.iter().map(parse).collect()
}

fn shipped(path: &PathBuf) -> anyhow::Result<ShippedFile> {
    let content = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{} has no usable name", path.display()))?;
    Ok(ShippedFile { name: name.to_owned(), content: Bytes::from(content) })
}
