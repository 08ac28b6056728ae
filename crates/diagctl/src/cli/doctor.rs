//! `diagctl doctor`: finds problems that would stop captures or make them dangerous. Changes nothing.

mod binary;
mod check;
mod contents;
mod lease;
mod machine;
mod place;
mod processes;
mod remote;
mod settings;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::output::{self, Done};
use super::remote::hints::with_options;
use super::{Context, Failure};
use crate::cli::error::printable;
use crate::config::{self, Loaded, Overrides, Source, SourceOf};
use crate::exit_code::Exit;
use crate::fsio::Spot;
use check::{Check, Status};

/// Find what stops captures or makes them dangerous; changes nothing
///
/// Exit status 0: no check failed, but there may be warnings, for instance that captures are switched off; 1: at least one check failed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  sudo -u deploy diagctl doctor\n  diagctl doctor --json | jq .failed")]
pub struct Args {
    /// Print JSON: schema, dir, ok, and checks[] with id, status (ok, warn, fail, skip), message, hint, observed
    #[arg(long)]
    json: bool,
    /// Check the remote, too: what the credentials may do, and its clock. Writes one small object to it, and deletes that if it may
    #[arg(long)]
    remote: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    schema: u32,
    version: &'static str,
    dir: String,
    /// True if no check failed.
    ok: bool,
    failed: usize,
    warned: usize,
    checks: Vec<Check>,
}

/// Runs the checks. The commands in their advice have the global options that were given. Loads the configuration itself, because a failure to load it is a finding.
pub fn run(args: &Args, file: Option<&Path>, dir: Option<PathBuf>, options: &str) -> Result<Done, Failure> {
    let (loaded, broken) = load(file, dir)?;
    let cx = Context::new(loaded, None);
    let mut checks = match args.remote && is_missing(&cx.config().dir) {
        true => without_store(&cx, broken.as_ref()),
        false => examine(&cx, broken.as_ref()),
    };
    if args.remote {
        checks.extend(remote::examine(&cx, broken.is_some()));
    }
    for hint in checks.iter_mut().filter_map(|check| check.hint.as_mut()) {
        *hint = with_options(hint, options);
    }
    let report = report(&cx, checks);
    let exit = if report.ok { Exit::Ok } else { Exit::Failed };
    Ok(Done::either(args.json, &report, text)?.with_exit(exit))
}

fn load(file: Option<&Path>, dir: Option<PathBuf>) -> Result<(Loaded, Option<Failure>), Failure> {
    let given = super::overrides(dir.clone());
    let loaded = given.and_then(|overrides| Ok(config::load(file, &overrides)?));
    let failure = match loaded {
        Ok(loaded) => return Ok((loaded, None)),
        Err(failure) => failure,
    };
    // An invalid environment must not hide the store. In that case only the flag is reliable.
    let overrides = super::overrides(dir.clone())
        .unwrap_or_else(|_| Overrides { dir: dir.map(|dir| (dir, SourceOf::Flag)), enabled: None });
    let loaded = config::load_for_process(file, &overrides).or_else(|_| config::defaults(&overrides))?;
    Ok((loaded, Some(failure)))
}

fn is_missing(dir: &Path) -> bool {
    std::fs::symlink_metadata(dir).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

// With --remote, a machine without a store is that of a person: nothing there polls or will.
fn without_store(cx: &Context, broken: Option<&Failure>) -> Vec<Check> {
    let config = cx.config();
    let mut checks = settings::configuration(&cx.loaded, broken, &super::config_target::by_its_owner(&cx.proc, config));
    checks.extend(settings::encryption(config.encrypt.as_deref()));
    let why = format!(
        "there is no store on this machine ({}); that is usual on a laptop. Check a machine with workers without --remote, too",
        config.dir.display()
    );
    checks.push(Check::skip("store.directory", why));
    checks
}

fn own_binary() -> Check {
    let named = super::from_environment("DIAGCTL_BIN");
    let this = std::env::current_exe().unwrap_or_default();
    binary::binary(named, &std::env::var("PATH").unwrap_or_default(), &this)
}

fn examine(cx: &Context, broken: Option<&Failure>) -> Vec<Check> {
    let config = cx.config();
    let mut checks = settings::configuration(&cx.loaded, broken, &super::config_target::by_its_owner(&cx.proc, config));
    checks.push(settings::switch(&cx.loaded));
    let given = std::env::var_os(crate::grant::labels::VARIABLE).map(|text| text.to_string_lossy().into_owned());
    checks.extend(settings::labels(given.as_deref()));
    checks.extend(settings::encryption(config.encrypt.as_deref()));
    checks.extend(place::examine(&cx.proc, config));
    // The thread that opens the store takes its owner's identity and then ends, so that root still sees everything.
    let contents = match super::apart::run(|| contents::examine(cx)) {
        Ok(contents) => contents,
        Err(failure) => {
            let hint = failure.hint.unwrap_or_else(|| "report this as a bug".into());
            checks.push(Check::fail("store.format", failure.message, hint));
            return checks;
        }
    };
    checks.extend(contents.checks);
    let mut lease = contents.lease;
    if let Some(lease) = &mut lease {
        lease.find_holders(&cx.proc, &Spot::outside(&config.dir));
        checks.push(lease::check(lease, &lease::strangers(&cx.proc, lease)));
    }
    let mut subjects = processes::subjects(&cx.proc, &contents.samples);
    let largest = subjects.iter().max_by_key(|subject| subject.rss).cloned();
    if subjects.is_empty() {
        subjects.push(processes::ourselves(&cx.proc));
    }
    checks.extend(machine::examine(&cx.proc, &cx.cgroups, &subjects, config));
    let disk = Spot::hold(&config.dir).ok().and_then(|dir| diagctl_store::space_of(&dir).ok());
    if let (Some(largest), Some(disk)) = (&largest, disk) {
        let figures = machine::figures(&cx.proc, &cx.cgroups, largest, disk);
        checks.extend(machine::guards(config, &contents.state, Some(largest), &figures));
    }
    let owner = std::fs::symlink_metadata(&config.dir).ok().map(|meta| meta.uid());
    let now = &contents.now;
    let paused = contents.state.paused.as_ref().is_some_and(|pause| pause.holds(now.store_ms));
    let known = processes::Known { samples: &contents.samples, lease: lease.as_ref(), paused, now };
    let polling = processes::examine(&cx.proc, config, &known, owner);
    let are_on = |check: &Check| check.id == "processes.polling" && check.status == Status::Ok;
    if let Some(switch) = checks.iter_mut().find(|check| check.id == "switch")
        && cx.loaded.sources.get("enabled").is_none_or(|source| *source == Source::Default)
        && switch.status == Status::Warn
        && polling.iter().any(are_on)
    {
        switch.status = Status::Ok;
        switch.message = "off in this environment, but on in the processes that poll".into();
        switch.hint = None;
    }
    checks.extend(polling);
    checks.push(processes::versions(contents.newest.as_ref()));
    checks.push(own_binary());
    checks
}

fn report(cx: &Context, mut checks: Vec<Check>) -> Report {
    let of = |status| checks.iter().filter(|check| check.status == status).count();
    let (failed, warned) = (of(Status::Fail), of(Status::Warn));
    for check in &mut checks {
        check.message = printable(&check.message.replace('\n', " "));
    }
    Report {
        schema: 1,
        version: env!("CARGO_PKG_VERSION"),
        dir: cx.config().dir.display().to_string(),
        ok: failed == 0,
        failed,
        warned,
        checks,
    }
}

// Captures are taken, and kept in the store, whatever the remote does.
fn is_of_remote(report: &Report) -> bool {
    let mut failed = report.checks.iter().filter(|check| check.status == Status::Fail);
    failed.all(|check| check.id.starts_with("remote."))
}

fn text(report: &Report) -> String {
    let colour = output::colours();
    let mut text = String::new();
    for check in &report.checks {
        let (word, paint) = match check.status {
            Status::Ok => ("ok", "\x1b[32m"),
            Status::Warn => ("warn", "\x1b[33m"),
            Status::Fail => ("FAIL", "\x1b[31;1m"),
            Status::Skip => ("skip", "\x1b[2m"),
        };
        let (paint, reset) = if colour { (paint, "\x1b[0m") } else { ("", "") };
        let mark = format!("{paint}{word:<5}{reset}{:<20} ", check.id);
        text.push_str(&output::prose(&mark, 26, &check.message));
        if let Some(hint) = &check.hint {
            text.push_str(&output::prose(&format!("{:<26}→ ", ""), 28, hint));
        }
    }
    let verdict = match (report.failed, report.warned) {
        (0, 0) => "no check failed".to_owned(),
        (0, warned) => format!("no check failed; warnings: {warned}"),
        (failed, warned) if is_of_remote(report) => {
            format!("the remote does not work; failed: {failed}, warnings: {warned}")
        }
        (failed, warned) => format!("captures are stopped or dangerous; failed: {failed}, warnings: {warned}"),
    };
    text.push_str(&format!("\n{}: {verdict}\n", printable(&report.dir)));
    text
}
