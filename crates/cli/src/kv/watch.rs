//! `onefold kv watch`.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use onefold_kv::{Event, EventKind, Kv, WatchRequest};

use super::text::{Record, Text};
use crate::output::Format;

/// What is done at each event beside printing it.
pub enum Action {
    /// Nothing.
    None,
    /// A line for the shell.
    Shell(String),
    /// A program with its arguments.
    Program(Vec<String>),
}

/// Prints every event until Ctrl-C.
pub async fn run(
    kv: &Arc<dyn Kv>,
    request: WatchRequest,
    action: &Action,
    format: Format,
) -> anyhow::Result<()> {
    let mut watcher = kv.watch(request).await?;
    loop {
        let batch = watcher.next().await?;
        if let Some(compacted) = batch.compacted {
            bail!("the history before revision {compacted} is compacted; watch from there");
        }
        for event in batch.events {
            let (kind, record) = print(event, format)?;
            execute(action, kind, &record).await?;
        }
    }
}

/// What a kind of event is called.
pub fn name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Put => "PUT",
        EventKind::Delete => "DELETE",
    }
}

fn print(event: Event, format: Format) -> anyhow::Result<(&'static str, Record)> {
    let kind = name(event.kind);
    let previous = event.prev_kv.map(Record::from);
    let record = Record::from(event.kv);
    if format == Format::Json {
        let line = serde_json::json!({ "event": kind, "kv": record, "previous": previous });
        println!("{line}");
    } else {
        println!("{kind}");
        if let Some(previous) = previous {
            previous.print(false, false)?;
        }
        record.print(event.kind == EventKind::Delete, false)?;
    }
    std::io::stdout().flush()?;
    Ok((kind, record))
}

/// Runs the command and waits for it. The names of the variables with `ETCD_`, and that their values
/// are quoted, are those of etcd's tool, so that its users' scripts run unchanged.
async fn execute(action: &Action, kind: &str, record: &Record) -> anyhow::Result<()> {
    let (program, arguments) = match action {
        Action::None => return Ok(()),
        Action::Shell(line) => ("/bin/sh", vec!["-c".to_owned(), line.clone()]),
        Action::Program(words) => match words.split_first() {
            Some((program, arguments)) => (program.as_str(), arguments.to_vec()),
            None => return Ok(()),
        },
    };
    let quoted = |text: &Text| format!("{:?}", text.to_string());
    let revision = record.mod_revision.to_string();
    let status = tokio::process::Command::new(program)
        .args(&arguments)
        .env("ONEFOLD_WATCH_EVENT", kind)
        .env("ONEFOLD_WATCH_KEY", record.key.to_string())
        .env("ONEFOLD_WATCH_VALUE", record.value.to_string())
        .env("ONEFOLD_WATCH_REVISION", &revision)
        .env("ETCD_WATCH_REVISION", &revision)
        .env("ETCD_WATCH_EVENT_TYPE", format!("{kind:?}"))
        .env("ETCD_WATCH_KEY", quoted(&record.key))
        .env("ETCD_WATCH_VALUE", quoted(&record.value))
        .status()
        .await
        .with_context(|| format!("cannot run {program:?}"))?;
    ensure!(status.success(), "{program:?} ended with {status}");
    Ok(())
}
