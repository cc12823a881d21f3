//! Runs the scenarios in `tests/scenarios/*.md` on real cores and compares what happens with what
//! is written there.
//!
//! A scenario is a page of prose with blocks of steps (```` ```raft ````). After each step stand
//! the messages and states that follow from it; the runner makes these lines anew and the page must
//! not change by it. `UPDATE_SCENARIOS=1 cargo test -p onefold-raft --test scenarios` writes them;
//! read the difference before you commit it.

#![allow(clippy::disallowed_methods, reason = "the test reads and writes pages, the core does not")]

mod scenario;

use std::{env, fs, path::PathBuf};

use scenario::{difference, run_page};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

/// The pages with steps, by name, and what they say.
fn pages() -> Vec<(String, String)> {
    let files = fs::read_dir(folder()).expect("the folder of scenarios");
    let mut pages: Vec<_> = files
        .map(|file| {
            let file = file.expect("a file of the folder");
            let name = file.file_name().into_string().expect("a name in UTF-8");
            let text = fs::read_to_string(file.path()).expect("a page in UTF-8");
            (name, text)
        })
        .filter(|(name, _)| name != "README.md")
        .collect();
    pages.sort();
    pages
}

#[test]
fn every_scenario_goes_as_it_is_written() {
    let is_update = env::var_os("UPDATE_SCENARIOS").is_some();
    let mut wrong = Vec::new();
    for (name, written) in pages() {
        match run_page(&written) {
            Err(error) => wrong.push(format!("{name}: {error}\n")),
            Ok(happened) if happened == written => {}
            Ok(happened) if is_update => {
                fs::write(folder().join(&name), happened).expect("the page is written");
            }
            Ok(happened) => {
                let lines = difference(&written, &happened);
                wrong.push(format!("{name}: - as written, + as it happened\n{lines}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "\n{}\nIf the new course of events is right: UPDATE_SCENARIOS=1 cargo test -p onefold-raft \
         --test scenarios",
        wrong.join("\n")
    );
}

#[test]
fn every_scenario_is_in_the_table_of_contents() {
    let contents = fs::read_to_string(folder().join("README.md")).expect("a table of contents");
    let missing: Vec<_> = pages()
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| !contents.contains(&format!("({name})")))
        .collect();
    assert!(missing.is_empty(), "not in tests/scenarios/README.md: {missing:?}");
}

/// The runner is tested too: a page that says something else is told apart.
#[test]
fn a_wrong_page_is_found() {
    let page = "```raft\n> cluster 3\n> campaign 1\n> deliver\n> expect leader 2\n```\n";
    let error = run_page(page).expect_err("node 1 leads");
    assert!(error.contains("line 5: expected n2 to be a leader"), "{error}");
    let unknown = run_page("```raft\n> cluster 3\n> frobnicate 1\n```\n");
    assert!(unknown.expect_err("no such step").contains("line 3: no step is called frobnicate"));
    let good = "Prose.\n\n```raft\n> cluster 1\n> campaign 1\n```\n";
    let happened = run_page(good).expect("a good page");
    assert_eq!(run_page(&happened), Ok(happened.clone()), "what happened is what is written");
    assert!(difference(good, &happened).contains("+   n1: candidate"), "{happened}");
}
