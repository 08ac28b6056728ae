//! `diagctl init`: looks at the machine, writes a configuration that fits it, and says what to paste where.

mod file;
mod machine;
mod steps;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::output::Done;
use super::{Failure, config};
use crate::cgroup::CgroupRoot;
use crate::config::DEFAULT_FILE;
use crate::proc::Proc;
use machine::Machine;

const EXAMPLES: &str = "\
Examples:
  sudo diagctl init
  diagctl init -o config/diagctl.toml --dir /srv/diagnostics
  diagctl init -o -";

/// Write a configuration that fits this machine, and say what to paste where
///
/// Looks at the memory limit, the disk, and at the Puma and Sidekiq processes that run: their number, memory and allocator. Run it
/// beside them, in their container or on their host. An existing file is never overwritten. `diagctl config init` prints a
/// commented example that looks at nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Write to FILE, or with - to stdout [default: --config, DIAGCTL_CONFIG, else /etc/diagctl/diagctl.toml]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Needs no configuration. `named` is the one that the flag or the environment names.
pub fn run(args: &Args, named: Option<PathBuf>, dir: Option<PathBuf>) -> Result<Done, Failure> {
    let store = super::overrides(dir)?.dir.map_or_else(|| crate::config::Config::default().dir, |(dir, _)| dir);
    let store = std::path::absolute(&store).unwrap_or(store);
    let machine = Machine::look(&Proc::default(), &CgroupRoot::default(), &store);
    let text = file::fitting(&machine, &store);
    if args.output.as_deref() == Some(Path::new("-")) {
        return Ok(Done::text(text));
    }
    let path = args.output.clone().or(named).unwrap_or_else(|| DEFAULT_FILE.into());
    let path = std::path::absolute(&path).unwrap_or(path);
    if path == Path::new(DEFAULT_FILE) {
        create_parent(&path)?;
    }
    config::write_new(&path, &text)?;
    Ok(Done::text(steps::text(&machine, &path, &store)))
}

// /etc/diagctl is diagctl's own. Any other directory is somebody else's.
fn create_parent(path: &Path) -> Result<(), Failure> {
    let parent = path.parent().unwrap_or(path);
    match std::fs::create_dir(parent) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(Failure::output("create", parent, e)),
        _ => Ok(()),
    }
}
