//! Commands that an earlier life of this worker started and could not end, because it was killed.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// Kills every process whose working folder lies below `folder`: commands start there, and nobody
/// else does. Only where `/proc` tells.
pub(super) fn kill_below(folder: &Path) {
    let Ok(entries) = fs::read_dir("/proc") else { return };
    for entry in entries.flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let Some(pid) = number.and_then(Pid::from_raw) else { continue };
        let works_there =
            fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        if works_there && pid != rustix::process::getpid() {
            tracing::info!(pid = pid.as_raw_nonzero(), "ending a command of an earlier run");
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn commands_that_were_left_are_ended_and_others_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().canonicalize().expect("its path");
        let below = folder.join("jobs");
        fs::create_dir(&below).expect("a folder");
        let start = |folder: &Path| {
            Command::new("sleep").arg("1000").current_dir(folder).spawn().expect("a process")
        };
        let (mut left, mut other) = (start(&below), start(&folder));
        kill_below(&below);
        assert_eq!(left.wait().expect("its end").signal(), Some(9));
        assert!(other.try_wait().expect("its state").is_none());
        other.kill().expect("its end");
        other.wait().expect("its end");
    }
}
