//! Which files the demo works on.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// The folder that was asked for, else the source code of the crates that cargo downloaded, else
/// this project's own files.
pub fn choose(asked: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(folder) = asked {
        let kind = std::fs::metadata(&folder)
            .with_context(|| format!("cannot read --input {}", folder.display()))?;
        ensure!(kind.is_dir(), "--input {} is no folder; name one", folder.display());
        return Ok(folder);
    }
    let sources = cargo_home().map(|home| home.join("registry/src"));
    if let Some(sources) = sources.filter(|sources| holds_a_folder(sources)) {
        return Ok(sources);
    }
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    project.canonicalize().context(
        "neither cargo's sources nor this project's files are on this machine; name a folder \
         with --input",
    )
}

fn cargo_home() -> Option<PathBuf> {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
}

fn holds_a_folder(path: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(path) else { return false };
    entries.flatten().any(|entry| entry.path().is_dir())
}
