//! The house rules that a program can check.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A file is one idea; one that grows beyond this holds two.
const FILE_LINES_MAX: usize = 800;

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
