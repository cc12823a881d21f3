//! The house rules that a program can check.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A file is one idea; one that grows beyond this holds two.
const FILE_LINES_MAX: usize = 800;

/// Rows about compatibility that no test looks at: bounds that would take too much to reach.
const UNTESTED_ROWS_MAX: usize = 5;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn files_below(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder is readable") {
        let path = entry.expect("the entry is readable").path();
        if path.is_dir() {
            files_below(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    files_below(&root().join("crates"), "rs", &mut paths);
    assert!(paths.len() > 50, "the sources are not where they are looked for");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("sources are UTF-8");
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn files_stay_short() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            broken.push(format!("{} has {lines} lines", path.display()));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn nothing_is_left_for_later() {
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["unimple", "mented!("].concat()];
    let mut broken = Vec::new();
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark.as_str())) {
                broken.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_dependency_is_explained() {
    let explained = fs::read_to_string(root().join("docs/dependencies.md")).expect("it exists");
    let mut manifests = Vec::new();
    for entry in fs::read_dir(root().join("crates")).expect("it exists") {
        manifests.push(entry.expect("readable").path().join("Cargo.toml"));
    }
    let mut unexplained = BTreeSet::new();
    for manifest in manifests {
        let text = fs::read_to_string(&manifest).expect("every crate has a manifest");
        for line in text.lines() {
            let Some((name, _)) = line.split_once(".workspace") else { continue };
            let is_package_field =
                ["version", "edition", "rust-version", "license", "publish"].contains(&name);
            let known =
                explained.contains(&format!("{name},")) || explained.contains(&format!("{name} |"));
            if !name.starts_with("onefold-") && !is_package_field && !known {
                unexplained.insert(name.to_owned());
            }
        }
    }
    assert!(unexplained.is_empty(), "docs/dependencies.md lacks {unexplained:?}");
}

#[test]
fn every_row_of_compatibility_names_a_test() {
    let mut tests = String::new();
    for (folder, extension) in [("crates", "rs"), ("tests/clients", "go")] {
        let mut paths = Vec::new();
        files_below(&root().join(folder), extension, &mut paths);
        for path in paths {
            tests.push_str(&fs::read_to_string(path).expect("sources are UTF-8"));
        }
    }
    let page = fs::read_to_string(root().join("docs/kv/compatibility.md")).expect("it exists");
    let (mut rows, mut untested, mut broken) = (0, 0, Vec::new());
    for line in page.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let is_row = cells.len() > 2 && ["same", "better", "different"].contains(&cells[1]);
        if !is_row {
            continue;
        }
        rows += 1;
        let named = cells.last().expect("a row has cells").trim_matches('`');
        if named == "none" {
            untested += 1;
        } else if !["fn ", "func "].iter().any(|word| tests.contains(&format!("{word}{named}("))) {
            broken.push(format!("{} names no test: {named}", cells[0]));
        }
    }
    assert!(rows > 90, "the rows are not where they are looked for: {rows}");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(untested <= UNTESTED_ROWS_MAX, "{untested} rows have no test");
}
