//! What members say about themselves.

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a member says about itself.
#[derive(Clone, Copy, Debug)]
pub struct MemberStatus {
    pub is_leader: bool,
    pub has_leader: bool,
    /// The last index that it knows to be committed.
    pub raft_index: u64,
}

/// Asks a ZooKeeper member by its four-letter command `srvr`.
///
/// # Errors
///
/// It cannot be reached, or serves nobody now.
pub(crate) async fn zookeeper_status(address: &str) -> Result<MemberStatus> {
    let text = zookeeper_report(address).await?;
    let is_leader = match field(&text, "Mode: ") {
        Some("leader") => true,
        Some("follower") => false,
        _ => bail!("not in a quorum"),
    };
    let transaction = field(&text, "Zxid: 0x").context("no transaction")?;
    let raft_index = u64::from_str_radix(transaction, 16)?;
    Ok(MemberStatus { is_leader, has_leader: true, raft_index })
}

/// The version of a ZooKeeper member.
///
/// # Errors
///
/// It cannot be reached.
pub async fn zookeeper_version(address: &str) -> Result<String> {
    let text = zookeeper_report(address).await?;
    let version = field(&text, "Zookeeper version: ").context("no version")?;
    let numbers = version.split(|c: char| !c.is_ascii_digit() && c != '.').next();
    Ok(numbers.unwrap_or(version).to_owned())
}

async fn zookeeper_report(address: &str) -> Result<String> {
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(b"srvr").await?;
    let mut text = String::new();
    socket.read_to_string(&mut text).await?;
    Ok(text)
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))
}
