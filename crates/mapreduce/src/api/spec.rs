//! What a job is.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::MapReduceError;
use super::limits::{
    INPUT_PATHS_MAX, REDUCE_TASKS_MAX, SHIPPED_BYTES_MAX, SPEC_BYTES_MAX, SPLIT_BYTES_MAX,
    TASK_TIMEOUT_DEFAULT,
};

/// The user's code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// Counts words: maximal runs of ASCII letters, digits and underscores, as bytes, letter case
    /// kept. One output line `word<TAB>count` for each.
    WordCount,
    /// Counts the strings that match: each non-empty match of the pattern within a line. One output
    /// line `match<TAB>count` for each distinct one.
    Grep {
        /// A regular expression in the syntax of the `regex` crate, over bytes.
        pattern: String,
    },
    /// Executables in the conventions of Hadoop Streaming, each run by `/bin/sh -c`.
    Streaming {
        /// Reads lines, writes lines `key<TAB>value`.
        mapper: String,
        /// Reads sorted lines `key<TAB>value` of one map task and writes fewer, in the same order
        /// of keys. It may run any number of times, also never.
        combiner: Option<String>,
        /// Reads sorted lines `key<TAB>value` and writes the output; `None` passes them on.
        reducer: Option<String>,
    },
}

/// A file that is sent along with a job and lies in the folder where its commands run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShippedFile {
    /// Its name, without any folder.
    pub name: String,
    /// Its content.
    pub content: Bytes,
}

/// A job as its user describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// For people; not unique.
    pub name: String,
    /// The user's code.
    pub program: Program,
    /// What to read: a file, or a folder with everything below it, or (ending in `*`) everything
    /// whose path starts so. In a cluster `/BUCKET/KEY…`, locally paths of the machine.
    pub input: Vec<String>,
    /// The folder to write, which must not exist.
    pub output: String,
    /// Reduce tasks, and thereby output files. 0 writes the map output, unsorted. `None` chooses
    /// two for each node.
    pub reducers: Option<u32>,
    /// Remove the output folder, if it exists, before the job starts.
    pub overwrite: bool,
    /// Bytes of input for each map task; at most [`SPLIT_BYTES_MAX`].
    pub split_bytes: u64,
    /// Variables in the environment of the commands.
    pub environment: BTreeMap<String, String>,
    /// Files for the commands.
    pub files: Vec<ShippedFile>,
    /// Time without progress after which an attempt is given up.
    pub task_timeout: Duration,
}

impl JobSpec {
    /// A job with nothing but defaults besides its program and paths.
    pub fn new(program: Program, input: Vec<String>, output: impl Into<String>) -> Self {
        let name = match &program {
            Program::WordCount => "wordcount",
            Program::Grep { .. } => "grep",
            Program::Streaming { .. } => "streaming",
        };
        Self {
            name: name.to_owned(),
            program,
            input,
            output: output.into(),
            reducers: None,
            overwrite: false,
            split_bytes: SPLIT_BYTES_MAX,
            environment: BTreeMap::new(),
            files: Vec::new(),
            task_timeout: TASK_TIMEOUT_DEFAULT,
        }
    }

    /// Checks all that can be known without looking at any file.
    ///
    /// # Errors
    /// [`MapReduceError::Invalid`] with the first thing that is wrong.
    pub fn validate(&self) -> Result<(), MapReduceError> {
        match self.broken_rule() {
            None => Ok(()),
            Some(reason) => Err(MapReduceError::Invalid { reason }),
        }
    }

    fn broken_rule(&self) -> Option<String> {
        if self.input.is_empty() || self.input.len() > INPUT_PATHS_MAX {
            return Some(format!("it needs 1 to {INPUT_PATHS_MAX} input paths"));
        }
        if self.text_bytes() > SPEC_BYTES_MAX {
            return Some(format!(
                "its paths, commands and variables have {} bytes, at most {SPEC_BYTES_MAX} are \
                 allowed",
                self.text_bytes()
            ));
        }
        if self.reducers.is_some_and(|count| count > REDUCE_TASKS_MAX) {
            return Some(format!("at most {REDUCE_TASKS_MAX} reducers are possible"));
        }
        if self.split_bytes == 0 || self.split_bytes > SPLIT_BYTES_MAX {
            return Some(format!("a split has 1 to {SPLIT_BYTES_MAX} bytes"));
        }
        if self.task_timeout < Duration::from_secs(1) {
            return Some("the task timeout must be at least one second".to_owned());
        }
        self.broken_environment().or_else(|| self.broken_files()).or_else(|| self.broken_program())
    }

    fn broken_program(&self) -> Option<String> {
        let is_built_in = !matches!(self.program, Program::Streaming { .. });
        if is_built_in && self.reducers == Some(0) {
            return Some("the built-in jobs need at least one reducer".to_owned());
        }
        match &self.program {
            Program::WordCount => None,
            Program::Grep { pattern } => {
                crate::program::grep::compile(pattern).err().map(|error| error.to_string())
            }
            Program::Streaming { mapper, combiner, reducer } => {
                let commands = [
                    ("mapper", Some(mapper)),
                    ("combiner", combiner.as_ref()),
                    ("reducer", reducer.as_ref()),
                ];
                for (role, command) in commands {
                    let Some(command) = command else { continue };
                    if command.trim().is_empty() {
                        return Some(format!("the {role}'s command is empty"));
                    }
                    if command.contains('\0') {
                        return Some(format!("the {role}'s command contains a NUL character"));
                    }
                }
                if self.reducers == Some(0) && reducer.is_some() {
                    return Some("it has a reducer's command, but 0 reducers".to_owned());
                }
                None
            }
        }
    }

    fn broken_environment(&self) -> Option<String> {
        self.environment.iter().find_map(|(name, value)| {
            let bad = name.is_empty() || name.contains(['=', '\0']) || value.contains('\0');
            bad.then(|| format!("{name:?} cannot be a variable of the environment"))
        })
    }

    fn broken_files(&self) -> Option<String> {
        let bytes: usize = self.files.iter().map(|file| file.name.len() + file.content.len()).sum();
        if bytes > SHIPPED_BYTES_MAX {
            return Some(format!(
                "the files sent along have {bytes} bytes, at most {SHIPPED_BYTES_MAX} are allowed; \
                 store larger ones in the cluster and read them from there"
            ));
        }
        let mut names: Vec<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Some(format!("two files sent along have the name {:?}", twice[0]));
        }
        let bad = |name: &&str| {
            name.is_empty() || *name == "." || *name == ".." || name.contains(['/', '\0'])
        };
        names.iter().find(|name| bad(name)).map(|name| format!("{name:?} is not a file's name"))
    }

    fn text_bytes(&self) -> usize {
        let program = match &self.program {
            Program::WordCount => 0,
            Program::Grep { pattern } => pattern.len(),
            Program::Streaming { mapper, combiner, reducer } => {
                let optional = |command: &Option<String>| command.as_ref().map_or(0, String::len);
                mapper.len() + optional(combiner) + optional(reducer)
            }
        };
        let environment = self.environment.iter().map(|(name, value)| name.len() + value.len());
        program
            + self.name.len()
            + self.output.len()
            + self.input.iter().map(String::len).sum::<usize>()
            + environment.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streaming(mapper: &str) -> JobSpec {
        let program = Program::Streaming {
            mapper: mapper.to_owned(),
            combiner: None,
            reducer: Some("cat".to_owned()),
        };
        JobSpec::new(program, vec!["/b/in".to_owned()], "/b/out")
    }

    #[test]
    fn a_plain_job_is_valid() {
        streaming("cat").validate().expect("nothing is wrong with it");
    }

    #[test]
    fn what_can_never_run_is_refused_with_the_reason() {
        let refused = |spec: JobSpec, word: &str| {
            let error = spec.validate().expect_err(word).to_string();
            assert!(error.contains(word), "{error:?} does not mention {word:?}");
        };
        refused(streaming("  "), "command is empty");
        refused(JobSpec { input: Vec::new(), ..streaming("cat") }, "input paths");
        refused(JobSpec { reducers: Some(0), ..streaming("cat") }, "0 reducers");
        refused(JobSpec { split_bytes: 0, ..streaming("cat") }, "split");
        refused(JobSpec { split_bytes: u64::MAX, ..streaming("cat") }, "split");
        refused(JobSpec { reducers: Some(u32::MAX), ..streaming("cat") }, "reducers");
        refused(JobSpec { task_timeout: Duration::ZERO, ..streaming("cat") }, "timeout");
        let environment = BTreeMap::from([("A=B".to_owned(), String::new())]);
        refused(JobSpec { environment, ..streaming("cat") }, "variable");
        let file = |name: &str| ShippedFile { name: name.to_owned(), content: Bytes::new() };
        refused(JobSpec { files: vec![file("../a")], ..streaming("cat") }, "file's name");
        refused(JobSpec { files: vec![file("a"), file("a")], ..streaming("cat") }, "two files");
        let counting = JobSpec::new(Program::WordCount, vec!["/b/in".to_owned()], "/b/out");
        refused(JobSpec { reducers: Some(0), ..counting }, "at least one reducer");
        let grep = Program::Grep { pattern: "(".to_owned() };
        refused(JobSpec::new(grep, vec!["/b/in".to_owned()], "/b/out"), "unclosed group");
    }
}
