//! `diagctl config`: checks and shows the configuration, and prints a file to start from.

mod check;
mod rendered;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::output::Done;
use super::{Context, Failure};
use crate::config;
use check::{Check, check};

/// Check, show or create a configuration
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  diagctl config init -o diagctl.toml\n  diagctl config check diagctl.toml\n  diagctl config show"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Report every problem and warning about the configuration, with hints
    #[command(after_help = "Examples:\n  diagctl config check\n  diagctl config check new.toml --elsewhere")]
    Check {
        /// File to check [default: the configuration in use]
        file: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// The file is for another machine: do not check it against this one
        #[arg(long)]
        elsewhere: bool,
    },
    /// Show the configuration in use, and where each value comes from
    #[command(after_help = "Examples:\n  diagctl config show")]
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a commented example configuration
    #[command(after_help = "Examples:\n  diagctl config init -o diagctl.toml")]
    Init {
        /// Write it to FILE, which must not exist
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// Runs the commands that must work even if the configuration is invalid; `None` for the others.
pub fn without_loading(args: &Args, named: Option<&Path>, dir: Option<PathBuf>) -> Option<Result<Done, Failure>> {
    match &args.command {
        Command::Check { file, json, elsewhere } => {
            Some(check(Check { file: file.as_deref(), in_use: named, dir, elsewhere: *elsewhere, json: *json }))
        }
        Command::Init { output: None } => Some(Ok(Done::text(config::EXAMPLE.to_owned()))),
        Command::Init { output: Some(path) } => Some(init(path)),
        Command::Show { .. } => None,
    }
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    match &args.command {
        Command::Show { json: true } => Done::json(&rendered::json(&cx.loaded)),
        _ => Ok(Done::text(rendered::text(&cx.loaded))),
    }
}

fn init(path: &Path) -> Result<Done, Failure> {
    write_new(path, config::EXAMPLE)?;
    Ok(Done::text(path.display().to_string()))
}

/// Writes a configuration to a file that must not exist.
pub fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    // The workers have to read the file, so its mode is restricted only by the umask.
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).map_err(|e| {
        let exists = e.kind() == std::io::ErrorKind::AlreadyExists;
        let failure = Failure::output("create", path, e);
        if exists { failure.hint("existing files are never overwritten; choose another name with -o") } else { failure }
    })?;
    file.write_all(text.as_bytes()).map_err(|e| {
        // An empty file would be a valid configuration, and half of one perhaps too.
        let _ = std::fs::remove_file(path);
        Failure::output("write", path, e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit_code::Exit;

    fn checked(file: &Path, json: bool) -> Result<Done, Failure> {
        check(Check { file: Some(file), in_use: None, dir: None, elsewhere: true, json })
    }

    #[test]
    fn init_writes_a_valid_file_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("diagctl.toml");
        init(&path).unwrap();
        checked(&path, false).unwrap();
        std::fs::write(&path, "mine").unwrap();
        assert!(init(&path).unwrap_err().hint.unwrap().contains("never overwritten"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn check_reports_every_problem_and_exits_with_the_config_status() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("diagctl.toml");
        std::fs::write(&path, "colour = 1\npoll_interval = \"10\"\n").unwrap();
        let failure = checked(&path, false).unwrap_err();
        assert_eq!(failure.exit, Exit::Config);
        assert!(failure.message.contains("colour") && failure.message.contains("poll_interval"), "{failure}");
        let done = checked(&path, true).unwrap();
        assert!(format!("{done:?}").contains("Config"), "{done:?}");
    }
}
