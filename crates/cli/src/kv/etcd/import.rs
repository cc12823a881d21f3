//! Filling the keyspace with the content of an etcd's file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use onefold_etcd::snapshot::{Contents, EtcdFile, VersionRecord};
use onefold_kv::limits::{KEY_BYTES_MAX, REQUEST_BYTES_MAX};
use onefold_kv::{ImportBegin, ImportId, ImportProgress, ImportRecord, ImportStep, Kv, LeaseId};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::output::{Format, Progress, Unit, print_json};

/// Bytes of keys and values in one command of the log, unless a single record has more.
const BATCH_BYTES: usize = 512 << 10;

/// Records in one command.
const BATCH_RECORDS: usize = 4096;

/// Leases in one command.
const BATCH_LEASES: usize = 16_384;

/// Batches that are read ahead.
const BATCHES_AHEAD: usize = 2;

/// What a command needs beside a record's key and value.
const RECORD_OVERHEAD_BYTES: usize = 1024;

/// Entries that one step of an abort removes.
const ABORT_ENTRIES: u32 = 4096;

/// What was imported.
#[derive(Serialize)]
struct Report {
    revision: u64,
    compacted: u64,
    records: u64,
    leases: u64,
    skipped_users: u64,
    skipped_roles: u64,
}

/// Imports a file, or goes on with an import of it that was interrupted.
pub async fn run(kv: &Arc<dyn Kv>, path: &Path, format: Format) -> anyhow::Result<()> {
    let (file, contents) = examine(path.to_owned()).await?;
    check(&contents)?;
    let id = file.sha256();
    let (revision, compacted) = (contents.revision, contents.compacted);
    let begun = kv.import(ImportStep::Begin(ImportBegin { id, revision, compacted })).await?;
    let file = Arc::new(file);
    let done = import(kv, &file, id, begun.progress, &contents).await;
    done.context(
        "the import is not whole and the keyspace answers nothing yet: run the same command again \
         to go on, or give it up with `onefold kv import-etcd --abort`",
    )?;
    report(&contents, format)
}

/// Reads the whole file before anything of it is written anywhere.
pub async fn examine(path: PathBuf) -> anyhow::Result<(EtcdFile, Contents)> {
    spawn_blocking(move || {
        let file = EtcdFile::open(&path)?;
        let contents = file.examine()?;
        Ok((file, contents))
    })
    .await?
}

/// Refuses what the keyspace could not hold.
fn check(contents: &Contents) -> anyhow::Result<()> {
    let longest = contents.key_bytes_max;
    ensure!(
        longest <= KEY_BYTES_MAX,
        "the file has a key of {longest} bytes, and keys here have at most {KEY_BYTES_MAX}; delete \
         it from etcd and compact before saving"
    );
    let largest = contents.record_bytes_max;
    ensure!(
        largest + RECORD_OVERHEAD_BYTES <= REQUEST_BYTES_MAX,
        "the file has a record of {largest} bytes, and one here has at most {}; delete it from etcd \
         and compact before saving",
        REQUEST_BYTES_MAX - RECORD_OVERHEAD_BYTES
    );
    Ok(())
}

async fn import(
    kv: &Arc<dyn Kv>,
    file: &Arc<EtcdFile>,
    id: ImportId,
    mut at: ImportProgress,
    contents: &Contents,
) -> anyhow::Result<()> {
    if at.records == 0 {
        at.leases = import_leases(&**kv, file, id, at.leases).await?;
    }
    let (sender, mut batches) = mpsc::channel(BATCHES_AHEAD);
    let (reader, skip) = (Arc::clone(file), at.records);
    let reading = spawn_blocking(move || read_batches(&reader, skip, &sender));
    let mut progress = Progress::new("importing", Unit::Items, contents.records);
    progress.set(at.records, contents.records);
    while let Some(records) = batches.recv().await {
        let count = records.len() as u64;
        kv.import(ImportStep::Records { id, after: at.records, records }).await?;
        at.records += count;
        progress.add(count);
    }
    progress.finish();
    reading.await??;
    let expected = ImportProgress { leases: contents.leases, records: contents.records };
    kv.import(ImportStep::End { id, expected }).await?;
    Ok(())
}

async fn import_leases(
    kv: &dyn Kv,
    file: &EtcdFile,
    id: ImportId,
    mut after: u64,
) -> anyhow::Result<u64> {
    let leases = file.leases()?;
    let skip = usize::try_from(after)?.min(leases.len());
    for leases in leases[skip..].chunks(BATCH_LEASES) {
        let leases: Vec<(LeaseId, i64)> = leases.to_vec();
        let count = leases.len() as u64;
        kv.import(ImportStep::Leases { id, after, leases }).await?;
        after += count;
    }
    Ok(after)
}

/// Reads the records after the first ones, and sends them in batches until nobody wants them.
fn read_batches(
    file: &EtcdFile,
    skip: u64,
    sender: &mpsc::Sender<Vec<ImportRecord>>,
) -> anyhow::Result<()> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    for record in file.records()?.skip(usize::try_from(skip)?) {
        let VersionRecord { sub, kv, is_deletion } = record?;
        let more = kv.key.len() + kv.value.len();
        if !batch.is_empty() && (bytes + more > BATCH_BYTES || batch.len() >= BATCH_RECORDS) {
            bytes = 0;
            if sender.blocking_send(std::mem::take(&mut batch)).is_err() {
                return Ok(());
            }
        }
        bytes += more;
        batch.push(ImportRecord { sub, kv, is_deletion });
    }
    if !batch.is_empty() && sender.blocking_send(batch).is_err() {
        tracing::debug!("the last records were read and not wanted");
    }
    Ok(())
}

fn report(contents: &Contents, format: Format) -> anyhow::Result<()> {
    let report = Report {
        revision: contents.revision.get(),
        compacted: contents.compacted.get(),
        records: contents.records,
        leases: contents.leases,
        skipped_users: contents.users,
        skipped_roles: contents.roles,
    };
    if contents.users + contents.roles > 0 {
        eprintln!(
            "skipped: {} users and {} roles; create them anew, their passwords cannot be read",
            contents.users, contents.roles
        );
    }
    if format == Format::Json {
        return print_json(&report);
    }
    println!(
        "imported {} records and {} leases: the keyspace is at revision {}, readable from {} on",
        report.records, report.leases, report.revision, report.compacted
    );
    Ok(())
}

/// Removes what an import has written that did not come to its end.
pub async fn abort(kv: &Arc<dyn Kv>) -> anyhow::Result<()> {
    loop {
        let step = kv.import(ImportStep::Abort { entries_max: ABORT_ENTRIES }).await?;
        if step.is_open {
            println!("no import is under way");
            return Ok(());
        }
    }
}
