//! MapReduce over the cluster's files, compared with counts made here.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::local_cluster::LocalCluster;

/// Text with a known, uneven distribution of words, in lines of uneven length.
fn text(lines: usize) -> String {
    let mut text = String::new();
    let mut state = 7u64;
    for line in 0..lines {
        for _ in 0..line % 13 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let word = (state >> 33) % 1000;
            write!(text, "w{} ", word * word / 1000).expect("a String takes everything");
        }
        text.push('\n');
    }
    text
}

fn count(text: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for word in text.split_whitespace() {
        *counts.entry(word.to_owned()).or_default() += 1;
    }
    counts
}

fn output(cluster: &LocalCluster, folder: &str) -> BTreeMap<String, u64> {
    let listing = cluster.must(&["fs", "ls", folder, "--output", "json"]);
    let listing: serde_json::Value = serde_json::from_str(&listing).expect("JSON");
    let paths: Vec<&str> =
        listing.as_array().expect("a list").iter().filter_map(|row| row["path"].as_str()).collect();
    assert!(paths.iter().any(|path| path.ends_with("/_SUCCESS")), "{paths:?}");
    let mut counts = BTreeMap::new();
    for path in paths.iter().filter(|path| path.contains("/part-")) {
        for line in cluster.must(&["fs", "cat", path]).lines() {
            let (word, count) = line.split_once('\t').expect("word<TAB>count");
            let before = counts.insert(word.to_owned(), count.parse().expect("a number"));
            assert!(before.is_none(), "{word} is in the output twice");
        }
    }
    counts
}

#[test]
fn counts_are_right_whoever_counts_and_whoever_dies() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut cluster = LocalCluster::start(folder.path(), 3);
    let words = text(300_000);
    let expected = count(&words);
    let file = folder.path().join("words");
    std::fs::write(&file, &words).expect("writable");
    cluster.must(&["fs", "mkdir", "/texts"]);
    cluster.must(&["fs", "put", file.to_str().expect("plain"), "/texts/in/words"]);

    let run = ["mr", "run", "wordcount", "--input", "/texts/in/", "--output"];
    cluster.must(&[&run[..], &["/texts/native"]].concat());
    assert_eq!(output(&cluster, "/texts/native"), expected);

    let mapper = "tr -s ' ' '\\n' | grep -v '^$' | sed 's/$/\\t1/'";
    let reducer = "awk -F'\\t' '$1 != last { if (n) print last \"\\t\" n; last = $1; n = 0 } \
                   { n += $2 } END { if (n) print last \"\\t\" n }'";
    let streaming = [
        "mr",
        "run",
        "--mapper",
        mapper,
        "--reducer",
        reducer,
        "--input",
        "/texts/in/words",
        "--output",
        "/texts/streaming",
    ];
    cluster.must(&streaming);
    assert_eq!(output(&cluster, "/texts/streaming"), expected);

    // A slow job, so that a worker dies in its middle.
    let slow = format!("sleep 2; {mapper}");
    let job = cluster.must(&[
        "mr",
        "run",
        "--mapper",
        &slow,
        "--reducer",
        reducer,
        "--input",
        "/texts/in/words",
        "--output",
        "/texts/survived",
        "--detach",
    ]);
    let job = job.trim().to_owned();
    cluster.act("kill", 2);
    cluster.wait_for("the job to end", |cluster| {
        let status = cluster.must(&["mr", "status", &job]);
        assert!(!status.contains("failed ("), "{status}");
        status.contains("succeeded")
    });
    assert_eq!(output(&cluster, "/texts/survived"), expected);
    cluster.stop();
}

#[test]
fn what_is_wrong_with_a_job_is_said_in_one_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cluster = LocalCluster::start(folder.path(), 1);
    let file = folder.path().join("words");
    std::fs::write(&file, "a b c\n").expect("writable");
    cluster.must(&["fs", "mkdir", "/texts"]);
    cluster.must(&["fs", "put", file.to_str().expect("plain"), "/texts/words"]);
    let refused = |arguments: &[&str], word: &str| {
        let output = cluster.run(&[&["mr", "run"], arguments].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        let line = error.lines().find(|line| line.starts_with("error: ")).expect("an error line");
        assert!(line.contains(word), "{arguments:?}: {line}");
    };
    refused(&["juggle", "--input", "/texts/words", "--output", "/texts/o"], "juggle");
    refused(&["wordcount", "--input", "/texts/none", "--output", "/texts/o"], "/texts/none");
    refused(&["wordcount", "--input", "/none/words", "--output", "/texts/o"], "none");
    refused(
        &["--mapper", "/no/such/program", "--input", "/texts/words", "--output", "/texts/o1"],
        "/no/such/program",
    );
    refused(
        &["--mapper", "echo why >&2; exit 3", "--input", "/texts/words", "--output", "/texts/o2"],
        "why",
    );
    cluster.must(&["mr", "run", "wordcount", "--input", "/texts/words", "--output", "/texts/o"]);
    refused(&["wordcount", "--input", "/texts/words", "--output", "/texts/o"], "exists");
    cluster.stop();
}
