//! Which files a job reads, and in which splits.

use std::sync::Arc;

use onefold_files::{ErrorKind, FilePath, FileSystem, FilesError, ListRequest, SplitRequest};

use crate::api::limits::MAP_TASKS_MAX;
use crate::api::{JobSpec, MapReduceError};
use crate::input::{FileRange, MapInput, SplitPlanner};

/// Files that are split in one request.
const PAGE_FILES: usize = 1000;

/// What an input path means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    /// The bucket.
    pub(super) bucket: String,
    /// What the keys of all files start with.
    pub(super) prefix: String,
    /// Only the file with exactly that key.
    pub(super) exact: bool,
}

/// What an input path means: the file of that name; else, all below the folder of that name; or, if
/// the path ends in `*`, all whose names start so.
pub(crate) async fn find_files(
    files: &dyn FileSystem,
    input: &str,
) -> Result<Selection, MapReduceError> {
    let path: FilePath = input.parse()?;
    let (bucket, key) = (path.bucket().to_owned(), path.key());
    if !key.is_empty() && !key.ends_with('/') {
        match files.stat(&bucket, key).await {
            Ok(_) => return Ok(Selection { bucket, prefix: key.to_owned(), exact: true }),
            Err(error) if error.kind() == ErrorKind::NoSuchKey => {}
            Err(error) => return Err(error.into()),
        }
    }
    let prefix = match key.strip_suffix('*') {
        Some(prefix) => prefix.to_owned(),
        None if key.is_empty() || key.ends_with('/') => key.to_owned(),
        None => format!("{key}/"),
    };
    let request = ListRequest {
        bucket: bucket.clone(),
        prefix: prefix.clone(),
        limit: 1,
        ..ListRequest::default()
    };
    let page = files.list(request).await?;
    if page.entries.is_empty() {
        return Err(MapReduceError::NoInput { path: input.to_owned() });
    }
    Ok(Selection { bucket, prefix, exact: false })
}

/// The splits of all inputs of a job.
pub(super) async fn splits(
    files: &Arc<dyn FileSystem>,
    spec: &JobSpec,
) -> Result<Vec<MapInput>, MapReduceError> {
    let mut planner = SplitPlanner::new(spec.split_bytes);
    for input in &spec.input {
        let selection = find_files(files.as_ref(), input).await?;
        add_selection(files.as_ref(), selection, &mut planner, spec.split_bytes).await?;
    }
    Ok(planner.finish())
}

async fn add_selection(
    files: &dyn FileSystem,
    selection: Selection,
    planner: &mut SplitPlanner,
    target_bytes: u64,
) -> Result<(), MapReduceError> {
    let mut request = SplitRequest {
        bucket: selection.bucket,
        prefix: selection.prefix,
        exact: selection.exact,
        target_bytes,
        start_after: None,
        limit: PAGE_FILES,
    };
    loop {
        let page = files.splits(request.clone()).await?;
        for split in page.splits {
            // What other jobs are writing is nobody's input yet.
            if is_temporary(split.file.key()) {
                continue;
            }
            let range = FileRange {
                file: split.file.to_string(),
                etag: split.etag,
                offset: split.offset,
                length: split.length,
            };
            planner.add(range, &split.hosts);
        }
        if planner.len() > MAP_TASKS_MAX {
            return Err(MapReduceError::invalid(format!(
                "its input makes more than {MAP_TASKS_MAX} splits; use larger ones, or less input"
            )));
        }
        match page.next {
            Some(next) => request.start_after = Some(next),
            None => return Ok(()),
        }
    }
}

fn is_temporary(key: &str) -> bool {
    key.starts_with("_temporary/") || key.contains("/_temporary/")
}

/// Whether a failure to prepare a job is the job's own.
pub(super) fn is_final(error: &MapReduceError) -> bool {
    match error {
        MapReduceError::Files(FilesError::Unknown { .. }) => false,
        other => !other.is_retryable(),
    }
}
