//! The core stays pure: nothing in its folder reaches for time, chance, threads or the system.

/// The core's files, which a new one must be added to.
const FILES: [(&str, &str); 25] = [
    ("auth", include_str!("../auth/mod.rs")),
    ("auth/change", include_str!("../auth/change.rs")),
    ("auth/permit", include_str!("../auth/permit.rs")),
    ("auth/records", include_str!("../auth/records.rs")),
    ("auth/spans", include_str!("../auth/spans.rs")),
    ("check", include_str!("../check.rs")),
    ("command", include_str!("../command.rs")),
    ("compact", include_str!("../compact.rs")),
    ("error", include_str!("../error.rs")),
    ("export", include_str!("../export.rs")),
    ("hash", include_str!("../hash.rs")),
    ("history", include_str!("../history.rs")),
    ("import", include_str!("../import.rs")),
    ("keys", include_str!("../keys.rs")),
    ("lease", include_str!("../lease.rs")),
    ("machine", include_str!("../machine.rs")),
    ("range", include_str!("../range.rs")),
    ("state", include_str!("../state.rs")),
    ("counts", include_str!("../counts.rs")),
    ("retention", include_str!("../retention.rs")),
    ("usage", include_str!("../usage.rs")),
    ("stored", include_str!("../stored.rs")),
    ("txn", include_str!("../txn.rs")),
    ("versions", include_str!("../versions.rs")),
    ("writer", include_str!("../writer.rs")),
];

const FORBIDDEN: [&str; 14] = [
    "tokio",
    "Instant",
    "SystemTime",
    "std::time",
    "std::fs",
    "std::net",
    "std::thread",
    "std::sync",
    "rand::",
    "HashMap",
    "HashSet",
    "async ",
    "unsafe",
    "tracing",
];

#[test]
fn the_core_uses_nothing_impure() {
    for (file, text) in FILES {
        for word in FORBIDDEN {
            assert!(!text.contains(word), "store/{file}.rs uses {word}");
        }
    }
}

#[test]
fn every_file_of_the_core_is_looked_at() {
    let modules = include_str!("../mod.rs").lines();
    let modules = modules.filter_map(|line| line.split_once("mod ")?.1.strip_suffix(';'));
    let looked_at: Vec<&str> = FILES.iter().map(|(file, _)| *file).chain(["tests"]).collect();
    for module in modules {
        assert!(looked_at.contains(&module), "store/{module}.rs is not looked at");
    }
}
