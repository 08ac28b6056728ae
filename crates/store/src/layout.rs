//! The names in a store.

/// The layout that this program writes.
pub const FORMAT: u32 = 1;

/// The directories in a store.
pub const SUBDIRS: [&str; 6] = ["staging", "reports", "requests", "samples", "quarantine", "trash"];

/// Names that may be in a directory that is about to become a store.
pub const HARMLESS: [&str; 3] = ["lease.lock", "state.lock", "lost+found"];

/// The cache over `reports/*/meta.json`.
pub const INDEX: &str = "index.jsonl";

/// The packed cache with running totals. A format that earlier versions would misread gets another name.
pub const CATALOG: &str = "catalog.bin";

/// What a poll looks at of very many requests.
pub const CROWD: &str = "requests.json";

/// The other names in a store. A directory that has nothing but names of a store is what `rm -rf` left of one while a process that
/// polls wrote into it.
pub const LEFT: [&str; 11] = [
    "state.json",
    "lease.json",
    INDEX,
    CATALOG,
    CROWD,
    "events.jsonl",
    "samples.jsonl",
    "samples.1.jsonl",
    "execs.json",
    "config.good.toml",
    "config.cache",
];
