//! The splits of files of the machine, and where the output goes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::files::etag;
use crate::api::limits::MAP_TASKS_MAX;
use crate::api::{JobSpec, MapReduceError};
use crate::input::{FileRange, MapInput, SplitPlanner};

/// The splits of all inputs of a job.
pub(super) fn splits(spec: &JobSpec) -> Result<Vec<MapInput>, MapReduceError> {
    let mut planner = SplitPlanner::new(spec.split_bytes);
    for input in &spec.input {
        let files = files_of(input)?;
        for path in files {
            add_file(&mut planner, &path, spec.split_bytes)?;
        }
    }
    Ok(planner.finish())
}

fn add_file(
    planner: &mut SplitPlanner,
    path: &Path,
    split_bytes: u64,
) -> Result<(), MapReduceError> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    let Some(name) = path.to_str() else {
        return Err(MapReduceError::invalid(format!("the name {path:?} is not UTF-8")));
    };
    let mut offset = 0;
    while offset < metadata.len() {
        let length = split_bytes.min(metadata.len() - offset);
        let range = FileRange { file: name.to_owned(), etag: etag(&metadata), offset, length };
        planner.add(range, &[]);
        offset += length;
        if planner.len() > MAP_TASKS_MAX {
            return Err(MapReduceError::invalid(format!(
                "its input makes more than {MAP_TASKS_MAX} splits; use larger ones"
            )));
        }
    }
    Ok(())
}

/// The files of one input path, in the order of their names.
fn files_of(input: &str) -> Result<Vec<PathBuf>, MapReduceError> {
    let path = Path::new(input);
    let mut files = Vec::new();
    if path.exists() {
        walk(path, &mut files)?;
    } else if let Some(prefix) = input.strip_suffix('*') {
        let folder = match prefix.rsplit_once('/') {
            Some((folder, _)) => format!("{folder}/"),
            None => "./".to_owned(),
        };
        let entries = sorted_entries(Path::new(&folder))?;
        let bare = prefix.strip_prefix("./").unwrap_or(prefix);
        let starts = |entry: &PathBuf| {
            let text = entry.to_string_lossy();
            text.strip_prefix("./").unwrap_or(&text).starts_with(bare)
        };
        for entry in entries.into_iter().filter(starts) {
            walk(&entry, &mut files)?;
        }
    }
    if files.is_empty() {
        return Err(MapReduceError::NoInput { path: input.to_owned() });
    }
    Ok(files)
}

fn walk(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), MapReduceError> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if metadata.is_file() {
        files.push(path.to_owned());
    } else if metadata.is_dir() {
        for entry in sorted_entries(path)? {
            // A symbolic link may lead in a circle.
            let is_linked_folder = entry.is_symlink() && entry.is_dir();
            let is_temporary = entry.file_name().is_some_and(|name| name == TEMPORARY);
            if !is_linked_folder && !is_temporary && entry.exists() {
                walk(&entry, files)?;
            }
        }
    }
    Ok(())
}

fn sorted_entries(folder: &Path) -> Result<Vec<PathBuf>, MapReduceError> {
    let entries = fs::read_dir(folder).map_err(|error| unreadable(folder, &error))?;
    let paths: io::Result<Vec<PathBuf>> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(|error| unreadable(folder, &error))?;
    paths.sort();
    Ok(paths)
}

fn unreadable(path: &Path, error: &io::Error) -> MapReduceError {
    MapReduceError::invalid(format!("the input {} cannot be read: {error}", path.display()))
}

/// The folder within the output where attempts write.
const TEMPORARY: &str = "_temporary";

/// The output folder of a job.
pub(super) struct Output {
    folder: PathBuf,
}

impl Output {
    /// Makes the output folder, and where attempts write in it.
    pub(super) fn create(spec: &JobSpec) -> Result<Self, MapReduceError> {
        let folder = PathBuf::from(&spec.output);
        if folder.exists() {
            if !spec.overwrite {
                return Err(MapReduceError::OutputExists { path: spec.output.clone() });
            }
            remove_earlier(&folder, spec)?;
        }
        let output = Self { folder };
        let temporary = output.temporary();
        fs::create_dir_all(&temporary).map_err(|error| {
            MapReduceError::invalid(format!("{} cannot be created: {error}", temporary.display()))
        })?;
        Ok(output)
    }

    /// Where attempts write.
    pub(super) fn temporary(&self) -> PathBuf {
        self.folder.join(TEMPORARY)
    }

    /// Gives an attempt's file its final name.
    pub(super) fn commit(&self, temporary: &str, name: &str) -> io::Result<()> {
        fs::rename(self.temporary().join(temporary), self.folder.join(name))
    }

    /// Marks the output as complete.
    pub(super) fn succeed(&self) -> io::Result<()> {
        fs::remove_dir_all(self.temporary())?;
        fs::write(self.folder.join("_SUCCESS"), b"")
    }

    /// Removes all of it.
    pub(super) fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), %error, "the output was not removed");
        }
    }
}

/// Removes what an earlier job wrote, and nothing else: this is somebody's disk.
fn remove_earlier(folder: &Path, spec: &JobSpec) -> Result<(), MapReduceError> {
    let refuse = |reason: String| Err(MapReduceError::invalid(reason));
    let shown = folder.display();
    let is_output = folder.join("_SUCCESS").exists() || folder.join(TEMPORARY).exists();
    let is_empty = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    if !is_output && !is_empty {
        return refuse(format!("{shown} is not the output of an earlier job; remove it yourself"));
    }
    let within = |input: &&String| {
        let input = Path::new(input.trim_end_matches('*')).canonicalize();
        matches!((input, folder.canonicalize()), (Ok(input), Ok(folder)) if input.starts_with(&folder))
    };
    if let Some(input) = spec.input.iter().find(within) {
        return refuse(format!("its input {input} lies in its output {shown}"));
    }
    match fs::remove_dir_all(folder) {
        Ok(()) => Ok(()),
        Err(error) => refuse(format!("{shown} cannot be removed: {error}")),
    }
}
