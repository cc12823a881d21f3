//! `onefold kv`: the key-value store.

mod coordinate;
mod lease;
mod script;
mod text;

use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use clap::{Args, Subcommand};
use onefold_client::Client;
use onefold_kv::{
    DeleteRangeRequest, EventKind, Kv, LeaseId, PutRequest, RangeRequest, SortOrder, WatchRequest,
};
use onefold_types::Revision;
use serde::Serialize;

use crate::output::{Format, print_json};
use text::Record;

/// What can be done with keys.
#[derive(Subcommand)]
pub enum KvCommand {
    /// Write a key.
    Put {
        /// The key.
        key: String,
        /// The value; - or nothing reads it from standard input.
        #[arg(allow_hyphen_values = true)]
        value: Option<String>,
        /// Attach the key to a lease.
        #[arg(long, value_name = "ID", value_parser = text::parse_lease)]
        lease: Option<LeaseId>,
        /// Print the version before.
        #[arg(long)]
        prev_kv: bool,
    },
    /// Read keys: each key on a line, its value on the next.
    Get {
        #[command(flatten)]
        span: Span,
        /// Print values only.
        #[arg(long)]
        print_value_only: bool,
        /// Print keys only.
        #[arg(long, conflicts_with = "print_value_only")]
        keys_only: bool,
        /// Print only how many keys there are.
        #[arg(long)]
        count_only: bool,
        /// At most so many keys; 0 for all.
        #[arg(long, default_value_t = 0)]
        limit: u64,
        /// As they were at this revision.
        #[arg(long, default_value_t = 0)]
        rev: u64,
        /// Largest key first.
        #[arg(long)]
        descending: bool,
        /// Answer from the nearest replica without asking whether it is the latest.
        #[arg(long)]
        serializable: bool,
    },
    /// Delete keys and print how many there were.
    Del {
        #[command(flatten)]
        span: Span,
    },
    /// Print every change, until Ctrl-C.
    Watch {
        #[command(flatten)]
        span: Span,
        /// From this revision on, which may be past.
        #[arg(long, default_value_t = 0)]
        rev: u64,
        /// Print the version before as well.
        #[arg(long)]
        prev_kv: bool,
        /// Run a command at each event, with ONEFOLD_WATCH_EVENT, ONEFOLD_WATCH_KEY,
        /// ONEFOLD_WATCH_VALUE and ONEFOLD_WATCH_REVISION in its environment.
        #[arg(long, value_name = "COMMAND")]
        exec: Option<String>,
    },
    /// Run a transaction read from standard input: lines of conditions, an empty line, operations
    /// if they hold, an empty line, operations if not.
    ///
    /// A condition is value("k") = "v", or mod, create, ver, lease compared by =, !=, < or > with a
    /// number. An operation is put KEY VALUE, get KEY [--prefix] or del KEY [--prefix].
    Txn,
    /// Grant, keep and revoke leases.
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// Hold a lock until Ctrl-C, or while a command runs.
    Lock {
        /// The lock's name.
        name: String,
        /// Seconds after which the lock of a dead holder is free.
        #[arg(long, default_value_t = 10)]
        ttl: i64,
        /// Run this while the lock is held, and exit with its code.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Take part in an election until Ctrl-C, or watch one.
    Elect {
        /// The election's name.
        name: String,
        /// What to proclaim when elected; without it, print who is elected.
        value: Option<String>,
        /// Seconds after which a dead leader is replaced.
        #[arg(long, default_value_t = 10)]
        ttl: i64,
    },
}

/// Which keys are meant.
#[derive(Args)]
pub struct Span {
    /// The key.
    #[arg(default_value = "")]
    key: String,
    /// The first key beyond, for a range.
    range_end: Option<String>,
    /// Every key that begins so.
    #[arg(long, conflicts_with = "range_end")]
    prefix: bool,
    /// Every key from this one on.
    #[arg(long, conflicts_with_all = ["range_end", "prefix"])]
    from_key: bool,
}

impl Span {
    fn parts(&self) -> anyhow::Result<(Bytes, Bytes)> {
        let key = Bytes::from(self.key.clone());
        if self.prefix {
            let request = RangeRequest::prefix(key);
            return Ok((request.key, request.range_end));
        }
        if self.from_key {
            let key = if key.is_empty() { Bytes::from_static(b"\0") } else { key };
            return Ok((key, Bytes::from_static(b"\0")));
        }
        ensure!(!key.is_empty(), "which key? Give a key, or --prefix for all of them");
        Ok((key, self.range_end.clone().unwrap_or_default().into()))
    }

    fn is_one(&self) -> bool {
        !self.prefix && !self.from_key && self.range_end.is_none()
    }
}

/// Runs the verb.
pub async fn run(command: KvCommand, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    let kv = client.kv();
    match command {
        KvCommand::Put { key, value, lease, prev_kv } => {
            let request = PutRequest {
                lease: lease.unwrap_or_default(),
                prev_kv,
                ..PutRequest::new(key, read_value(value)?)
            };
            put(&*kv, request, format).await?;
        }
        KvCommand::Get { .. } => get(&*kv, command, format).await?,
        KvCommand::Del { span } => {
            let (key, range_end) = span.parts()?;
            let request = DeleteRangeRequest { key, range_end, prev_kv: false };
            let deleted = kv.delete_range(request).await?.deleted;
            match format {
                Format::Json => print_json(&serde_json::json!({ "deleted": deleted }))?,
                Format::Table => println!("{deleted}"),
            }
        }
        KvCommand::Watch { span, rev, prev_kv, exec } => {
            let (key, range_end) = span.parts()?;
            let from_revision = Revision(rev);
            let request =
                WatchRequest { key, range_end, from_revision, prev_kv, ..WatchRequest::default() };
            watch(&kv, request, exec.as_deref(), format).await?;
        }
        KvCommand::Txn => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            let answer = kv.txn(script::parse(&text)?).await?;
            script::print(&answer, format)?;
        }
        KvCommand::Lease(command) => lease::run(command, &kv, format).await?,
        KvCommand::Lock { name, ttl, command } => {
            return coordinate::lock(&kv, &name, ttl, &command).await;
        }
        KvCommand::Elect { name, value: Some(value), ttl } => {
            coordinate::campaign(&kv, &name, &value, ttl).await?;
        }
        KvCommand::Elect { name, value: None, .. } => coordinate::observe(&kv, &name).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn read_value(value: Option<String>) -> anyhow::Result<Bytes> {
    match value {
        Some(value) if value != "-" => Ok(value.into()),
        _ => {
            let mut read = Vec::new();
            std::io::stdin().read_to_end(&mut read).context("cannot read standard input")?;
            Ok(read.into())
        }
    }
}

async fn put(kv: &dyn Kv, request: PutRequest, format: Format) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Done {
        revision: Revision,
        previous: Option<Record>,
    }
    let answer = kv.put(request).await?;
    let done =
        Done { revision: answer.header.revision, previous: answer.prev_kv.map(Record::from) };
    match format {
        Format::Json => print_json(&done)?,
        Format::Table => {
            println!("OK");
            if let Some(previous) = &done.previous {
                previous.print(false, false)?;
            }
        }
    }
    Ok(())
}

async fn get(kv: &dyn Kv, command: KvCommand, format: Format) -> anyhow::Result<()> {
    let KvCommand::Get {
        span,
        print_value_only,
        keys_only,
        count_only,
        limit,
        rev,
        descending,
        serializable,
    } = command
    else {
        bail!("not a get");
    };
    let (key, range_end) = span.parts()?;
    let answer = kv
        .range(RangeRequest {
            key,
            range_end,
            limit,
            revision: Revision(rev),
            sort_order: if descending { SortOrder::Descend } else { SortOrder::None },
            serializable,
            keys_only,
            count_only,
            ..RangeRequest::default()
        })
        .await?;
    if count_only {
        match format {
            Format::Json => print_json(&serde_json::json!({ "count": answer.count }))?,
            Format::Table => println!("{}", answer.count),
        }
        return Ok(());
    }
    if span.is_one() && answer.kvs.is_empty() {
        bail!("there is no key {:?}", span.key);
    }
    let records: Vec<Record> = answer.kvs.into_iter().map(Record::from).collect();
    if format == Format::Json {
        return print_json(&records);
    }
    for record in &records {
        record.print(keys_only, print_value_only)?;
    }
    Ok(())
}

async fn watch(
    kv: &Arc<dyn Kv>,
    request: WatchRequest,
    exec: Option<&str>,
    format: Format,
) -> anyhow::Result<()> {
    let mut watcher = kv.watch(request).await?;
    loop {
        let batch = watcher.next().await?;
        if let Some(compacted) = batch.compacted {
            bail!("the history before revision {compacted} is compacted; watch from there");
        }
        for event in batch.events {
            let kind = match event.kind {
                EventKind::Put => "PUT",
                EventKind::Delete => "DELETE",
            };
            let record = Record::from(event.kv);
            if format == Format::Json {
                let line = serde_json::json!({
                    "event": kind,
                    "kv": record,
                    "previous": event.prev_kv.map(Record::from),
                });
                println!("{line}");
            } else {
                println!("{kind}");
                if let Some(previous) = event.prev_kv.map(Record::from) {
                    previous.print(false, false)?;
                }
                record.print(event.kind == EventKind::Delete, false)?;
            }
            std::io::stdout().flush()?;
            if let Some(command) = exec {
                execute(command, kind, &record).await?;
            }
        }
    }
}

async fn execute(command: &str, kind: &str, record: &Record) -> anyhow::Result<()> {
    let status = tokio::process::Command::new("/bin/sh")
        .args(["-c", command])
        .env("ONEFOLD_WATCH_EVENT", kind)
        .env("ONEFOLD_WATCH_KEY", record.key.to_string())
        .env("ONEFOLD_WATCH_VALUE", record.value.to_string())
        .env("ONEFOLD_WATCH_REVISION", record.mod_revision.to_string())
        .status()
        .await
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
