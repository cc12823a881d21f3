//! Running a command: feeding it, reading it, and seeing how it ends.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::environment::environment;
use super::output::{self, LineSink};
use super::reporter;
use crate::input::FileRange;
use crate::task::{Attempt, TaskError};

/// Makes the folder where the commands of an attempt run, with the files that came with the job.
pub(crate) fn working_folder(attempt: &Attempt) -> Result<PathBuf, TaskError> {
    let folder = attempt.scratch.join("work");
    if folder.exists() {
        return Ok(folder);
    }
    fs::create_dir_all(&folder).map_err(|source| TaskError::disk("create", &folder, source))?;
    for file in &attempt.spec.files {
        let path = folder.join(&file.name);
        fs::write(&path, &file.content)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
            .map_err(|source| TaskError::disk("write", &path, source))?;
    }
    Ok(folder)
}

/// One run of a command.
pub(crate) struct Command<'a> {
    attempt: &'a Attempt,
    role: &'static str,
    line: &'a str,
    folder: &'a Path,
    environment: Vec<(String, String)>,
}

/// A command's standard input.
pub(crate) struct Input {
    stdin: ChildStdin,
}

impl Input {
    /// Writes all the bytes; false when the command does not read any more.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<bool, TaskError> {
        match self.stdin.write_all(bytes) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(TaskError::user(format!("its input cannot be written: {error}"))),
        }
    }
}

impl<'a> Command<'a> {
    /// The mapper, for one range of a file.
    pub(crate) fn mapper(
        attempt: &'a Attempt,
        line: &'a str,
        folder: &'a Path,
        range: &FileRange,
    ) -> Self {
        let environment = environment(attempt, folder, Some(range));
        Self { attempt, role: "mapper", line, folder, environment }
    }

    /// The combiner.
    pub(super) fn combiner(attempt: &'a Attempt, line: &'a str, folder: &'a Path) -> Self {
        let environment = environment(attempt, folder, None);
        Self { attempt, role: "combiner", line, folder, environment }
    }

    /// The reducer.
    pub(crate) fn reducer(attempt: &'a Attempt, line: &'a str, folder: &'a Path) -> Self {
        let environment = environment(attempt, folder, None);
        Self { attempt, role: "reducer", line, folder, environment }
    }

    /// Runs the command to its end: `feed` writes its input on a thread of its own, while `sink`
    /// takes its output on this one. What goes wrong on our side kills it.
    pub(crate) fn run(
        self,
        feed: impl FnOnce(&mut Input) -> Result<(), TaskError> + Send,
        sink: &mut dyn LineSink,
    ) -> Result<(), TaskError> {
        let attempt = self.attempt;
        let mut child = self.spawn()?;
        let group = group_of(&child);
        attempt.stop.watch_group(group);
        let stdin = child.stdin.take().expect("it was asked for");
        let stdout = child.stdout.take().expect("it was asked for");
        let stderr = child.stderr.take().expect("it was asked for");
        let (fed, read, status) = std::thread::scope(|scope| {
            scope.spawn(move || reporter::follow(attempt, stderr));
            let feeder = scope.spawn(move || {
                let fed = feed(&mut Input { stdin });
                if fed.is_err() {
                    attempt.stop.kill_group(group);
                }
                fed
            });
            let waiter = scope.spawn(move || wait(attempt, child, group));
            let read = output::follow(stdout, sink, || {
                attempt.stop.note_activity();
                attempt.stop.check()
            });
            if read.is_err() {
                attempt.stop.kill_group(group);
            }
            let fed = feeder.join().expect("the feeding thread does not panic");
            let status = waiter.join().expect("the waiting thread does not panic");
            (fed, read, status)
        });
        // Why it was stopped says more than how it ended then.
        attempt.stop.check()?;
        fed.map_err(|error| self.explain(error))?;
        read.map_err(|error| self.explain(error))?;
        let status = status.map_err(|error| {
            TaskError::user(format!("the {} cannot be waited for: {error}", self.role))
        })?;
        if status.success() { Ok(()) } else { Err(self.failure(status)) }
    }

    fn spawn(&self) -> Result<Child, TaskError> {
        let mut command = std::process::Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(self.line)
            .current_dir(self.folder)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        command.spawn().map_err(|error| {
            TaskError::user(format!("/bin/sh cannot be started for the {}: {error}", self.role))
        })
    }

    /// Says whose output or input an error of the framework is about.
    fn explain(&self, error: TaskError) -> TaskError {
        match error {
            TaskError::RecordTooLong { .. } | TaskError::User { .. } => {
                TaskError::user(format!("the {} `{}`: {error}", self.role, shown(self.line)))
            }
            other => other,
        }
    }

    fn failure(&self, status: ExitStatus) -> TaskError {
        let how = match (status.code(), status.signal()) {
            (Some(127), _) => {
                "was not found (exit code 127); a command must be installed on every node, or be \
                 sent along with the job"
                    .to_owned()
            }
            (Some(126), _) => "cannot be executed (exit code 126); is it executable?".to_owned(),
            (Some(code), _) => format!("failed with exit code {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => "ended in an unknown way".to_owned(),
        };
        let last = self.attempt.lock_log().last_lines();
        let log = if last.is_empty() {
            "; it wrote nothing to standard error".to_owned()
        } else {
            format!("; the end of its standard error:\n{last}")
        };
        TaskError::user(format!("the {} `{}` {how}{log}", self.role, shown(self.line)))
    }
}

/// A command as error messages show it.
fn shown(line: &str) -> String {
    const CHARACTERS: usize = 200;
    let mut shown: String = line.chars().take(CHARACTERS).collect();
    if shown.len() < line.len() {
        shown.push('…');
    }
    shown
}

fn group_of(child: &Child) -> Pid {
    let number = i32::try_from(child.id()).expect("process numbers have 31 bits");
    Pid::from_raw(number).expect("a child's process number is not 0")
}

/// Waits until the first process has ended, and ends the others of its group.
fn wait(attempt: &Attempt, mut child: Child, group: Pid) -> std::io::Result<ExitStatus> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(error) = waitid(WaitId::Pid(group), options) {
        if error != rustix::io::Errno::INTR {
            break;
        }
    }
    // Not waited for yet, so that the group's number is still its own.
    attempt.stop.end_group(group);
    child.wait()
}
