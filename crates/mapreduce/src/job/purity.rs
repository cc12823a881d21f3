//! The core stays pure: a look at its source.

const SOURCES: [(&str, &str); 9] = [
    ("names.rs", include_str!("names.rs")),
    ("pending.rs", include_str!("pending.rs")),
    ("schedule/mod.rs", include_str!("schedule/mod.rs")),
    ("schedule/failure.rs", include_str!("schedule/failure.rs")),
    ("schedule/progress.rs", include_str!("schedule/progress.rs")),
    ("schedule/straggler.rs", include_str!("schedule/straggler.rs")),
    ("scheduler.rs", include_str!("scheduler.rs")),
    ("task.rs", include_str!("task.rs")),
    ("workers.rs", include_str!("workers.rs")),
];

const FORBIDDEN: [&str; 12] = [
    "std::time",
    "std::fs",
    "std::net",
    "std::thread",
    "std::sync",
    "std::env",
    "tokio",
    "rand::",
    "HashMap",
    "HashSet",
    "async ",
    "tracing::",
];

#[test]
fn the_core_uses_no_clock_no_io_no_randomness_and_no_unordered_map() {
    for (name, source) in SOURCES {
        for word in FORBIDDEN {
            assert!(!source.contains(word), "{name} mentions {word}");
        }
    }
}
