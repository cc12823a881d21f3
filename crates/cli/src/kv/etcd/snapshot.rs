//! `onefold kv snapshot`: files of the keyspace in etcd's form.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use clap::Subcommand;
use onefold_client::Client;
use onefold_etcd::proto::etcdserverpb::SnapshotRequest;
use onefold_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use onefold_kv::Kv;
use serde::Serialize;
use tokio::io::AsyncWriteExt;

use super::endpoint::{EtcdEndpoint, MESSAGE_BYTES_MAX, told};
use super::import;
use crate::output::{Format, Progress, Unit, bytes, print_json};

/// What can be done with snapshots.
#[derive(Subcommand)]
pub enum SnapshotCommand {
    /// Save the whole keyspace, with its history and leases, to a file that etcd can be restored
    /// from, too.
    Save {
        /// The file; it appears when it is whole.
        file: PathBuf,
        /// The user, where users are asked for.
        #[arg(long, value_name = "NAME:PASSWORD", env = "ONEFOLD_KV_USER", hide_env_values = true)]
        user: Option<String>,
    },
    /// Check a file and show what is in it.
    Status {
        /// The file, saved here or by etcdctl.
        file: PathBuf,
    },
    /// Fill an empty keyspace from a file, as `import-etcd` does.
    Restore {
        /// The file, saved here or by etcdctl.
        file: PathBuf,
    },
}

/// Runs the verb.
pub async fn run(
    command: SnapshotCommand,
    client: &Client,
    keyspace: Option<&str>,
    kv: &Arc<dyn Kv>,
    format: Format,
) -> anyhow::Result<()> {
    match command {
        SnapshotCommand::Save { file, user } => {
            let source = EtcdEndpoint::of_cluster(client, keyspace, user.as_deref()).await?;
            save(&source, &file).await?;
            status(file, format).await
        }
        SnapshotCommand::Status { file } => status(file, format).await,
        SnapshotCommand::Restore { file } => import::run(kv, &file, format).await,
    }
}

/// Saves a snapshot, which is checked before it gets its name.
async fn save(source: &EtcdEndpoint, path: &Path) -> anyhow::Result<()> {
    let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?;
    let partial = path.with_file_name(format!("{}.partial", name.to_string_lossy()));
    let outcome = async {
        receive(source, &partial).await?;
        let (file, _) = import::examine(partial.clone()).await?;
        ensure!(file.has_digest(), "the snapshot came without its digest; try again");
        tokio::fs::rename(&partial, path)
            .await
            .with_context(|| format!("cannot write {}", path.display()))
    };
    let outcome = outcome.await;
    if outcome.is_err() && tokio::fs::remove_file(&partial).await.is_err() {
        tracing::debug!("{} is left behind, or was not made", partial.display());
    }
    outcome
}

async fn receive(source: &EtcdEndpoint, path: &Path) -> anyhow::Result<()> {
    let cannot_write = || format!("cannot write {}", path.display());
    let mut client =
        MaintenanceClient::new(source.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let request = source.request(SnapshotRequest {});
    let mut pieces = client.snapshot(request).await.map_err(|status| told(&status))?.into_inner();
    let mut file = tokio::fs::File::create(path).await.with_context(cannot_write)?;
    let mut progress = Progress::new("saving", Unit::Bytes, 0);
    let mut received = 0;
    while let Some(piece) = pieces.message().await.map_err(|status| told(&status))? {
        file.write_all(&piece.blob).await.with_context(cannot_write)?;
        received += piece.blob.len() as u64;
        progress.set(received, received + piece.remaining_bytes);
    }
    progress.finish();
    file.sync_all().await.with_context(cannot_write)
}

/// What a file holds.
#[derive(Serialize)]
struct Status {
    revision: u64,
    compacted: u64,
    records: u64,
    leases: u64,
    users: u64,
    roles: u64,
    bytes: u64,
    sha256: String,
    has_digest: bool,
}

async fn status(path: PathBuf, format: Format) -> anyhow::Result<()> {
    let (file, contents) = import::examine(path).await?;
    let status = Status {
        revision: contents.revision.get(),
        compacted: contents.compacted.get(),
        records: contents.records,
        leases: contents.leases,
        users: contents.users,
        roles: contents.roles,
        bytes: file.bytes(),
        sha256: file.sha256().iter().map(|byte| format!("{byte:02x}")).collect(),
        has_digest: file.has_digest(),
    };
    if format == Format::Json {
        return print_json(&status);
    }
    println!("revision   {}, readable from {} on", status.revision, status.compacted);
    println!("records    {}", status.records);
    println!("leases     {}", status.leases);
    println!("users      {} with {} roles", status.users, status.roles);
    println!("size       {}", bytes(status.bytes));
    let checked = if status.has_digest { "as it says" } else { "not in the file" };
    println!("sha256     {} ({checked})", status.sha256);
    Ok(())
}
