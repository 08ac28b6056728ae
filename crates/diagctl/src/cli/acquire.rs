//! `acquire`: a plugin's poll. Reads the process's figures, decides, takes the lease, and prints one JSON object.

mod answer;
mod names;

use std::path::Path;
use std::time::Duration;

use super::Context;
use super::output::{self, Done};
use crate::cli::error::Failure;
use crate::config::{self, Source as Origin};
use crate::deadline;
use crate::exit_code::Exit;
use crate::fsio;
use crate::grant::exec::run_commands;
use crate::grant::poll::Decided;
use crate::grant::{self, Applicant, Begun, begin, capture, orders, overdue};
use crate::rules::decide::{Answer, Verdict};
use crate::rules::readings::Readings;
use answer::{refused, told};
use diagctl_fs::without_secrets;
use diagctl_store::Access;
use diagctl_store::Process;
use diagctl_store::Store;
use diagctl_store::encryption_record;
use diagctl_store::lease::Lease;
use names::{check_names, gauges};

/// The time limit from taking the lease to the answer; native reports take milliseconds.
const LONGEST_GRANT: Duration = Duration::from_secs(60);

/// Ask whether to capture now, and take the lease if so (used by plugins)
///
/// Prints one JSON object. Exit status 0: granted; 10: not granted, with the reason.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Inherited descriptor of <dir>/lease.lock, opened anew for each poll
    #[arg(long, value_name = "N")]
    pub(super) lease_fd: i32,
    /// The polling process
    #[arg(long, value_name = "PID")]
    pub(super) pid: u32,
    /// Role of the process: puma, sidekiq, …
    #[arg(long, value_name = "ROLE", default_value = "process")]
    pub(super) role: String,
    /// Name of the process within its role
    #[arg(long, value_name = "WORKER", default_value = "")]
    pub(super) name: String,
    /// A number from the application, for rules (repeatable)
    #[arg(long, value_name = "NAME=NUMBER")]
    pub(super) gauge: Vec<String>,
    /// An event from the application, for rules (repeatable)
    #[arg(long, value_name = "NAME")]
    pub(super) event: Vec<String>,
    /// An event whose answer the caller waits for: the rules on it come first
    #[arg(long, value_name = "NAME")]
    pub(super) answer_event: Option<String>,
    /// The application has switched captures off: say so in the store, and capture nothing
    #[arg(long)]
    pub(super) off: bool,
}

pub fn run(cx: &Context, mut args: Args) -> Result<Done, Failure> {
    check_names(&args)?;
    // They are in samples, events and records, which all stay readable.
    for name in [&mut args.role, &mut args.name] {
        *name = without_secrets(name).into_owned();
    }
    let config = cx.config();
    if let Some((reason, retry_ms)) = switched_off(cx, args.off) {
        // The answer matters, not the note of it.
        if let Err(why) = note_off(cx, &args, &reason, retry_ms) {
            cx.debug(|| format!("the store was not told: {}", why.message));
        }
        return refused(cx, &Answer::plain(Verdict::Disabled, reason), retry_ms);
    }
    let store = cx.open(Access::Create)?;
    store.require_trusted_owner()?;
    if let Some(why) = store.unsafe_filesystem()? {
        let guarded = Answer { guard: Some("filesystem"), ..Answer::plain(Verdict::Guarded, why) };
        return refused(cx, &guarded, 60_000.max(config.poll_ms()));
    }
    keep_configuration(cx, &store)?;
    // Orders that cannot be taken out wait. They keep no rule from its capture.
    if let Err(why) = orders::obey(cx, &store) {
        cx.debug(|| format!("the orders in the inbox wait: {why}"));
    }
    let lease = Lease::inherited(args.lease_fd, store.dir(), store.owner())?;
    let stat = cx.proc.stat(args.pid).map_err(|why| {
        Failure::new(Exit::Usage, format!("--pid {}: {why}", args.pid))
            .hint("use the pid of a running process, as seen in diagctl's pid namespace")
    })?;
    let id = cx.process_id(args.pid, stat.start_ticks);
    let process = Process { id, role: args.role, name: args.name };
    let mut readings = Readings::take(&cx.proc, &cx.cgroups, args.pid, &config.wanted());
    readings.gauges = gauges(&args.gauge);
    readings.events = args.event.into_iter().chain(args.answer_event.clone()).collect();
    readings.awaited = args.answer_event;
    readings.execs = run_commands(cx, &store, &process)?;
    // Only rules that are in force on a share of the machines need the host name.
    let host = if config.rules.iter().any(|rule| rule.sample < 100.0) { cx.proc.hostname() } else { String::new() };
    let seed = fsio::random_u64()?;
    let applicant = Applicant { cx, store: &store, process: &process, readings: &readings, host: &host, seed };

    let Decided { decision, paused, generation, overdue } = applicant.decide()?;
    if overdue {
        overdue::recover(applicant, &lease)?;
    }
    if let Some(reason) = paused {
        return refused(cx, &Answer::plain(Verdict::Disabled, reason), config.poll_ms());
    }
    if decision.plans.is_empty() {
        return refused(cx, &decision.strongest(), decision.retry_ms);
    }
    if lease.is_held()? {
        let reason = "this file description already holds the lease; open lease.lock anew for each poll".to_owned();
        return refused(cx, &Answer::plain(Verdict::Busy, reason), config.poll_ms());
    }
    if !lease.try_take()? {
        let holder = diagctl_store::lease::read_record(store.dir())?.filter(|record| !record.ended);
        let reason = holder.map_or_else(
            || "another process holds the lease".to_owned(),
            |r| {
                let who = output::who(&r.role, &r.worker);
                format!("process {} ({who}) holds the lease for capture {}", r.pid, r.capture)
            },
        );
        let busy = Answer { verdict: Verdict::Busy, reason, ..decision.strongest() };
        applicant.note(&busy)?;
        return refused(cx, &busy, decision.retry_ms);
    }
    // Native reports of a process in uninterruptible sleep can hang.
    deadline::end_process_after(LONGEST_GRANT, || output::note("the grant took too long; giving up"));
    let begun = begin(applicant, &decision.plans, Some(generation)).and_then(|begun| {
        if let Begun::Yes { plan, grant } = &begun {
            capture::collect_native(&store, config, applicant.source(), grant)?;
            applicant.note(&plan.granted())?;
        }
        Ok(begun)
    });
    // If nothing was granted, the lease is released here, because the process that passed the description may live long.
    if !matches!(begun, Ok(Begun::Yes { .. })) {
        lease.release()?;
    }
    match begun? {
        Begun::Yes { plan, grant } => told(cx, &store, args.pid, &plan, grant.meta.id, decision.retry_ms),
        Begun::No(answer) => {
            applicant.note(&answer)?;
            refused(cx, &answer, decision.retry_ms)
        }
    }
}

// A file that has changed may turn encryption off. Of another application's file that is not known here; its next capture tells.
fn keep_configuration(cx: &Context, store: &Store) -> Result<(), Failure> {
    let is_known = |file| config::copy_in(store.dir()).is_some_and(|copy| copy.file == file);
    if cx.loaded.identity.is_some() && cx.loaded.file.as_deref().is_some_and(is_known) {
        encryption_record::note(store, cx.config().encrypt.as_deref(), &cx.loaded.why_plain())?;
    }
    Ok(config::keep(&cx.loaded, store.dir())?)
}

// Returns the switch that is off, if one is, and the time until the next poll in milliseconds. A process cannot leave its
// environment, so a poll would only find the same again. A file is looked at as usual.
fn switched_off(cx: &Context, by_application: bool) -> Option<(String, u64)> {
    let config = cx.config();
    let rarely = 60_000.max(config.poll_ms());
    if config.enabled {
        let reason = "switched off by the application: its `c.enabled` does not return true";
        return by_application.then(|| (reason.to_owned(), rarely));
    }
    Some(match cx.loaded.sources.get("enabled") {
        Some(Origin::Default) | None => {
            ("switched off by default: set DIAGCTL_ENABLED=1, or enabled = true".to_owned(), config.poll_ms())
        }
        Some(Origin::File) => {
            let file = cx.loaded.file.as_deref().unwrap_or(Path::new(config::DEFAULT_FILE)).display();
            (format!("switched off: enabled = false in {file}"), config.poll_ms())
        }
        Some(origin) => (format!("switched off: enabled = false ({origin})"), rarely),
    })
}

fn note_off(cx: &Context, args: &Args, reason: &str, retry_ms: u64) -> Result<(), Failure> {
    let store = cx.open(Access::Create)?;
    store.require_trusted_owner()?;
    keep_configuration(cx, &store)?;
    let start_ticks = cx.proc.stat(args.pid).map_err(|why| Failure::failed(why.to_string()))?.start_ticks;
    let id = cx.process_id(args.pid, start_ticks);
    let process = Process { id, role: args.role.clone(), name: args.name.clone() };
    Ok(grant::note_off(cx, &store, &process, reason, retry_ms)?)
}
