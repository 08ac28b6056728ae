//! `diagctl config`: checks and shows the configuration, and prints a file to start from.

mod rendered;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::output::{self, Done};
use super::{Context, Failure};
use crate::cgroup::CgroupRoot;
use crate::config::{self, DEFAULT_FILE, Place};
use crate::exit_code::Exit;
use crate::proc::Proc;
use crate::section::Problem;

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
        Command::Check { file, json, elsewhere } => Some(check(file.as_deref().or(named), dir, *json, *elsewhere)),
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

// Reports problems and doubts together. Of the flags and the environment, only two things matter here: the store, for what it
// recorded, and values that would stop every other command.
fn check(file: Option<&Path>, dir: Option<PathBuf>, json: bool, elsewhere: bool) -> Result<Done, Failure> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let (text, read) = match config::read(file).map_err(Failure::from) {
        Ok(read) => read,
        Err(failure) if json => {
            let unreadable = Problem { path: String::new(), message: failure.message, hint: failure.hint };
            return told(path, &[unreadable], &[]);
        }
        Err(failure) => return Err(failure),
    };
    let (rules, problems, warnings, note) = match config::examine(&text) {
        Err(problems) => (0, problems, Vec::new(), None),
        Ok(examined) => {
            let mut config = examined.config;
            let rules = config.rules.len();
            if let Some((dir, _)) = super::overrides(dir)?.dir {
                config.dir = std::path::absolute(&dir).unwrap_or(dir);
            }
            let place = if elsewhere {
                Place::default()
            } else {
                super::config_target::by_its_owner(&Proc::default(), &config)
            };
            let note = if elsewhere { None } else { shares_of_host(&config, place.host) };
            (rules, examined.problems, config.doubts(&examined.positions, &place), note)
        }
    };
    if !problems.is_empty() || !warnings.is_empty() {
        return if json { told(path, &problems, &warnings) } else { Err(found(path, problems, &warnings)) };
    }
    // Not a warning: without a limit, a share of the host's memory is all that it can be.
    if let Some(note) = note.as_ref().filter(|_| !json) {
        output::note(note);
    }
    let shown = read.map(|path| path.display().to_string());
    let value = json!({ "schema": 1, "notes": note.into_iter().collect::<Vec<_>>(), "ok": true, "valid": true, "file": shown, "rules": rules, "problems": [], "warnings": [] });
    Done::either(json, &value, |_| {
        let rules = if rules == 1 { "1 rule".into() } else { format!("{rules} rules") };
        match shown {
            Some(file) => format!("OK: {}, {rules}", crate::cli::error::printable(&file)),
            None => format!("OK: {DEFAULT_FILE} does not exist; the defaults apply, {rules}"),
        }
    })
}

// This command runs where the processes will: in their container, or on their host.
fn shares_of_host(config: &config::Config, host: Option<u64>) -> Option<String> {
    let limit =
        CgroupRoot::default().memory_of(&Proc::default(), std::process::id()).ok().and_then(|group| group.limit());
    super::config_target::shares_of_host(config, &[limit], host)
}

// A problem makes the file invalid. A warning is about a part of a valid file that cannot work as written.
fn found(path: &Path, problems: Vec<Problem>, warnings: &[Problem]) -> Failure {
    let count = if warnings.len() == 1 { "1 warning".to_owned() } else { format!("{} warnings", warnings.len()) };
    let lines: Vec<String> =
        warnings.iter().map(|warning| format!("  {}", warning.to_string().replace('\n', "\n  "))).collect();
    let list = lines.join("\n");
    if problems.is_empty() {
        let message = format!("{count} about the configuration {}, which is valid:\n{list}", path.display());
        return Failure::new(Exit::Config, message).hint("processes use this file; everything else in it works");
    }
    let mut failure = Failure::from(config::Error::Invalid { path: path.to_owned(), problems });
    if !warnings.is_empty() {
        failure.message.push_str(&format!("\nand {count}:\n{list}"));
    }
    failure
}

// `problems` has the warnings, too, as it always had.
fn told(path: &Path, problems: &[Problem], warnings: &[Problem]) -> Result<Done, Failure> {
    let item = |p: &Problem| json!({ "path": p.path, "message": p.message, "hint": p.hint });
    let all: Vec<_> = problems.iter().chain(warnings).map(item).collect();
    let warnings: Vec<_> = warnings.iter().map(item).collect();
    let (file, valid) = (path.display().to_string(), problems.is_empty());
    let value =
        json!({ "schema": 1, "ok": false, "valid": valid, "file": file, "problems": all, "warnings": warnings });
    Ok(Done::json(&value)?.with_exit(Exit::Config))
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

    #[test]
    fn init_writes_a_valid_file_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("diagctl.toml");
        init(&path).unwrap();
        check(Some(&path), None, false, true).unwrap();
        std::fs::write(&path, "mine").unwrap();
        assert!(init(&path).unwrap_err().hint.unwrap().contains("never overwritten"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn check_reports_every_problem_and_exits_with_the_config_status() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("diagctl.toml");
        std::fs::write(&path, "colour = 1\npoll_interval = \"10\"\n").unwrap();
        let failure = check(Some(&path), None, false, true).unwrap_err();
        assert_eq!(failure.exit, Exit::Config);
        assert!(failure.message.contains("colour") && failure.message.contains("poll_interval"), "{failure}");
        let done = check(Some(&path), None, true, true).unwrap();
        assert!(format!("{done:?}").contains("Config"), "{done:?}");
    }
}
