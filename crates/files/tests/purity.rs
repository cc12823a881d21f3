//! The decisions of the file system are pure: their source files name no clock, disk, network,
//! thread, randomness, or map without an order.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

const PURE: [&str; 5] = [
    "src/namespace",
    "src/chunk/appends.rs",
    "src/chunk/format.rs",
    "src/master/plan.rs",
    "src/master/servers.rs",
];

const FORBIDDEN: [&str; 10] = [
    "Instant",
    "SystemTime",
    "std::fs",
    "std::net",
    "std::thread",
    "std::env",
    "tokio",
    "rand::",
    "HashMap",
    "HashSet",
];

fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            sources(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path.to_owned());
    }
}

#[test]
fn pure_cores_stay_pure() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    PURE.iter().for_each(|path| sources(&root.join(path), &mut files));
    assert!(files.len() > 10, "the pure cores were moved: {files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for word in FORBIDDEN {
            assert!(!text.contains(word), "{} uses {word}", file.display());
        }
    }
}
