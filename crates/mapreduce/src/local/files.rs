//! The files of the machine as tasks see them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::input::FileRange;
use crate::task::{InputFile, OutputFile, Pieces, TaskError, TaskFiles};

/// Bytes read at once.
const PIECE_BYTES: usize = 1 << 20;

/// Input anywhere, output into one folder.
pub(super) struct DiskFiles {
    /// Where attempts write their output.
    pub(super) temporary: PathBuf,
}

/// What tells one version of a file from another, as an ETag does in a cluster.
pub(super) fn etag(metadata: &fs::Metadata) -> String {
    format!("{}-{}-{}", metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

impl TaskFiles for DiskFiles {
    fn open(&self, range: &FileRange) -> Result<Box<dyn InputFile + '_>, TaskError> {
        let path = Path::new(&range.file);
        let disk = |source| TaskError::disk("open", path, source);
        let file = File::open(path).map_err(disk)?;
        let metadata = file.metadata().map_err(disk)?;
        if etag(&metadata) != range.etag {
            return Err(TaskError::user(format!(
                "{} was changed while the job ran; start the job again",
                range.file
            )));
        }
        let size = metadata.len();
        Ok(Box::new(DiskFile { path: path.to_owned(), file: Arc::new(file), size }))
    }

    fn create(&self, name: &str) -> Result<Box<dyn OutputFile + '_>, TaskError> {
        let path = self.temporary.join(name);
        let file =
            File::create(&path).map_err(|source| TaskError::disk("create", &path, source))?;
        Ok(Box::new(DiskOutput { path, file }))
    }
}

struct DiskFile {
    path: PathBuf,
    file: Arc<File>,
    size: u64,
}

impl InputFile for DiskFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read<'a>(&self, range: Range<u64>) -> Box<dyn Pieces + 'a>
    where
        Self: 'a,
    {
        let end = range.end.min(self.size);
        let (path, file) = (self.path.clone(), self.file.clone());
        let buffer = BytesMut::new();
        Box::new(DiskPieces { path, file, position: range.start.min(end), end, buffer })
    }
}

struct DiskPieces {
    path: PathBuf,
    file: Arc<File>,
    position: u64,
    end: u64,
    buffer: BytesMut,
}

impl Pieces for DiskPieces {
    fn next(&mut self) -> Result<Option<Bytes>, TaskError> {
        let left = self.end - self.position;
        if left == 0 {
            return Ok(None);
        }
        let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
        self.buffer.resize(bytes, 0);
        self.file
            .read_exact_at(&mut self.buffer, self.position)
            .map_err(|source| TaskError::disk("read", &self.path, source))?;
        self.position += bytes as u64;
        Ok(Some(self.buffer.split().freeze()))
    }
}

struct DiskOutput {
    path: PathBuf,
    file: File,
}

impl OutputFile for DiskOutput {
    fn write(&mut self, bytes: Bytes) -> Result<(), TaskError> {
        let written = self.file.write_all(&bytes);
        written.map_err(|source| TaskError::disk("write", &self.path, source))
    }

    fn finish(self: Box<Self>) -> Result<(), TaskError> {
        let synced: io::Result<()> = self.file.sync_all();
        synced.map_err(|source| TaskError::disk("sync", &self.path, source))
    }
}
