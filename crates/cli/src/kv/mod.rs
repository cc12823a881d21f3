//! `onefold kv`: the key-value store.

mod coordinate;
pub mod etcd;
mod history;
mod keyspace;
mod lease;
mod limits;
mod mirror;
mod nodes;
mod read;
mod script;
mod text;
mod watch;

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::{Args, Subcommand};
use onefold_client::Client;
use onefold_kv::{
    CompactRequest, DeleteRangeRequest, Kv, LeaseId, PutRequest, RangeRequest, WatchRequest,
};
use onefold_types::Revision;
use serde::Serialize;

use crate::output::{Format, print_json};
use text::Record;

/// Which keyspace, and what to do in it.
#[derive(Args)]
pub struct KvArgs {
    /// The keyspace; without it, the one that every cluster has.
    #[arg(long, global = true, env = "ONEFOLD_KEYSPACE", value_name = "NAME")]
    keyspace: Option<String>,
    #[command(subcommand)]
    command: KvCommand,
}

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
        /// Keep the key's value, and change its lease only.
        #[arg(long, conflicts_with = "value")]
        ignore_value: bool,
        /// Keep the key's lease.
        #[arg(long, conflicts_with = "lease")]
        ignore_lease: bool,
    },
    /// Read keys: each key on a line, its value on the next.
    Get(read::GetArgs),
    /// Delete keys and print how many there were.
    Del {
        #[command(flatten)]
        span: Span,
        /// Print what was deleted.
        #[arg(long)]
        prev_kv: bool,
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
        /// Run a line of shell at each event, with ONEFOLD_WATCH_EVENT, ONEFOLD_WATCH_KEY,
        /// ONEFOLD_WATCH_VALUE and ONEFOLD_WATCH_REVISION in its environment, and with the
        /// ETCD_WATCH_… variables of etcd's tool.
        #[arg(long, value_name = "COMMAND")]
        exec: Option<String>,
        /// The same, as a program with its arguments behind `--`.
        #[arg(last = true, conflicts_with = "exec")]
        command: Vec<String>,
    },
    /// Run a transaction read from standard input or a file: lines of conditions, an empty line, operations
    /// if they hold, an empty line, operations if not.
    ///
    /// A condition is value("k") = "v", or mod, create, ver, lease compared by =, !=, < or > with a
    /// number. An operation is put KEY VALUE, get KEY [--prefix] or del KEY [--prefix].
    Txn {
        /// Read it from this file.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Give up the history before a revision.
    Compact {
        /// The oldest revision that stays readable.
        revision: u64,
        /// Wait until the history is removed from the disk.
        #[arg(long)]
        physical: bool,
    },
    /// Grant, keep and revoke leases.
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// Create, list and delete keyspaces: independent stores in one cluster.
    #[command(subcommand, name = "keyspace")]
    Keyspaces(keyspace::KeyspaceCommand),
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
        /// Print who is elected, now and from now on.
        #[arg(long, short, conflicts_with = "value")]
        listen: bool,
        /// Seconds after which a dead leader is replaced.
        #[arg(long, default_value_t = 10)]
        ttl: i64,
    },
    /// Show each node's replica of the store.
    Status,
    /// Read through each node, and fail unless all answer.
    Health,
    /// Print every change as a line of JSON, in order, up to now.
    History {
        /// Only keys that begin so.
        #[arg(long, default_value = "")]
        prefix: String,
        /// The first revision; where the readable history begins unless given.
        #[arg(long, default_value_t = 0)]
        from_rev: u64,
        /// The last revision.
        #[arg(long)]
        to_rev: Option<u64>,
    },
    /// Save, check and restore files of the whole keyspace.
    #[command(subcommand)]
    Snapshot(etcd::snapshot::SnapshotCommand),
    /// Fill the empty keyspace from a file of `etcdctl snapshot save`, or a stopped member's db file,
    /// with all revisions, versions and leases. An import that was interrupted goes on.
    ImportEtcd {
        /// The file.
        #[arg(required_unless_present = "abort")]
        file: Option<PathBuf>,
        /// Remove what an import has written that did not come to its end.
        #[arg(long, conflicts_with = "file")]
        abort: bool,
    },
    /// Keep keys the same as those of a running etcd, until Ctrl-C.
    Mirror(mirror::MirrorArgs),
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
pub async fn run(arguments: KvArgs, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    let KvArgs { keyspace, command } = arguments;
    let kv = match (&keyspace, &command) {
        (Some(name), _) if !matches!(command, KvCommand::Keyspaces(_)) => {
            client.keyspace(name).await?
        }
        _ => client.kv(),
    };
    match command {
        KvCommand::Keyspaces(command) => keyspace::run(command, client, format).await?,
        KvCommand::Put { key, value, lease, prev_kv, ignore_value, ignore_lease } => {
            let value = if ignore_value { Bytes::new() } else { read_value(value)? };
            let request = PutRequest {
                lease: lease.unwrap_or_default(),
                prev_kv,
                ignore_value,
                ignore_lease,
                ..PutRequest::new(key, value)
            };
            put(&*kv, request, format).await?;
        }
        KvCommand::Get(arguments) => read::run(&*kv, arguments, format).await?,
        KvCommand::Del { span, prev_kv } => {
            let (key, range_end) = span.parts()?;
            delete(&*kv, DeleteRangeRequest { key, range_end, prev_kv }, format).await?;
        }
        KvCommand::Watch { span, rev, prev_kv, exec, command } => {
            let (key, range_end) = span.parts()?;
            let from_revision = Revision(rev);
            let request =
                WatchRequest { key, range_end, from_revision, prev_kv, ..WatchRequest::default() };
            let action = match exec {
                Some(line) => watch::Action::Shell(line),
                None if command.is_empty() => watch::Action::None,
                None => watch::Action::Program(command),
            };
            watch::run(&kv, request, &action, format).await?;
        }
        KvCommand::Txn { file } => {
            let text = script::read(file.as_deref())?;
            let answer = kv.txn(script::parse(&text)?).await?;
            script::print(&answer, format)?;
        }
        KvCommand::Compact { revision, physical } => {
            let revision = Revision(revision);
            kv.compact(CompactRequest { revision, physical }).await?;
            match format {
                Format::Json => print_json(&serde_json::json!({ "compacted": revision }))?,
                Format::Table => println!("compacted revision {revision}"),
            }
        }
        KvCommand::Lease(command) => lease::run(command, &kv, format).await?,
        KvCommand::Lock { name, ttl, command } => {
            return coordinate::lock(&kv, &name, ttl, &command).await;
        }
        KvCommand::Elect { name, value: Some(value), ttl, .. } => {
            coordinate::campaign(&kv, &name, &value, ttl).await?;
        }
        KvCommand::Elect { name, value: None, .. } => coordinate::observe(&kv, &name).await?,
        KvCommand::Status => nodes::status(client, format).await?,
        KvCommand::Health => return nodes::health(client, format).await,
        KvCommand::History { prefix, from_rev, to_rev } => {
            let from_revision = Revision(from_rev);
            let watch = WatchRequest { from_revision, ..WatchRequest::prefix(prefix) };
            history::run(&kv, watch, to_rev.map(Revision)).await?;
        }
        KvCommand::Snapshot(command) => {
            etcd::snapshot::run(command, client, keyspace.as_deref(), &kv, format).await?;
        }
        KvCommand::ImportEtcd { file: Some(file), .. } => {
            etcd::import::run(&kv, &file, format).await?;
        }
        KvCommand::ImportEtcd { file: None, .. } => etcd::import::abort(&kv).await?,
        KvCommand::Mirror(arguments) => mirror::run(&kv, arguments).await?,
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

async fn delete(kv: &dyn Kv, request: DeleteRangeRequest, format: Format) -> anyhow::Result<()> {
    let wants_previous = request.prev_kv;
    let answer = kv.delete_range(request).await?;
    let previous: Vec<Record> = answer.prev_kvs.into_iter().map(Record::from).collect();
    match format {
        Format::Json if wants_previous => {
            print_json(&serde_json::json!({ "deleted": answer.deleted, "previous": previous }))?
        }
        Format::Json => print_json(&serde_json::json!({ "deleted": answer.deleted }))?,
        Format::Table => {
            println!("{}", answer.deleted);
            previous.iter().try_for_each(|record| record.print(false, false))?;
        }
    }
    Ok(())
}
