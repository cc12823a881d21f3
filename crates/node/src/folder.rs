//! The data folder of a node: who it belongs to, and that no other process uses it.
//!
//! `onefold.json` is the one small file that says which cluster and node the folder belongs to. It
//! is written when the folder is first used (then it only holds the incarnation: a random number
//! that tells this folder from every other, so that a wiped member can never pass for the one
//! that it replaced), again when the cluster is formed or joined, whenever the cluster's members change
//! (so that a node that was away finds the others), and when the node was removed.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use onefold_types::{ClusterId, NodeId};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// The newest layout of data folders that this program reads and the one that it writes.
pub const FOLDER_FORMAT: u32 = 2;

/// How long to wait for another process that is just stopping to let go of the folder.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

const IDENTITY_FILE: &str = "onefold.json";
const LOCK_FILE: &str = "lock";

/// Why a data folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The folder or a file in it could not be read or written.
    #[error("cannot use {path}: {source}; check that the path is right and writable")]
    Io {
        /// What was accessed.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process holds the folder.
    #[error(
        "data folder {0} is in use by another process; stop that one or choose another --data-dir"
    )]
    InUse(PathBuf),
    /// The folder holds files, but none that say that it is a data folder.
    #[error(
        "{0} is not empty and not a data folder of Onefold (it has no onefold.json); \
         choose an empty or new --data-dir"
    )]
    Foreign(PathBuf),
    /// The identity file is damaged.
    #[error("{path} is damaged ({reason}); restore that file from a backup, or remove the node")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The node was removed from its cluster.
    #[error(
        "node {node}, whose data is in {path}, was removed from cluster {cluster}: it may not come \
         back under that number. Let the machine join as a new node on an empty --data-dir; this \
         one can be deleted"
    )]
    Removed {
        /// The folder.
        path: PathBuf,
        /// The node.
        node: NodeId,
        /// Its former cluster.
        cluster: ClusterId,
    },
    /// A newer program wrote the folder.
    #[error(
        "data folder {path} has format {found}, this program reads formats up to {FOLDER_FORMAT}; \
         start it with the newer program that wrote it"
    )]
    Newer {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

/// One member of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node's number.
    pub id: NodeId,
    /// Where other nodes reach it: `HOST:PORT`.
    pub address: String,
    /// Which data folder is meant.
    pub incarnation: u64,
}

/// What a node knows of its cluster before any log is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Formed {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its members, by number, as far as this node knows.
    pub members: Vec<Member>,
    /// The members that formed it; every group began with their votes. Empty in folders of format
    /// 1, whose members are all founders.
    #[serde(default)]
    founders: BTreeSet<NodeId>,
}

impl Formed {
    /// A cluster that these members form.
    pub fn by(cluster: ClusterId, members: Vec<Member>) -> Self {
        let founders = members.iter().map(|member| member.id).collect();
        Self { cluster, members, founders }
    }

    /// A cluster that others formed, as a node that joins it is told of it.
    pub fn joined(cluster: ClusterId, members: Vec<Member>, founders: BTreeSet<NodeId>) -> Self {
        Self { cluster, members, founders }
    }

    /// The members that formed the cluster, whether or not they are still there.
    pub fn founders(&self) -> BTreeSet<NodeId> {
        if self.founders.is_empty() {
            return self.members.iter().map(|member| member.id).collect();
        }
        self.founders.clone()
    }

    /// The member whose data folder has this incarnation.
    pub fn member(&self, incarnation: u64) -> Option<&Member> {
        self.members.iter().find(|member| member.incarnation == incarnation)
    }
}

#[derive(Serialize, Deserialize)]
struct IdentityFile {
    format: u32,
    incarnation: u64,
    formed: Option<Formed>,
    /// Whether the node was removed from its cluster.
    #[serde(default)]
    removed: bool,
    /// Whether there is a log: one that is gone took the node's promises along.
    #[serde(default)]
    log_begun: bool,
}

impl IdentityFile {
    fn new(incarnation: u64, formed: Option<Formed>) -> Self {
        Self { format: FOLDER_FORMAT, incarnation, formed, removed: false, log_begun: false }
    }
}

/// An opened and locked data folder.
pub struct Folder {
    path: PathBuf,
    incarnation: u64,
    formed: Option<Formed>,
    removed: bool,
    log_begun: bool,
    // Held for its lock, which the system drops with the process.
    _lock: File,
}

impl Folder {
    /// Opens the folder, creating it when it does not exist, and locks it.
    ///
    /// # Errors
    /// When it is in use, foreign, damaged, of a newer format or not accessible.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        fs::create_dir_all(path).map_err(io_error(path))?;
        let identity_path = path.join(IDENTITY_FILE);
        if !identity_path.exists() && holds_files(path)? {
            return Err(FolderError::Foreign(path.to_owned()));
        }
        let lock = take_lock(path)?;
        let identity = if identity_path.exists() {
            read_identity(path, &identity_path)?
        } else {
            let identity = IdentityFile::new(rand::random(), None);
            write_identity(path, &identity)?;
            identity
        };
        let member = identity.formed.as_ref().filter(|_| identity.removed);
        if let Some(formed) = member
            && let Some(member) = formed.member(identity.incarnation)
        {
            let (node, cluster) = (member.id, formed.cluster);
            return Err(FolderError::Removed { path: path.to_owned(), node, cluster });
        }
        Ok(Self {
            path: path.to_owned(),
            incarnation: identity.incarnation,
            formed: identity.formed,
            removed: false,
            log_begun: identity.log_begun,
            _lock: lock,
        })
    }

    /// Whether the node whose data is in a folder was removed from its cluster. Takes no lock, and
    /// says no to whatever is not a data folder.
    pub fn is_removed(path: &Path) -> bool {
        read_identity(path, &path.join(IDENTITY_FILE)).is_ok_and(|identity| identity.removed)
    }

    /// The random number that tells this folder from every other.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The cluster that this folder belongs to, if it was formed.
    pub fn formed(&self) -> Option<&Formed> {
        self.formed.as_ref()
    }

    /// Makes the folder a member of a cluster, or changes what it knows of its cluster, durably.
    ///
    /// # Errors
    /// When the identity file could not be written; the folder is then as before.
    ///
    /// # Panics
    /// When the folder already belongs to another cluster: the caller must have looked.
    pub fn adopt(&mut self, formed: Formed) -> Result<(), FolderError> {
        if let Some(current) = &self.formed {
            assert_eq!(current.cluster, formed.cluster, "a folder never changes its cluster");
        }
        assert!(formed.member(self.incarnation).is_some(), "the folder must be a member");
        let identity = IdentityFile { formed: Some(formed.clone()), ..self.identity() };
        write_identity(&self.path, &identity)?;
        self.formed = Some(formed);
        Ok(())
    }

    /// Notes that the node was removed from its cluster: no process starts on this folder again.
    ///
    /// # Errors
    /// When the identity file could not be written.
    pub fn mark_removed(&mut self) -> Result<(), FolderError> {
        self.removed = true;
        write_identity(&self.path, &self.identity())
    }

    /// Whether the folder once had a log. If it is gone now, the node has forgotten what it promised,
    /// and must not begin another one.
    pub fn is_log_begun(&self) -> bool {
        self.log_begun
    }

    /// Notes that there is a log, before the first promise is written into it.
    ///
    /// # Errors
    /// When the identity file could not be written.
    pub fn begin_log(&mut self) -> Result<(), FolderError> {
        if !self.log_begun {
            write_identity(&self.path, &IdentityFile { log_begun: true, ..self.identity() })?;
            self.log_begun = true;
        }
        Ok(())
    }

    fn identity(&self) -> IdentityFile {
        let identity = IdentityFile::new(self.incarnation, self.formed.clone());
        IdentityFile { removed: self.removed, log_begun: self.log_begun, ..identity }
    }

    /// The path of a part of the folder.
    pub fn part(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> FolderError + '_ {
    move |source| FolderError::Io { path: path.to_owned(), source }
}

/// Whether the folder holds anything but what a start that was cut short leaves behind.
fn holds_files(path: &Path) -> Result<bool, FolderError> {
    for entry in fs::read_dir(path).map_err(io_error(path))? {
        let name = entry.map_err(io_error(path))?.file_name();
        let left_behind = name == LOCK_FILE
            || name == "lost+found"
            || name.to_string_lossy() == format!("{IDENTITY_FILE}.new");
        if !left_behind {
            return Ok(true);
        }
    }
    Ok(false)
}

fn take_lock(folder: &Path) -> Result<File, FolderError> {
    let path = folder.join(LOCK_FILE);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io_error(&path))?;
    let give_up = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < give_up => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(FolderError::InUse(folder.to_owned()));
            }
            Err(error) => return Err(FolderError::Io { path, source: error.into() }),
        }
    }
}

fn read_identity(folder: &Path, path: &Path) -> Result<IdentityFile, FolderError> {
    let text = fs::read(path).map_err(io_error(path))?;
    let damaged = |error: serde_json::Error| FolderError::Damaged {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    // The format is read by itself first: a newer one may have other fields.
    #[derive(Deserialize)]
    struct FormatOnly {
        format: u32,
    }
    let FormatOnly { format } = serde_json::from_slice(&text).map_err(damaged)?;
    if format > FOLDER_FORMAT {
        return Err(FolderError::Newer { path: folder.to_owned(), found: format });
    }
    let identity: IdentityFile = serde_json::from_slice(&text).map_err(damaged)?;
    if let Some(formed) = &identity.formed
        && formed.member(identity.incarnation).is_none()
    {
        return Err(FolderError::Damaged {
            path: path.to_owned(),
            reason: "it is not a member of its own cluster".to_owned(),
        });
    }
    Ok(identity)
}

/// Replaces the identity file so that a crash leaves the old or the new one, never half of one.
fn write_identity(folder: &Path, identity: &IdentityFile) -> Result<(), FolderError> {
    let path = folder.join(IDENTITY_FILE);
    let fresh = folder.join(format!("{IDENTITY_FILE}.new"));
    let text = serde_json::to_vec_pretty(identity).expect("plain data always serializes");
    let write = || -> io::Result<()> {
        let mut file = File::create(&fresh)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(io_error(&path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn formed(incarnation: u64) -> Formed {
        let member = Member { id: NodeId(1), address: "127.0.0.1:7000".into(), incarnation };
        Formed::by(ClusterId(7), vec![member])
    }

    #[test]
    fn a_folder_whose_node_was_removed_is_not_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut opened = Folder::open(folder.path()).unwrap();
        opened.adopt(formed(opened.incarnation())).unwrap();
        assert!(!Folder::is_removed(folder.path()));
        opened.mark_removed().unwrap();
        drop(opened);
        assert!(Folder::is_removed(folder.path()));
        let error = Folder::open(folder.path()).err().unwrap();
        assert!(matches!(error, FolderError::Removed { node: NodeId(1), .. }), "{error}");
    }

    #[test]
    fn all_members_of_a_folder_of_format_1_are_founders() {
        let folder = tempfile::tempdir().unwrap();
        let member = r#"{"id": 1, "address": "h:1", "incarnation": 5}"#;
        let formed = format!(r#"{{"cluster": 7, "members": [{member}]}}"#);
        let text = format!(r#"{{"format": 1, "incarnation": 5, "formed": {formed}}}"#);
        fs::write(folder.path().join(IDENTITY_FILE), text).unwrap();
        let opened = Folder::open(folder.path()).unwrap();
        assert_eq!(opened.formed().unwrap().founders(), [NodeId(1)].into());
    }

    #[test]
    fn keeps_incarnation_and_cluster_across_openings() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("node");
        let mut folder = Folder::open(&path).unwrap();
        let incarnation = folder.incarnation();
        assert!(folder.formed().is_none());
        assert!(!folder.is_log_begun());
        folder.begin_log().unwrap();
        folder.adopt(formed(incarnation)).unwrap();
        drop(folder);
        let folder = Folder::open(&path).unwrap();
        assert!(folder.is_log_begun());
        assert_eq!(folder.incarnation(), incarnation);
        assert_eq!(folder.formed(), Some(&formed(incarnation)));
    }

    #[test]
    fn refuses_a_folder_with_other_files_and_leaves_them_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.txt"), "mine").unwrap();
        assert!(matches!(Folder::open(folder.path()), Err(FolderError::Foreign(_))));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn refuses_a_newer_format_by_its_number() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(IDENTITY_FILE), r#"{"format": 99, "soul": true}"#).unwrap();
        let error = Folder::open(folder.path()).err().unwrap();
        assert!(matches!(error, FolderError::Newer { found: 99, .. }), "{error}");
    }

    #[test]
    fn refuses_a_truncated_identity() {
        let folder = tempfile::tempdir().unwrap();
        drop(Folder::open(folder.path()).unwrap());
        let path = folder.path().join(IDENTITY_FILE);
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(matches!(Folder::open(folder.path()), Err(FolderError::Damaged { .. })));
    }

    #[test]
    fn refuses_a_folder_that_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let _first = Folder::open(folder.path()).unwrap();
        assert!(matches!(Folder::open(folder.path()), Err(FolderError::InUse(_))));
    }
}
