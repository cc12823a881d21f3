//! Whole jobs over files of the machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use super::run::{LocalOptions, run_with_limits};
use crate::api::{JobSpec, JobStatus, MapReduceError, Phase, Program, ShippedFile};
use crate::task::TaskLimits;

/// A folder with input below `in`.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, content) in files {
            let path = folder.path().join("in").join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, content).expect("an input file");
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    fn spec(&self, program: Program) -> JobSpec {
        let mut spec = JobSpec::new(program, vec![self.path("in")], self.path("out"));
        spec.reducers = Some(3);
        spec
    }

    fn run(&self, spec: JobSpec) -> Result<JobStatus, MapReduceError> {
        // So small that every step of the shuffle happens.
        let limits =
            TaskLimits { sort_bytes: 500, count_bytes: 60_000, fetch_bytes: 100, merge_ways: 3 };
        let options = LocalOptions {
            threads: 3,
            scratch: Some(self.folder.path().to_owned()),
            cancel: Arc::default(),
        };
        let result = run_with_limits(spec, &options, limits, |_| {});
        let left = fs::read_dir(self.folder.path()).expect("a folder");
        let left: Vec<_> = left.map(|entry| entry.expect("an entry").file_name()).collect();
        assert!(left.iter().all(|name| name == "in" || name == "out"), "left behind: {left:?}");
        result
    }

    fn succeed(&self, spec: JobSpec) -> JobStatus {
        let status = self.run(spec).expect("a job that can run");
        assert_eq!((status.summary.phase, &status.error), (Phase::Succeeded, &None));
        assert!(Path::new(&self.path("out/_SUCCESS")).exists());
        assert!(!Path::new(&self.path("out/_temporary")).exists());
        status
    }

    fn fail(&self, spec: JobSpec) -> String {
        let status = self.run(spec).expect("a job that can run");
        assert_eq!(status.summary.phase, Phase::Failed);
        assert!(!Path::new(&self.path("out")).exists(), "a failed job leaves no output");
        status.error.expect("a reason")
    }

    /// The lines of all output files; each file's are in order.
    fn output(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.path("out"))
            .expect("an output folder")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.file_name().is_some_and(|name| name != "_SUCCESS"))
            .collect();
        names.sort();
        let texts = names.iter().map(|path| fs::read_to_string(path).expect("an output file"));
        texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    fn sorted_output(&self) -> Vec<String> {
        let mut lines = self.output();
        lines.sort();
        lines
    }
}

fn streaming(mapper: &str, combiner: Option<&str>, reducer: Option<&str>) -> Program {
    Program::Streaming {
        mapper: mapper.to_owned(),
        combiner: combiner.map(str::to_owned),
        reducer: reducer.map(str::to_owned),
    }
}

/// Text of all kinds of words, separators and line ends, some of them no UTF-8.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut text = Vec::new();
    while text.len() < bytes {
        match random.random_range(0..12) {
            0 => text.push(b'\n'),
            1 => text.push(random.random()),
            2 => text.extend("é".bytes()),
            3 => text.extend(format!("a_rather_long_word_{}", random.random_range(0..50)).bytes()),
            4 => text.extend(format!("Word{} ", random.random_range(0..5000)).bytes()),
            _ => text.extend(format!("{} ", random.random_range(0..30)).bytes()),
        }
    }
    text
}

/// The rule in plain code.
fn count_words(texts: &[Vec<u8>]) -> Vec<String> {
    let mut counts: BTreeMap<&[u8], u64> = BTreeMap::new();
    for text in texts {
        let words = text.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
        for word in words.filter(|word| !word.is_empty()) {
            *counts.entry(word).or_default() += 1;
        }
    }
    let line =
        |(word, count): (&&[u8], &u64)| format!("{}\t{count}", String::from_utf8_lossy(word));
    counts.iter().map(line).collect()
}

#[test]
fn wordcount_equals_a_plain_count() {
    let texts: Vec<Vec<u8>> = (0..4).map(|seed| noise(seed, 40_000)).collect();
    let place = Place::new(&[
        ("a", &texts[0]),
        ("deep/er/b", &texts[1]),
        (".hidden", &texts[2]),
        ("_c", &texts[3]),
        ("empty", b""),
    ]);
    let mut spec = place.spec(Program::WordCount);
    spec.split_bytes = 7_000;
    let status = place.succeed(spec);
    let mut expected = count_words(&texts);
    expected.sort();
    assert_eq!(place.sorted_output(), expected);
    let counter = |name: &str| status.counters.get("task", name);
    assert_eq!(counter("map_input_bytes"), texts.iter().map(|text| text.len() as u64).sum::<u64>());
    assert_eq!(counter("output_records"), expected.len() as u64);
    assert!(
        status.summary.maps.total > 20 && status.summary.maps.done == status.summary.maps.total
    );
}

#[test]
fn each_output_file_is_sorted_by_the_bytes_of_its_keys() {
    let place = Place::new(&[("a", &noise(9, 60_000))]);
    place.succeed(place.spec(Program::WordCount));
    for part in 0..3 {
        let text = fs::read(place.path(&format!("out/part-r-{part:05}"))).expect("a part");
        let keys: Vec<&[u8]> = text
            .split(|&byte| byte == b'\n')
            .filter_map(|line| line.split(|&byte| byte == b'\t').next())
            .filter(|key| !key.is_empty())
            .collect();
        assert!(keys.len() > 100 && keys.is_sorted());
    }
}

#[test]
fn grep_counts_matches_within_lines() {
    let text = b"foo1 foo22 bar\nfoo1\n\nfoo foo333 \xffoo9\nfo\no1";
    let place = Place::new(&[("a", text)]);
    let pattern = r"fo+\d*".to_owned();
    place.succeed(place.spec(Program::Grep { pattern }));
    assert_eq!(place.sorted_output(), ["fo\t1", "foo\t1", "foo1\t2", "foo22\t1", "foo333\t1"]);
}

#[test]
fn commands_map_combine_and_reduce() {
    let texts: Vec<Vec<u8>> = vec![noise(1, 20_000), noise(2, 20_000)];
    let place = Place::new(&[("a", &texts[0]), ("b", &texts[1])]);
    let sum = r#"awk -F'\t' '
        NR > 1 && $1 != key { print key "\t" sum; sum = 0 }
        { key = $1; sum += $2 }
        END { if (NR) print key "\t" sum }'"#;
    let mapper = r#"tr -cs 'A-Za-z0-9_' '\n' | awk 'length { print $0 "\t1" }'"#;
    let mut spec = place.spec(streaming(mapper, Some(sum), Some(sum)));
    spec.split_bytes = 9_000;
    spec.environment.insert("LC_ALL".to_owned(), "C".to_owned());
    place.succeed(spec);
    let mut expected = count_words(&texts);
    expected.sort();
    assert_eq!(place.sorted_output(), expected);
}

#[test]
fn commands_know_their_file_and_report_counters() {
    let place = Place::new(&[("a", b"1\n2\n"), ("b", b"3\n")]);
    let mapper = r#"
        echo "reporter:counter:my,files,1" >&2
        echo "reporter:status:fine" >&2
        while read line; do
            echo "$(basename $mapreduce_map_input_file) $line $mapreduce_task_ismap $GREETING"
        done"#;
    let mut spec = place.spec(streaming(mapper, None, None));
    spec.environment.insert("GREETING".to_owned(), "hello".to_owned());
    let status = place.succeed(spec);
    assert_eq!(place.sorted_output(), ["a 1 true hello\t", "a 2 true hello\t", "b 3 true hello\t"]);
    assert_eq!(status.counters.get("my", "files"), 2);
    assert_eq!(status.counters.get("task", "map_input_records"), 3);
}

#[test]
fn a_job_without_reducers_writes_what_its_mappers_write() {
    let place = Place::new(&[("a", b"x\ty\tz\nno tab"), ("b", b"last\n")]);
    let mut spec = place.spec(streaming("cat", None, None));
    spec.reducers = Some(0);
    place.succeed(spec);
    assert!(Path::new(&place.path("out/part-m-00000")).exists());
    assert_eq!(place.sorted_output(), ["last", "no tab", "x\ty\tz"]);
}

#[test]
fn files_sent_along_are_there_and_executable() {
    let place = Place::new(&[("a", b"x\n")]);
    let mut spec = place.spec(streaming("./my-mapper", None, None));
    let content = Bytes::from_static(b"#!/bin/sh\nsed s/x/y/\n");
    spec.files = vec![ShippedFile { name: "my-mapper".to_owned(), content }];
    place.succeed(spec);
    assert_eq!(place.output(), ["y\t"]);
}

#[test]
fn any_bytes_pass_through_the_shuffle() {
    let text: Vec<u8> =
        (0..20_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let place = Place::new(&[("a", &text)]);
    let mut spec = place.spec(streaming("cat", None, Some("cat")));
    spec.reducers = Some(1);
    spec.split_bytes = 3_000;
    place.succeed(spec);
    let mut expected: Vec<Vec<u8>> = text
        .split(|&byte| byte == b'\n')
        .map(|line| if line.contains(&b'\t') { line.to_vec() } else { [line, b"\t"].concat() })
        .collect();
    expected.sort();
    let output = fs::read(place.path("out/part-r-00000")).expect("the part");
    let output = output.strip_suffix(b"\n").expect("a last line feed");
    let mut lines: Vec<Vec<u8>> = output.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
    lines.sort();
    assert_eq!(lines, expected);
}

#[test]
fn failing_commands_say_what_happened() {
    let place = Place::new(&[("a", b"x\n")]);
    let fails = |mapper: &str, reducer: &str, words: &[&str]| {
        let error = place.fail(place.spec(streaming(mapper, None, Some(reducer))));
        for word in words {
            assert!(error.contains(word), "{error:?} does not mention {word:?}");
        }
    };
    fails(
        "/no/such/mapper",
        "cat",
        &["m-00000 failed 4 times", "/no/such/mapper", "not found", "127"],
    );
    fails("echo oh dear >&2; exit 3", "cat", &["the mapper", "exit code 3", "oh dear"]);
    fails("cat", "kill -9 $$", &["r-0000", "the reducer", "killed by signal 9"]);
    fails("cat", "false", &["the reducer `false`", "exit code 1", "nothing to standard error"]);
    fails("cat /dev/zero", "cat", &["a line of its output is longer"]);
    fails("head -c 20000000 /dev/zero", "cat", &["a key or value", "is longer than 16 MiB"]);
}

#[test]
fn a_combiner_that_breaks_the_order_is_found_out() {
    let place = Place::new(&[("a", b"1\n2\n3\n4\n5\n6\n7\n8\n9\n")]);
    let error = place.fail(place.spec(streaming("cat", Some("sort -r"), Some("cat"))));
    assert!(error.contains("the combiner `sort -r`"), "{error}");
    assert!(error.contains("not in the order of its input"), "{error}");
}

#[test]
fn a_mapper_that_stops_reading_is_no_failure() {
    let place = Place::new(&[("a", &noise(3, 3_000_000))]);
    let mut spec = place.spec(streaming("head -n 1 >/dev/null; echo done", None, None));
    spec.reducers = Some(1);
    place.succeed(spec);
    assert_eq!(place.output(), ["done\t"]);
}

#[test]
fn what_a_command_leaves_running_does_not_hold_the_job_up() {
    let place = Place::new(&[("a", b"x\n")]);
    place.succeed(place.spec(streaming("cat; sleep 1000 & exit 0", None, None)));
    assert_eq!(place.output(), ["x\t"]);
}

#[test]
fn a_command_that_hangs_is_killed_after_the_timeout() {
    let place = Place::new(&[("a", b"x\n")]);
    let mut spec = place.spec(streaming("sleep 1000", None, None));
    spec.task_timeout = Duration::from_secs(1);
    let error = place.fail(spec);
    assert!(error.contains("no progress for 1 s"), "{error}");
}

#[test]
fn a_cancelled_job_ends_its_commands_and_leaves_no_output() {
    let place = Place::new(&[("a", b"x\n")]);
    let marker = place.path("in/started");
    let mapper = format!("touch {marker}; sleep 1000 | sleep 1000");
    let cancel = Arc::new(AtomicBool::new(false));
    let options = LocalOptions { cancel: cancel.clone(), ..LocalOptions::default() };
    let spec = place.spec(streaming(&mapper, None, None));
    let status = run_with_limits(spec, &options, TaskLimits::default(), |_| {
        if Path::new(&marker).exists() {
            cancel.store(true, Ordering::Relaxed);
        }
    });
    assert_eq!(status.expect("a job that can run").summary.phase, Phase::Cancelled);
    assert!(!Path::new(&place.path("out")).exists());
}

#[test]
fn what_cannot_run_is_refused_before_it_starts() {
    let place = Place::new(&[("a", b"x\n")]);
    let mut spec = place.spec(Program::WordCount);
    spec.input = vec![place.path("missing")];
    assert!(matches!(place.run(spec), Err(MapReduceError::NoInput { .. })));

    fs::create_dir(place.path("out")).expect("a folder");
    fs::write(place.path("out/mine"), "precious").expect("a file");
    let mut spec = place.spec(Program::WordCount);
    assert!(matches!(place.run(spec.clone()), Err(MapReduceError::OutputExists { .. })));
    spec.overwrite = true;
    assert!(matches!(place.run(spec.clone()), Err(MapReduceError::Invalid { .. })));
    assert!(Path::new(&place.path("out/mine")).exists());

    fs::write(place.path("out/_SUCCESS"), "").expect("a file");
    let within = JobSpec { input: vec![place.path("out/mine")], ..spec.clone() };
    assert!(matches!(place.run(within), Err(MapReduceError::Invalid { .. })));
    place.succeed(spec);
    assert!(!Path::new(&place.path("out/mine")).exists());
}

#[test]
fn a_prefix_selects_files_and_folders() {
    let place = Place::new(&[("log-1", b"a\n"), ("log-2/x", b"b\n"), ("other", b"c\n")]);
    let mut spec = place.spec(Program::WordCount);
    spec.input = vec![place.path("in/log-*")];
    place.succeed(spec);
    assert_eq!(place.sorted_output(), ["a\t1", "b\t1"]);
}
