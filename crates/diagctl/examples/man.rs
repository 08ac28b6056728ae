//! Writes the manual pages into a directory: `cargo run --example man -- DIRECTORY`.

use std::io::{Error, Result};
use std::path::PathBuf;

fn main() -> Result<()> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from);
    let directory = directory.ok_or_else(|| Error::other("usage: man DIRECTORY"))?;
    std::fs::create_dir_all(&directory)?;
    clap_mangen::generate_to(diagctl::command(), &directory)
}
