//! Which node of a local cluster listens where and keeps its data where.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// The access key that local clusters accept, on loopback only.
pub const S3_ACCESS_KEY: &str = "onefold";
/// The secret of [`S3_ACCESS_KEY`].
pub const S3_SECRET_KEY: &str = "onefold-secret";

/// Most nodes of a local cluster: as many as a cluster can be formed of.
pub const NODES_MAX: usize = 9;

/// Nodes of a local cluster unless somebody wishes otherwise.
pub const NODES_DEFAULT: usize = 3;

/// The file that says which nodes run; other programs rely on its name and fields.
pub const STATE_FILE: &str = "dev.json";

const PEER_PORT: u16 = 7000;
const ETCD_PORT: u16 = 2379;
const S3_PORT: u16 = 9000;
const HTTP_PORT: u16 = 8080;
const STRIDE: u16 = 10;

/// Where a node dials instead of another node's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The other node's address.
    pub known: String,
    /// What is dialled.
    pub dialled: String,
}

/// The four ports of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    pub peer: u16,
    pub etcd: u16,
    pub s3: u16,
    pub http: u16,
}

impl Ports {
    /// The ports of the node with this number, from 1.
    pub fn of_node(id: u64, base: Option<u16>) -> anyhow::Result<Self> {
        Self::of(usize::try_from(id.saturating_sub(1)).unwrap_or(usize::MAX), base)
    }

    /// The ports of the node with this position, from 0. With a base port all four follow it;
    /// without one, each protocol has its customary port.
    pub fn of(position: usize, base: Option<u16>) -> anyhow::Result<Self> {
        let shift = u16::try_from(position).ok().and_then(|p| p.checked_mul(STRIDE));
        let at = |first: u16, plus: u16| {
            shift
                .and_then(|shift| first.checked_add(shift)?.checked_add(plus))
                .context("the ports would pass 65535; choose a smaller --base-port")
        };
        Ok(match base {
            Some(base) => Self {
                peer: at(base, 0)?,
                etcd: at(base, 1)?,
                s3: at(base, 2)?,
                http: at(base, 3)?,
            },
            None => Self {
                peer: at(PEER_PORT, 0)?,
                etcd: at(ETCD_PORT, 0)?,
                s3: at(S3_PORT, 0)?,
                http: at(HTTP_PORT, 0)?,
            },
        })
    }

    /// Each port with what it is for.
    pub fn named(&self) -> [(&'static str, u16); 4] {
        [("peer", self.peer), ("etcd", self.etcd), ("S3", self.s3), ("http", self.http)]
    }
}

/// One entry of `dev.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    pub id: u64,
    /// 0 while the node does not run.
    pub pid: u32,
    pub data_dir: PathBuf,
    pub etcd: String,
    pub s3: String,
    pub http: String,
    pub peer: String,
}

impl NodeEntry {
    /// The entry of the node with this number, not running.
    pub fn new(folder: &Path, id: u64, base: Option<u16>) -> anyhow::Result<Self> {
        let ports = Ports::of_node(id, base)?;
        let address = |port: u16| format!("127.0.0.1:{port}");
        Ok(Self {
            id,
            pid: 0,
            data_dir: Self::data_dir_of(folder, id),
            etcd: address(ports.etcd),
            s3: address(ports.s3),
            http: address(ports.http),
            peer: address(ports.peer),
        })
    }

    /// Where the node with this number keeps its data.
    pub fn data_dir_of(folder: &Path, id: u64) -> PathBuf {
        folder.join(format!("node{id}"))
    }

    /// What the node adds to the ports of keyspaces: all nodes share this host.
    pub fn keyspace_port_offset(&self) -> u64 {
        self.id.saturating_sub(1)
    }

    /// Where the node's messages go.
    pub fn log_path(&self) -> PathBuf {
        self.data_dir.with_extension("log")
    }
}

/// A base port from which on that many nodes find all their ports free.
pub fn free_base_port(nodes: usize) -> anyhow::Result<u16> {
    const FIRST: u16 = 20_000;
    const STEP: u16 = 100;
    const TRIES: u16 = 300;
    let start: u16 = rand::random_range(0..TRIES);
    for attempt in 0..TRIES {
        let base = FIRST + (start + attempt) % TRIES * STEP;
        let mut ports = Vec::new();
        for position in 0..nodes {
            ports.extend(Ports::of(position, Some(base))?.named().map(|(_, port)| port));
        }
        let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
        if ports.iter().all(free) {
            return Ok(base);
        }
    }
    bail!("no free ports for {nodes} nodes were found between 20000 and 50000; stop some program")
}

/// Reads a cluster's `dev.json`, if there is one.
pub fn read_state(folder: &Path) -> anyhow::Result<Option<Vec<NodeEntry>>> {
    let path = folder.join(STATE_FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    match serde_json::from_slice(&text) {
        Ok(nodes) => Ok(Some(nodes)),
        Err(error) => bail!(
            "{} is damaged ({error}); delete it and start `onefold dev` again, the data stays",
            path.display()
        ),
    }
}

/// Replaces `dev.json`; a reader sees the old or the new one.
pub fn write_state(folder: &Path, nodes: &[NodeEntry]) -> anyhow::Result<()> {
    let path = folder.join(STATE_FILE);
    let fresh = folder.join(format!("{STATE_FILE}.new"));
    let text = serde_json::to_vec_pretty(nodes)?;
    std::fs::write(&fresh, text)
        .and_then(|()| std::fs::rename(&fresh, &path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn ports_are_the_customary_ones_or_follow_the_base() {
        let plain = Ports::of(1, None).unwrap();
        assert_eq!(plain, Ports { peer: 7010, etcd: 2389, s3: 9010, http: 8090 });
        let moved = Ports::of(2, Some(20000)).unwrap();
        assert_eq!(moved, Ports { peer: 20020, etcd: 20021, s3: 20022, http: 20023 });
        assert!(Ports::of(2, Some(65530)).is_err());
    }
}
