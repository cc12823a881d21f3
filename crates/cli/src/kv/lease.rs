//! `onefold kv lease`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use clap::Subcommand;
use onefold_kv::{Kv, KvError, LeaseGrantRequest, LeaseId, LeaseTimeToLiveRequest};

use super::text::{Text, parse_lease};
use crate::output::{Format, print_json, print_rows};

/// What can be done with leases.
#[derive(Subcommand)]
pub enum LeaseCommand {
    /// Create a lease and print its id.
    Grant {
        /// Seconds that it lives without being kept alive.
        ttl: i64,
    },
    /// End a lease and delete its keys.
    Revoke {
        /// The lease.
        #[arg(value_parser = parse_lease)]
        id: LeaseId,
    },
    /// Keep a lease alive until Ctrl-C.
    KeepAlive {
        /// The lease.
        #[arg(value_parser = parse_lease)]
        id: LeaseId,
        /// Only once.
        #[arg(long)]
        once: bool,
    },
    /// Show the time that a lease has left, and its keys.
    Timetolive {
        /// The lease.
        #[arg(value_parser = parse_lease)]
        id: LeaseId,
    },
    /// List the leases.
    List,
}

/// Runs the verb.
pub async fn run(command: LeaseCommand, kv: &Arc<dyn Kv>, format: Format) -> anyhow::Result<()> {
    match command {
        LeaseCommand::Grant { ttl } => {
            let granted = grant(&**kv, ttl).await?;
            match format {
                Format::Json => print_json(&serde_json::json!({ "lease": granted.to_string() }))?,
                Format::Table => println!("{granted}"),
            }
        }
        LeaseCommand::Revoke { id } => {
            kv.lease_revoke(id).await?;
        }
        LeaseCommand::KeepAlive { id, once: true } => {
            refresh(&**kv, id).await?;
        }
        LeaseCommand::KeepAlive { id, once: false } => keep_alive(kv, id).await?,
        LeaseCommand::Timetolive { id } => time_to_live(&**kv, id, format).await?,
        LeaseCommand::List => {
            let leases = kv.leases().await?.leases;
            let leases: Vec<String> = leases.iter().map(LeaseId::to_string).collect();
            print_rows(format, &["lease"], &leases, |lease| vec![lease.clone()])?;
        }
    }
    Ok(())
}

async fn time_to_live(kv: &dyn Kv, id: LeaseId, format: Format) -> anyhow::Result<()> {
    let answer = kv.lease_time_to_live(LeaseTimeToLiveRequest { id, keys: true }).await?;
    if answer.ttl_seconds < 0 {
        bail!(KvError::LeaseNotFound { id });
    }
    let keys: Vec<Text> = answer.keys.into_iter().map(Text).collect();
    if format == Format::Json {
        return print_json(&serde_json::json!({
            "lease": id.to_string(),
            "granted_s": answer.granted_ttl_seconds,
            "left_s": answer.ttl_seconds,
            "keys": keys,
        }));
    }
    println!("lease {id}: {} s of {} s left", answer.ttl_seconds, answer.granted_ttl_seconds);
    keys.iter().for_each(|key| println!("{key}"));
    Ok(())
}

/// Creates a lease.
pub async fn grant(kv: &dyn Kv, ttl_seconds: i64) -> anyhow::Result<LeaseId> {
    let request = LeaseGrantRequest { id: LeaseId::NONE, ttl_seconds };
    Ok(kv.lease_grant(request).await?.id)
}

/// Gives a lease its full time again, and says how long that is.
async fn refresh(kv: &dyn Kv, id: LeaseId) -> anyhow::Result<Duration> {
    let ttl_seconds = kv.lease_keep_alive(id).await?.ttl_seconds;
    match u64::try_from(ttl_seconds) {
        Ok(seconds @ 1..) => Ok(Duration::from_secs(seconds)),
        _ => bail!(KvError::LeaseNotFound { id }),
    }
}

/// Keeps a lease alive for as long as the future is polled; returns when the lease is lost.
pub async fn keep_alive(kv: &Arc<dyn Kv>, id: LeaseId) -> anyhow::Result<()> {
    let mut ttl = refresh(&**kv, id).await?;
    let mut refreshed = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(ttl / 3).await;
        let asked = tokio::time::Instant::now();
        match refresh(&**kv, id).await {
            Ok(granted) => (ttl, refreshed) = (granted, asked),
            Err(error) if is_final(&error) || refreshed.elapsed() > ttl => return Err(error),
            Err(error) => tracing::debug!("keeping lease {id} alive: {error}"),
        }
    }
}

fn is_final(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(KvError::LeaseNotFound { .. }))
}
