//! The problems and warnings in a configuration file.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cgroup::CgroupRoot;
use crate::cli::Failure;
use crate::cli::output::{self, Done};
use crate::config::{self, Config, DEFAULT_FILE, Place, Source, SourceOf};
use crate::exit_code::Exit;
use crate::proc::Proc;
use crate::section::Problem;

/// The file to check, and what to check it against.
pub(super) struct Check<'a> {
    /// The file that the command was given.
    pub(super) file: Option<&'a Path>,
    /// The file of the global flag or the environment.
    pub(super) in_use: Option<&'a Path>,
    /// The store of the global flag.
    pub(super) dir: Option<PathBuf>,
    /// Leaves out what depends on this machine and its store.
    pub(super) elsewhere: bool,
    pub(super) json: bool,
}

// Reports problems and warnings together. Of the flags and the environment, only two things matter here: the store, for what it
// recorded, and values that would stop every other command.
pub(super) fn check(check: Check<'_>) -> Result<Done, Failure> {
    let Check { file: given, in_use, dir, elsewhere, json } = check;
    let file = given.or(in_use);
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let (text, read) = match config::read(file).map_err(Failure::from) {
        Ok(read) => read,
        Err(failure) if json => {
            let unreadable = Problem { path: String::new(), message: failure.message, hint: failure.hint, line: None };
            return told(path, &Found { problems: vec![unreadable], ..Found::default() });
        }
        Err(failure) => return Err(failure),
    };
    let mut shares = None;
    let (rules, mut found) = match config::examine(&text) {
        Err(problems) => (0, Found { problems, ..Found::default() }),
        Ok(examined) => {
            let mut config = examined.config;
            let rules = config.rules.len();
            let overrides = crate::cli::overrides(dir)?;
            let (mut place, mut store, mut notes) = (Place::default(), None, Vec::new());
            if !elsewhere {
                let names_store = given.is_some() && examined.given.get("dir") == Some(&Source::File);
                notes.extend(choose_store(&mut config, overrides.dir, given.is_some(), names_store));
                place = crate::cli::config_target::by_its_owner(&Proc::default(), &config);
                store = is_store(&config.dir).then(|| config.dir.clone());
                shares = shares_of_host(&config, place.host);
            }
            let mut warnings = examined.idle;
            warnings.extend(config.warnings(&examined.positions, &place));
            config::lines::add(&text, &mut warnings);
            (rules, Found { problems: examined.problems, warnings, notes, store })
        }
    };
    let is_ok = found.problems.is_empty() && found.warnings.is_empty();
    // Not a warning: without a limit, a share of the host's memory is all that it can be.
    found.notes.extend(shares.filter(|_| is_ok));
    if !json {
        found.notes.iter().for_each(|note| output::note(note));
    }
    if !is_ok {
        return if json { told(path, &found) } else { Err(failure(path, found.problems, &found.warnings)) };
    }
    let shown = read.map(|path| path.display().to_string());
    let value = json!({ "schema": 1, "notes": found.notes, "store": found.store(), "ok": true, "valid": true, "file": shown, "rules": rules, "problems": [], "warnings": [] });
    Done::either(json, &value, |_| {
        let rules = if rules == 1 { "1 rule".into() } else { format!("{rules} rules") };
        match shown {
            Some(file) => format!("OK: {}, {rules}", crate::cli::error::printable(&file)),
            None => format!("OK: {DEFAULT_FILE} does not exist; the defaults apply, {rules}"),
        }
    })
}

// Chooses the store whose records count, and says so where a person may expect another: a given file is judged by the store that it
// names, whatever the environment of this shell says.
fn choose_store(
    config: &mut Config,
    over: Option<(PathBuf, SourceOf)>,
    is_given: bool,
    names_store: bool,
) -> Option<String> {
    let (dir, source) = over?;
    let dir = std::path::absolute(&dir).unwrap_or(dir);
    let own = config.dir.display().to_string();
    match source {
        SourceOf::Environment if names_store => (dir != config.dir).then(|| {
            let how = if is_store(&config.dir) { "against the store" } else { "without a store: there is none at" };
            format!("checked {how} {own}, which the file names (DIAGCTL_DIR={} does not count)", dir.display())
        }),
        SourceOf::Environment if is_given => {
            config.dir = dir;
            let store = config.dir.display();
            is_store(&config.dir)
                .then(|| format!("checked against the store {store} of DIAGCTL_DIR; the file names none"))
        }
        _ => {
            config.dir = dir;
            None
        }
    }
}

fn is_store(dir: &Path) -> bool {
    dir.join("FORMAT").exists()
}

/// The result of a check.
#[derive(Default)]
struct Found {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    notes: Vec<String>,
    /// The store whose records counted, if there is one.
    store: Option<PathBuf>,
}

impl Found {
    fn store(&self) -> Option<String> {
        self.store.as_ref().map(|dir| dir.display().to_string())
    }
}

// This command runs where the processes will: in their container, or on their host.
fn shares_of_host(config: &config::Config, host: Option<u64>) -> Option<String> {
    let limit =
        CgroupRoot::default().memory_of(&Proc::default(), std::process::id()).ok().and_then(|group| group.limit());
    crate::cli::config_target::shares_of_host(config, &[limit], host)
}

// A problem makes the file invalid. A warning is about a part of a valid file that cannot work as written.
fn failure(path: &Path, problems: Vec<Problem>, warnings: &[Problem]) -> Failure {
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
fn told(path: &Path, found: &Found) -> Result<Done, Failure> {
    let item = |p: &Problem| json!({ "path": p.path, "line": p.line, "message": p.message, "hint": p.hint });
    let all: Vec<Value> = found.problems.iter().chain(&found.warnings).map(item).collect();
    let warnings: Vec<Value> = found.warnings.iter().map(item).collect();
    let (file, valid) = (path.display().to_string(), found.problems.is_empty());
    let value = json!({ "schema": 1, "notes": found.notes, "store": found.store(), "ok": false, "valid": valid, "file": file, "problems": all, "warnings": warnings });
    Ok(Done::json(&value)?.with_exit(Exit::Config))
}
