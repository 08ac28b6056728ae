//! `diagctl config`: what is configured, whether it is valid, and a file to start from.

mod rendered;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::output::Done;
use super::{Context, Failure};
use crate::config::{self, DEFAULT_FILE, Overrides, Problem};
use crate::exit_code::Exit;
use crate::proc::Proc;

/// Check, show or begin a configuration
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Report every problem of the configuration, with its key and a hint
    Check {
        /// The file [default: the one that is in force]
        file: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// The file is for another machine: do not hold its thresholds against this one's memory
        #[arg(long)]
        elsewhere: bool,
    },
    /// Show what is in force, and where each value comes from
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a commented configuration to start from
    Init {
        /// Write it to a file that does not exist yet
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// The commands that have to work when the configuration does not.
pub fn without_loading(args: &Args, named: Option<&Path>) -> Option<Result<Done, Failure>> {
    match &args.command {
        Command::Check { file, json, elsewhere } => Some(check(file.as_deref().or(named), *json, *elsewhere)),
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

// What flags and environment override is not looked at, but for values that would stop every other command.
fn check(file: Option<&Path>, json: bool, elsewhere: bool) -> Result<Done, Failure> {
    let loaded = match config::load(file, &Overrides::default()) {
        Ok(loaded) => loaded,
        Err(failure) if json && failure.exit == Exit::Config => return problems(file, &failure),
        Err(failure) => return Err(failure),
    };
    super::overrides(None)?;
    let memory = Proc::default().meminfo().ok().and_then(|info| info.get("MemTotal").copied());
    let doubts = loaded.config.doubts(memory.filter(|_| !elsewhere).unwrap_or(u64::MAX));
    if !doubts.is_empty() {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        return if json { told(path, &doubts) } else { Err(config::invalid(path, &doubts)) };
    }
    let rules = loaded.config.rules.len();
    let shown = loaded.file.as_ref().map(|path| path.display().to_string());
    let value = json!({ "schema": 1, "ok": true, "file": shown, "rules": rules, "problems": [] });
    Done::either(json, &value, |_| {
        let rules = if rules == 1 { "1 rule".into() } else { format!("{rules} rules") };
        match shown {
            Some(file) => format!("OK: {}, {rules}", crate::error::printable(&file)),
            None => format!("OK: there is no {DEFAULT_FILE}; the defaults are in force, {rules}"),
        }
    })
}

fn problems(file: Option<&Path>, failure: &Failure) -> Result<Done, Failure> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let found = std::fs::read_to_string(path).ok().and_then(|text| config::parse(&text).err());
    let unreadable =
        || vec![Problem { path: String::new(), message: failure.message.clone(), hint: failure.hint.clone() }];
    told(path, &found.unwrap_or_else(unreadable))
}

fn told(path: &Path, problems: &[Problem]) -> Result<Done, Failure> {
    let list: Vec<_> =
        problems.iter().map(|p| json!({ "path": p.path, "message": p.message, "hint": p.hint })).collect();
    let value = json!({ "schema": 1, "ok": false, "file": path.display().to_string(), "problems": list });
    Ok(Done::json(&value)?.with_exit(Exit::Config))
}

fn init(path: &Path) -> Result<Done, Failure> {
    // The workers have to read it: no narrower than the umask says.
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).map_err(|e| {
        let exists = e.kind() == std::io::ErrorKind::AlreadyExists;
        let failure = Failure::io("create", path, e);
        if exists { failure.hint("an existing file is never overwritten; name another") } else { failure }
    })?;
    file.write_all(config::EXAMPLE.as_bytes()).map_err(|e| Failure::io("write", path, e))?;
    Ok(Done::text(path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_writes_a_valid_file_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("diagctl.toml");
        init(&path).unwrap();
        check(Some(&path), false, true).unwrap();
        std::fs::write(&path, "mine").unwrap();
        assert!(init(&path).unwrap_err().hint.unwrap().contains("never overwritten"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn check_tells_every_problem_with_the_status_of_a_configuration_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("diagctl.toml");
        std::fs::write(&path, "colour = 1\npoll_interval = \"10\"\n").unwrap();
        let failure = check(Some(&path), false, true).unwrap_err();
        assert_eq!(failure.exit, Exit::Config);
        assert!(failure.message.contains("colour") && failure.message.contains("poll_interval"), "{failure}");
        let done = check(Some(&path), true, true).unwrap();
        assert!(format!("{done:?}").contains("Config"), "{done:?}");
    }
}
