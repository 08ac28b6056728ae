//! `diagctl init`: looks at the machine, writes a configuration that fits it, and says what to paste where.

mod file;
mod machine;
mod steps;

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use super::output::Done;
use super::{Failure, config};
use crate::cgroup::CgroupRoot;
use crate::config::DEFAULT_FILE;
use crate::fsio::NewFile;
use crate::proc::Proc;
use machine::Machine;

/// Bytes of the longest configuration.
const MOST: u64 = 1 << 20;

const EXAMPLES: &str = "\
Examples:
  sudo diagctl init
  diagctl init -o config/diagctl.toml --dir /srv/diagnostics
  diagctl init -o -";

/// Write a configuration that fits this machine, and say what to paste where
///
/// Looks at the memory limit, the disk, and at the Puma and Sidekiq processes that run: their number, memory and allocator. Run it
/// beside them, in their container or on their host. An existing file is never overwritten, unless it has nothing but comments,
/// as that of the Debian package. `diagctl config init` prints a commented example that looks at nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Write to FILE, or with - to stdout [default: --config, DIAGCTL_CONFIG, else /etc/diagctl/diagctl.toml]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Needs no configuration. `named` is the one that the flag or the environment names.
pub fn run(args: &Args, named: Option<PathBuf>, dir: Option<PathBuf>) -> Result<Done, Failure> {
    let store = crate::config::defaults(&super::overrides(dir)?)?.config.dir;
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
    if says_nothing(&path) {
        replace(&path, &text)?
    } else {
        config::write_new(&path, &text)?
    }
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

// The old file stays until the new one is whole.
fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    // The workers have to read the file.
    let write = || {
        let mut file = NewFile::create(path, 0o644)?;
        file.write_all(text.as_bytes())?;
        Ok(file)
    };
    let file = write().map_err(|e| Failure::output("write", path, e))?;
    file.replace().map_err(|e| Failure::output("replace", path, e))
}

// The Debian package brings a file in which everything is commented out. A device or a FIFO is neither read nor replaced.
fn says_nothing(path: &Path) -> bool {
    if !std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= MOST) {
        return false;
    }
    let text = std::fs::read_to_string(path);
    text.is_ok_and(|text| text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_neither_read_nor_replaced() {
        assert!(!says_nothing(Path::new("/dev/null")) && !says_nothing(Path::new("/dev/full")));
    }

    #[test]
    fn a_file_is_replaced_only_if_it_has_nothing_but_comments() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("diagctl.toml");
        let args = Args { output: Some(path.clone()) };
        let store = dir.path().join("store");
        std::fs::write(&path, "# enabled = true\n\n  # more\n").unwrap();
        run(&args, None, Some(store.clone())).unwrap();
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(written.contains("[[rules]]") && written.contains(&store.display().to_string()), "{written}");
        assert!(run(&args, None, Some(store)).unwrap_err().hint.unwrap().contains("never overwritten"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), written);
    }
}
