//! `onefold s3`: access keys of the S3 API.

use anyhow::bail;
use clap::Subcommand;
use onefold_admin::NewS3Key;
use onefold_client::Client;

use crate::output::{Format, print_json, print_rows};

/// What can be managed.
#[derive(Subcommand)]
pub enum S3Command {
    /// Access keys.
    #[command(subcommand)]
    Key(KeyCommand),
}

/// What can be done with access keys.
#[derive(Subcommand)]
pub enum KeyCommand {
    /// Create a key, or replace the one of that name. Its secret is shown only now.
    Create {
        /// The access key; drawn at random without it.
        #[arg(long, env = "ONEFOLD_ACCESS_KEY")]
        access_key: Option<String>,
        /// The secret; drawn at random without it.
        #[arg(long, env = "ONEFOLD_SECRET_KEY")]
        secret_key: Option<String>,
        /// Valid for connections from the node's own machine only.
        #[arg(long, env = "ONEFOLD_LOOPBACK_ONLY")]
        loopback_only: bool,
    },
    /// List the keys, without their secrets.
    List,
    /// Remove a key.
    Remove {
        /// The access key.
        access_key: String,
    },
}

/// Runs the verb.
pub async fn run(command: S3Command, client: &Client, format: Format) -> anyhow::Result<()> {
    let S3Command::Key(command) = command;
    match command {
        KeyCommand::Create { access_key, secret_key, loopback_only } => {
            let key =
                client.create_s3_key(NewS3Key { access_key, secret_key, loopback_only }).await?;
            match format {
                Format::Json => print_json(&key)?,
                Format::Table => {
                    println!("access key  {}\nsecret key  {}", key.access_key, key.secret_key);
                }
            }
        }
        KeyCommand::List => {
            let keys = client.s3_keys().await?;
            print_rows(format, &["access key", "valid"], &keys, |key| {
                let valid = if key.loopback_only { "on loopback" } else { "everywhere" };
                vec![key.access_key.clone(), valid.to_owned()]
            })?;
        }
        KeyCommand::Remove { access_key } => {
            if !client.remove_s3_key(&access_key).await? {
                bail!("there is no access key {access_key:?}; `onefold s3 key list` shows them");
            }
        }
    }
    Ok(())
}
