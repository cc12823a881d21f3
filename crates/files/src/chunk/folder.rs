//! Whose folder of chunks it is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use onefold_types::ClusterId;
use thiserror::Error;

use super::error::ChunkError;

/// The file that says whose folder it is.
const MARKER: &str = "chunks.format";

/// The format of the folder.
const FOLDER_FORMAT: u32 = 1;

/// Why a node's chunks cannot be served at all.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The folder cannot be read or written.
    #[error("cannot use the chunk folder {path}: {source}; check its permissions and the disk")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder belongs to another cluster.
    #[error(
        "the chunk folder {path} belongs to cluster {found}, and this node to {expected}; start it \
         with the data folder of its own cluster"
    )]
    OtherCluster {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: ClusterId,
    },
    /// A newer version wrote the folder.
    #[error("the chunk folder {path} has format {found}; start the newer version that wrote it")]
    Newer {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: String,
    },
    /// One chunk file cannot be opened, though nothing says that it is damaged.
    #[error("{0}; repair the disk or the folder, and start the node again")]
    Chunk(#[source] ChunkError),
    /// The folder has chunks but does not say whose.
    #[error("the chunk folder {path} has files, but its marker is missing or damaged: {reason}")]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Checks that the folder is this cluster's, and says so in a new one.
pub(super) fn check_marker(
    folder: &Path,
    cluster: ClusterId,
    is_new: bool,
) -> Result<(), StoreError> {
    let path = folder.join(MARKER);
    let io = |source| StoreError::Io { path: path.clone(), source };
    if is_new {
        let text = format!("onefold chunks {FOLDER_FORMAT}\ncluster {cluster}\n");
        fs::write(&path, text).map_err(io)?;
        let synced = fs::File::open(&path).and_then(|file| file.sync_all());
        let synced = synced.and_then(|()| fs::File::open(folder)?.sync_all());
        return synced.map_err(io);
    }
    let foreign =
        |reason: &str| StoreError::Foreign { path: folder.to_owned(), reason: reason.to_owned() };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(foreign("chunks.format does not exist"));
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(foreign("chunks.format is not text"));
        }
        Err(error) => return Err(io(error)),
    };
    let mut lines = text.lines();
    let format = lines.next().and_then(|line| line.strip_prefix("onefold chunks "));
    let format = format.ok_or_else(|| foreign("its first line is not that of Onefold"))?;
    if format != FOLDER_FORMAT.to_string() {
        return Err(StoreError::Newer { path: folder.to_owned(), found: format.to_owned() });
    }
    let found = lines.next().and_then(|line| line.strip_prefix("cluster "));
    let found = found.ok_or_else(|| foreign("it names no cluster"))?;
    if found != cluster.to_string() {
        let (path, found) = (folder.to_owned(), found.to_owned());
        return Err(StoreError::OtherCluster { path, found, expected: cluster });
    }
    Ok(())
}
