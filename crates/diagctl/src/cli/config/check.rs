//! The problems and warnings in a configuration file.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cgroup::CgroupRoot;
use crate::cli::Failure;
use crate::cli::output::{self, Done};
use crate::config::{self, DEFAULT_FILE, Place};
use crate::exit_code::Exit;
use crate::proc::Proc;
use crate::section::Problem;

// Reports problems and warnings together. Of the flags and the environment, only two things matter here: the store, for what it
// recorded, and values that would stop every other command.
pub(super) fn check(file: Option<&Path>, dir: Option<PathBuf>, json: bool, elsewhere: bool) -> Result<Done, Failure> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let (text, read) = match config::read(file).map_err(Failure::from) {
        Ok(read) => read,
        Err(failure) if json => {
            let unreadable = Problem { path: String::new(), message: failure.message, hint: failure.hint, line: None };
            return told(path, &[unreadable], &[]);
        }
        Err(failure) => return Err(failure),
    };
    let (rules, problems, warnings, note) = match config::examine(&text) {
        Err(problems) => (0, problems, Vec::new(), None),
        Ok(examined) => {
            let mut config = examined.config;
            let rules = config.rules.len();
            if let Some((dir, _)) = crate::cli::overrides(dir)?.dir {
                config.dir = std::path::absolute(&dir).unwrap_or(dir);
            }
            let place = if elsewhere {
                Place::default()
            } else {
                crate::cli::config_target::by_its_owner(&Proc::default(), &config)
            };
            let note = if elsewhere { None } else { shares_of_host(&config, place.host) };
            let mut warnings = examined.idle;
            warnings.extend(config.warnings(&examined.positions, &place));
            config::lines::add(&text, &mut warnings);
            (rules, examined.problems, warnings, note)
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
pub(super) fn shares_of_host(config: &config::Config, host: Option<u64>) -> Option<String> {
    let limit =
        CgroupRoot::default().memory_of(&Proc::default(), std::process::id()).ok().and_then(|group| group.limit());
    crate::cli::config_target::shares_of_host(config, &[limit], host)
}

// A problem makes the file invalid. A warning is about a part of a valid file that cannot work as written.
pub(super) fn found(path: &Path, problems: Vec<Problem>, warnings: &[Problem]) -> Failure {
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
pub(super) fn told(path: &Path, problems: &[Problem], warnings: &[Problem]) -> Result<Done, Failure> {
    let item = |p: &Problem| json!({ "path": p.path, "line": p.line, "message": p.message, "hint": p.hint });
    let all: Vec<_> = problems.iter().chain(warnings).map(item).collect();
    let warnings: Vec<_> = warnings.iter().map(item).collect();
    let (file, valid) = (path.display().to_string(), problems.is_empty());
    let value =
        json!({ "schema": 1, "ok": false, "valid": valid, "file": file, "problems": all, "warnings": warnings });
    Ok(Done::json(&value)?.with_exit(Exit::Config))
}
