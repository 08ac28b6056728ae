//! Everything that the command line says, as snapshots: help, tables, JSON and errors. A change of wording shows up in review as
//! a change of a file in `snapshots/`.
//!
//! After a change that is meant: `INSTA_UPDATE=always cargo test --package diagctl`, then read `git diff`.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod configuration;
mod diagnosis;
mod environment;
mod errors;
mod fixture;
mod heap;
mod help;
mod listing;
mod processes;

/// The sources of these tests, in which every snapshot is named.
const SOURCES: [&str; 7] = [
    include_str!("configuration.rs"),
    include_str!("diagnosis.rs"),
    include_str!("errors.rs"),
    include_str!("heap.rs"),
    include_str!("help.rs"),
    include_str!("listing.rs"),
    include_str!("processes.rs"),
];

#[test]
fn every_snapshot_belongs_to_a_test() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wording/snapshots");
    for entry in std::fs::read_dir(dir).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_suffix(".snap") else { continue };
        let quoted = format!("\"{name}\"");
        assert!(SOURCES.iter().any(|source| source.contains(&quoted)), "{file} belongs to no test: delete it");
    }
}
