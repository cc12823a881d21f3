//! What commands find in their environment.

use std::path::Path;

use crate::api::TaskKind;
use crate::input::FileRange;
use crate::task::Attempt;

/// Variables of the node that commands see too. The rest of its environment is not theirs.
const INHERITED: [&str; 6] = ["PATH", "LANG", "LC_ALL", "TZ", "USER", "SHELL"];

/// `PATH` when the node has none.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// All variables of a command: inherited ones, Hadoop Streaming's, and the job's own on top.
pub(super) fn environment(
    attempt: &Attempt,
    folder: &Path,
    range: Option<&FileRange>,
) -> Vec<(String, String)> {
    let mut variables: Vec<(String, String)> = vec![("PATH".to_owned(), PATH_DEFAULT.to_owned())];
    let inherited = INHERITED.iter().filter_map(|name| {
        let value = std::env::var(name).ok()?;
        Some(((*name).to_owned(), value))
    });
    variables.extend(inherited);
    let mut set = |name: &str, value: String| variables.push((name.to_owned(), value));
    set("HOME", folder.display().to_string());
    set("TMPDIR", folder.display().to_string());
    set("mapreduce_job_id", attempt.job.to_string());
    set("mapreduce_job_name", attempt.spec.name.clone());
    set("mapreduce_job_maps", attempt.maps.to_string());
    set("mapreduce_job_reduces", attempt.reduces.to_string());
    set("mapreduce_task_id", format!("{}-{}", attempt.job, attempt.task));
    set("mapreduce_task_attempt_id", attempt.name());
    set("mapreduce_task_partition", attempt.task.index.to_string());
    set("mapreduce_task_ismap", (attempt.task.kind == TaskKind::Map).to_string());
    if let Some(range) = range {
        set("mapreduce_map_input_file", range.file.clone());
        set("mapreduce_map_input_start", range.offset.to_string());
        set("mapreduce_map_input_length", range.length.to_string());
    }
    let own = attempt.spec.environment.iter();
    variables.extend(own.map(|(name, value)| (name.clone(), value.clone())));
    variables
}
