//! `run`: takes a capture from a shell, from cron or from any language. Holds the lease itself and runs a command.

mod child;

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::Context as _;

use super::Context;
use super::finalize::exit_of;
use super::output::{self, Done};
use super::{request, view};
use crate::cli::error::{Failure, printable, quoted};
use crate::config::{Snapshot, Source as Origin};
use crate::exit_code::Exit;
use crate::grant::{Applicant, Begun, begin, capture};
use crate::rules::RuleName;
use crate::rules::decide::{Answer, Plan};
use crate::rules::memory::Wanted;
use crate::rules::readings::Readings;
use crate::sys::Endings;
use child::execute;
use diagctl_store::Process;
use diagctl_store::ReportName;
use diagctl_store::lease::Lease;
use diagctl_store::{Access, Store, encryption_record};

const EXAMPLES: &str = "\
Examples:
  diagctl run --report vmstat -- vmstat 1 5
  diagctl run --reason 'slow at noon' -- sh -c 'ss -tnp > \"$DIAGCTL_CAPTURE_DIR/sockets.txt\"'";

/// Run a command that produces a capture, holding the lease meanwhile
///
/// The environment of the command has DIAGCTL_CAPTURE (the capture ID) and DIAGCTL_CAPTURE_DIR. Every file in that directory
/// becomes a report, unless its name begins with a dot; anything but regular files is moved to quarantine/. With --report, the
/// command's stdout is compressed into a report while the command runs.
///
/// If the command fails after it has produced something, the capture is published and the exit status is 5. If it produces
/// nothing, there is no capture; with --report, the empty stdout of a command that succeeds is stored as an empty report.
///
/// Without --reason the program's name and the number of its arguments are the capture's reason. The arguments are stored nowhere.
///
/// A file named heap_dump becomes the report heap_dump only if it is one: it is checked line by line. Of what becomes the report
/// heap_summary, which must be a heap dump, the counts alone are stored.
///
/// A command that runs longer than guards.deadline is killed with everything that it started, and what it produced is published.
///
/// SIGTERM, SIGINT and SIGHUP are passed on to the command. When the command has ended, the capture is discarded and diagctl
/// ends with the same signal (128 + its number in a shell).
///
/// Prints the ID of the capture. Exit status 10: not granted, with the reason and a hint; the command was not started.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Store the command's stdout as this report
    #[arg(long, value_name = "NAME")]
    report: Option<String>,
    /// Reason, stored with the capture
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print JSON: the capture
    #[arg(long)]
    json: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let config = cx.config();
    if let Some(name) = args.report.as_deref().filter(|name| ReportName::parse(name).is_none()) {
        return Err(Failure::new(Exit::Usage, format!("--report {} is not a valid report name", quoted(name)))
            .hint("use lower-case letters, digits and _, starting with a letter; `meta` is reserved"));
    }
    args.reason.as_deref().map_or(Ok(()), request::check_reason)?;
    // `run` needs no switch, because typing it is enough. Captures that are explicitly switched off stay off.
    let unset = cx.loaded.sources.get("enabled").is_none_or(|origin| *origin == Origin::Default);
    if !config.enabled && !unset {
        let origin = cx.loaded.sources.get("enabled").map(ToString::to_string).unwrap_or_default();
        return not_granted(
            &format!("switched off: enabled = false ({origin})"),
            "set DIAGCTL_ENABLED=1, for this command at least",
        );
    }
    let endings = Endings::hold_back();
    let store = cx.open(Access::Create)?;
    store.require_trusted_owner()?;
    if let Some(why) = store.unsafe_filesystem()? {
        return not_granted(&why, "`diagctl doctor` says what to do about the filesystem");
    }
    let (lease, file) = Lease::open(store.dir(), store.owner())?;
    if !lease.try_take()? {
        return not_granted(
            "another process holds the lease",
            "`diagctl status` names it; try again when its capture is over",
        );
    }
    let was_encrypted = encryption_record::read(&store).is_some();
    let grant = match try_to_begin(cx, &store, args)? {
        Begun::Yes { grant, .. } => grant,
        Begun::No(Answer { guard: Some(guard), reason, .. }) => {
            return not_granted(
                &format!("{guard}: {reason}"),
                "`diagctl doctor` shows the guards; see [guards] in the configuration",
            );
        }
        Begun::No(answer) => return not_granted(&answer.reason, "`diagctl status` shows the state of the store"),
    };
    if was_encrypted && config.encrypt.is_none() && !config.plain {
        let why = cx.loaded.why_plain();
        output::note(&format!(
            "this capture is stored in plain: {why}; earlier ones are encrypted (encrypt = false says that it is meant)"
        ));
    }
    let ended_by = Arc::new(AtomicI32::new(0));
    let told = execute(cx, &store, &grant, args, &file, (endings, &ended_by));
    let signal = ended_by.load(Ordering::SeqCst);
    if signal != 0 {
        let reason = format!("diagctl run was ended by signal {signal}");
        capture::give_up(&store, &lease, &grant, "aborted", &reason)?;
        output::note(&format!("{reason}; nothing was stored"));
        endings.end_by(signal);
    }
    let mut told = match told {
        Ok(told) => told,
        Err(failure) => {
            capture::give_up(&store, &lease, &grant, "failed", &failure.message)?;
            return Err(failure);
        }
    };
    let failed = told.labels.get("exit_status").cloned();
    let meta = capture::finish(cx, &store, &lease, &grant, &mut told)?;
    let exit = if failed.is_some() { Exit::Partial } else { exit_of(&meta) };
    // Told first: a command whose stdout could no longer be stored fails for that reason.
    for report in &meta.reports {
        if let Some(error) = &report.error {
            output::note(&format!("report {} failed: {error}", report.name));
        }
    }
    if meta.reports.iter().any(|report| report.encryption.is_some() && !grant.planned.contains(&report.name)) {
        output::note(
            "the files that the command wrote were on the disk unencrypted until it had ended; --report encrypts its stdout as it comes",
        );
    }
    if let Some(status) = failed {
        output::note(&format!("the command failed ({status}); what it produced was published"));
    }
    Ok(Done::either(args.json, &view::Capture::from(&meta), |_| meta.id.to_string())?.with_exit(exit))
}

fn not_granted(reason: &str, hint: &str) -> Result<Done, Failure> {
    Err(Failure::new(Exit::NotGranted, format!("not granted: {reason}")).hint(hint))
}

// Triggers and limits apply only to rules. All other checks that can refuse a capture apply here too.
fn try_to_begin(cx: &Context, store: &Store, args: &Args) -> Result<Begun, Failure> {
    let pid = std::process::id();
    let start_ticks = cx.proc.stat(pid).context("cannot read this process")?.start_ticks;
    let process = Process { id: cx.process_id(pid, start_ticks), role: "run".into(), name: String::new() };
    let plan = Plan {
        rule: RuleName::run(),
        trigger: "run",
        reason: args.reason.clone().unwrap_or_else(|| describe(&args.command)),
        observed: Default::default(),
        reports: args.report.as_deref().and_then(ReportName::parse).into_iter().collect(),
        snapshot: Snapshot::Fork,
        request: None,
        second_of: None,
    };
    let readings = Readings::take(&cx.proc, &cx.cgroups, pid, &Wanted::default());
    let applicant = Applicant { cx, store, process: &process, readings: &readings, host: "", seed: 0 };
    Ok(begin(applicant, &[plan], None)?)
}

// Describes a command without its arguments, which may be secrets. Records travel, and stay readable where reports are encrypted.
fn describe(command: &[OsString]) -> String {
    let name = command.first().map(|program| program_name(program)).unwrap_or_default();
    match command.len().saturating_sub(1) {
        0 => format!("diagctl run {name}"),
        1 => format!("diagctl run {name} (1 argument)"),
        n => format!("diagctl run {name} ({n} arguments)"),
    }
}

// Returns the name of a program without its directory. A whole command line that was given as one word is cut at the first blank.
fn program_name(program: &OsStr) -> String {
    const LONGEST: usize = 100;
    let text = program.to_string_lossy();
    let word = text.split_whitespace().next().unwrap_or_default();
    let name = word.rsplit('/').next().unwrap_or_default();
    printable(name).chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_described_without_its_arguments() {
        let table: [(&[&str], &str); 5] = [
            (&["vmstat"], "diagctl run vmstat"),
            (&["/usr/bin/mysql", "-psecret"], "diagctl run mysql (1 argument)"),
            (&["env", "PGPASSWORD=secret", "psql"], "diagctl run env (2 arguments)"),
            (&["mysql -psecret"], "diagctl run mysql"),
            (&["a\u{1b}[2J"], "diagctl run a\\u{1b}[2J"),
        ];
        for (command, expected) in table {
            let command: Vec<OsString> = command.iter().map(OsString::from).collect();
            assert_eq!(describe(&command), expected);
        }
    }
}
