//! The cores stay pure: nothing in them reaches for time, chance, threads or the system.

/// The pure files, which a new one must be added to.
const FILES: [(&str, &str); 14] = [
    ("divergence", include_str!("divergence.rs")),
    ("liveness", include_str!("liveness.rs")),
    ("replicated_time", include_str!("replicated_time.rs")),
    ("state/mod", include_str!("state/mod.rs")),
    ("state/command", include_str!("state/command.rs")),
    ("state/export", include_str!("state/export.rs")),
    ("state/generations", include_str!("state/generations.rs")),
    ("state/group", include_str!("state/group.rs")),
    ("state/hash", include_str!("state/hash.rs")),
    ("state/pairs", include_str!("state/pairs.rs")),
    ("state/presence", include_str!("state/presence.rs")),
    ("state/records", include_str!("state/records.rs")),
    ("state/sessions", include_str!("state/sessions.rs")),
    ("state/staging", include_str!("state/staging.rs")),
];

const FORBIDDEN: [&str; 13] = [
    "tokio",
    "Instant",
    "SystemTime",
    "std::time",
    "std::fs",
    "std::net",
    "std::thread",
    "rand::",
    "HashMap",
    "HashSet",
    "async ",
    "unsafe",
    "tracing",
];

#[test]
fn the_cores_use_nothing_impure() {
    for (file, text) in FILES {
        for word in FORBIDDEN {
            assert!(!text.contains(word), "{file}.rs uses {word}");
        }
    }
}

#[test]
fn every_file_of_the_state_is_looked_at() {
    let modules = include_str!("state/mod.rs").lines();
    let modules = modules.filter_map(|line| line.split_once("mod ")?.1.strip_suffix(';'));
    for module in modules.filter(|module| *module != "tests") {
        let file = format!("state/{module}");
        assert!(FILES.iter().any(|(looked_at, _)| *looked_at == file), "{file}.rs is new");
    }
}
