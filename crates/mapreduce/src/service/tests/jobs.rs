//! What users do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use onefold_files::{FileSystem, FilesError};
use onefold_types::Timestamp;

use super::fixture::{Cluster, spec, streaming};
use crate::coordinator::Store;
use crate::{JobId, JobSpec, LogRequest, MapReduce, MapReduceError, Phase, Program, TaskName};

fn text(seed: u32, words: u32) -> String {
    let mut text = String::new();
    for at in 0..words {
        let number = (at.wrapping_mul(2_654_435_761).wrapping_add(seed)) >> 20;
        text.push_str(&format!("w{} ", number % 700));
        if at % 11 == 0 {
            text.push('\n');
        }
    }
    text
}

fn count(texts: &[String]) -> Vec<String> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for word in texts.iter().flat_map(|text| text.split_whitespace()) {
        *counts.entry(word).or_default() += 1;
    }
    counts.iter().map(|(word, count)| format!("{word}\t{count}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wordcount_equals_a_plain_count() {
    let cluster = Cluster::start(3).await;
    let texts: Vec<String> = (0..10).map(|seed| text(seed * 77, 3000)).collect();
    for (number, text) in texts.iter().enumerate() {
        cluster.put(&format!("in/deep/{number}"), text.clone()).await;
    }
    cluster.put("input-not-in-the-folder", "nobody counts this").await;
    cluster.files.make_directory("books", "in").await.expect("a folder's marker");
    cluster.files.make_directory("books", "in/deep").await.expect("a folder's marker");
    let mut spec = spec(Program::WordCount);
    spec.split_bytes = 4000;
    spec.reducers = None;
    let status = cluster.succeed(spec).await;
    let mut expected = count(&texts);
    expected.sort();
    assert_eq!(cluster.output().await, expected);
    let counter = |name: &str| status.counters.get("task", name);
    let bytes: usize = texts.iter().map(String::len).sum();
    assert_eq!(counter("map_input_bytes"), bytes as u64);
    assert_eq!(status.input_bytes, bytes as u64);
    assert!(counter("data_local_maps") > 0, "{:?}", status.counters);
    assert_eq!(status.summary.reduces.total, 6, "two for each node");
    assert_eq!(status.permille(), 1000);
    assert_eq!(cluster.keys("mapreduce/active/").await, 0);
    for kind in ["mapreduce/split/", "mapreduce/done/", "mapreduce/plan/", "mapreduce/garbage/"] {
        while cluster.keys(kind).await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let folders = ["node-1", "node-2", "node-3"].map(|node| cluster.folder.path().join(node));
    for jobs in folders.map(|folder| folder.join("jobs")) {
        while jobs.read_dir().expect("a folder").next().is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_that_is_repeated_is_one_job() {
    let cluster = Cluster::start(0).await;
    let store = Store::new(Arc::new(cluster.kv.clone()));
    let submit = async |token| {
        let job = store.submit(&spec(Program::WordCount), token, Timestamp(1)).await;
        job.expect("accepted")
    };
    assert_eq!(submit(5).await, JobId(1));
    assert_eq!(submit(5).await, JobId(1));
    assert_eq!(submit(6).await, JobId(2));
    let both = tokio::join!(submit(7), submit(8));
    assert_eq!(both.0.0.min(both.1.0), 3);
    assert_eq!(both.0.0.max(both.1.0), 4);
    assert_eq!(store.list(None).await.expect("a list").jobs.len(), 4);
    for token in 100..196 {
        submit(token).await;
    }
    let error = store.submit(&spec(Program::WordCount), 999, Timestamp(1)).await;
    assert_eq!(error, Err(MapReduceError::Overloaded { active: 100 }));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_and_jobs_without_reducers_run_too() {
    let cluster = Cluster::start(2).await;
    cluster.put("in/a", "b 2\na 1\n").await;
    cluster.put("in/b", "a 3").await;
    let swap = "awk '{ print $1 \"\\t\" $2 }'";
    let sum = "awk -F'\\t' '{ s[$1] += $2 } END { for (k in s) print k \"=\" s[k] }'";
    cluster.succeed(spec(streaming(swap, Some(sum)))).await;
    assert_eq!(cluster.output().await, ["a=4", "b=2"]);

    let mapper = "sed \"s|^|$mapreduce_map_input_file |\"";
    let mut map_only = spec(streaming(mapper, None));
    (map_only.reducers, map_only.overwrite) = (Some(0), true);
    cluster.succeed(map_only).await;
    assert_eq!(cluster.output().await, ["/books/in/a a 1", "/books/in/a b 2", "/books/in/b a 3"]);
    assert!(cluster.list("out/").await.iter().any(|key| key.starts_with("out/part-m-0000")));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_means_a_file_else_a_folder_else_a_prefix() {
    let cluster = Cluster::start(1).await;
    for key in ["a", "a/b", "a/c/d", "ab", "b/"] {
        cluster.put(&format!("in/{key}"), key.replace('/', "_")).await;
    }
    let mut overwriting = spec(Program::WordCount);
    overwriting.overwrite = true;
    for (path, words) in [
        ("/books/in/a", vec!["a\t1"]),
        ("/books/in/a/", vec!["a_b\t1", "a_c_d\t1"]),
        ("/books/in/a/c", vec!["a_c_d\t1"]),
        ("/books/in/a*", vec!["a\t1", "a_b\t1", "a_c_d\t1", "ab\t1"]),
        ("/books/in/b/", vec!["b_\t1"]),
        ("/books/in", vec!["a\t1", "a_b\t1", "a_c_d\t1", "ab\t1", "b_\t1"]),
    ] {
        cluster.succeed(JobSpec { input: vec![path.to_owned()], ..overwriting.clone() }).await;
        assert_eq!(cluster.output().await, words, "{path}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_run_is_refused_at_once() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    cluster.put("in/a", "x").await;
    let submit = async |spec: JobSpec| client.submit(spec).await.expect_err("it cannot run");
    let missing = JobSpec { input: vec!["/books/none".to_owned()], ..spec(Program::WordCount) };
    assert!(matches!(submit(missing).await, MapReduceError::NoInput { .. }));
    let bucket = JobSpec { output: "/books".to_owned(), ..spec(Program::WordCount) };
    assert!(matches!(submit(bucket).await, MapReduceError::Invalid { .. }));
    let elsewhere = JobSpec { output: "/nowhere/out".to_owned(), ..spec(Program::WordCount) };
    let error = submit(elsewhere).await;
    assert!(matches!(error, MapReduceError::Files(FilesError::NoSuchBucket { .. })), "{error}");
    let grep = Program::Grep { pattern: "(".to_owned() };
    assert!(matches!(submit(spec(grep)).await, MapReduceError::Invalid { .. }));
    cluster.put("out/mine", "precious").await;
    assert!(matches!(submit(spec(Program::WordCount)).await, MapReduceError::OutputExists { .. }));
    let onto_itself =
        JobSpec { output: "/books/in".to_owned(), overwrite: true, ..spec(Program::WordCount) };
    assert!(matches!(submit(onto_itself).await, MapReduceError::Invalid { .. }));
    assert_eq!(cluster.list("in/").await, ["in/a"]);
    assert_eq!(client.list(None).await.expect("a list").jobs, []);
    let nobody = JobId(77);
    let unknown = MapReduceError::NoSuchJob { job: nobody };
    assert_eq!(client.status(nobody).await, Err(unknown.clone()));
    assert_eq!(client.cancel(nobody).await, Err(unknown.clone()));
    assert_eq!(client.logs(LogRequest { job: nobody, task: None }).await, Err(unknown));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_mapper_fails_the_job_with_its_words_and_leaves_no_output() {
    let cluster = Cluster::start(2).await;
    cluster.put("in/a", "x").await;
    let client = cluster.client();
    for (mapper, words) in [
        ("no-such-mapper", vec!["m-00000 failed 4 times", "was not found"]),
        ("echo no luck >&2; exit 3", vec!["exit code 3", "no luck"]),
    ] {
        let job = client.submit(spec(streaming(mapper, None))).await.expect("accepted");
        let status = cluster.wait(job).await;
        let error = status.error.unwrap_or_default();
        assert_eq!(status.summary.phase, Phase::Failed);
        assert_eq!((status.failed_attempts, status.failures.len()), (4, 4));
        for word in words {
            assert!(error.contains(word), "{error:?} does not mention {word:?}");
        }
        assert_eq!(cluster.list("out").await, Vec::<String>::new());
        let logs = client.logs(LogRequest { job, task: Some(TaskName::map(0)) }).await;
        let logs = logs.expect("logs");
        assert_eq!(logs.len(), 4, "each attempt's: {logs:?}");
        assert_eq!(client.cancel(job).await, Err(MapReduceError::JobEnded { job }));
    }
    let jobs = client.list(None).await.expect("a list").jobs;
    let ids: Vec<JobId> = jobs.iter().map(|summary| summary.job).collect();
    assert_eq!(ids, [JobId(2), JobId(1)]);
    assert_eq!(client.list(Some(JobId(2))).await.expect("a list").jobs.len(), 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_never_ends_can_be_cancelled() {
    let cluster = Cluster::start(2).await;
    cluster.put("in/a", "x").await;
    let pid_file = cluster.folder.path().join("pid");
    let mapper = format!("echo $$ > {}; sleep 1000; sleep 1000", pid_file.display());
    let client = cluster.client();
    let job = client.submit(spec(streaming(&mapper, None))).await.expect("accepted");
    cluster.wait_for(job, |_| pid_file.metadata().is_ok_and(|file| file.len() > 1)).await;
    client.cancel(job).await.expect("cancelled");
    let status = cluster.wait(job).await;
    assert_eq!((status.summary.phase, status.error), (Phase::Cancelled, None));
    assert_eq!(cluster.list("out").await, Vec::<String>::new());
    let pid = std::fs::read_to_string(&pid_file).expect("its number");
    let process = std::path::PathBuf::from(format!("/proc/{}", pid.trim()));
    while process.exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_jobs_never_write_into_one_folder() {
    let cluster = Cluster::start(1).await;
    cluster.put("in/a", "x\n").await;
    let client = cluster.client();
    let slow = spec(streaming("sleep 0.5; cat", None));
    let first = client.submit(slow.clone()).await.expect("accepted");
    let second = JobSpec { overwrite: true, output: "/books/out/deeper".to_owned(), ..slow };
    let second = client.submit(second).await.expect("accepted");
    assert_eq!(cluster.wait(second).await.summary.phase, Phase::Failed);
    let status = cluster.wait(first).await;
    cluster.assert_succeeded(&status).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_that_changes_while_the_job_runs_is_noticed() {
    let cluster = Cluster::start(1).await;
    for number in 0..6 {
        cluster.put(&format!("in/{number}"), format!("{number}\n")).await;
    }
    let client = cluster.client();
    let mut spec = spec(streaming("sleep 0.3; cat", None));
    spec.split_bytes = 1;
    let job = client.submit(spec).await.expect("accepted");
    cluster.wait_for(job, |status| status.summary.maps.total > 0).await;
    for number in 0..6 {
        cluster.put(&format!("in/{number}"), "changed\n").await;
    }
    let status = cluster.wait(job).await;
    let error = status.error.unwrap_or_default();
    assert!(error.contains("it was changed while the job ran"), "{error}");
    assert!(cluster.files.stat("books", "in/0").await.is_ok());
    cluster.stop().await;
}
