//! `onefold kv mirror`: keeps keys the same as those of a running etcd.
//!
//! ```text
//! copy     every key at one revision of the source, page by page, written where it differs
//! follow   the source's events from there on, each of its revisions in one transaction
//! cursor   how far that is: a key of the target, written together with what it speaks of
//! ```
//!
//! A mirror that is started again goes on where the cursor is. When the source has compacted what
//! comes next, it copies again, which writes and deletes only what differs.

mod copy;
mod cursor;
mod follow;
mod source;
mod target;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use onefold_kv::Kv;

use self::source::{Source, SourceError};
use self::target::Target;

/// Rest before the source is asked again after it failed.
const RETRY: Duration = Duration::from_secs(1);

/// What is mirrored.
#[derive(Args)]
pub struct MirrorArgs {
    /// The etcd's client addresses, separated by commas.
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', required = true)]
    from: Vec<String>,
    /// Only keys that begin so.
    #[arg(long, default_value = "")]
    prefix: String,
    /// What stands in the place of the prefix in the target; the same prefix unless given.
    #[arg(long)]
    dest_prefix: Option<String>,
    /// Copy once and end.
    #[arg(long)]
    once: bool,
    /// The key of the target that holds how far the mirror is.
    #[arg(long, value_name = "KEY")]
    cursor_key: Option<String>,
    /// The user at the source, where users are asked for.
    #[arg(long, value_name = "NAME:PASSWORD", env = "ONEFOLD_ETCD_USER", hide_env_values = true)]
    user: Option<String>,
}

/// Mirrors until Ctrl-C, or once.
pub async fn run(kv: &Arc<dyn Kv>, arguments: MirrorArgs) -> anyhow::Result<()> {
    let prefix = Bytes::from(arguments.prefix.clone());
    let dest_prefix = arguments.dest_prefix.clone().unwrap_or(arguments.prefix.clone());
    let cursor_key =
        arguments.cursor_key.clone().unwrap_or_else(|| format!("onefold.mirror/{dest_prefix}"));
    let mut target =
        Target::open(Arc::clone(kv), prefix.clone(), dest_prefix.into(), cursor_key.into()).await?;
    tokio::select! {
        outcome = mirror(&arguments, &prefix, &mut target) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn mirror(arguments: &MirrorArgs, prefix: &Bytes, target: &mut Target) -> anyhow::Result<()> {
    let mut has_worked = false;
    loop {
        let outcome = pass(arguments, prefix, target, &mut has_worked).await;
        match outcome {
            Ok(()) => return Ok(()),
            // What never worked is more likely a wrong address than a source that is away.
            Err(error) if has_worked && error.downcast_ref::<SourceError>().is_some() => {
                eprintln!("the source does not answer, trying again: {error:#}");
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Connects, copies if need be, and follows until something fails.
async fn pass(
    arguments: &MirrorArgs,
    prefix: &Bytes,
    target: &mut Target,
    has_worked: &mut bool,
) -> anyhow::Result<()> {
    let source =
        Source::connect(&arguments.from, arguments.user.as_deref(), prefix.clone()).await?;
    target.expect_source(source.cluster_id())?;
    loop {
        let resumed = target.followed_to().filter(|_| !arguments.once);
        let revision = match resumed {
            Some(revision) => revision,
            None => {
                let copied = copy::run(&source, target).await?;
                println!(
                    "copied {} keys at revision {}: {} written, {} deleted",
                    copied.keys, copied.revision, copied.written, copied.deleted
                );
                copied.revision
            }
        };
        *has_worked = true;
        if arguments.once {
            return Ok(());
        }
        let compacted = follow::run(&source, target, revision).await?;
        eprintln!("the source has compacted to revision {compacted}: copying what differs");
        target.lose_track().await?;
    }
}
